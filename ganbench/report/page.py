"""report.html, results.md and results.csv."""

import base64
import csv
import io
import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ganbench.report import figures, tuning
from ganbench.report.compare import Arm, Comparison, arms, comparisons, differences, on_shared_seeds, verdict
from ganbench.report.level import machines, refuse_unlike
from ganbench.report.read import Run, read

HEADS = (
    "method",
    "seeds",
    "IQM",
    "95 % interval",
    "behind the first",
    "p",
    "seeds behind",
    "seconds",
    "images/s",
    "best on the way",
    "final, each seed",
)


def write(folder: Path, allowed: tuple[str, ...] = ()) -> str:
    """Write the three files into `folder` and return the text of results.md.

    Raises Unlike for runs whose footing differs, but for the fields `allowed`, which get a stamp.
    """
    runs = read(folder)
    everything = arms(runs)
    if not everything:
        raise FileNotFoundError(
            f"{folder} holds no readable run; name the folder of a sweep, such as outputs/sweep/mine."
        )
    stamps = [f"Not on equal footing, by request: {mismatch}." for mismatch in refuse_unlike(runs, allowed)]
    found, left_out = on_shared_seeds(everything)
    notes = [*stamps, *troubles(runs, found, left_out)]
    text = markdown(runs, found, notes)
    text += "".join(f"\n{said}\n\n{markdown_table(rows)}" for said, rows in tuning.tables(folder))
    (folder / "results.md").write_text(text, encoding="utf-8")
    (folder / "results.csv").write_text(table_of_runs(runs), encoding="utf-8")
    (folder / "report.html").write_text(page(folder, runs, found, notes), encoding="utf-8")
    return text


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where people would not write one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(found: list[Arm]) -> list[list[str]]:
    """Heads, then a row for each arm, the best first."""
    against = {c.second.label: c for c in comparisons(found) if c.first is found[0]}
    return [list(HEADS)] + [_row(arm, against.get(arm.label)) for arm in found]


def troubles(runs: list[Run], found: list[Arm], left_out: set[int]) -> list[str]:
    """What a reader must know before believing the table."""
    said = [f"{mismatch}." for mismatch in machines(runs)]
    if left_out:
        seeds = ", ".join(map(str, sorted(left_out)))
        said.append(f"The methods were run with different seeds; only those that all have are compared (not {seeds}).")
    if len({tuple(arm.finals) for arm in found}) > 1:
        said.append("The methods share no seed: their differences cannot be paired.")
    for arm in found:
        seen = [run.seed for run in arm.runs]
        if len(set(seen)) < len(seen):
            said.append(f"{arm.label} holds several runs of one seed; the first of each is compared.")
    for run in runs:
        if run.status == "finished" and run.facts.get("score") is None:
            said.append(f"{run.folder.name}: finished without a score ({_why(run)}).")
        if run.status != "finished":
            said.append(f"{run.folder.name}: {run.status}{f' ({run.reason})' if run.reason else ''}.")
    return said


def _why(run: Run) -> str:
    reasons = [row[key] for row in run.rows if (key := f"{run.metric}_why") in row]
    return reasons[-1] if reasons else "no reason given"


def markdown(runs: list[Run], found: list[Arm], notes: list[str]) -> str:
    lines = [f"# {_title(found)}", "", _subtitle(runs, found), "", *verdict(found, _metric(found)), ""]
    lines += [f"- {note}" for note in notes] + [""]
    sides = side_scores(found)
    beside = f"\nOther scores at the end, mean over seeds:\n\n{markdown_table(sides)}" if sides else ""
    return "\n".join(lines) + "\n" + markdown_table(table(found)) + beside


def side_scores(found: list[Arm]) -> list[list[str]]:
    """What else the metric measured at the end, each arm's mean over its finished runs; last what real data get."""
    floor = next((run.facts["floor"] for arm in found for run in arm.runs if run.facts.get("floor")), {})
    names = [k for k, v in floor.items() if k != _metric(found) and not k.endswith("_why") and not isinstance(v, list)]
    if not names:
        return []
    rows = [[arm.label, *(_mean_end(arm, name) for name in names)] for arm in found]
    return [["method", *names], *rows, ["real data", *(number(floor[name]) for name in names)]]


def _mean_end(arm: Arm, name: str) -> str:
    """Over the finished runs that have it at their last evaluation, and how many those are if not all."""
    last = [run.last for run in arm.runs if run.status == "finished"]
    ends = [row[name] for row in last if row.get(name) is not None]
    if not ends:
        return "–"
    return number(sum(ends) / len(ends)) + (f" ({len(ends)} of {len(last)})" if len(ends) < len(last) else "")


def markdown_table(rows: list[list[str]]) -> str:
    """The first row is the head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def table_of_runs(runs: list[Run]) -> str:
    """One CSV row a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "folder",
            "method",
            "seed",
            "status",
            "metric",
            "final",
            "best",
            "images",
            "seconds",
            "images_per_second",
            "reason",
        ]
    )
    for run in runs:
        cells = (run.final, run.best, run.facts.get("images", math.nan), run.seconds, run.speed)
        writer.writerow(
            [run.folder.name, run.label, run.seed, run.status, run.metric]
            + [f"{value:.10g}" if math.isfinite(value) else "" for value in cells]
            + [run.reason or ""]
        )
    return out.getvalue()


