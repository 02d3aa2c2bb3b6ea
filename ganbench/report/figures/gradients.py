"""Does the generator's gradient vanish as the critic gets better? As measured in the runs, and in closed form."""

from collections import defaultdict
from functools import cache
from itertools import count
from statistics import median
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ganbench import theory
from ganbench.report.compare import Method
from ganbench.report.figures.svg import Figure, color, drawn_for, log_if_positive
from ganbench.report.load import Run
from ganbench.report.study import Study
from ganbench.report.tables import MISSING, Cell, number_cell, text_cell

VANISHED, EXPLODED = 1e-2, 1e2
SMALLEST_DRAWN = 1e-8
HEADERS = (
    "method",
    "real images seen",
    "critic",
    "gradient ratio",
    "verdict",
    "critic AUC",
    "saturated samples",
    "critic gradient norm at fakes",
    "gradient SNR",
    "cosine",
)
# By name in probes.jsonl: in a column header, and in a figure's title.
CRITICS = {
    "onward": ("run's critic", "the run's own critic, trained further"),
    "scratch": ("new critic", "a new critic, trained from scratch"),
}
THETAS = [0.5 * k for k in range(1, 17)]


class ProbePoint(NamedTuple):
    """Where a generator was probed: with which critic, after how many real images."""

    critic: str
    images: int

    def __str__(self) -> str:
        return f"{critic_name(self.critic)}, {self.images:,}"


def critic_name(critic: str) -> str:
    return CRITICS[critic][0] if critic in CRITICS else critic


class ProbeResult(NamedTuple):
    """A method's generator at one probe point, under one loss: for each seed its records by critic updates."""

    method: Method
    diagnostic: str | None  # the generator's loss, where it is not the run's own
    point: ProbePoint
    seeds: list[dict[int, dict[str, Any]]]

    @property
    def label(self) -> str:
        return self.method.label + (f", {self.diagnostic} (diagnostic)" if self.diagnostic else "")

    @property
    def updates(self) -> int:
        """Return the most critic updates of any seed."""
        return max((updates for records in self.seeds for updates in records), default=0)

    @property
    def gradient_ratios(self) -> list[dict[int, float]]:
        """Return, for each seed, the gradient norm by critic updates, divided by that before them.

        Seeds where the gradient was 0 before them are left out.
        """
        ratios = []
        for records in self.seeds:
            norms = {k: record["g_norm"] for k, record in records.items() if record.get("g_norm") is not None}
            if norms.get(0):
                ratios.append({k: norm / norms[0] for k, norm in norms.items()})
        return ratios

    @property
    def final_ratios(self) -> list[float]:
        """Return the gradient ratio of each seed after the most critic updates."""
        return [ratios[self.updates] for ratios in self.gradient_ratios if self.updates in ratios]

    @property
    def gradient_ratio(self) -> float | None:
        """Return their median."""
        return median(self.final_ratios) if self.final_ratios else None

    @property
    def verdict(self) -> str:
        return verdict(self.final_ratios)

    def final_median(self, name: str) -> float | None:
        """Return the median of a record over seeds, after the most critic updates."""
        rows = [records.get(self.updates, {}) for records in self.seeds]
        values = [row[name] for row in rows if row.get(name) is not None]
        return median(values) if values else None


def verdict(ratios: list[float]) -> str:
    """Return what at least half of the seeds do, by the rule that the page states."""
    if not ratios:
        return "undefined"
    if sum(ratio < VANISHED for ratio in ratios) >= len(ratios) / 2:
        return "vanishes"
    if sum(ratio > EXPLODED for ratio in ratios) >= len(ratios) / 2:
        return "explodes"
    return "stays"


def probe_results(study: Study) -> list[ProbeResult]:
    """Return every method's results; those under its own loss come first."""
    return [result for method in study.methods for result in _method_results(method)]


def _method_results(method: Method) -> list[ProbeResult]:
    own_loss = method.runs[0].config["loss"]["name"]
    probed = {_probed(row) for run in method.runs for row in run.probes}
    results = []
    for loss, images, critic in sorted(probed, key=lambda probed: (probed[0] != own_loss, *probed)):
        seeds = [_records(run, (loss, images, critic)) for run in method.runs]
        seeds = [records for records in seeds if records]
        diagnostic = None if loss == own_loss else loss
        results.append(ProbeResult(method, diagnostic, ProbePoint(critic, images), seeds))
    return results


