"""report.html, results.md and results.csv."""

import base64
import csv
import io
import math
from pathlib import Path

import jinja2
from markupsafe import Markup

from ganbench.report import figures
from ganbench.report.compare import Arm, arms, differences, paired, t_interval, verdict
from ganbench.report.read import Run, read

HEADS = (
    "method",
    "seeds",
    "final, each seed",
    "mean",
    "95 % interval",
    "best on the way",
    "seconds",
    "images/s",
    "behind the first",
)


def write(folder: Path) -> str:
    """Write the three files into `folder` and return the text of results.md."""
    runs = read(folder)
    found = arms(runs)
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no readable run; name the folder of a sweep, such as outputs/sweep/mine."
        )
    text = markdown(runs, found)
    (folder / "results.md").write_text(text, encoding="utf-8")
    (folder / "results.csv").write_text(table_of_runs(runs), encoding="utf-8")
    (folder / "report.html").write_text(page(folder, runs, found), encoding="utf-8")
    return text


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where people would not write one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(found: list[Arm]) -> list[list[str]]:
    """Heads, then a row for each arm, the best first."""
    return [list(HEADS)] + [_row(arm, found[0]) for arm in found]


def troubles(runs: list[Run], found: list[Arm]) -> list[str]:
    """What a reader must know before believing the table."""
    said = []
    for what, values in (
        ("metrics", {run.metric for run in runs if run.metric}),
        ("datasets", {run.config["dataset"]["name"] for run in runs if run.config}),
    ):
        if len(values) > 1:
            said.append(f"The runs are of different {what} ({', '.join(sorted(values))}): the rows cannot be ranked.")
    seeds = {tuple(sorted(arm.finals)) for arm in found}
    if len(seeds) > 1:
        said.append("The methods were run with different seeds; paired differences use the seeds that both have.")
    for arm in found:
        seen = [run.seed for run in arm.runs]
        if len(set(seen)) < len(seen):
            said.append(f"{arm.label} holds several runs of one seed; paired differences use the first of each.")
    for run in runs:
        if run.status == "finished" and run.facts.get("score") is None:
            said.append(f"{run.folder.name}: finished without a score ({_why(run)}).")
        if run.status != "finished":
            said.append(f"{run.folder.name}: {run.status}{f' ({run.reason})' if run.reason else ''}.")
    return said


def _why(run: Run) -> str:
    reasons = [row[key] for row in run.rows if (key := f"{run.metric}_why") in row]
    return reasons[-1] if reasons else "no reason given"


def markdown(runs: list[Run], found: list[Arm]) -> str:
    lines = [f"# {_title(found)}", "", _subtitle(runs, found), "", *verdict(found, _metric(found)), ""]
    lines += [f"- {trouble}" for trouble in troubles(runs, found)] + [""]
    sides = side_scores(found)
    beside = f"\nOther scores at the end, mean over seeds:\n\n{markdown_table(sides)}" if sides else ""
    return "\n".join(lines) + "\n" + markdown_table(table(found)) + beside


def side_scores(found: list[Arm]) -> list[list[str]]:
    """What else the metric measured at the end, each arm's mean over its finished runs; last what real data get."""
    floor = found[0].runs[0].facts.get("floor") or {}
    names = [name for name in floor if name != _metric(found) and not name.endswith("_why")]
    if not names:
        return []
    rows = [[arm.label, *(number(_mean_end(arm, name)) for name in names)] for arm in found]
    return [["method", *names], *rows, ["real data", *(number(floor[name]) for name in names)]]


def _mean_end(arm: Arm, name: str) -> float | None:
    ends = [values[-1] for run in arm.runs if run.status == "finished" and (values := run.curve(name)[1])]
    return sum(ends) / len(ends) if ends else None


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


def page(folder: Path, runs: list[Run], found: list[Arm]) -> str:
    metric, floor = _metric(found), _floor(found)
    drawn = {
        "scores": figures.scores(found, metric, floor),
        "finals": figures.finals(found, metric, floor),
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
        troubles=troubles(runs, found),
        differing=list(zip([arm.label for arm in found], differing, strict=True)) if differing[0] else [],
        metric_words=_metric_words(metric, found, floor),
        table=table(found),
        sides=side_scores(found),
        colour=figures.colour,
        figures={name: Markup(svg) for name, svg in drawn.items()},
        grids=_grids(found, seed),
        grid_seed=seed,
        runs=runs,
        software=_software(runs),
    )


def _row(arm: Arm, first: Arm) -> list[str]:
    gaps = paired(arm, first)
    gap, around = (sum(gaps) / len(gaps) if gaps else None), t_interval(gaps)
    behind = number(gap) + (f" ({_span(around)})" if around else "")
    each = [number(r.final) if math.isfinite(r.final) else r.status.replace("finished", "no score") for r in arm.runs]
    return [
        arm.label,
        str(len(arm.runs)),
        ", ".join(each),
        number(arm.mean),
        _span(arm.interval) if arm.interval else "–",
        number(arm.best),
        number(arm.seconds),
        number(arm.speed),
        "" if arm is first else behind,
    ]


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
        f"{config['protocol']['images']:,} real images a run · protocol {config['protocol']['name']}"
    )


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
