"""Whole iterations (one critic update, one generator update, the average) against the textbook's, in turns."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench.bench import peer, textbook
from ganbench.config.compose import build, compose_config
from ganbench.training.batches import draw_batch
from ganbench.training.cuda_graphs import CudaGraphIteration
from ganbench.training.device import autocast_and_penalty, chosen_memory_format, keep_freed_memory
from ganbench.training.players import make_players
from ganbench.training.steps import iteration

Z_DIM = 128
METHODS = ("gan", "hinge", "wgan-gp", "dragan")
NETS = {"dcgan": ("model=dcgan",), "resnet": ("model=resnet", "model.critic_norm=none")}
PLAIN = {
    "dcgan": ("speed.fused_optimizer=false",),
    "resnet": ("speed.fused_optimizer=false", "model.fuse_rescaling=false", "model.fast_double_backward=false"),
}

# What a run is told besides, by the names that the results have.
FP32, LAST = (), ("speed.channels_last=true",)
BF16, ALL = (*LAST, "precision=bf16"), (*LAST, "precision=bf16_all")
REUSED, GRAPHS = (*ALL, "protocol.reuse_fakes=true"), "speed.graphs=true"
EVERYWHERE = {
    "fp32": FP32,
    "fp32, channels_last": LAST,
    "bf16, channels_last": BF16,
    "bf16_all, channels_last": ALL,
    "bf16_all, channels_last, reuse_fakes": REUSED,
}
ON_A_GPU = {
    "fp32, graphs": (*FP32, GRAPHS),
    "bf16_all, channels_last, graphs": (*ALL, GRAPHS),
    "bf16_all, channels_last, graphs, reuse_fakes": (*REUSED, GRAPHS),
}


def composed(method: str, model: str, width: int, real: Tensor, *told: str) -> DictConfig:
    """The configuration of a run whose batches are such as `real` [N, 3, S, S]."""
    n, *shape = real.shape
    images = (f"protocol.batch={n}", "dataset=cifar10", f"dataset.shape={shape}")
    nets = (*NETS[model], f"model.width={width}", f"model.z_dim={Z_DIM}")
    return compose_config(f"loss={method}", *images, *nets, *told, "name=bench")


def textbook_iteration(method: str, cfg: DictConfig, real: Tensor, device: torch.device) -> Callable[[], None]:
    """The textbook's iteration, with the players of `cfg`."""
    G, D, _, opt_g, opt_d = make_players(cfg, device)
    real = real.to(device)
    return lambda: textbook.step(method, G, D, opt_g, opt_d, real, cfg.model.z_dim)


def ganbench_iteration(cfg: DictConfig, real: Tensor, device: torch.device) -> Callable[[], None]:
    """A run's iteration, as train.py makes it, in a process that it leaves as train.py does."""
    keep_freed_memory()
    players = make_players(cfg, device)
    autocast, penalty = autocast_and_penalty(cfg.precision, device, build(cfg.penalty))
    stored, steps = real.to(device, memory_format=chosen_memory_format(cfg)), count()
    parts = {
        "players": players,
        "loss": build(cfg.loss),
        "penalty": penalty,
        "autocast": autocast,
    }
    iterate = partial(iteration, **parts, decay=cfg.protocol.ema, reuse=cfg.protocol.reuse_fakes)
    if cfg.speed.graphs:
        iterate = CudaGraphIteration(iterate, players, draw_batch(cfg, stored, 0))
    return lambda: iterate(draw_batch(cfg, stored, next(steps)))


Timed = Callable[[], tuple[float, float]]  # runs something; tells the seconds until all is done, and the host's


def time_interleaved(timed: dict[str, Timed], repeats: int, device: torch.device) -> dict[str, Any]:
    """Median seconds of each, and for all but the first how many times faster they are than the first: median and
    quartiles of the ratios of neighbours. On a GPU also for how much of that the host was busy.
    """
    for each in timed.values():
        each()
    times, busy = {name: [] for name in timed}, {name: [] for name in timed}
    for _ in range(repeats):
        for name, each in timed.items():
            whole, host = each()
            times[name].append(whole)
            busy[name].append(host)
    first = next(iter(timed))
    told: dict[str, Any] = {"seconds": {name: round(statistics.median(t), 6) for name, t in times.items()}}
    if device.type == "cuda":
        told["host_seconds"] = {name: round(statistics.median(t), 6) for name, t in busy.items()}
    for name in [name for name in timed if name != first]:
        ratios = [a / b for a, b in zip(times[first], times[name], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        told[name] = {"times_faster": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]}
    return told


class WorkerProcess:
    """A call in a process of its own, where no other has left memory as it finds it; as a context, until its end."""

    def __init__(self, make: Callable[..., Callable[[], None]], device: torch.device):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ganbench.bench.steps"])
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, torch.get_num_threads(), make, device))
        self.process.start()
        theirs.close()

    def __call__(self) -> tuple[float, float]:
        self.ours.send("now")
        return self.ours.recv()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.process.join()


def _serve(asked: Connection, threads: int, make: Callable, device: torch.device) -> None:
    torch.set_num_threads(threads)
    call = make(device=device)
    call()  # besides what in_turns does first: it is the second that finds memory as all later ones do
    try:
        while asked.recv():
            asked.send(seconds(call, device))
    except EOFError:  # that was all
        pass


def seconds(call: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Until all is done, and until the host is free again."""
    _wait(device)
    start = time.perf_counter()
    call()
    host = time.perf_counter() - start
    _wait(device)
    return time.perf_counter() - start, host


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def images(n: int, side: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def compare_step_time(
    method: str, model: str, width: int, size: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """One line of the table: the textbook's iteration against ours in several ways, and against a peer's."""
    real, ways = images(size), EVERYWHERE | (ON_A_GPU if device.type == "cuda" else {})
    of = partial(composed, method, model, width, real)
    makers = {"textbook": partial(textbook_iteration, method, of(*PLAIN[model]), real)}
    makers |= {name: partial(ganbench_iteration, of(*way), real) for name, way in ways.items()}
    name = peer.installed()
    if name and (model, method) == ("resnet", "wgan-gp"):
        makers[name] = partial(peer.mimicry, width, Z_DIM, real)
    with ExitStack() as stack:
        timed = {name: stack.enter_context(WorkerProcess(make, device)) for name, make in makers.items()}
        told = time_interleaved(timed, repeats, device)
    rates = {name: round(size / seconds, 1) for name, seconds in told["seconds"].items()}
    return {"model": model, "width": width, "method": method, "batch": size, "images_per_second": rates} | told
