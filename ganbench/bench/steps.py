"""Whole iterations (one critic update, one generator update, the average) against the textbook's, in turns."""

import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn

from ganbench import heap, losses, penalties, streams
from ganbench.bench import peer, textbook
from ganbench.config import Precision
from ganbench.graphs import Fixed
from ganbench.inputs import draw
from ganbench.models import dcgan, resnet
from ganbench.players import Players, in_precision
from ganbench.steps import iteration

METHODS = {
    "gan": (losses.GAN(), penalties.none),
    "hinge": (losses.Hinge(), penalties.none),
    "wgan-gp": (losses.WGAN(), partial(penalties.gp, weight=10.0)),
    "dragan": (losses.GAN(), partial(penalties.dragan, weight=10.0)),
}
Z_DIM = 128


class How(NamedTuple):
    """As `precision`, `speed` and `protocol` have it; graphs need a GPU, where optimisers are fused by themselves."""

    precision: Precision
    channels_last: bool = False
    graphs: bool = False
    reuse_fakes: bool = False

    def __str__(self) -> str:
        switches = ("channels_last", "graphs", "reuse_fakes")
        return ", ".join([self.precision.value, *(name for name in switches if getattr(self, name))])


FP32 = How(Precision.fp32)
ALL = How(Precision.bf16_all, channels_last=True, reuse_fakes=True)
EVERYWHERE = [FP32, How(Precision.fp32, True), How(Precision.bf16, True), How(Precision.bf16_all, True), ALL]
ON_A_GPU = [How(Precision.fp32, graphs=True), How(Precision.bf16_all, True, True), ALL._replace(graphs=True)]


def nets(model: str, width: int, fused: bool, side: int = 32) -> tuple[nn.Module, nn.Module]:
    with streams.initialising(0, "bench"):
        if model == "dcgan":
            return dcgan.Generator((3, side, side), Z_DIM, width), dcgan.Critic((3, side, side), width)
        G = resnet.Generator((3, 32, 32), Z_DIM, width, fused)
        return G, resnet.Critic((3, 32, 32), width, "none", fused, direct=fused)


def optimizers(G: nn.Module, D: nn.Module, **how: bool) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return tuple(torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.9), **how) for net in (G, D))


def plain(method: str, model: str, width: int, real: torch.Tensor, device: torch.device) -> Callable[[], None]:
    """The textbook's iteration, on nets as papers write them."""
    G, D = (net.to(device) for net in nets(model, width, fused=False))
    opt_g, opt_d = optimizers(G, D)
    real = real.to(device)
    return lambda: textbook.step(method, G, D, opt_g, opt_d, real, Z_DIM)


def ours(
    method: str, model: str, width: int, real: torch.Tensor, device: torch.device, how: How = FP32, n_critic: int = 1
) -> Callable[[], None]:
    """A run's iteration, as train.py makes it, in a process that it leaves as train.py does."""
    heap.keep()
    format = torch.channels_last if how.channels_last else torch.contiguous_format
    G, D = (net.to(device, memory_format=format) for net in nets(model, width, True, real.shape[-1]))
    on_gpu = device.type == "cuda"
    opt_g, opt_d = optimizers(G, D, fused=on_gpu, capturable=how.graphs)
    if on_gpu:
        opt_g.found_inf = opt_d.found_inf = torch.zeros((), device=device)
    players = Players(G, D, copy.deepcopy(G).requires_grad_(False), opt_g, opt_d)
    loss, penalty = METHODS[method]
    autocast, penalty = in_precision(how.precision, device, penalty)
    protocol = {"batch": len(real), "n_critic": n_critic}
    cfg = OmegaConf.create({"seed": 0, "protocol": protocol, "model": {"z_dim": Z_DIM}})
    stored, steps = real.to(device, memory_format=format), count()

    parts = {"players": players, "loss": loss, "penalty": penalty, "autocast": autocast}
    iterate = partial(iteration, **parts, decay=0.999, reuse=how.reuse_fakes)
    if how.graphs:
        iterate = Fixed(iterate, players, draw(cfg, stored, 0))
    return lambda: iterate(draw(cfg, stored, next(steps)))


Timed = Callable[[], tuple[float, float]]  # runs something; tells the seconds until all is done, and the host's


def in_turns(timed: dict[str, Timed], repeats: int, device: torch.device) -> dict[str, Any]:
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


class Apart:
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

    def __enter__(self) -> "Apart":
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


def compared(method: str, model: str, width: int, size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """One line of the table: the textbook's iteration against ours in several ways, and against a peer's."""
    work = {"width": width, "real": images(size)}
    ways = EVERYWHERE + ON_A_GPU * (device.type == "cuda")
    makers = {"textbook": partial(plain, method, model, **work)}
    makers |= {str(how): partial(ours, method, model, how=how, **work) for how in ways}
    name = peer.installed()
    if name and (model, method) == ("resnet", "wgan-gp"):
        makers[name] = partial(peer.mimicry, z_dim=Z_DIM, **work)
    with ExitStack() as stack:
        timed = {name: stack.enter_context(Apart(make, device)) for name, make in makers.items()}
        told = in_turns(timed, repeats, device)
    rates = {name: round(size / seconds, 1) for name, seconds in told["seconds"].items()}
    return {"model": model, "width": width, "method": method, "batch": size, "images_per_second": rates} | told
