"""report.html: a study as one page, beside results.md and results.csv."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ganbench.report import tables
from ganbench.report.figures import gradients, samples, scores, svg, training
from ganbench.report.load import Run
from ganbench.report.study import Study, load_study

HERE = Path(__file__).parent


def write(folder: Path, allowed: tuple[str, ...] = ()) -> str:
    """Write the three files into `folder` and return the text of results.md.

    Raises Unlike for runs whose footing differs, but for the fields `allowed`, which get a stamp.
    """
    return write_study(load_study(folder, allowed))


def write_study(found: Study) -> str:
    text = tables.markdown(found)
    (found.folder / "results.md").write_text(text, encoding="utf-8")
    (found.folder / "results.csv").write_text(tables.csv_of_runs(found.runs), encoding="utf-8")
    (found.folder / "report.html").write_text(page(found), encoding="utf-8")
    return text


def page(found: Study) -> str:
    shown = _scores(found) | _gradients(found) | _diversity(found) | _samples(found) | _training(found)
    return render(
        "page.html.j2",
        title=found.title,
        study=found,
        facts=_facts(found),
        runs=tables.all_runs(found),
        software=_software(found.runs),
        searched=found.searched,
        budgets=scores.budgets(found),
        **shown,
    )


def render(template: str, **what: Any) -> str:
    return _environment().get_template(template).render(light=svg.COLORS, dark=svg.COLORS_ON_DARK, **what)


@cache
def _environment() -> jinja2.Environment:
    here = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    here.filters |= {"number": tables.format_number, "tint": lambda index: index % len(svg.COLORS)}
    here.globals["text_of"] = lambda name: Markup((HERE / name).read_text(encoding="utf-8"))
    return here


def _facts(found: Study) -> dict[str, str]:
    """What a reader asks first."""
    config = found.config
    seeds = f"{len(found.seeds)} ({_listed(found.seeds)})" if found.seeds else "none that all methods share"
    return {
        "Track": f"{config['protocol']['name']}: {found.track}",
        "Seeds": seeds,
        "Budget": f"{config['protocol']['images']:,} real images a run",
        "Data and nets": f"{found.dataset}, {config['model']['name']}",
        "Runs": str(len(found.runs)),
        "Folder": found.folder.resolve().name,
    }


def _listed(seeds: list[int]) -> str:
    together = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if together else ", ".join(map(str, seeds))


def _scores(found: Study) -> dict[str, Any]:
    return {
        "heads": tables.HEADERS[:-1],  # the dots of the figure beside it are the last column
        "results": [row[:-1] for row in tables.results(found)],
        "finals": scores.finals(found),
        "scores": scores.scores(found),
        "costs": scores.COSTS,
        "differences": scores.differences(found),
        "wins": scores.wins(found) if found.pairs else None,
        "ranks": scores.ranks(found.arms) if len(found.arms) > 1 else None,
        "shares": scores.shares(found),
        "pair_heads": tables.PAIR_HEADERS,
        "pairs": tables.pairs(found),
        "n_fake": found.config["metric"].get("n_fake"),
    }


def _gradients(found: Study) -> dict[str, Any]:
    probes = gradients.probe_results(found)
    return {
        "probes": gradients.measured(found, probes),
        "probe_matrix": [[tables.text_cell(label), *cells] for label, cells in gradients.matrix(probes).items()],
        "occasions": [f"{critic}, {images:,}" for critic, images in gradients.probe_points(probes)],
        "probe_heads": gradients.HEADERS,
        "probe_table": gradients.table(probes),
        "probed": list(dict.fromkeys(probe.arm.label for probe in probes)),
        "probe_tints": {probe.label: found.tints[probe.arm.label] for probe in probes},
        "diagnostics": list(dict.fromkeys(probe.diagnostic for probe in probes if probe.diagnostic)),
        "closed_form": gradients.in_closed_form(found),
        "closed_tints": gradients.loss_colors(found),
        "vanished": gradients.VANISHED,
        "exploded": gradients.EXPLODED,
        "drawn_from": gradients.DRAWN_FROM,
    }


def _diversity(found: Study) -> dict[str, Any]:
    return {
        "diversity": training.diversity(found),
        "alike": training.too_much_alike(found),
        "side_heads": ["method", *tables.side_metrics(found)],
        "sides": tables.side_scores(found),
        "histograms": training.histograms(found),
    }


def _samples(found: Study) -> dict[str, Any]:
    films = samples.sample_histories(found)
    return {"films": films, "film_script": samples.slider_data(films), "moments": samples.evaluation_points(films)}


def _training(found: Study) -> dict[str, Any]:
    losses, logits = ("d_loss", "g_loss", "d_penalty"), ("d_real", "d_fake")
    return {
        "losses": training.by_arm(found, losses),
        "logits": training.by_arm(found, logits),
        "gradients": training.gradients(found),
        "strokes": {"losses": losses, "logits": logits},
    }


def _software(runs: Iterable[Run]) -> str:
    def seen(key: str) -> str:
        return ", ".join(sorted({str(run.facts[key]) for run in runs if run.facts.get(key)})) or "unknown"

    return f"ganbench {seen('ganbench')} (commit {seen('commit')}), torch {seen('torch')}, on {seen('device')}"
