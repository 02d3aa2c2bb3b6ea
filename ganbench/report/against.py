"""`--against paper`: hold the runs of a paper's recipe against the numbers that are printed for it.

Each method is held against its own number, and not compared with the others, so only its own runs must be comparable.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ganbench.config.compose import compose_config, method_label, resolve
from ganbench.config.messages import UNREADABLE
from ganbench.config.schema import CONF, INCIDENTAL, REAL_IMAGES
from ganbench.errors import Refused, plural
from ganbench.report.comparability import check_comparable, check_one_protocol
from ganbench.report.compare import COUNTED, Method, differences, group_by_method
from ganbench.report.load import Run, load_runs
from ganbench.report.statistics import center_name, iqm, iqm_interval
from ganbench.report.tables import format_interval, format_number, markdown_table
from ganbench.report.tuning import MISSING

HEADERS = ("method", "score", "ours", "seeds", "published", "verdict", "what differs in these runs")
NAMES = {"fid50k": "fid"}  # metrics that papers call by another name
INCEPTION = "ganbench.metrics.features.Inception"  # the network of all scores that papers report for images
HIGHER_IS_BETTER = ("inception_score", "modes")
# Settings that say where a run was made, or how often it was looked at.
INCIDENTAL_HERE = ("dataset.root", "metric.features.weights", "protocol.evaluations", "protocol.log_every", "threads")
TOLD_OTHERWISE = ("dataset.name", "metric.n_fake", "metric.reference", "metric.features._target_")
SEARCHED = ("betas", "lr", "n_critic", "penalty_weight", "trial", "weight")  # last parts of what a search has chosen
NO_RECIPE = "{} has no run of a paper's recipe; make some with experiment=paper/..., which conf/README.md lists."
NO_RESULT = "{} has no run of a paper's recipe that finished or diverged; rerun the same command to complete the sweep."
LEGEND = (
    "Ours: the {center} over seeds at the end of the budget, from four seeds on with its 95 % interval; a run that "
    "diverged counts as the worst. Each method is held against its own number only; without --against the report "
    "compares methods."
)


class Ours(NamedTuple):
    """A score of ours over seeds."""

    name: str
    center: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        interval = f" ({format_interval(self.interval)})" if self.interval else ""
        return format_number(self.center) + interval


@dataclass
class Entry:
    """The runs of a method, beside a number that is printed for it."""

    method: Method
    published: dict[
        str, Any
    ]  # as config/schema.py's Published; only a metric where the paper has nothing for the method
    n_settings: int = 1  # that it is the best of

    @property
    def run(self) -> Run:
        return self.method.runs[0]

    @property
    def ours(self) -> Ours:
        """Return our score of the same kind; the one that ranks if there is none."""
        metric = self.published["metric"]
        run = self.run
        if NAMES.get(run.metric, run.metric) == metric:
            return _over_seeds(run.metric, self.method.scores)
        values = {run.seed: run.last_evaluation.get(metric) for run in self.method.finished}
        if any(value is not None for value in values.values()):
            return _over_seeds(metric, [values.get(seed) for seed in self.method.finals])
        return _over_seeds(run.metric, self.method.scores)

    @property
    def score(self) -> str:
        """Name our score; with its network, if it is not the one that papers have."""
        features = self.run.config["metric"].get("features") or {}
        network = str(features.get("_target_", INCEPTION))
        if network != INCEPTION:
            return f"{self.ours.name} by {network.rpartition('.')[2]}"
        return f"{self.ours.name} by other weights" if features.get("sha256") else self.ours.name

    @property
    def is_same_metric(self) -> bool:
        return NAMES.get(self.score, self.score) == self.published["metric"]


def against_paper(folder: Path, allowed: tuple[str, ...] = ()) -> str:
    """Return tables of our scores beside those of papers, one for each recipe that the runs of a sweep are of.

    Raise Refused if there is nothing to show, and NotComparable for runs of one method that differ in their footing, or
    scores of two protocols on one dataset.
    """
    runs = [run for run in load_runs(folder) if run.config.get("paper")]
    if not runs:
        raise Refused(NO_RECIPE.format(folder))
    methods = group_by_method(runs)
    if not methods:
        raise Refused(NO_RESULT.format(folder))
    for method in methods:
        check_comparable(method.runs, allowed)
    recipes = dict.fromkeys(method.runs[0].config["paper"]["recipe"] for method in methods)
    return "\n".join(_section(recipe, methods, runs) for recipe in recipes)


def _section(recipe: str, methods: list[Method], runs: list[Run]) -> str:
    of_recipe = [method for method in methods if method.runs[0].config["paper"]["recipe"] == recipe]
    counted = [run for method in of_recipe for run in method.runs]
    check_one_protocol((run.dataset, run.metric_protocol, run.folder.name) for run in counted)
    paper = of_recipe[0].runs[0].config["paper"]
    rows: list[list] = [list(HEADERS), *(_row(entry, runs) for entry in _entries(of_recipe))]
    center = center_name(max(len(method.scores) for method in of_recipe))
    lines = [
        f"# experiment=paper/{recipe}: {paper['title']}, arXiv:{paper['arxiv']}, {paper['table']}",
        f"Published: {paper['protocol']}.",
        markdown_table(rows).rstrip(),
        LEGEND.format(center=center),
        "What differs between the recipe and the paper:",
        "\n".join(f"- {difference}" for difference in paper["differs"]),
    ]
    return "\n\n".join(lines) + "\n"


def _entries(methods: list[Method]) -> list[Entry]:
    """Pair methods with published numbers; of a method with several of the paper's settings only the best, as there.

    What else was varied is told apart.
    """
    by_name: dict[tuple[str, str], list[Method]] = {}
    for method in methods:
        run = method.runs[0]
        varied = _varied(run) if run.config["paper"].get("setting") else method.label
        by_name.setdefault((f"{_name(run)} on {run.dataset}", varied), []).append(method)
    entries = []
    for group in by_name.values():
        run = group[0].runs[0]
        published = [row for row in run.config["paper"]["published"] if _is_of(row, run)]
        for row in published or [{"metric": NAMES.get(run.metric, run.metric)}]:
            entries.append(
                min((Entry(method, row, len(group)) for method in group), key=lambda entry: _rank(entry.ours))
            )
    return entries


def _varied(run: Run) -> str:
    """Return what a run has otherwise than the recipe, as text, without the budget, which a setting may have."""
    changed = _changed(run)
    if changed is None:
        return run.method
    return json.dumps({key: made for key, (made, _) in changed.items() if key != "protocol.images"}, sort_keys=True)


def _name(run: Run) -> str:
    """Return what the paper calls a run's method."""
    return run.config["paper"].get("method") or run.label


