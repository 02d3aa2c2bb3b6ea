"""Time the methods of a sweep in turns: `python -m ganbench.bench.methods FOLDER` writes FOLDER/timing.json."""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from ganbench.bench.machine import machine
from ganbench.bench.steps import Iteration, WorkerProcess, time_interleaved
from ganbench.config.compose import load_config, register
from ganbench.errors import Refused
from ganbench.report import cost
from ganbench.report.compare import Method, group_by_method
from ganbench.report.load import load_runs
from ganbench.runs.identity import method_code_digest, shared_code_digest
from ganbench.training.batches import Batches
from ganbench.training.device import choose_device, configure_process
from ganbench.training.iteration import make_iteration
from ganbench.training.players import make_players
from ganbench.training.run import load_data, make_objective
from ganbench.training.schedule import make_schedule


def main() -> None:
    options = _options()
    register()
    # A run that finished shows that its method does not diverge in what is timed.
    methods = [method for method in group_by_method(load_runs(options.folder)) if method.finished]
    if not methods:
        sys.exit(f"{options.folder} has no finished run to time.")
    try:
        timing = time_methods(methods, options.updates, options.turns)
    except Refused as error:
        sys.exit(str(error))
    except EOFError:  # a process of a method has ended
        sys.exit("A method could not be timed; the error above says why.")
    (options.folder / cost.FILE).write_text(json.dumps(timing, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ganbench.bench.methods", description="Time the methods of a sweep in turns."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=20, help="generator updates in each turn")
    parser.add_argument("--turns", type=int, default=10, help="turns of each method")
    return parser.parse_args()


def time_methods(methods: list[Method], updates: int, turns: int) -> dict[str, Any]:
    """Return the seconds that a run of each method takes, from the median of its turns; in `seconds`, by label."""
    load = _load_average()
    configurations = {method.label: load_config(method.finished[0].folder / "config.yaml") for method in methods}
    device = choose_device(next(iter(configurations.values())))
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(methods) * (turns + 1), desc="timing", unit="turn"))
        timed = {}
        for label, cfg in configurations.items():
            worker = stack.enter_context(WorkerProcess(partial(updates_of, cfg, updates), device))
            timed[label] = partial(_turn, worker, bar)
        medians = time_interleaved(timed, turns, device)["seconds"]
    seconds = {label: medians[label] / updates * make_schedule(cfg, ()).steps for label, cfg in configurations.items()}
    return {
        "machine": machine(device),
        "torch": torch.__version__,
        "load_average": load,
        "timed": {
            method.label: cost.what_is_timed(method.runs[0].method, shared_code_digest(cfg), method_code_digest(cfg))
            for method, cfg in zip(methods, configurations.values(), strict=True)
        },
        "updates": updates,
        "turns": turns,
        "seconds": seconds,
    }


def _turn(worker: WorkerProcess, bar: tqdm) -> tuple[float, float]:
    bar.update()
    return worker()


def updates_of(cfg: DictConfig, updates: int, device: torch.device) -> Iteration:
    """Return a function that makes so many generator updates of a run, and the critic updates that belong to them."""
    configure_process(cfg, device)
    data = load_data(cfg, device)
    players = make_players(cfg, device)
    objective = make_objective(cfg, device, players.D, data)
    batches = Batches(cfg, data.train)
    iteration = make_iteration(cfg, players, objective, batches)
    steps = count()

    def turn() -> None:
        for _ in range(updates):
            iteration(batches(next(steps)))

    return turn


def _load_average() -> float | None:
    """Return how many processes were busy on average in the last minute; None on systems that do not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
