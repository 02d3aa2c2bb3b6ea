"""`python -m ganbench.evaluate RUN… --metric fid` scores trained generators by another metric, after the fact."""

import argparse
import re
from pathlib import Path
from typing import Any

from ganbench.errors import Refused
from ganbench.trained.command_line import Arguments, answered
from ganbench.trained.evaluations import FILE, compose_metric, with_metric
from ganbench.trained.folder import RunFolder, open_runs, tell_if_unfinished
from ganbench.trained.rescore import evaluate_once


def main() -> None:
    """Run the command line; exit with 2 if it is refused, before anything is computed."""
    with answered():
        options = _options()
        for run in _runs(options):
            print(_evaluate(run, options.force), flush=True)


def _options() -> argparse.Namespace:
    parser = Arguments(
        prog="python -m ganbench.evaluate",
        description=f"Score the averaged generators of runs by another metric, and record it in {FILE} of each.",
    )
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="RUN",
        help="folders of runs, or of sweeps with all their runs; and settings of the metric: metric.n_fake=5000",
    )
    parser.add_argument("--metric", required=True, help="an option of conf/metric, such as fid")
    parser.add_argument("--config-dir", type=Path, help="folder with your own options, as for ganbench itself")
    parser.add_argument("--force", action="store_true", help="compute again what is recorded already")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or auto (default: as each run)")
    return parser.parse_intermixed_args()  # settings may stand after flags


def _runs(options: argparse.Namespace) -> list[RunFolder]:
    """Return the runs with the metric that is to score them. Raise Refused if it does not fit one of them."""
    overrides = [text for text in options.arguments if re.match(r"[+~]*metric\.", text)]
    folders = [text for text in options.arguments if text not in overrides]
    for text in folders:
        if "=" in text and not Path(text).exists():
            raise Refused(
                f"{text} is neither a folder nor a setting of the metric; pass folders of runs, and settings such as "
                "metric.n_fake=5000."
            )
    if not folders:
        raise Refused("No run is named; pass one or more folders of runs, such as outputs/run/mine.")
    if options.config_dir and not options.config_dir.is_dir():
        raise Refused(f"--config-dir {options.config_dir} is not a folder; pass the folder of your own options.")
    runs = open_runs([Path(folder) for folder in folders], options.device)
    metric = compose_metric(options.metric, overrides, options.config_dir)
    return [with_metric(run, metric) for run in runs]


def _evaluate(run: RunFolder, force: bool) -> str:
    """Evaluate a run, unless the same is recorded; return a line that says the score."""
    tell_if_unfinished(run)
    evaluation, was_recorded = evaluate_once(run, force)
    if was_recorded:
        return f"{_line(run, evaluation)}, recorded on {evaluation['time']}; --force computes it again."
    return f"{_line(run, evaluation)}, recorded in {run.folder / FILE}."


def _line(run: RunFolder, evaluation: dict[str, Any]) -> str:
    """Say the score and its real-data reference, or why there is none."""
    name = evaluation["metric"]
    score = _score_or_reason(evaluation["scores"], name)
    reference = _score_or_reason(evaluation["real_reference"], name)
    protocol = evaluation.get("metric_protocol")
    taken = f"; {protocol['sentence']}" if protocol else f" of {evaluation['n_fake']:,} samples"
    return f"{run.folder}: {name} {score} (real data: {reference}){taken}"


def _score_or_reason(scores: dict[str, Any], name: str) -> str:
    value = scores[name]
    return f"{value:.4g}" if value is not None else f"none: {scores.get(f'{name}_why')}"


if __name__ == "__main__":
    main()