def _is_of(published: dict[str, Any], run: Run) -> bool:
    return published["method"] == _name(run) and published.get("dataset") in (None, run.dataset)


def _row(entry: Entry, runs: list[Run]) -> list[str]:
    published, run = entry.published, entry.run
    name = entry.method.label if entry.n_settings == 1 and not run.config["paper"].get("method") else _name(run)
    setting = run.config["paper"].get("setting")
    if setting is not None:
        best = f", the best of {entry.n_settings}" if entry.n_settings > 1 else ""
        name += f" (setting {setting}{best})"
    return [
        name,
        published["metric"],
        str(entry.ours) if entry.is_same_metric else f"{entry.score}: {entry.ours}",
        str(len(entry.method.finals)),
        _published(published),
        verdict(entry),
        "; ".join(_differences(entry, runs)) or "nothing",
    ]


def _published(published: dict[str, Any]) -> str:
    if published.get("value") is None:
        return MISSING
    interval = _range(published)
    shown = format_number(published["value"]) + (f" ({format_interval(interval)})" if interval else "")
    return f"{shown}, from: {published['source']}" if published.get("source") else shown


def _range(published: dict[str, Any]) -> tuple[float, float] | None:
    low, high = published.get("low"), published.get("high")
    return None if low is None or high is None else (low, high)


def verdict(entry: Entry) -> str:
    """Say where our score lies: by the published range if there is one, or else by our interval."""
    dataset = entry.run.dataset
    if dataset not in entry.run.config["paper"]["data"]:
        return f"none: the paper has no number on {dataset}"
    if "method" not in entry.published:
        return "none: the paper has no such method"
    value = entry.published.get("value")
    if value is None:
        return "none: no number is printed"
    ours = entry.ours
    if not entry.is_same_metric:
        return f"none: {entry.score} is another score than {entry.published['metric']}"
    if _scored_otherwise(entry):
        return "none: scored by another protocol"
    if not math.isfinite(ours.center):
        return "none: we have no score"
    gap = _gap(entry.published["metric"], ours.center, value)
    published = _range(entry.published)
    if published:
        if published[0] <= ours.center <= published[1]:
            return "inside the published range"
        if ours.interval and ours.interval[0] <= published[1] and published[0] <= ours.interval[1]:
            return f"outside the published range, {gap}; our interval meets it"
        return f"outside the published range, {gap}"
    if ours.interval is None:
        return f"none: neither has a range; {gap}"
    is_inside = ours.interval[0] <= value <= ours.interval[1]
    return "the published value is inside our interval" if is_inside else f"outside our interval, {gap}"


def _gap(metric: str, ours: float, value: float) -> str:
    if ours == value:
        return "equal"
    is_better = ours > value if metric in HIGHER_IS_BETTER else ours < value
    return f"ours is {'better' if is_better else 'worse'} by {format_number(abs(ours - value))}"


