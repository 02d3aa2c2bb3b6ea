"""What an iteration takes as it grows, and what a run takes beside its iterations."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ganbench.bench.steps import METHODS, composed, ganbench_iteration, images, seconds, time_interleaved


def peak(device: torch.device, n: int = 2048) -> dict[str, float]:
    """GFLOP/s of a product of two n x n matrices, the most that anything here could reach."""
    told = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.ones(n, n, dtype=dtype, device=device)
        taken = time_interleaved({name: partial(seconds, lambda a=a: a @ a, device)}, 5, device)["seconds"][name]
        told[name] = round(2 * n**3 / taken / 1e9, 1)
    return told


def scaling(repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Seconds and GFLOP/s of our iteration for wgan-gp in fp32, as batch, image, width or n_critic grow."""
    settings = [{}, {"batch": 16}, {"batch": 256}, {"side": 64}, {"width": 16}, {"width": 128}, {"n_critic": 5}]
    return [
        _scaled({"batch": 64, "side": 32, "width": 32, "n_critic": 1} | other, repeats, device) for other in settings
    ]


class NoModuleTracking(nullcontext):
    """In place of the counter's look at which module is at work, which gradients of gradients confuse."""

    parents = frozenset({"Global"})


def _scaled(of: dict[str, int], repeats: int, device: torch.device) -> dict[str, Any]:
    real = images(of["batch"], of["side"])
    call = ganbench_iteration(
        composed("wgan-gp", "dcgan", of["width"], real, f"protocol.n_critic={of['n_critic']}"), real, device
    )
    counted = FlopCounterMode(display=False)
    counted.mod_tracker = NoModuleTracking()
    with counted:
        call()
    taken = time_interleaved({"ours": partial(seconds, call, device)}, repeats, device)["seconds"]["ours"]
    flops = counted.get_total_flops()
    return of | {"seconds": taken, "gflop": flops / 1e9, "gflops": round(flops / taken / 1e9, 1)}


def memory(width: int, device: torch.device) -> dict[str, float]:
    """MB at the highest of three iterations on DCGAN, batch 64, each method in a process of its own."""
    context, real = multiprocessing.get_context("spawn"), images(64)
    with context.Pool(1, maxtasksperchild=1) as pool:
        of = {method: composed(method, "dcgan", width, real) for method in METHODS}
        return {method: pool.apply(_memory, (cfg, real, device)) for method, cfg in of.items()}


def _memory(cfg: DictConfig, real: Tensor, device: torch.device) -> float:
    call = ganbench_iteration(cfg, real, device)
    for _ in range(3):
        call()
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    # Of the whole process, torch with it. Not ru_maxrss, which begins with what the parent had.
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1.024 / 1e3, 1)


def first_step(device: str, repeats: int = 3) -> dict[str, float]:
    """Seconds from the command to its help, and to its first recorded training step, on embedded data."""
    return {
        "help": round(statistics.median(_help() for _ in range(repeats)), 2),
        "first_step": round(statistics.median(_first_step(device) for _ in range(repeats)), 2),
    }


def _help() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ganbench", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _first_step(device: str) -> float:
    with tempfile.TemporaryDirectory() as top:
        start = time.perf_counter()
        run = _begin(top, device, "protocol.log_every=1")
        records = Path(top, "outputs/run/bench/metrics.jsonl")
        while not (records.exists() and "d_loss" in records.read_text()):
            if run.poll() is not None:
                raise RuntimeError(f"the run ended with code {run.returncode} before its first step")
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        run.kill()
        run.wait()
    return seconds


def evaluation(device: str) -> dict[str, float]:
    """What evaluating, with pictures and checkpoints, takes of default runs, as a share of their training time."""
    datasets = ("mnist5k", "stacked_mnist5k", "ring", "grid")
    return {dataset: _share(device, f"dataset={dataset}") for dataset in datasets}


def _share(device: str, *overrides: str) -> float:
    with tempfile.TemporaryDirectory() as top:
        _finish(top, device, *overrides)
        status = json.loads(Path(top, "outputs/run/bench/status.json").read_text())
    return round(status["t_beside"] / status["t_train"], 3)


# Runs of about ten seconds each.
SHORT = {"mnist5k": ("protocol.images=12800",), "ring": ()}


def sweep_throughput(device: str, threads: int, repeats: int = 2) -> dict[str, Any]:
    """Runs an hour of sweeps of eight: one after another, each with the threads that torch takes by itself (`all`) or
    with one (`one`), and as many at a time as `sweep.parallel=auto` has room for.
    """
    ways = {"all": ("sweep.parallel=1", f"threads={threads}"), "one": ("sweep.parallel=1",), "auto": ()}
    told = {}
    for dataset, short in SHORT.items():
        rates = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                rates[name].append(8 / _sweep(device, f"dataset={dataset}", *short, *way) * 3600)
        more = {
            f"times_{name}": [round(auto / rate, 2) for auto, rate in zip(rates["auto"], rates[name], strict=True)]
            for name in ("all", "one")
        }
        told[dataset] = {"runs_per_hour": {name: round(statistics.median(each)) for name, each in rates.items()}} | more
    return told


def _sweep(device: str, *overrides: str) -> float:
    """Seconds, of gan and wgan-gp at four seeds."""
    with tempfile.TemporaryDirectory() as top:
        start = time.perf_counter()
        eight = ("--multirun", "loss=gan,wgan-gp", "seed=0,1,2,3", "protocol.evaluations=1")
        _finish(top, device, *eight, *overrides)
        return time.perf_counter() - start


def _finish(top: str, device: str, *overrides: str) -> None:
    code = _begin(top, device, *overrides).wait()
    if code:
        raise RuntimeError(f"ganbench {' '.join(overrides)} ended with code {code}")


def _begin(top: str, device: str, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ganbench", *overrides, "name=bench", f"device={device}"]
    path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, cwd=top, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
