"""Write the pages of several sweeps in one folder, or of one sweep's datasets, and an overview of all."""

import math
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ganbench.errors import plural
from ganbench.report.comparability import Mismatch, NotComparable, check_one_protocol
from ganbench.report.compare import Method
from ganbench.report.figures import scores
from ganbench.report.figures.svg import Figure
from ganbench.report.load import sweep_folders
from ganbench.report.pages.sweep import write_files, write_study
from ganbench.report.pages.templates import render
from ganbench.report.study import Study, load_datasets
from ganbench.report.tables import MISSING, Cell, format_interval, format_number, markdown_table, number_cell

LEGEND = (
    "Interquartile means (of three seeds the median, of two the mean) of final scores, from four seeds on with 95 % "
    "intervals; lower is better. Bold: the best method of each dataset, and those not significantly worse."
)


class Scale(NamedTuple):
    """Normalizes the scores of a dataset: 0 is the score of real data, 1 that of an untrained generator."""

    real_reference: float
    untrained: float
    log: bool  # whether to normalize logarithms of scores

    def __call__(self, score: float) -> float:
        if not math.isfinite(score):
            return math.inf
        transform = math.log if self.log else float
        zero, one = transform(self.real_reference), transform(self.untrained)
        return (transform(score) - zero) / (one - zero)

    def __str__(self) -> str:
        kind = "logarithms of scores" if self.log else "scores themselves, because some are not positive"
        return f"{kind}; 0 is {format_number(self.real_reference)}, 1 is {format_number(self.untrained)}"


def scale(study: Study) -> Scale | None:
    """Make a study's scale; None where the real-data reference is unknown or no better than untrained generators."""
    reference = study.real_reference
    starts = [_untrained_score(method) for method in study.methods if any(run.scores for run in method.runs)]
    if reference is None or not starts or fmean(starts) <= reference:
        return None
    ends = [score for method in study.methods for score in method.finite_scores]
    return Scale(reference, fmean(starts), log=min(reference, *starts, *ends) > 0)


def _untrained_score(method: Method) -> float:
    return fmean(run.scores[0] for run in method.runs if run.scores)


def write(folder: Path, allowed: tuple[str, ...] = ()) -> str:
    """Write the pages of all sweeps in `folder` as `write_studies` does. Raise like `load_studies`."""
    return write_studies(folder, *load_studies(folder, allowed))


def write_studies(folder: Path, studies: list[Study], left_out: list[str]) -> str:
    """Write the pages of the sweeps, and report.html and results.md of all; return the latter's text."""
    for study in studies:
        write_study(study)
    overview = Overview(folder, studies, left_out)
    text = overview.markdown()
    page = render("overview.html.j2", title=overview.title, overview=overview, folder=folder.resolve().name)
    write_files(folder, {"report.html": page, "results.md": text})
    return text


def load_studies(folder: Path, allowed: tuple[str, ...] = ()) -> tuple[list[Study], list[str]]:
    """Load every sweep with a run to compare, by dataset; return also a sentence on each sweep without one.

    Raise NotComparable if the runs of one sweep, or the tracks of all, differ.
    """
    studies, left_out = [], []
    for child in sweep_folders(folder):
        try:
            of_child, notes = _load_datasets(child, allowed)
            studies += of_child
            left_out += [f"{child.name}: {note}" for note in notes]
        except FileNotFoundError:
            left_out.append(f"{child.name}: left out, because no run in it can be compared.")
    if not studies:
        raise FileNotFoundError(
            f"No sweep in {folder} has a run that can be compared. Pass a folder in which at least one run finished or "
            "diverged."
        )
    _check_one_track(studies, allowed)
    check_one_protocol((study.dataset, study.metric_protocol, study.folder.name) for study in studies)
    return studies, left_out


def _load_datasets(folder: Path, allowed: tuple[str, ...]) -> tuple[list[Study], list[str]]:
    try:
        return load_datasets(folder, allowed)
    except NotComparable as error:
        raise NotComparable(f"{folder.name}: {error}") from None


def _check_one_track(studies: list[Study], allowed: tuple[str, ...]) -> None:
    folders: dict[str, list[str]] = {}
    for study in studies:
        track = str(study.config["protocol"].get("track"))
        folders.setdefault(track, []).append(study.folder.name)
    if len(folders) > 1 and "track" not in allowed:
        raise NotComparable(
            f"{Mismatch('track', folders)}: sweeps of different tracks answer different questions and are never mixed "
            "in one table. Report each folder by itself, or name the tracks on the page with --allow-mismatch track"
        )


