"""`python -m ganbench.report FOLDER` compares the runs in a sweep's folder."""

import argparse
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from ganbench.files import allow_any_name_in_print
from ganbench.progress import quiet_when_unread

MEASURED = math.nan  # the gap of --power without a number
ANY_PORT = 0  # of --watch without a number: the system chooses


def _gap(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number; without one, put --power after the folder") from None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(
            f"{text} is no port from 1 to 65535; without one, put --watch after the folder"
        ) from None
    return int(text)


@quiet_when_unread()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ganbench.report", description="Compare the runs of a sweep.")
    parser.add_argument(
        "folder",
        type=Path,
        help="folder of a sweep, such as outputs/sweep/mine; of a single run; or of several sweeps",
    )
    parser.add_argument(
        "--allow-mismatch",
        metavar="FIELD",
        action="append",
        default=[],
        help="compare despite a difference in this footing field (repeatable); the page is marked",
    )
    parser.add_argument(
        "--power",
        metavar="GAP",
        nargs="?",
        type=_gap,
        const=MEASURED,
        help="only tell how many seeds each pair of methods would need to show this gap (default: the measured one)",
    )
    parser.add_argument(
        "--time",
        action="store_true",
        help="first time the methods in turns, on this machine and nothing else running (a minute); the page shows it",
    )
    parser.add_argument(
        "--watch",
        metavar="PORT",
        nargs="?",
        type=_port,
        const=ANY_PORT,
        help="only serve progress and report on this machine while the sweep runs, and write nothing (default: any "
        "free port)",
    )
    parser.add_argument(
        "--against",
        choices=("paper",),
        help="only print our scores beside those of the paper, for runs of a recipe (experiment=paper/...)",
    )
    arguments = parser.parse_args()
    allow_any_name_in_print()
    if arguments.power is not None and not 0 < arguments.power < math.inf and arguments.power is not MEASURED:
        parser.error(f"--power {arguments.power:g} must be a finite number > 0, in the unit of the score.")
    folder = arguments.folder
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder. Pass the folder of a sweep, such as outputs/sweep/mine.")
    if arguments.watch is not None:
        if arguments.time or arguments.power is not None:
            parser.error("--watch only watches; leave out --time and --power.")
        if arguments.against:
            parser.error("--watch only watches; leave out --against.")
        return serve(folder, arguments.watch, tuple(arguments.allow_mismatch))
    if arguments.against:
        if arguments.time or arguments.power is not None:
            parser.error("--against only prints; leave out --time and --power.")
        return print_against_paper(folder, tuple(arguments.allow_mismatch))
    # Imported late, so that --help and the refusal above need neither scipy nor matplotlib.
    from ganbench.errors import Refused
    from ganbench.report import tables
    from ganbench.report.comparability import NotComparable
    from ganbench.report.load import sweep_folders
    from ganbench.report.pages import overview, sweep
    from ganbench.report.study import load_datasets

    allowed = tuple(arguments.allow_mismatch)
    sweeps = sweep_folders(folder)
    try:
        if arguments.time:
            time_all(sweeps or [folder], allowed)
        load = overview.load_studies if sweeps else load_datasets
        studies, left_out = load(folder, allowed)
    except (FileNotFoundError, Refused) as error:
        sys.exit(str(error))
    except NotComparable as error:
        print(error, file=sys.stderr)
        sys.exit(6)
    if arguments.power is not None:
        gap = None if arguments.power is MEASURED else arguments.power
        for study in studies:
            print("\n".join([study.title, "", *study.notes, "", tables.power(study, gap)]))
        sys.exit(7 if _without_score(studies) else 0)
    is_overview = bool(sweeps) or len(studies) > 1 or studies[0].folder != folder
    try:
        text = overview.write_studies(folder, studies, left_out) if is_overview else sweep.write_study(studies[0])
    except Refused as error:
        sys.exit(str(error))
    print(text)
    page = folder / "report.html"
    print(f"Wrote {page} and results.md. Open {page} in a browser.")
    without_score = _without_score(studies)
    if without_score:
        of = f" in {', '.join(without_score)}" if is_overview else ""
        print(f"No method has a final score{of}.", file=sys.stderr)
        sys.exit(7)


def _without_score(studies: list[Any]) -> list[str]:
    """Return the names of the sweeps in which no method has a final score."""
    return [study.folder.name for study in studies if not any(method.finite_scores for method in study.methods)]


def print_against_paper(folder: Path, allowed: tuple[str, ...]) -> None:
    """Print the scores of a sweep, or of each in a folder of sweeps, beside those of the paper."""
    from ganbench.errors import Refused
    from ganbench.report.against import against_paper
    from ganbench.report.comparability import NotComparable
    from ganbench.report.load import sweep_folders

    shown = 0
    for each in sweep_folders(folder) or [folder]:
        try:
            print(against_paper(each, allowed))
            shown += 1
        except Refused as refused:
            print(refused, file=sys.stderr)
        except NotComparable as error:
            print(error, file=sys.stderr)
            sys.exit(6)
    if not shown:
        sys.exit(1)


def serve(folder: Path, port: int, allowed: tuple[str, ...]) -> None:
    """Serve the progress of a sweep until Ctrl-C."""
    from ganbench.errors import Refused
    from ganbench.report.watch import watch

    try:
        watch(folder, port, allowed)
    except Refused as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        pass


def time_all(folders: list[Path], allowed: tuple[str, ...]) -> None:
    """Time the methods of each sweep, in a process of its own, since only that needs torch.

    Raise NotComparable before anything is timed; leave out a sweep without a finished run if there are others.
    """
    from ganbench.report.comparability import NotComparable, check_comparable
    from ganbench.report.load import load_runs

    runs = {folder: load_runs(folder) for folder in folders}
    for folder, each in runs.items():
        names = sorted({run.dataset for run in each if run.dataset})
        if len(names) > 1:
            raise NotComparable(
                f"--time measures the methods of one dataset, and {folder} has {', '.join(names)}: make a sweep of "
                "each, with a name=... of its own."
            )
        check_comparable(each, allowed)
    for folder, each in runs.items():
        if len(folders) > 1 and not any(run.status == "finished" for run in each):
            print(f"{folder.name} has no finished run to time.", file=sys.stderr)
            continue
        timed = subprocess.run([sys.executable, "-m", "ganbench.bench.methods", str(folder)])
        if timed.returncode:
            sys.exit(timed.returncode)


if __name__ == "__main__":
    main()
