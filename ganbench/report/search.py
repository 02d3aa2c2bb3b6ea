"""`python -m ganbench.report.search FOLDER` scores the settings that a sweep tried on several methods.

A setting's score is the geometric mean, over every method and seed, of the final score: a setting that is good
for one favourite and bad for the rest does not win.
"""

import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from ganbench.report.compare import Method, differences, group_by_method
from ganbench.report.load import load_runs
from ganbench.report.tables import format_number, markdown_table


def table(found: list[Method]) -> list[list[str]]:
    """Heads, then a row for each setting, the best first: its values, the score, and each method's own."""
    told = differences([arm.runs[0].config for arm in found], ignore=("loss", "penalty"))
    settings: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for arm, values in zip(found, told, strict=True):
        settings[tuple(str(v) for v in values.values())][arm.runs[0].label] = arm.iqm
    methods = sorted({arm.runs[0].label for arm in found})
    ranked = sorted(settings.items(), key=lambda item: _geometric(item[1]))
    rows = [
        [*values, format_number(_geometric(scores)), *(format_number(scores.get(m)) for m in methods)]
        for values, scores in ranked
    ]
    return [[*told[0], "geometric mean", *methods], *rows]


def _geometric(scores: dict[str, float]) -> float:
    """Infinite if any run did not end with a score."""
    if min(scores.values()) <= 0:
        sys.exit(
            "A geometric mean needs positive scores, which energy distances need not be; compare by another metric."
        )
    return math.exp(fmean(math.log(score) for score in scores.values()))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    text = markdown_table(table(group_by_method(load_runs(Path(sys.argv[1])))))
    (Path(sys.argv[1]) / "search.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
