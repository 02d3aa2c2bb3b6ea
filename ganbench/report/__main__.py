"""`python -m ganbench.report FOLDER` compares the runs in a sweep's folder."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ganbench.report", description="Compare the runs of a sweep.")
    parser.add_argument(
        "folder",
        type=Path,
        help="of a sweep (or a run), such as outputs/sweep/mine, or of several sweeps",
    )
    parser.add_argument(
        "--allow-mismatch", metavar="FIELD", action="append", default=[],
        help="compare although this field of their footing differs, with a stamp on the page; may be given again",
    )  # fmt: skip
    arguments = parser.parse_args()
    folder = arguments.folder
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder: name the folder of a sweep, such as outputs/sweep/mine.")
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
    print(f"Open {folder / 'report.html'} in a browser; the same as text lies beside it.")


if __name__ == "__main__":
    main()
