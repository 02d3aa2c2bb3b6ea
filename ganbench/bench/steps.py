"""Whole iterations (one critic update, one generator update, the average) against the textbook's, in turns."""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ganbench import ema, losses, penalties, streams
from ganbench.bench import textbook
from ganbench.config import Precision
from ganbench.data import batch
from ganbench.models import dcgan, resnet
from ganbench.players import InPrecision, players_precision
from ganbench.steps import critic_step, generator_step

METHODS = {
    "gan": (losses.GAN(), penalties.none),
    "hinge": (losses.Hinge(), penalties.none),
    "wgan-gp": (losses.WGAN(), partial(penalties.gp, weight=10.0)),
    "dragan": (losses.GAN(), partial(penalties.dragan, weight=10.0)),
}
Z_DIM = 128
# Each alone and then together: as `precision` and `speed` have them.
LEVERS = [
    (Precision.fp32, False),
    (Precision.fp32, True),
    (Precision.bf16, True),
    (Precision.bf16_all, True),
]


def nets(model: str, width: int, fused: bool) -> tuple[nn.Module, nn.Module]:
    with streams.initialising(0, "bench"):
        if model == "dcgan":
            return dcgan.Generator((3, 32, 32), Z_DIM, width), dcgan.Critic((3, 32, 32), width)
        return resnet.Generator((3, 32, 32), Z_DIM, width, fused), resnet.Critic((3, 32, 32), width, "none", fused)


def optimizers(G: nn.Module, D: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return tuple(torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.9)) for net in (G, D))


def plain(method: str, model: str, width: int, real: torch.Tensor, device: torch.device) -> Callable[[], None]:
    """The textbook's iteration, on nets as papers write them."""
    G, D = (net.to(device) for net in nets(model, width, fused=False))
    opt_g, opt_d = optimizers(G, D)
    return lambda: textbook.step(method, G, D, opt_g, opt_d, real, Z_DIM)


def ours(
    method: str,
    model: str,
    width: int,
    real: torch.Tensor,
    device: torch.device,
    precision: Precision,
    channels_last: bool,
    n_critic: int = 1,
) -> Callable[[], None]:
    """A run's iteration, as train.py makes it."""
    format = torch.channels_last if channels_last else torch.contiguous_format
    G, D = (net.to(device, memory_format=format) for net in nets(model, width, fused=True))
    average = copy.deepcopy(G).requires_grad_(False)
    opt_g, opt_d = optimizers(G, D)
    loss, penalty = METHODS[method]
    autocast = players_precision(precision, device)
    if precision is Precision.bf16_all:
        penalty = InPrecision(penalty, autocast)
    stored, size, step = real, len(real), [0]

    def iteration() -> None:
        step[0] += 1
        for k in range(step[0] * n_critic, (step[0] + 1) * n_critic):
            real = batch(stored, 0, k, size).contiguous(memory_format=format)
            rng = streams.generator(0, "penalty", k, device)
            z = streams.normal((size, Z_DIM), 0, "z_d", k, device)
            critic_step(D, G, real, z, loss, penalty, opt_d, rng, autocast)
        z = streams.normal((size, Z_DIM), 0, "z_g", step[0], device)
        generator_step(D, G, real, z, loss, opt_g, autocast)
        ema.update(average, G, 0.999)

    return iteration


def in_turns(calls: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, Any]:
    """Median seconds of each, and for all but the first how many times faster they are than the first: median and
    quartiles of the ratios of neighbours.
    """
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    first = next(iter(calls))
    told: dict[str, Any] = {"seconds": {name: round(statistics.median(t), 4) for name, t in times.items()}}
    for name in [name for name in calls if name != first]:
        ratios = [a / b for a, b in zip(times[first], times[name], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        told[name] = {"times_faster": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]}
    return told


def seconds(call: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def images(n: int, device: torch.device) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1


def compared(method: str, model: str, width: int, size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """One line of the table: the textbook's iteration against ours in fp32, and with bf16 and channels_last."""
    real = images(size, device)
    calls = {"textbook": plain(method, model, width, real, device)} | {
        f"{precision.value}{', channels_last' * channels_last}": ours(
            method, model, width, real, device, precision, channels_last
        )
        for precision, channels_last in LEVERS
    }
    return {"model": model, "width": width, "method": method, "batch": size} | in_turns(calls, repeats, device)
