"""Does the generator's gradient vanish as the critic gets better? As measured in the runs, and in closed form."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import count
from statistics import median
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ganbench import theory
from ganbench.report.compare import Method
from ganbench.report.figures.svg import Figure, color, log_if_positive
from ganbench.report.study import Study
from ganbench.report.tables import Cell, number_cell, text_cell

VANISHED, EXPLODED = 1e-2, 1e2
DRAWN_FROM = 1e-8
HEADERS = (
    "method",
    "images",
    "critic",
    "gradient left",
    "verdict",
    "told apart",
    "flat",
    "slope at fakes",
    "signal to noise",
    "cosine",
)
CRITICS = {
    "onward": "the run's own critic, trained on",
    "scratch": "a new critic, trained from nothing",
}
THETAS = [0.5 * k for k in range(1, 17)]


class ProbeResult(NamedTuple):
    """One arm's generator before one critic at one moment: for each seed its records by the critic's steps."""

    arm: Method
    diagnostic: str | None  # the loss asked, where it is not the run's own
    images: int
    critic: str
    seeds: list[dict[int, dict[str, Any]]]

    @property
    def label(self) -> str:
        return self.arm.label + (f", {self.diagnostic} (diagnostic)" if self.diagnostic else "")

    @property
    def ratios(self) -> list[dict[int, float]]:
        """For each seed the gradient's norm by steps, over that before the first; of seeds where it can be told."""
        norms = [{k: row["g_norm"] for k, row in seed.items() if row.get("g_norm") is not None} for seed in self.seeds]
        return [{k: norm / at[0] for k, norm in at.items()} for at in norms if at.get(0)]

    @property
    def steps(self) -> int:
        return max((k for seed in self.seeds for k in seed), default=0)

    def median(self, name: str) -> float | None:
        """Over seeds, after the most steps."""
        found = [seed[self.steps][name] for seed in self.seeds if seed.get(self.steps, {}).get(name) is not None]
        return median(found) if found else None

    @property
    def left(self) -> list[float]:
        """What is left of the gradient after the most steps, for each seed."""
        return [ratio[self.steps] for ratio in self.ratios if self.steps in ratio]

    @property
    def word(self) -> str:
        return verdict(self.left)


def verdict(left: list[float]) -> str:
    """The rule, which the page states: what at least half of the seeds do."""
    if not left:
        return "not told"
    if sum(ratio < VANISHED for ratio in left) >= len(left) / 2:
        return "vanishes"
    return "explodes" if sum(ratio > EXPLODED for ratio in left) >= len(left) / 2 else "stays"


def probe_results(study: Study) -> list[ProbeResult]:
    return [probe for arm in study.arms for probe in _of(arm)]


