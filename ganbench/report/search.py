"""`python -m ganbench.report.search FOLDER` ranks the settings that a sweep tried on several methods.

A setting's score is the geometric mean of the final score over every method and seed, so a setting that suits one
favorite and harms the others does not win.
"""

import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from ganbench.report.compare import Method, group_by_method, method_differences
from ganbench.report.load import load_runs
from ganbench.report.tables import format_number, markdown_table


def table(results: list[Method]) -> list[list[str]]:
    """Return a header, then a row per setting, the best first: its values, its score, and each method's own.

    `results` has an entry for each method at each setting.
    """
    settings = method_differences(results)
    scores: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)  # by setting, then method
    for result, values in zip(results, settings, strict=True):
        scores[tuple(map(str, values.values()))][_name(result)] = result.iqm
    methods = sorted(set(map(_name, results)))
    rows = [[*settings[0], "geometric mean", *methods]]
    for setting, by_method in sorted(scores.items(), key=lambda item: _geometric_mean(item[1])):
        rows.append(
            [*setting, format_number(_geometric_mean(by_method)), *(format_number(by_method.get(m)) for m in methods)]
        )
    return rows


def _name(result: Method) -> str:
    """Return the method's name without its settings."""
    return result.runs[0].label


def _geometric_mean(scores: dict[str, float]) -> float:
    """Return the geometric mean; inf if any run has no score."""
    if min(scores.values()) <= 0:
        sys.exit(
            "A geometric mean needs positive scores, and energy distances can be negative; search with another metric."
        )
    return math.exp(fmean(math.log(score) for score in scores.values()))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder. Pass the folder of a search, such as outputs/sweep/search-2026-01-01.")
    text = markdown_table(table(group_by_method(load_runs(folder))))
    (folder / "search.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
