"""Markdown tables of recorded benchmarks. Needs no torch.

`bench` is the document that `python -m ganbench.bench` prints, `gpu` the one with `--part gpu`, and `precision` the
scores of runs in fp32 and bf16.
"""

from statistics import mean, stdev
from typing import Any

from scipy.stats import ttest_ind

PRECISIONS = ("fp32", "bf16", "bf16_all")


def tables(bench: dict[str, Any], precision: dict[str, Any], gpu: dict[str, Any]) -> dict[str, str]:
    """Return every table by its name."""
    return {
        "machine": machine_table(bench),
        "step-time": step_time_table(bench),
        "peer": peer_table(bench),
        "sweep": sweep_table(bench),
        "start": start_table(bench),
        "evaluation": evaluation_table(bench),
        "precision": precision_table(precision),
        "gpu": gpu_table(gpu),
    }


def machine_table(bench: dict[str, Any]) -> str:
    heads = ["commit", "machine", "torch", "threads", "matrix product, fp32", "matrix product, bf16"]
    rates = [f"{bench['peak'][dtype]:.0f} GFLOP/s" for dtype in ("fp32", "bf16")]
    return _table(heads, [[f"`{bench['commit']}`", bench["machine"], bench["torch"], str(bench["threads"]), *rates]])


def step_time_table(bench: dict[str, Any]) -> str:
    """Show how many times faster than the textbook's iteration each variant is, by net and method."""
    variants = [name for name in bench["steps"][0]["seconds"] if name != "textbook"]
    rows = [
        [step["model"], step["method"], _textbook_time(step), *(_times_faster(step, name) for name in variants)]
        for step in bench["steps"]
    ]
    return _table(["net", "method", "textbook", *variants], rows)


def _textbook_time(step: dict[str, Any]) -> str:
    return f"{1000 * step['seconds']['textbook']:.0f} ms"


def _times_faster(step: dict[str, Any], name: str) -> str:
    return f"{step[name]['times_faster']:.2f}"


def peer_table(bench: dict[str, Any]) -> str:
    """Show other libraries' iterations, likewise."""
    rows = [
        [name, step["model"], step["method"], _times_faster(step, name)]
        for step in bench["steps"]
        for name in step["seconds"]
        if "mimicry" in name
    ]
    return _table(["library", "net", "method", "times faster than the textbook"], rows)


def sweep_table(bench: dict[str, Any]) -> str:
    heads = ["dataset", "one at a time, 2 threads", "one at a time, 1 thread", "`sweep.parallel=auto`"]
    heads += ["auto vs. 2 threads", "auto vs. 1 thread"]
    return _table(heads, [[dataset, *_sweep_cells(sweep)] for dataset, sweep in bench["sweep"].items()])


def _sweep_cells(sweep: dict[str, Any]) -> list[str]:
    rates = [str(sweep["runs_per_hour"][mode]) for mode in ("all", "one", "auto")]
    speedups = [f"{min(times):.2f} to {max(times):.2f}" for times in (sweep["times_all"], sweep["times_one"])]
    return rates + speedups


def start_table(bench: dict[str, Any]) -> str:
    start = bench["start"]
    return _table(
        ["from the command to", "seconds"],
        [["`--help`", f"{start['help']:.1f}"], ["the first training step", f"{start['first_step']:.1f}"]],
    )


def evaluation_table(bench: dict[str, Any]) -> str:
    rows = [[dataset, f"{100 * share:.1f} %"] for dataset, share in bench["evaluation"].items()]
    return _table(["dataset", "share of the training time"], rows)


def precision_table(precision: dict[str, Any]) -> str:
    """Show mean and standard deviation of final scores over seeds, and Welch's p of the difference from fp32."""
    heads = ["method", *PRECISIONS, "p, bf16 vs. fp32", "p, bf16_all vs. fp32"]
    return _table(heads, [[method, *_precision_cells(scores)] for method, scores in precision["scores"].items()])


def _precision_cells(scores: dict[str, list[float]]) -> list[str]:
    means = [f"{mean(scores[name]):.2f} ± {stdev(scores[name]):.2f}" for name in PRECISIONS]
    p_values = [f"{welch_p(scores[name], scores['fp32']):.2f}" for name in PRECISIONS[1:]]
    return means + p_values


def welch_p(a: list[float], b: list[float]) -> float:
    """Return the p value of Welch's t-test for equal means."""
    return float(ttest_ind(a, b, equal_var=False).pvalue)


def gpu_table(document: dict[str, Any]) -> str:
    """Show what an evaluation with FID takes."""
    card = document["gpu"]["card"]
    evaluation = document["gpu"]["evaluation"]
    parts = ("building", "scoring", "features", "distance")
    heads = ["commit", "card", "torch", "samples"]
    heads += ["features of real data", "an evaluation", "of which features", "and distance"]
    seconds = [f"{evaluation[f'{part}_seconds']:.2g} s" for part in parts]
    cells = [f"`{document['commit']}`", card["gpu"], document["torch"], f"{evaluation['samples']:,}", *seconds]
    return _table(heads, [cells])


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
