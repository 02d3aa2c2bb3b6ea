"""Save views at Weights & Biases, and remember where, so that the next time the same ones are replaced."""

import json
import os
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from ganbench.dashboard.views import Place, View
from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.report.load import Run
from ganbench.runs.wandb_mirror import check_reachable, first_line, log_in

FILE = "dashboard.json"  # in the sweep's folder
# What W&B answers to a key without rights, and a GraphQL server to what it does not know.
DENIED = ("permission denied", "forbidden", "403")
UNKNOWN = ("Cannot query field", "Unknown type", "Unknown argument", "not defined by type")
MADE_BY = "python -m ganbench.dashboard"


def connect(place: Place) -> tuple[wandb.Api, Place]:
    """Log in to W&B; return its interface, and the place with the key's own entity where none is known.

    Raise Refused without a key that W&B accepts.
    """
    try:
        log_in()
        server = wandb.setup().settings.base_url
        check_reachable(server)
        api = wandb.Api()
        entity = place.entity or api.default_entity
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        raise Refused(f"W&B: {first_line(error)}; a key may be wrong or expired: wandb login --relogin") from None
    if not entity:
        raise Refused(f"The key has no entity of its own at {server}; pass one with --entity.")
    return api, Place(entity, place.project)


def check_project(api: wandb.Api, place: Place, sweep: Path, runs: list[Run]) -> None:
    """Raise Refused if there is no such project, or if it has none of the runs; say so if it has not all."""
    path, upload = f"{place.entity}/{place.project}", f"python -m ganbench.runs.wandb_mirror sync {sweep}"
    ids = [run.facts["wandb_id"] for run in runs]
    try:
        n_runs = len(api.runs(path, filters={"name": {"$in": ids}}, per_page=1))
    except ValueError:  # what W&B's library makes of a project that is not there
        raise Refused(
            f"{path} is no project at W&B that this key may read; pass another with --entity and --project, or upload "
            f"the runs first: {upload}"
        ) from None
    if n_runs == 0:
        raise Refused(f"{path} at W&B has none of these runs; upload them first: {upload}")
    if n_runs < len(runs):
        print(f"{path} at W&B has {n_runs} of {len(runs)} runs; upload the others: {upload}")


def save(view: View, url: str, place: Place) -> str:
    """Save a view, in the place of the one at this URL if that is still there; return its URL.

    Raise Refused if W&B does not allow it, or knows no such views.
    """
    try:
        there = _existing(view, url)
        page = _replaced(there, view) if there else view.page
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # W&B prints the URL, and so do we
            return page.save().url
    except Exception as error:
        raise _refusal(error, place) or error from None


def _refusal(error: Exception, place: Place) -> Refused | None:
    """Return W&B's answer as a refusal if another try would be answered alike; else None."""
    answer = first_line(error)
    if any(words in answer.lower() for words in DENIED):
        return Refused(
            f"This key may not save to {place.entity}/{place.project} ({answer}); pass a project of yours with "
            "--entity and --project."
        )
    if any(words in answer for words in UNKNOWN):
        server = wandb.setup().settings.base_url
        return Refused(f"{server} is too old for saved workspaces and reports ({answer}); --dry-run needs no server.")
    return None


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
