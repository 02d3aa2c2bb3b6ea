"""`python -m ganbench.bench`: one JSON document; `--part` for less of it."""

import argparse
import json
import platform
import sys
from typing import Any

import torch

from ganbench.bench.costs import evaluation, first_step, memory, peak, scaling, sweep_throughput
from ganbench.bench.frechet import frechet
from ganbench.bench.steps import METHODS, compare_step_time
from ganbench.config.compose import register

USUAL_THREADS = torch.get_num_threads()


def steps(given: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    nets = [(model, method) for model in ("dcgan", "resnet") for method in METHODS]
    return [compare_step_time(method, model, given.width, 64, given.repeats, device) for model, method in nets]


PARTS = {
    "peak": lambda given, device: peak(device),
    "steps": steps,
    "scaling": lambda given, device: scaling(given.repeats, device),
    "memory": lambda given, device: memory(given.width, device),
    "start": lambda given, device: first_step(given.device),
    "evaluation": lambda given, device: evaluation(given.device),
    "sweep": lambda given, device: sweep_throughput(given.device, USUAL_THREADS),
    "frechet": lambda given, device: frechet(),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ganbench.bench", description="What things cost, in pairs.")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this (may be given again); all if left out"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--repeats", type=int, default=7, help="pairs for each median")
    parser.add_argument("--width", type=int, default=64, help="channels of both nets")
    given = parser.parse_args()
    if given.repeats < 2:
        parser.error(f"--repeats {given.repeats}: quartiles need 2 pairs or more")
    register()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    told = {"machine": machine(device), "torch": torch.__version__, "threads": given.threads}
    try:
        for part in given.part or PARTS:
            told[part] = PARTS[part](given, device)
    finally:  # what was measured before something went wrong took minutes
        json.dump(told, sys.stdout, indent=1)
        print()


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
