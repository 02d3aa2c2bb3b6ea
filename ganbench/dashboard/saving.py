"""Save views at Weights & Biases, and remember where, so that the next time the same ones are replaced."""

import json
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from ganbench.dashboard.views import Place, View
from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.report.load import Run
from ganbench.runs.wandb_mirror import check_reachable, log_in

FILE = "dashboard.json"  # in the sweep's folder
MADE_BY = "python -m ganbench.dashboard"


def connect(place: Place) -> tuple[wandb.Api, Place]:
    """Log in to W&B; return its interface, and the place with the key's own entity where none is known."""
    log_in()
    check_reachable(wandb.setup().settings.base_url)
    api = wandb.Api()
    entity = place.entity or api.default_entity
    if not entity:
        raise Refused("W&B does not know this key (wrong, or expired?); get one with: wandb login --relogin")
    return api, Place(entity, place.project)


def check_project(api: wandb.Api, place: Place, runs: list[Run]) -> int:
    """Return how many of the runs the project has. Raise Refused if it has none, or if there is no such project."""
    path = "/".join(place)
    ids = [run.facts["wandb_id"] for run in runs]
    try:
        n_runs = len(api.runs(path, filters={"name": {"$in": ids}}, per_page=1))
    except ValueError:  # what W&B's library makes of a project that is not there
        raise Refused(
            f"{path} is no project at W&B that this key may read; pass another with --entity and --project, or upload "
            f"the runs first: {sync_command(runs)}"
        ) from None
    if n_runs == 0:
        raise Refused(f"{path} at W&B has none of these runs; upload them first: {sync_command(runs)}")
    return n_runs


def sync_command(runs: list[Run]) -> str:
    """Return what uploads these runs, all of one sweep."""
    return f"python -m ganbench.runs.wandb_mirror sync {runs[0].folder.parent}/*-s[0-9]*"


def save(views: list[View], urls: dict[str, str], place: Place) -> dict[str, str]:
    """Save views, each in the place of the one at its URL if that is still there; return the URLs."""
    saved = {}
    for view in views:
        there = _existing(view, urls.get(key(view, place), ""))
        saved[key(view, place)] = _replaced(there, view).save().url if there else view.page.save().url
    return saved


def key(view: View, place: Place) -> str:
    """Return what dashboard.json keeps the URL of a view under."""
    return f"{view.kind} {view.name} in {place.entity}/{place.project}"


def _existing(view: View, url: str) -> Any:
    """Load the page at a URL; None if there is none, or if it was deleted at W&B."""
    if not url:
        return None
    load = wr.Report.from_url if view.kind == "report" else ws.Workspace.from_url
    try:
        return load(url)
    except (ValueError, TypeError):  # the latter, if W&B answers null
        return None


def _replaced(there: Any, view: View) -> Any:
    """Give a page that W&B has the content of the one that was built."""
    fields = ("title", "description", "blocks", "width")
    if view.kind == "workspace":
        fields = ("name", "sections", "settings", "runset_settings")
    for field in fields:
        setattr(there, field, getattr(view.page, field))
    return there


def read_urls(sweep: Path) -> dict[str, str]:
    """Return where the views of a sweep were saved before. Raise Refused if the file there is not ours."""
    file = sweep / FILE
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["made_by"] != MADE_BY:
            raise ValueError("it was made by something else")
        return dict(content["urls"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(f"{file} is not a dashboard of ganbench ({error}); rename it, or remove it.") from None


def write(sweep: Path, views: list[View], urls: dict[str, str]) -> Path:
    """Write the specifications of the views, and where they were saved."""
    file = sweep / FILE
    specifications = [{"name": view.name, "kind": view.kind, "spec": view.specification()} for view in views]
    content = {"made_by": MADE_BY, "urls": urls, "views": specifications}
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
    return file