def _probed(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["loss"], row["images"], row["critic"]


def _records(run: Run, probed: tuple[str, int, str]) -> dict[int, dict[str, Any]]:
    """Return the run's records of one probe by critic updates."""
    return {row["steps"]: row for row in run.probes if _probed(row) == probed}


def probe_points(results: list[ProbeResult]) -> list[ProbePoint]:
    return sorted({result.point for result in results})


def measured(study: Study, results: list[ProbeResult]) -> list[Figure]:
    """Draw a figure per probe point: the gradient ratio against the critic's further updates."""
    return [_measured_at(study, point, results) for point in probe_points(results)]


def _measured_at(study: Study, point: ProbePoint, results: list[ProbeResult]) -> Figure:
    drawn = [result for result in results if result.point == point]
    verdicts = ", ".join(f"{result.label} {result.verdict}" for result in drawn)
    critic = CRITICS[point.critic][1] if point.critic in CRITICS else point.critic

    def draw(axes: Axes) -> None:
        for result in drawn:
            with drawn_for(result.method.label, axes):
                _draw_ratios(axes, result, study.color_index[result.method.label], study.has_many_runs)
        _set_log_axes(axes, drawn)

    return Figure(
        f"probe-{point.critic}-{point.images}",
        f"After {point.images:,} real images: {critic}",
        f"Norm of the generator's gradient: {verdicts}.",
        draw,
    )


def _draw_ratios(axes: Axes, result: ProbeResult, index: int, of_many: bool) -> None:
    """Draw a thin line per seed, if there are not too many, and a thick one for their median."""
    style = "--" if result.diagnostic else "-"
    by_update = defaultdict(list)
    for ratios in result.gradient_ratios:
        if not of_many:
            axes.plot(*_points(ratios), style, color=color(index), lw=0.7, alpha=0.4)
        for update, ratio in ratios.items():
            by_update[update].append(ratio)
    medians = {update: median(ratios) for update, ratios in by_update.items()}
    axes.plot(*_points(medians), style, color=color(index), lw=2, label=result.label)


def _points(ratios: dict[int, float]) -> tuple[list[int], list[float]]:
    updates = sorted(ratios)
    return [k + 1 for k in updates], [_drawn(ratios[k]) for k in updates]


def _set_log_axes(axes: Axes, drawn: list[ProbeResult]) -> None:
    """Make both axes logarithmic; x is updates + 1, so that 0 updates have a place."""
    most = max(result.updates for result in drawn)
    ticks = [k for k in (0, 1, 4, 16, 64, 256, 1024, 4096) if k <= most]
    axes.set_xscale("log", base=2)
    axes.set_xticks([k + 1 for k in ticks], [str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    ratios = [ratio for result in drawn for by_updates in result.gradient_ratios for ratio in by_updates.values()]
    log_if_positive(axes, [_drawn(ratio) for ratio in ratios])
    axes.set_xlabel("critic updates, generator frozen")
    axes.set_ylabel("gradient ratio of the generator")


def _drawn(ratio: float) -> float:
    """Bound from below: a logarithmic axis has no 0."""
    return max(ratio, SMALLEST_DRAWN)


def matrix(results: list[ProbeResult]) -> dict[str, list[Cell]]:
    """Return, by method, a cell per probe point: the verdict and the gradient ratio, by which it sorts."""
    by_label_and_point = {(result.label, result.point): result for result in results}
    rows = {}
    for label in dict.fromkeys(result.label for result in results):
        rows[label] = [_verdict_cell(by_label_and_point.get((label, point))) for point in probe_points(results)]
    return rows


def _verdict_cell(result: ProbeResult | None) -> Cell:
    if result is None or result.gradient_ratio is None:
        return Cell(MISSING, None)
    return number_cell(result.gradient_ratio, f"{result.verdict} (×{result.gradient_ratio:.2g})")


def table(results: list[ProbeResult]) -> list[list[Cell]]:
    """Return a row per method, critic and probe point, after the most critic updates, under HEADERS."""
    return [_row(result) for result in results]


def _row(result: ProbeResult) -> list[Cell]:
    measured_names = ("critic_auc", "saturated", "d_slope_fake", "snr", "cosine")
    return [
        text_cell(result.label),
        number_cell(result.point.images, f"{result.point.images:,}"),
        text_cell(critic_name(result.point.critic)),
        number_cell(result.gradient_ratio),
        text_cell(result.verdict),
        *(number_cell(result.final_median(name)) for name in measured_names),
    ]


def in_closed_form(study: Study) -> Figure:
    """Draw |dL_G/dθ| at the optimal critic of each loss that has one in closed form."""
    curves = _closed_form_curves()
    ends = ", ".join(f"{name} from {y[0]:.2g} to {y[-1]:.2g}" for name, y in curves.items())

    def draw(axes: Axes) -> None:
        for name, index in loss_colors(study).items():
            style = (0, (4, 4)) if name == "rpgan" else "-"  # it coincides with gan except at the smallest θ
            axes.plot(THETAS, curves[name], color=color(index), lw=2, ls=style, label=name)
        log_if_positive(axes, [value for y in curves.values() for value in y])
        axes.set_xlabel("θ, distance of fakes N(θ, 1) from reals N(0, 1)")
        axes.set_ylabel("|dL/dθ| of the generator")

    return Figure("closed-form", "In closed form, at the optimal critic", f"From θ = 0.5 to 8: {ends}.", draw)


def loss_colors(study: Study) -> dict[str, int]:
    """Choose each loss's color: that of a method with it, preferably one without a penalty, else an unused color."""
    of_methods: dict[str, int] = {}
    for method in sorted(study.methods, key=lambda method: method.runs[0].config["penalty"]["name"] != "none"):
        of_methods.setdefault(method.runs[0].config["loss"]["name"], study.color_index[method.label])
    unused = (index for index in count() if index not in study.color_index.values())
    return {name: of_methods[name] if name in of_methods else next(unused) for name in theory.GENERATOR_GRADIENT}


@cache
def _closed_form_curves() -> dict[str, list[float]]:
    return {name: [gradient(theta) for theta in THETAS] for name, gradient in theory.GENERATOR_GRADIENT.items()}
