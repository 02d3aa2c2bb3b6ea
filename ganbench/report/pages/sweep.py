"""Write report.html, results.md and results.csv of a sweep."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.report import latex, tables
from ganbench.report.figures import gradients, samples, scores, training
from ganbench.report.figures.svg import Figure
from ganbench.report.load import Run
from ganbench.report.pages.templates import render
from ganbench.report.study import Study, load_study, shortened


def write(folder: Path, allowed: tuple[str, ...] = ()) -> str:
    """Write the three files into `folder` and return the text of results.md.

    Raise NotComparable for runs whose footing differs, except in the fields `allowed`, which are noted on the page.
    """
    return write_study(load_study(folder, allowed))


def write_study(study: Study) -> str:
    text = tables.markdown(study)
    files = {"report.html": page(study), "results.md": text, "results.csv": tables.csv_of_runs(study.runs)}
    write_files(study.folder, files)
    return text


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write texts into a folder; raise Refused if that cannot be done."""
    for name, text in files.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, text.encode(errors="backslashreplace"))  # of names that are no UTF-8
        except OSError as error:
            reason = f"{folder / name} cannot be written ({error.strerror})"
            raise Refused(f"{reason}; make room for it, or report a copy of the folder.") from None


def page(study: Study) -> str:
    """Return the text of report.html."""
    folder = study.folder.resolve().name
    parts = _parts(study) | _runs(study)
    return render("page.html.j2", title=study.title, folder=folder, study=study, **parts)


def _parts(study: Study) -> dict[str, Any]:
    sections = (_scores, _gradients, _diversity, _samples, _training, _search)
    return {name: part for section in sections for name, part in section(study).items()}


def figures(study: Study) -> dict[str, Figure]:
    """Return all figures of the page, by name."""
    found = [figure for part in _parts(study).values() for figure in _figures_in(part)]
    return {figure.name: figure for figure in found}


def _figures_in(part: Any) -> list[Figure]:
    """Return the figures that a part of the page has: one, a list, or some by name."""
    if isinstance(part, dict):
        part = list(part.values())
    return [each for each in (part if isinstance(part, list) else [part]) if isinstance(each, Figure)]


def _scores(study: Study) -> dict[str, Any]:
    return {
        "facts": _facts(study),
        "headers": tables.headers(study)[:-1],  # the dots of the figure below are the last column
        "results": [row[:-1] for row in tables.results(study)],
        "results_csv": tables.csv_of_results(study),
        "results_latex": latex.results(study),
        "real_reference": tables.format_number(study.real_reference),
        "n_fake": study.config["metric"].get("n_fake"),
        "finals": scores.finals(study),
        "scores": scores.scores(study),
        "costs": scores.COSTS,
        "gaps": scores.gaps_to_best(study),
        "profile": scores.profile(study),
        "win_rates": scores.win_rates(study) if study.comparisons else None,
        "ranks": scores.ranks(study.methods) if len(study.methods) > 1 else None,
        "pair_headers": tables.PAIR_HEADERS,
        "pairs": tables.pairs(study),
    }


def _facts(study: Study) -> dict[str, str]:
    """Return what a reader asks first."""
    config = study.config
    seeds = f"{len(study.seeds)} ({_ranges(study.seeds)})" if study.seeds else "none that all methods share"
    return {
        "Track": f"{config['protocol']['name']}: {study.track}",
        "Seeds": seeds,
        "Budget": f"{config['protocol']['images']:,} real images a run",
        "Dataset and model": f"{study.dataset}, {config['model']['name']}",
        "Runs": str(len(study.runs)),
        "Folder": study.folder.resolve().name,
    }


def _ranges(seeds: list[int]) -> str:
    """List seeds; as a range if they are four or more in a row."""
    is_range = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if is_range else shortened([str(seed) for seed in seeds])


def _gradients(study: Study) -> dict[str, Any]:
    results = gradients.probe_results(study)
    matrix = gradients.matrix(results)
    return {
        "probes": gradients.measured(study, results),
        "probe_points": gradients.probe_points(results),
        "probe_matrix": [[tables.text_cell(label), *cells] for label, cells in matrix.items()],
        "probe_headers": gradients.HEADERS,
        "probe_table": gradients.table(results),
        "probed_methods": list(dict.fromkeys(result.method.label for result in results)),
        "probe_colors": {result.label: study.color_index[result.method.label] for result in results},
        "diagnostics": list(dict.fromkeys(result.diagnostic for result in results if result.diagnostic)),
        "closed_form": gradients.in_closed_form(study),
        "loss_colors": gradients.loss_colors(study),
        "vanished": gradients.VANISHED,
        "exploded": gradients.EXPLODED,
        "smallest_drawn": gradients.SMALLEST_DRAWN,
    }


def _diversity(study: Study) -> dict[str, Any]:
    return {
        "diversity": training.diversity(study),
        "low_diversity": training.low_diversity(study),
        "other_headers": ["method", *tables.other_metrics(study)],
        "other_scores": tables.other_scores(study),
        "histograms": training.histograms(study),
    }


def _samples(study: Study) -> dict[str, Any]:
    histories = samples.sample_histories(study)
    return {
        "histories": histories,
        "slider_data": samples.slider_data(histories),
        "evaluation_points": samples.evaluation_points(histories),
    }


def _training(study: Study) -> dict[str, Any]:
    return {
        "losses": training.by_method(study, training.LOSS_NAMES),
        "logits": training.by_method(study, training.LOGIT_NAMES),
        "gradients": training.gradients(study),
    }


def _search(study: Study) -> dict[str, Any]:
    return {"expected_best": scores.expected_best(study), "search_tables": study.search_tables}


def _runs(study: Study) -> dict[str, Any]:
    rows = tables.unfinished_runs(study) if study.has_many_runs else tables.all_runs(study)
    return {"run_headers": tables.run_headers(study), "runs": rows, "software": _software(study.runs)}


def _software(runs: Iterable[Run]) -> str:
    """Name the versions and devices of the runs."""

    def values(key: str) -> str:
        return ", ".join(sorted({str(run.facts[key]) for run in runs if run.facts.get(key)})) or "unknown"

    return f"ganbench {values('ganbench')} (commit {values('commit')}), torch {values('torch')}, on {values('device')}"