def _other_code(studies: list[Study]) -> list[str]:
    """Say so if the sweeps were run by different versions of the code: a fair comparison is within each."""
    folders: dict[str, list[str]] = {}
    for study in studies:
        for code in sorted(study.codes):
            folders.setdefault(code, []).append(study.folder.name)
    if len(folders) < 2:
        return []
    return [f"The sweeps were run by different versions of the code: {Mismatch('code', folders)}."]


def study_name(study: Study, folder: Path) -> str:
    """Name a study by its sweep, or by its dataset, or by both if there are several sweeps with several datasets."""
    is_part = study.sweep not in (None, folder)
    return f"{study.sweep.name}, {study.folder.name}" if is_part and study.sweep else study.folder.name


class Overview:
    """Methods over datasets. Profiles and ranks are of the methods that every dataset has."""

    def __init__(self, folder: Path, studies: list[Study], left_out: list[str]):
        self.studies = studies
        self.links = [(study.folder.relative_to(folder) / "report.html").as_posix() for study in studies]
        self.notes = left_out + _other_code(studies)  # what a reader must know, in sentences
        of_one_sweep = all(study.sweep == folder for study in studies)
        where = f"on {plural(len(studies), 'dataset')}" if of_one_sweep else f"in {plural(len(studies), 'sweep')}"
        self.title = f"GAN methods {where}"
        self.names = [study_name(study, folder) for study in studies]
        self.methods = [{method.label: method for method in study.methods} for study in studies]
        self.scales = [scale(study) for study in studies]
        self.shared = [label for label in self.methods[0] if all(label in methods for methods in self.methods)]
        self.ranks = self._mean_ranks()
        self.labels = self._sorted_labels()
        self.color_index = {label: i for i, label in enumerate(sorted(self.labels))}

    def _mean_ranks(self) -> dict[str, list[float]]:
        """Return each shared method's probability of each rank: the mean over datasets with the same seeds for all."""
        if not self.shared:
            return {}
        by_dataset = [scores.ranks([methods[label] for label in self.shared]) for methods in self.methods]
        known = [ranks for ranks in by_dataset if ranks is not None]
        return dict(zip(self.shared, np.mean(known, axis=0).tolist(), strict=True)) if known else {}

    def _sorted_labels(self) -> list[str]:
        """Sort by expected rank; methods that some dataset lacks come last."""
        expected = {label: float(np.arange(len(chances)) @ chances) for label, chances in self.ranks.items()}
        labels = dict.fromkeys(label for methods in self.methods for label in methods)
        return sorted(labels, key=lambda label: (label not in self.shared, expected.get(label, 0.0)))

    @property
    def rows(self) -> list[tuple[str, list[Cell]]]:
        """Return, by method, a cell per dataset: the IQM with its interval."""
        return [(label, [self._cell(i, label) for i in range(len(self.studies))]) for label in self.labels]

    def _cell(self, dataset: int, label: str) -> Cell:
        method = self.methods[dataset].get(label)
        if method is None or not math.isfinite(method.iqm):
            return Cell(MISSING, None)
        interval = f" ({format_interval(method.interval)})" if method.interval else ""
        text = format_number(method.iqm) + interval
        return number_cell(method.iqm, text)._replace(bold=self.studies[dataset].is_among_best(method))

    def profiles(self) -> list[Figure]:
        """Draw the performance profiles of normalized scores; apart for logarithms, which spread differently."""
        figures = [self._profile(log) for log in (True, False)]
        return [figure for figure in figures if figure is not None]

    def _profile(self, log: bool) -> Figure | None:
        pooled = [(methods, scale) for methods, scale in zip(self.methods, self.scales, strict=True) if scale]
        pooled = [(methods, scale) for methods, scale in pooled if scale.log == log]
        if not pooled:
            return None
        finals = {
            label: [scale(score) for methods, scale in pooled for score in methods[label].scores]
            for label in self.shared
        }
        name, kind = ("profile-logarithms", "logarithms") if log else ("profile-scores", "scores themselves")
        title = f"Share of runs that end at or below each normalized score ({kind})"
        return scores.performance_profiles(name, title, "normalized score", finals, self.color_index)

    def markdown(self) -> str:
        """Return the text of results.md."""
        lines = [f"# {self.title}", ""]
        for name, link, study in zip(self.names, self.links, self.studies, strict=True):
            lines.append(f"- [{name}]({link}) ({study.subtitle}): {' '.join(study.verdict)}")
            lines += [f"  - {study.metric_protocol}."] if study.metric_protocol else []
            lines += [f"  - {note}" for note in study.notes]
        lines += [f"- {note}" for note in self.notes]
        lines += ["", LEGEND, ""]
        rows = [["method", *self.names]]
        for label, cells in self.rows:
            rows.append([label, *(f"**{cell}**" if cell.bold else str(cell) for cell in cells)])
        return "\n".join(lines) + "\n" + markdown_table(rows)
