"""`python -m ganbench.bench`: one JSON document; `--part` for less of it."""

import argparse
import json
import platform
import sys

import torch

from ganbench.bench.costs import evaluation, first_step, memory, packing, peak, scaling
from ganbench.bench.frechet import frechet
from ganbench.bench.steps import METHODS, compared

PARTS = ("steps", "scaling", "start", "memory", "evaluation", "sweep", "frechet")


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
    usual = torch.get_num_threads()
    torch.set_num_threads(given.threads)
    device, parts = torch.device(given.device), given.part or PARTS
    told = {"machine": machine(device), "torch": torch.__version__, "threads": given.threads, "peak": peak(device)}
    if "steps" in parts:
        told["steps"] = [
            compared(method, model, given.width, 64, given.repeats, device)
            for model in ("dcgan", "resnet")
            for method in METHODS
        ]
    if "scaling" in parts:
        told["scaling"] = scaling(given.repeats, device)
    if "start" in parts:
        told["start"] = first_step(given.device)
    if "memory" in parts:
        told["memory"] = memory(given.width, device)
    if "evaluation" in parts:
        told["evaluation"] = evaluation(given.device)
    if "sweep" in parts:
        told["sweep"] = packing(given.device, usual)
    if "frechet" in parts:
        told["frechet"] = frechet()
    json.dump(told, sys.stdout, indent=1)
    print()


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