def page(folder: Path, runs: list[Run], found: list[Arm], notes: list[str]) -> str:
    metric, floor, pairs = _metric(found), _floor(found), comparisons(found)
    drawn = {
        "scores": figures.scores(found, metric, floor),
        "finals": figures.finals(found, metric, floor),
        "differences": figures.differences(found, pairs, metric),
        "wins": figures.wins(found, pairs),
        "losses": figures.curves(found, ("d_loss", "g_loss", "d_penalty")),
        "logits": figures.curves(found, ("d_real", "d_fake")),
        "norms": figures.norms(found),
    }
    here = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    here.filters["number"] = number
    seed = _shared_seed(found)
    differing = differences([arm.runs[0].config for arm in found], ignore=("loss", "penalty"))
    return here.get_template("page.html.j2").render(
        title=_title(found),
        subtitle=f"{_subtitle(runs, found)} · {folder.resolve().name}",
        verdict=verdict(found, metric),
        troubles=notes,
        differing=list(zip([arm.label for arm in found], differing, strict=True)) if differing[0] else [],
        metric_words=_metric_words(metric, found, floor),
        table=table(found),
        sides=side_scores(found),
        paired=any(c.paired.mean is not None for c in pairs if c.first is found[0]),
        colour=figures.colour,
        figures={name: Markup(svg) for name, svg in drawn.items()},
        grids=_grids(found, seed),
        grid_seed=seed,
        runs=runs,
        software=_software(runs),
    )


def _row(arm: Arm, against: Comparison | None) -> list[str]:
    each = [number(r.final) if math.isfinite(r.final) else r.status.replace("finished", "no score") for r in arm.runs]
    score = [arm.label, str(len(arm.runs)), number(arm.iqm), _span(arm.interval) if arm.interval else "–"]
    cost = [number(arm.seconds), number(arm.speed), number(arm.best)]
    return [*score, *(_behind(against) if against else ["", "", ""]), *cost, ", ".join(each)]


def _behind(against: Comparison) -> list[str]:
    """By how much, how surely, and at how many seeds."""
    gap, around = against.paired.mean, against.paired.interval
    seeds = f"{against.paired.wins * against.paired.n:g} of {against.paired.n}"
    return [number(gap) + (f" ({_span(around)})" if around else ""), number(against.p), seeds]


def _span(interval: tuple[float, float]) -> str:
    return f"{number(interval[0])} to {number(interval[1])}"


def _metric(found: list[Arm]) -> str:
    return found[0].runs[0].metric


def _floor(found: list[Arm]) -> float | None:
    """What real training data score: the level that a perfect generator would reach."""
    run = found[0].runs[0]
    return (run.facts.get("floor") or {}).get(run.metric)


def _metric_words(metric: str, found: list[Arm], floor: float | None) -> str:
    n = found[0].runs[0].config["metric"].get("n_fake")
    words = (
        f"The score is {metric}, lower is better, on {n} samples of the averaged generator against held-out real data."
    )
    return words + (f" Real training data score {number(floor)}." if floor is not None else "")


def _title(found: list[Arm]) -> str:
    return f"{len(found)} GAN methods on {found[0].runs[0].config['dataset']['name']}"


def _subtitle(runs: list[Run], found: list[Arm]) -> str:
    config = found[0].runs[0].config
    return (
        f"{config['dataset']['name']} · {config['model']['name']} · {len(runs)} runs · "
        f"{config['protocol']['images']:,} real images a run · protocol {config['protocol']['name']} ({_track(config)})"
    )


def _track(config: dict[str, Any]) -> str:
    """Which question a table answers."""
    trials = config["protocol"].get("trials")
    words = {
        "paper": "each method with its authors' settings",
        "tuned": f"each method with the best of {trials} random trials",
    }
    return words.get(config["protocol"].get("track"), "one setting for all methods")


def _shared_seed(found: list[Arm]) -> int | None:
    shared = set.intersection(*(set(arm.finals) for arm in found))
    return min(shared, default=None)


def _grids(found: list[Arm], seed: int | None) -> list[dict[str, str]]:
    """The last sample grid of that seed for each arm."""
    grids = []
    for arm in found:
        run = next((run for run in arm.runs if run.seed == seed and run.pictures), None)
        if run:
            images, file = max(run.pictures.items())
            words = f"{run.metric} {number(run.final)}, {images:,} images"
            grids.append({"label": arm.label, "words": words, "png": base64.b64encode(file.read_bytes()).decode()})
    return grids


def _software(runs: list[Run]) -> str:
    def seen(key: str) -> str:
        return ", ".join(sorted({str(run.facts[key]) for run in runs if run.facts.get(key)})) or "unknown"

    return f"ganbench {seen('ganbench')} (commit {seen('commit')}), torch {seen('torch')}, on {seen('device')}"
