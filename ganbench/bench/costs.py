"""Costs of an iteration as it grows, and of everything that a run does besides its iterations."""

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

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ganbench.bench.steps import METHODS, compose_run, ganbench_iteration, random_images, seconds, time_interleaved
from ganbench.conformance.metrics import distance_by_sqrtm
from ganbench.metrics.frechet import Moments, distance, moments, root


def peak(device: torch.device, n: int = 2048) -> dict[str, float]:
    """Return GFLOP/s of a product of two n x n matrices, an upper limit of what any iteration could reach."""
    return {"fp32": _matmul_rate(torch.float32, device, n), "bf16": _matmul_rate(torch.bfloat16, device, n)}


def _matmul_rate(dtype: torch.dtype, device: torch.device, n: int) -> float:
    a = torch.ones(n, n, dtype=dtype, device=device)
    timings = time_interleaved({"product": partial(seconds, partial(torch.matmul, a, a), device)}, 5, device)
    return round(2 * n**3 / timings["seconds"]["product"] / 1e9, 1)


def scaling(repeats: int, device: torch.device, batch: int = 64, width: int = 32) -> list[dict[str, Any]]:
    """Return seconds and GFLOP/s of wgan-gp's iteration in fp32 as batch, image, width or n_critic change."""
    base = {"batch": batch, "side": 32, "width": width, "n_critic": 1}
    changes: list[dict[str, int]] = [
        {},
        {"batch": batch // 4},
        {"batch": batch * 4},
        {"side": 64},
        {"width": width // 2},
        {"width": width * 4},
        {"n_critic": 5},
    ]
    return [_iteration_cost(base | change, repeats, device) for change in changes]


class NoModuleTracking(nullcontext):
    """Replaces the FLOP counter's tracking of modules, which fails on gradients of gradients."""

    parents = frozenset({"Global"})


def _iteration_cost(size: dict[str, int], repeats: int, device: torch.device) -> dict[str, Any]:
    real = random_images(size["batch"], size["side"])
    cfg = compose_run("wgan-gp", "dcgan", size["width"], real, f"protocol.n_critic={size['n_critic']}")
    iteration = ganbench_iteration(cfg, real, device)
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModuleTracking()  # type: ignore[assignment]
    with counter:
        iteration()
    flops = counter.get_total_flops()
    timings = time_interleaved({"ganbench": partial(seconds, iteration, device)}, repeats, device)
    median = timings["seconds"]["ganbench"]
    return size | {"seconds": median, "gflop": flops / 1e9, "gflops": round(flops / median / 1e9, 1)}


def memory(width: int, device: torch.device) -> dict[str, float]:
    """Return each method's peak memory in MB over three iterations on DCGAN at batch 64, in a process of its own."""
    real = random_images(64)
    configs = {method: compose_run(method, "dcgan", width, real) for method in METHODS}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {method: pool.apply(_peak_memory, (cfg, real, device)) for method, cfg in configs.items()}


def _peak_memory(cfg: DictConfig, real: Tensor, device: torch.device) -> float:
    iteration = ganbench_iteration(cfg, real, device)
    for _ in range(3):
        iteration()
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    # Of the whole process, torch included. Not ru_maxrss, which starts with the parent's value.
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return round(kibibytes * 1.024 / 1e3, 1)


def start_up(device: str, repeats: int = 3) -> dict[str, float]:
    """Return seconds from the command to its help, and to its first recorded training step, on embedded data."""
    return {
        "help": round(statistics.median(_seconds_to_help() for _ in range(repeats)), 2),
        "first_step": round(statistics.median(_seconds_to_first_step(device) for _ in range(repeats)), 2),
    }


def _seconds_to_help() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ganbench", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _seconds_to_first_step(device: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = _start_ganbench(folder, device, "protocol.log_every=1")
        records = Path(folder, "outputs/run/bench/metrics.jsonl")
        while not (records.exists() and "d_loss" in records.read_text()):
            if run.poll() is not None:
                raise RuntimeError(f"the run exited with code {run.returncode} before its first step")
            time.sleep(0.01)
        elapsed = time.perf_counter() - start
        run.kill()
        run.wait()
    return elapsed


def evaluation(device: str) -> dict[str, float]:
    """Return the time for evaluations, samples and checkpoints of default runs as a share of their training time."""
    datasets = ("mnist5k", "stacked_mnist5k", "ring", "grid")
    return {dataset: _evaluation_share(device, f"dataset={dataset}") for dataset in datasets}


def _evaluation_share(device: str, *overrides: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run_ganbench(folder, device, *overrides)
        status = json.loads(Path(folder, "outputs/run/bench/status.json").read_text())
    return round(status["t_other"] / status["t_train"], 3)


# Overrides for runs of about ten seconds.
TEN_SECONDS: dict[str, tuple[str, ...]] = {"mnist5k": ("protocol.images=12800",), "ring": ()}
N_RUNS = 8


def sweep_throughput(device: str, threads: int, repeats: int = 2) -> dict[str, Any]:
    """Return the runs per hour of sweeps of eight, start-up included, and how much faster `auto` is than the others.

    `all`: one run at a time, with the threads that torch uses by default; `one`: one at a time with one thread;
    `auto`: sweep.parallel=auto.
    """
    modes = {"all": ("sweep.parallel=1", f"threads={threads}"), "one": ("sweep.parallel=1",), "auto": ()}
    return {dataset: _dataset_throughput(device, dataset, modes, repeats) for dataset in TEN_SECONDS}


def _dataset_throughput(device: str, dataset: str, modes: dict[str, tuple[str, ...]], repeats: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(repeats):
        for name, overrides in modes.items():
            elapsed = _sweep_seconds(device, f"dataset={dataset}", *TEN_SECONDS[dataset], *overrides)
            rates[name].append(N_RUNS / elapsed * 3600)
    return {
        "runs_per_hour": {name: round(statistics.median(each)) for name, each in rates.items()},
        "times_all": _ratios(rates["auto"], rates["all"]),
        "times_one": _ratios(rates["auto"], rates["one"]),
    }


def _ratios(rates: list[float], baseline: list[float]) -> list[float]:
    return [round(a / b, 2) for a, b in zip(rates, baseline, strict=True)]


def _sweep_seconds(device: str, *overrides: str) -> float:
    """Time a sweep of gan and wgan-gp at four seeds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep = ("--multirun", "loss=gan,wgan-gp", "seed=0,1,2,3", "protocol.evaluations=1")
        run_ganbench(folder, device, *sweep, *overrides)
        return time.perf_counter() - start


def run_ganbench(folder: str, device: str, *overrides: str) -> None:
    exit_code = _start_ganbench(folder, device, *overrides).wait()
    if exit_code:
        raise RuntimeError(f"ganbench {' '.join(overrides)} exited with code {exit_code}")


def _start_ganbench(folder: str, device: str, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ganbench", *overrides, "name=bench", f"device={device}"]
    path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def frechet(d: int = 2048, n: int = 2500, repeats: int = 3) -> dict[str, float]:
    """Time the Fréchet distance of d features, compared with scipy's root of the product of covariances."""
    a, b = (_normal_moments(seed, n, d) for seed in range(2))
    root_a = root(a.cov)  # of the real data, computed once per run
    ours = _median_seconds(partial(distance, a, b), repeats)
    ours_with_root = _median_seconds(partial(distance, a, b, root_a), repeats)
    scipys = _median_seconds(partial(distance_by_sqrtm, a, b), repeats)
    return {
        "features": d,
        "seconds": round(ours, 3),
        "seconds_with_the_real_root_cached": round(ours_with_root, 3),
        "seconds_by_sqrtm": round(scipys, 3),
        "ratio": round(ours / scipys, 3),
        "ratio_with_the_real_root_cached": round(ours_with_root / scipys, 3),
    }


def _normal_moments(seed: int, n: int, d: int) -> Moments:
    return moments(torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d))))


def _median_seconds(call: partial[float], repeats: int) -> float:
    return statistics.median(seconds(call, torch.device("cpu"))[0] for _ in range(repeats))
