"""`python -m ganbench.dashboard SWEEP` makes a workspace and a report of a sweep at Weights & Biases."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ganbench.errors import Refused
from ganbench.files import ensure_home
from ganbench.trained.command_line import Arguments, answered

if TYPE_CHECKING:
    from ganbench.dashboard.views import Place, View
    from ganbench.report.load import Run
    from ganbench.report.study import Study


def main() -> None:
    """Run the command line; exit with 2 if it is refused, 1 if W&B fails."""
    with answered():
        options = _options()
        _check_extra()
        sweep = _checked_folder(options.sweep)
        ensure_home()
        sys.exit(_make(sweep, options))


def _options() -> argparse.Namespace:
    parser = Arguments(
        prog="python -m ganbench.dashboard",
        description="Save a workspace and a report of a sweep at Weights & Biases: curves, bars, samples, settings, "
        "and the verdict and footing of `python -m ganbench.report` as text. Once more, they are replaced.",
        epilog="SWEEP/dashboard.json holds what was built, and the URLs. Exit codes: 0 saved, 1 W&B failed, 2 refused.",
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="folder of a sweep, such as outputs/sweep/mine")
    parser.add_argument("--dry-run", action="store_true", help="only write SWEEP/dashboard.json, without any server")
    parser.add_argument("--entity", help="user or team at W&B (default: that of the runs, or of your key)")
    parser.add_argument("--project", help="project at W&B (default: that of the runs)")
    parser.add_argument(
        "--allow-mismatch",
        metavar="FIELD",
        action="append",
        default=[],
        help="compare despite a difference in this footing field (repeatable); the text says so",
    )
    return parser.parse_args()


def _check_extra() -> None:
    if find_spec("wandb_workspaces") is None:
        raise Refused(
            "A dashboard needs wandb-workspaces, which is not installed; install it with: "
            "pip install 'wandb-workspaces<0.5'."
        )


def _checked_folder(sweep: Path) -> Path:
    """Return the folder of a sweep. Raise Refused for one that is none, or is several."""
    if not sweep.is_dir():
        raise Refused(f"{sweep} is not a folder; pass the folder of a sweep, such as outputs/sweep/mine.")
    from ganbench.report.load import sweep_folders

    several = sweep_folders(sweep)
    if several:
        raise Refused(f"{sweep} is a folder of several sweeps; pass one of them: {', '.join(map(str, several))}.")
    return sweep


def _make(sweep: Path, options: argparse.Namespace) -> int:
    """Build the views, and save them unless it is a dry run; return the exit code."""
    studies = _load(sweep, tuple(options.allow_mismatch))
    runs = _runs_at_wandb(sweep, studies)
    # Only now, since they import W&B.
    from ganbench.dashboard import saving
    from ganbench.dashboard.views import Place, build
    from ganbench.runs.wandb_mirror import first_line

    urls = saving.read_urls(sweep)
    place = Place(options.entity or _shared(runs, "entity"), options.project or _shared(runs, "project") or "ganbench")
    if options.dry_run:
        views = [view for study in studies for view in build(study, sweep, place._replace(entity=""))]
        print(f"Wrote {saving.write(sweep, views, urls)}; nothing was sent.")
        return 0
    try:
        api, place = saving.connect(place)
        saving.check_project(api, place, sweep, runs)
        views = [view for study in studies for view in build(study, sweep, place)]
        _save(sweep, views, urls, place)
    except Refused:
        raise
    except Exception as error:  # whatever W&B's library makes of an outage
        print(f"{sweep}: W&B failed ({first_line(error)}); try again once it answers.", file=sys.stderr)
        return 1
    return 0


def _save(sweep: Path, views: "list[View]", urls: dict[str, str], place: "Place") -> None:
    """Save each view and print its URL; what was saved before an error is not forgotten."""
    from ganbench.dashboard import saving

    for view in views:
        key = saving.key(view, place)
        urls[key] = saving.save(view, urls.get(key, ""), place)
        saving.write(sweep, views, urls)
        print(f"{view.kind} {view.name}: {urls[key]}")


def _load(sweep: Path, allowed: tuple[str, ...]) -> "list[Study]":
    from ganbench.report.comparability import NotComparable
    from ganbench.report.study import load_datasets

    try:
        studies, _ = load_datasets(sweep, allowed)
    except (FileNotFoundError, NotComparable) as error:
        raise Refused(str(error)) from None
    return studies


def _runs_at_wandb(sweep: Path, studies: "list[Study]") -> "list[Run]":
    """Return the runs and trials that are shown. Raise Refused if none finished, or if one has no id at W&B."""
    runs = [run for study in studies for run in study.compared_runs]
    if not any(run.status == "finished" for run in runs):
        raise Refused(f"{sweep} has no finished run; finish it first, with the same command.")
    runs += [run for study in studies for run in study.all_trials]
    for run in runs:
        if "wandb_id" not in run.facts:
            raise Refused(f"{run.folder}/status.json has no wandb_id, so the run cannot be found at W&B; make it anew.")
    return runs


def _shared(runs: "list[Run]", part: str) -> str:
    """Return the entity or the project of the runs; empty if they know none. Raise Refused if they have several."""
    known = sorted({run.facts[f"wandb_{part}"] for run in runs if run.facts.get(f"wandb_{part}")})
    if len(known) > 1:
        raise Refused(f"The runs are in several places at W&B ({', '.join(known)}); pass one with --{part}.")
    return known[0] if known else ""


if __name__ == "__main__":
    main()
