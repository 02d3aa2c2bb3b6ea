"""Run the benchmark: `python -m ganbench.bench` prints one JSON document; `--part` measures only a part of it."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from ganbench.bench.costs import evaluation, frechet, memory, peak, scaling, start_up, sweep_throughput
from ganbench.bench.gpu import measure_gpu
from ganbench.bench.machine import machine
from ganbench.bench.steps import METHODS, MODELS, compare_step_time
from ganbench.config.compose import register
from ganbench.runs.identity import commit

DEFAULT_THREADS = torch.get_num_threads()  # before --threads sets another number


def steps(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    return [
        compare_step_time(method, model, options.width, 64, options.repeats, device)
        for model in MODELS
        for method in METHODS
    ]


PARTS: dict[str, Callable[[argparse.Namespace, torch.device], Any]] = {
    "peak": lambda options, device: peak(device),
    "steps": steps,
    "scaling": lambda options, device: scaling(options.repeats, device),
    "memory": lambda options, device: memory(options.width, device),
    "start": lambda options, device: start_up(options.device),
    "evaluation": lambda options, device: evaluation(options.device),
    "sweep": lambda options, device: sweep_throughput(options.device, DEFAULT_THREADS),
    "frechet": lambda options, device: frechet(),
}
GPU = "gpu"  # a part of its own, which nothing else is measured with


def main() -> None:
    options = _options()
    register()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    results: dict[str, Any] = {
        "commit": commit(),
        "machine": machine(device),
        "torch": torch.__version__,
        "threads": options.threads,
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        for part in options.part or PARTS:
            if part == GPU:
                results[part] = {}
                for name, found in measure_gpu(device):
                    results[part][name] = found
                    print(f"{name}: {found['took_seconds']} s", file=sys.stderr, flush=True)
            else:
                results[part] = PARTS[part](options, device)
    finally:  # what was measured before an error or a signal took minutes
        json.dump(results, sys.stdout, indent=1)
        print()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ganbench.bench", description="Benchmark step time, memory, start-up and sweeps."
    )
    part_help = "measure only this part (repeatable); gpu, what a GPU brings, only if it is named"
    parser.add_argument("--part", action="append", choices=[*PARTS, GPU], help=part_help)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU")
    parser.add_argument("--repeats", type=int, default=7, help="turns for each median")
    parser.add_argument("--width", type=int, default=64, help="channels of both nets")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error(f"--repeats {options.repeats}: quartiles need at least 2 turns")
    if GPU in (options.part or ()) and options.device != "cuda":
        parser.error("--part gpu: torch finds no GPU here")
    return options


if __name__ == "__main__":
    main()