def _over_seeds(name: str, values: Iterable[float | None]) -> Ours:
    """Return the interquartile mean; a run without a score counts as the worst."""
    sign = -1 if name in HIGHER_IS_BETTER else 1
    costs = [math.inf if value is None else sign * value for value in values]
    interval = iqm_interval(costs)
    low, high = sorted(sign * end for end in interval or (math.nan, math.nan))
    return Ours(name, sign * float(iqm(costs)), (low, high) if interval else None)


def _rank(ours: Ours) -> float:
    return -ours.center if ours.name in HIGHER_IS_BETTER else ours.center


def _differences(entry: Entry, runs: list[Run]) -> list[str]:
    """Say in what these runs are not the recipe's, or are scored otherwise than the paper's."""
    run = entry.run
    paper = run.config["paper"]
    found = []
    if run.dataset not in paper["data"]:
        found.append(f"dataset={run.dataset}, not {' or '.join(paper['data'])}")
    found += _scored_otherwise(entry)
    n = len(entry.method.finals)
    if paper.get("seeds") not in (None, n):
        found.append(f"{plural(n, 'seed')}, not {paper['seeds']}")
    return found + _ends(entry, runs) + _changes(run)


def _scored_otherwise(entry: Entry) -> list[str]:
    """Say in what the protocol of our score is not that of the published one."""
    paper, metric = entry.run.config["paper"], entry.run.config["metric"]
    found = []
    if paper.get("samples") and metric.get("n_fake") != paper["samples"]:
        found.append(f"{metric.get('n_fake'):,} samples, not {paper['samples']:,}")
    reference = metric.get("reference", "held_out")
    if "fid" in entry.published["metric"] and paper.get("reference") not in (None, reference):
        found.append(f"against {REAL_IMAGES[reference]}, not {REAL_IMAGES[paper['reference']]}")
    return found


def _ends(entry: Entry, runs: list[Run]) -> list[str]:
    diverged = sum(run.status == "diverged" for run in entry.method.runs)
    others = sum(run.method == entry.run.method and run.status not in COUNTED for run in runs)
    ends = ((diverged, "diverged"), (others, "did not finish"))
    return [f"{n} of {len(entry.method.runs) + others} runs {end}" for n, end in ends if n]


def _changes(run: Run) -> list[str]:
    """Name the settings that the recipe has otherwise, the budget in words."""
    changed = _changed(run)
    if changed is None:
        return ["this version cannot compose the recipe for this method, so changed settings are not told"]
    keys = [key for key in changed if key not in TOLD_OTHERWISE]
    if run.dataset not in run.config["paper"]["data"]:
        keys = [key for key in keys if not key.startswith("dataset.")]
    return [_change(key, *changed[key]) for key in keys]


def _changed(run: Run) -> dict[str, tuple[Any, Any]] | None:
    """Return, by key, what a run and what the recipe has for it; None where the recipe cannot be composed."""
    try:
        recipe = resolve(_composed_like(run))
    except (Refused, *UNREADABLE):
        return None
    theirs = {key: value for key, value in recipe.items() if key not in (*INCIDENTAL, "speed")}
    ours = {key: value for key, value in run.settings.items() if key != "speed"}
    planned, made = differences([theirs, ours])
    searched = SEARCHED if ours["protocol"].get("track") == "tuned" else ()
    keys = [key for key in made if key not in INCIDENTAL_HERE and key.rpartition(".")[2] not in searched]
    return {key: (made[key], planned[key]) for key in keys}


def _composed_like(run: Run) -> DictConfig:
    """Compose the recipe for the method, dataset and setting of a run."""
    paper = run.config["paper"]
    typed = [f"experiment=paper/{paper['recipe']}"]
    if run.dataset in paper["data"]:
        typed.append(f"dataset={run.dataset}")
    if paper.get("setting") is not None:
        typed.append(f"paper.setting={paper['setting']}")
    if paper.get("method") and (CONF / "paper" / paper["recipe"]).is_dir():
        typed.append(f"paper/{paper['recipe']}={paper['method']}")
    cfg = _composed(*typed)
    if method_label(cfg) == run.label:
        return cfg
    loss, penalty = run.config["loss"]["name"], run.config["penalty"]["name"]
    return _composed(*typed, f"loss={loss}", f"penalty={penalty}")


@cache
def _composed(*typed: str) -> DictConfig:
    return compose_config(*typed, "name=against")


def _change(key: str, made: Any, planned: Any) -> str:
    if key == "protocol.images":
        return f"{made:,} of {planned:,} images"
    return f"{key}={_shown(made)}, not {_shown(planned)}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