def _of(arm: Method) -> Iterator[ProbeResult]:
    groups: dict[tuple[str, int, str], dict[int, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for number, run in enumerate(arm.runs):
        for row in run.probes:
            groups[row["loss"], row["images"], row["critic"]][number][row["steps"]] = row
    own = arm.runs[0].config["loss"]["name"]
    for (loss, images, critic), seeds in sorted(groups.items(), key=lambda item: (item[0][0] != own, *item[0])):
        yield ProbeResult(arm, None if loss == own else loss, images, critic, list(seeds.values()))


def probe_points(found: list[ProbeResult]) -> list[tuple[str, int]]:
    """The critics and moments that were probed, in order."""
    return sorted({(probe.critic, probe.images) for probe in found})


def measured(study: Study, found: list[ProbeResult]) -> list[Figure]:
    """A panel for each critic and moment: what is left of the gradient against the critic's further steps."""
    panels = []
    for critic, images in probe_points(found):
        shown = [probe for probe in found if (probe.images, probe.critic) == (images, critic)]
        title = f"After {images:,} images: {CRITICS.get(critic, critic)}"
        told = ", ".join(f"{probe.label} {probe.word}" for probe in shown)
        panel = Figure(f"probe-{critic}-{images}", title, f"Norm of the generator's gradient: {told}.")
        with panel.draw() as axes:
            for probe in shown:
                _probe(axes, probe, study.tints[probe.arm.label])
            _log_axes(axes, shown)
        panels.append(panel)
    return panels


def _probe(axes: Axes, probe: ProbeResult, tint: int) -> None:
    """A thin line for each seed, a thick one for their median."""
    style = "--" if probe.diagnostic else "-"
    for ratio in probe.ratios:
        steps = sorted(ratio)
        y = [_drawn(ratio[k]) for k in steps]
        axes.plot([k + 1 for k in steps], y, style, color=color(tint), lw=0.7, alpha=0.4)
    steps = sorted({k for ratio in probe.ratios for k in ratio})
    middle = [_drawn(median(ratio[k] for ratio in probe.ratios if k in ratio)) for k in steps]
    axes.plot([k + 1 for k in steps], middle, style, color=color(tint), lw=2)


def _log_axes(axes: Axes, shown: list[ProbeResult]) -> None:
    most = max(probe.steps for probe in shown)
    ticks = [k for k in (0, 1, 4, 16, 64, 256, 1024, 4096) if k <= most]
    axes.set_xscale("log", base=2)
    axes.set_xticks([k + 1 for k in ticks], [str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    log_if_positive(axes, [_drawn(value) for probe in shown for ratio in probe.ratios for value in ratio.values()])
    axes.set_xlabel("steps of the critic alone")
    axes.set_ylabel("gradient left to the generator")


def _drawn(ratio: float) -> float:
    """A logarithmic axis has no 0."""
    return max(ratio, DRAWN_FROM)


def matrix(found: list[ProbeResult]) -> dict[str, list[Cell]]:
    """By method, for each occasion: the word and the median of what is left, by which it sorts."""
    told = {(probe.label, probe.critic, probe.images): probe for probe in found}
    return {
        label: [_told(told.get((label, *occasion))) for occasion in probe_points(found)]
        for label in dict.fromkeys(probe.label for probe in found)
    }


def _told(probe: ProbeResult | None) -> Cell:
    if probe is None or not probe.left:
        return Cell("–", None)
    return number_cell(median(probe.left), f"{probe.word} (×{median(probe.left):.2g})")


def table(found: list[ProbeResult]) -> list[list[Cell]]:
    """Under HEADS, a row for each arm, moment and critic, after the critic's last step."""
    return [
        [text_cell(probe.label), number_cell(probe.images, f"{probe.images:,}"), text_cell(probe.critic)]
        + [number_cell(median(probe.left) if probe.left else None), text_cell(probe.word)]
        + [number_cell(probe.median(name)) for name in ("critic_auc", "saturated", "d_slope_fake", "snr", "cosine")]
        for probe in found
    ]


def in_closed_form(study: Study) -> Figure:
    """|dL_G/dθ| before the best critic of each loss that has one in closed form."""
    told = ", ".join(f"{name} from {y[0]:.2g} to {y[-1]:.2g}" for name, y in _closed_form().items())
    panel = Figure("closed-form", "In closed form, before the best critic", f"From θ = 0.5 to 8: {told}.")
    with panel.draw() as axes:
        for name, tint in loss_colors(study).items():
            style = (0, (4, 4)) if name == "rpgan" else "-"  # it lies on gan but for the smallest θ
            axes.plot(THETAS, _closed_form()[name], color=color(tint), lw=2, ls=style)
        log_if_positive(axes, [value for y in _closed_form().values() for value in y])
        axes.set_xlabel("θ, how far fakes N(θ, 1) are from reals N(0, 1)")
        axes.set_ylabel("|dL/dθ| of the generator")
    return panel


def loss_colors(study: Study) -> dict[str, int]:
    """Of each loss in closed form: the colour of the method that has it, if can be without a penalty, or a free one."""
    theirs: dict[str, int] = {}
    for arm in sorted(study.arms, key=lambda arm: arm.runs[0].config["penalty"]["name"] != "none"):
        theirs.setdefault(arm.runs[0].config["loss"]["name"], study.tints[arm.label])
    free = (tint for tint in count() if tint not in study.tints.values())
    return {name: theirs[name] if name in theirs else next(free) for name in theory.LEFT}


@cache
def _closed_form() -> dict[str, list[float]]:
    return {name: [left(theta) for theta in THETAS] for name, left in theory.LEFT.items()}
