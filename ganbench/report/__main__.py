"""`python -m ganbench.report FOLDER` compares the runs in a sweep's folder."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ganbench.report", description="Compare the runs of a sweep.")
    parser.add_argument("folder", type=Path, help="of a sweep (or one run), such as outputs/sweep/mine")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder: name the folder of a sweep, such as outputs/sweep/mine.")
    from ganbench.report.page import write

    try:
        print(write(folder))
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"Open {folder / 'report.html'} in a browser; results.md and results.csv lie beside it.")


if __name__ == "__main__":
    main()
