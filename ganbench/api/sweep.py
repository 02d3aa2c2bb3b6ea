"""Compare the runs of a sweep from a script or a notebook: what the report's page says, as tables, objects and axes."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ganbench.errors import Refused, plural
from ganbench.report import tables
from ganbench.report.comparability import NotComparable
from ganbench.report.compare import Comparison, Method
from ganbench.report.figures.svg import Figure
from ganbench.report.load import Run, sweep_folders
from ganbench.report.pages.overview import load_studies, study_name
from ganbench.report.pages.sweep import figures
from ganbench.report.study import Study, load_datasets

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FIRST_COLUMNS = ("dataset", "method", "seed", "run", "status", "images", "updates", "seconds", "score")
AXES = {"images": "images", "updates": "steps", "seconds": "t_train"}  # as in the table, and in the names of figures


def compare(folder: str | Path, allow_mismatch: str | Sequence[str] = ()) -> "Sweep":
    """Load and compare the runs of a sweep, of several sweeps, or one run, as the report does.

    Raise NotComparable for runs whose footing differs, except in the fields `allow_mismatch`; and Refused for a folder
    without a run that finished or diverged.
    """
    if not isinstance(folder, str | Path):
        raise Refused(f"compare({folder!r}) is no folder; pass that of a sweep, such as outputs/sweep/mine.")
    folder = Path(folder)
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder; pass the folder of a sweep, such as outputs/sweep/mine.")
    allowed = (allow_mismatch,) if isinstance(allow_mismatch, str) else tuple(allow_mismatch)
    load = load_studies if sweep_folders(folder) else load_datasets
    try:
        studies, notes = load(folder, allowed)
    except FileNotFoundError as error:
        raise Refused(str(error)) from None
    except NotComparable as error:
        raise NotComparable(_as_argument(str(error))) from None
    return Sweep(folder, {study_name(study, folder): study for study in studies}, notes)


def _as_argument(message: str) -> str:
    """Name the argument of `compare` where a message names the flag of the command line."""
    flags = re.findall(r"--allow-mismatch (\w+)", message)
    return re.sub(r"(--allow-mismatch \w+ ?)+", f"allow_mismatch={flags}", message)


class Sweep:
    """Runs that were compared, by dataset. Most of what it has is of one: `sweep["ring"]` chooses among several."""

    def __init__(self, folder: Path, studies: dict[str, Study], notes: list[str]):
        self.folder = folder
        self.studies = studies
        self._notes = notes

    @property
    def datasets(self) -> list[str]:
        """List what there is to choose from."""
        return list(self.studies)

    def __getitem__(self, dataset: str) -> "Sweep":
        if dataset not in self.studies:
            raise Refused(f"{self.folder} has no {dataset}; it has: {', '.join(self.studies)}.")
        return Sweep(self.folder, {dataset: self.studies[dataset]}, [])

    @property
    def study(self) -> Study:
        """Return all that the report knows of the one dataset. Raise Refused if there are several."""
        if len(self.studies) > 1:
            names = list(self.studies)
            raise Refused(f"{self.folder} has {', '.join(names)}; choose one: compare(...)[{names[0]!r}].")
        (study,) = self.studies.values()
        return study

    @property
    def methods(self) -> list[Method]:
        """Return the methods, the best first, with their IQM and its interval."""
        return self.study.methods

    @property
    def pairs(self) -> list[Comparison]:
        """Return the compared pairs: `difference` has gap, interval and win rate; `p` and `significant` decide."""
        return self.study.comparisons

    @property
    def verdict(self) -> str:
        """Return what the scores show, in sentences."""
        return "\n".join(self.study.verdict)

    @property
    def notes(self) -> list[str]:
        """Return what a reader must know before believing the rest."""
        return [*self._notes, *(note for study in self.studies.values() for note in study.notes)]

    def table(self) -> "pd.DataFrame":
        """Return a row for each evaluation of each run, with all of its scores; also of runs that were cut short."""
        import pandas as pd

        rows = [row for study in self.studies.values() for row in _evaluations(study)]
        others = dict.fromkeys(name for row in rows for name in row if name not in FIRST_COLUMNS)
        return pd.DataFrame(rows, columns=[*FIRST_COLUMNS, *others])

    def results(self) -> "pd.DataFrame":
        """Return the report's table of results, a row for each method."""
        import pandas as pd

        rows = [[cell.value for cell in row[:-1]] for row in tables.results(self.study)]
        return pd.DataFrame(rows, columns=tables.headers(self.study)[:-1])

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Return the figures of the report's page, by name."""
        return figures(self.study)

    def plot(self, figure: str, ax: "Axes | None" = None) -> "Axes":
        """Draw a figure of the report's page, such as `finals`, on these axes, or on new ones; return them."""
        if figure not in self.figures:
            raise Refused(f"{self.folder} has no figure {figure}; it has: {', '.join(self.figures)}.")
        return _draw(self.figures[figure], ax)

    def plot_scores(self, ax: "Axes | None" = None) -> "Axes":
        """Draw final scores: every seed a dot, the interquartile mean a bar, its interval a line."""
        return self.plot("finals", ax)

    def plot_curves(self, ax: "Axes | None" = None, axis: str = "images") -> "Axes":
        """Draw the score through training against images, updates (of the generator) or seconds."""
        if axis not in AXES:
            raise Refused(f"axis={axis!r} must be one of: {', '.join(AXES)}.")
        return self.plot(f"scores-{AXES[axis]}", ax)

    def plot_gaps(self, ax: "Axes | None" = None) -> "Axes":
        """Draw how much worse each method is than the best at the same seeds."""
        return self.plot("differences", ax)

    def plot_profile(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the share of runs that end at or below each score."""
        return self.plot("profile", ax)

    def __repr__(self) -> str:
        lines = [
            f"<{study.title}, {plural(len(study.runs), 'run')}: {study.verdict[0]}>" for study in self.studies.values()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: verdict, table of results and notes, as at the top of the report's page."""
        return "".join(_html(study) for study in self.studies.values())


def _evaluations(study: Study) -> list[dict[str, Any]]:
    labels = {run.folder: method.label for method in study.methods for run in method.runs}
    return [
        _evaluation(run, row, labels.get(run.folder, run.label), study.dataset)
        for run in study.runs
        for row in run.rows
        if run.metric in row
    ]


def _evaluation(run: Run, row: dict[str, Any], method: str, dataset: str) -> dict[str, Any]:
    """Return a row of the table: which run and when, its score, and all that was recorded at the same images."""
    first = {
        "dataset": dataset,
        "method": method,
        "seed": run.seed,
        "run": run.folder.name,
        "status": run.status,
        "images": row["images"],
        "updates": run.updates(row["images"]),
        "seconds": run.clock[row["images"]],
        "score": row[run.metric],
    }
    return first | {name: value for name, value in row.items() if name not in ("images", "t_train")}


def _draw(figure: Figure, ax: "Axes | None") -> "Axes":
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(figure.width, figure.height), layout="constrained")
    figure.draw(ax)
    ax.set_title(figure.title)
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


def _html(study: Study) -> Markup:
    header = Markup("").join(Markup("<th>{}</th>").format(name) for name in tables.headers(study)[:-1])
    rows = Markup("").join(_html_row(row[:-1]) for row in tables.results(study))
    notes = Markup("").join(Markup("<li>{}</li>").format(note) for note in study.notes)
    caption = Markup("<p>{}.</p>").format(study.metric_protocol) if study.metric_protocol else ""
    return Markup("<h4>{}</h4><p>{}</p><table><tr>{}</tr>{}</table>{}<ul>{}</ul>").format(
        study.title, " ".join(study.verdict), header, rows, caption, notes
    )


def _html_row(cells: Sequence[tables.Cell]) -> Markup:
    return Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell.text) for cell in cells))
