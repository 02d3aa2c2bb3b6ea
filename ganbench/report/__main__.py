"""`python -m ganbench.report FOLDER` compares the runs in a sweep's folder."""

import argparse
import sys
from pathlib import Path


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
    arguments = parser.parse_args()
    folder = arguments.folder
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder. Pass the folder of a sweep, such as outputs/sweep/mine.")
    # Imported late, so that --help and the refusal above need neither scipy nor matplotlib.
    from ganbench.report.comparability import NotComparable
    from ganbench.report.load import sweep_folders
    from ganbench.report.pages import overview, sweep

    write = overview.write if sweep_folders(folder) else sweep.write
    try:
        print(write(folder, tuple(arguments.allow_mismatch)))
    except FileNotFoundError as error:
        sys.exit(str(error))
    except NotComparable as error:
        print(error, file=sys.stderr)
        sys.exit(6)
    page = folder / "report.html"
    print(f"Wrote {page} and results.md. Open {page} in a browser.")


if __name__ == "__main__":
    main()
