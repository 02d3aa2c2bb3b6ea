"""Several sweeps in one folder, such as one a dataset: a page for each, and one over all of them."""

import math
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ganbench.report.comparability import Mismatch, NotComparable
from ganbench.report.compare import Method, plural
from ganbench.report.figures import scores
from ganbench.report.figures.svg import Figure
from ganbench.report.load import sweep_folders
from ganbench.report.pages.sweep import render, write_study
from ganbench.report.study import Study, load_study
from ganbench.report.tables import format_interval, format_number, markdown_table


class Scale(NamedTuple):
    """Puts the scores of a dataset between those of real data, 0, and of an untrained generator, 1."""

    real_reference: float
    start: float
    log: bool

    def __call__(self, score: float) -> float:
        if not math.isfinite(score):
            return math.inf
        of = math.log if self.log else float
        return (of(score) - of(self.real_reference)) / (of(self.start) - of(self.real_reference))

    def __str__(self) -> str:
        kind = "logarithms of scores" if self.log else "scores themselves, since some are not above 0"
        return f"{kind}; 0 is {format_number(self.real_reference)}, 1 is {format_number(self.start)}"


def scale(found: Study) -> Scale | None:
    """By the scores before training, mean over arms; None where real data's are unknown or no better than those."""
    starts = [fmean(run.scores[0] for run in arm.runs if run.scores) for arm in found.arms if _evaluated(arm)]
    if found.real_reference is None or not starts or fmean(starts) <= found.real_reference:
        return None
    ends = [score for arm in found.arms for score in arm.finished]
    return Scale(found.real_reference, fmean(starts), log=min(found.real_reference, *starts, *ends) > 0)


def _evaluated(arm: Method) -> bool:
    return any(run.scores for run in arm.runs)


def write(folder: Path, allowed: tuple[str, ...] = ()) -> str:
    """Write the pages of all sweeps in `folder`, report.html and results.md over them; return the latter's text.

    Raises Unlike if the runs of one of them stand on unequal footing, before anything is written.
    """
    studies, broken = _studies(folder, allowed)
    _refuse_mixed(studies, allowed)
    for found in studies:
        write_study(found)
    over = Overview(studies, broken)
    text = over.markdown()
    (folder / "results.md").write_text(text, encoding="utf-8")
    page = render("overview.html.j2", title=over.title, over=over, folder=folder.resolve().name)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return text


def _studies(folder: Path, allowed: tuple[str, ...]) -> tuple[list[Study], list[str]]:
    """Of every sweep that holds a run to compare; and a sentence on each that holds none."""
    studies, broken = [], []
    for child in sweep_folders(folder):
        try:
            studies.append(_study(child, allowed))
        except FileNotFoundError:
            broken.append(f"{child.name}: left out, since no run in it can be compared.")
    if not studies:
        raise FileNotFoundError(f"No sweep in {folder} holds a run that can be compared.")
    return studies, broken


def _refuse_mixed(studies: list[Study], allowed: tuple[str, ...]) -> None:
    tracks: dict[str, list[str]] = {}
    for found in studies:
        tracks.setdefault(str(found.config["protocol"].get("track")), []).append(found.folder.name)
    if len(tracks) > 1 and "track" not in allowed:
        raise NotComparable(
            f"{Mismatch('track', tracks)}: sweeps of several tracks answer different questions, and stand in no table "
            "together. Report each folder by itself; or, with the tracks named on the page: --allow-mismatch track"
        )


def _study(folder: Path, allowed: tuple[str, ...]) -> Study:
    try:
        return load_study(folder, allowed)
    except NotComparable as error:
        raise NotComparable(f"{folder.name}: {error}") from None


class Overview:
    """Methods over datasets. What is compared over all of them are the methods that each of them has."""

    def __init__(self, studies: list[Study], broken: list[str]):
        self.studies, self.broken = studies, broken
        self.names = [found.folder.name for found in studies]
        self.arms = [{arm.label: arm for arm in found.arms} for found in studies]
        self.scales = [scale(found) for found in studies]
        self.title = f"GAN methods in {plural(len(studies), 'sweep')}"
        self.shared = [label for label in self.arms[0] if all(label in arms for arms in self.arms)]
        self.ranks = self._ranks()
        self.labels = self._ordered()
        self.tints = {label: i for i, label in enumerate(sorted(self.labels))}

    def _ranks(self) -> dict[str, list[float]]:
        """For each method the chance of each rank, averaged over datasets whose methods have the same seeds."""
        found = [scores.ranks([arms[label] for label in self.shared]) for arms in self.arms]
        told = [chances for chances in found if chances is not None]
        return dict(zip(self.shared, np.mean(told, axis=0).tolist(), strict=True)) if told and self.shared else {}

    def _ordered(self) -> list[str]:
        """By the mean rank; then methods that some dataset lacks."""
        rank = {label: sum(i * chance for i, chance in enumerate(row)) for label, row in self.ranks.items()}
        every = list(dict.fromkeys(label for arms in self.arms for label in arms))
        return sorted(every, key=lambda label: (label not in self.shared, rank.get(label, 0.0)))

    @property
    def verdicts(self) -> list[tuple[str, str, list[str], list[str]]]:
        """Of each sweep its folder's name, what it is, its verdict, and what to know before believing it."""
        found = zip(self.names, self.studies, strict=True)
        return [(name, one.subtitle, one.verdict, one.notes) for name, one in found]

    @property
    def rows(self) -> list[tuple[str, list[tuple[str, float | None, bool]]]]:
        """By method, for each dataset: the interquartile mean in words and as a number, and whether it is in bold."""
        return [(label, [self._cell(i, label) for i in range(len(self.studies))]) for label in self.labels]

    def _cell(self, i: int, label: str) -> tuple[str, float | None, bool]:
        arm = self.arms[i].get(label)
        if arm is None or not math.isfinite(arm.iqm):
            return "–", None, False
        behind = self.studies[i].against_first.get(label)
        around = f" ({format_interval(arm.interval)})" if arm.interval else ""
        return format_number(arm.iqm) + around, arm.iqm, not (behind and behind.shown)

    def profiles(self) -> list[Figure]:
        """Over all runs on normalised scores; logarithms and scores themselves spread differently, so apart."""
        return [panel for log in (True, False) if (panel := self._profile(log))]

    def _profile(self, log: bool) -> Figure | None:
        pooled = [(arms, to) for arms, to in zip(self.arms, self.scales, strict=True) if to and to.log == log]
        if not pooled:
            return None
        ends = {label: [to(score) for arms, to in pooled for score in arms[label].scores] for label in self.shared}
        of = "logarithms" if log else "scores themselves"
        title = f"Share of runs that end at or below each normalised score ({of})"
        return scores.profiles(f"profile-{of.split()[0]}", title, "normalised score", ends, self.tints)

    def markdown(self) -> str:
        lines = [f"# {self.title}", ""]
        for name, what, sentences, notes in self.verdicts:
            lines += [f"- [{name}]({name}/report.html) ({what}): {' '.join(sentences)}"]
            lines += [f"  - {note}" for note in notes]
        lines += [f"- {told}" for told in self.broken]
        table = [[label, *(f"**{text}**" if bold else text for text, _, bold in row)] for label, row in self.rows]
        about = "Interquartile means with 95 % intervals; in bold the best, and what is not shown to be worse."
        return "\n".join([*lines, "", about, "", markdown_table([["method", *self.names], *table])])
