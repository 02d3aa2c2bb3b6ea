"""Time of one iteration (a critic update, a generator update, the average's) compared with the textbook's, in turns."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench.bench import baselines
from ganbench.config.compose import build, compose_config
from ganbench.training.batches import Batches
from ganbench.training.device import autocast_and_penalty, chosen_memory_format, configure_process
from ganbench.training.iteration import make_iteration
from ganbench.training.players import make_players
from ganbench.training.updates import Objective

Z_DIM = 128
METHODS = ("gan", "hinge", "wgan-gp", "dragan")
MODELS = {"dcgan": ("model=dcgan",), "sngan_resnet": ("model=sngan_resnet", "model.critic_norm=none")}
# Switches off, for the textbook, what is not part of the usual nets and optimizers.
PLAIN = {
    "dcgan": ("speed.fused_optimizer=false", "+model.critic.fast_double_backward=false"),
    "sngan_resnet": ("speed.fused_optimizer=false", "model.fuse_rescaling=false", "model.fast_double_backward=false"),
}

# Further overrides of each variant that is timed, by its name in the results.
CHANNELS_LAST = ("speed.channels_last=true",)
BF16 = (*CHANNELS_LAST, "precision=bf16")
BF16_ALL = (*CHANNELS_LAST, "precision=bf16_all")
REUSE_FAKES = (*BF16_ALL, "protocol.reuse_fakes=true")
VARIANTS: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "fp32, channels_last": CHANNELS_LAST,
    "bf16, channels_last": BF16,
    "bf16_all, channels_last": BF16_ALL,
    "bf16_all, channels_last, reuse_fakes": REUSE_FAKES,
}
GRAPHS = "speed.graphs=true"
TF32 = "precision=tf32"  # what the textbook's convolutions compute in, as torch's do by default
GPU_VARIANTS: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "fp32, graphs": (GRAPHS,),
    "tf32": (TF32,),
    "tf32, not deterministic": (TF32, "speed.deterministic=false"),
    "tf32, graphs": (TF32, GRAPHS),
    "bf16_all, channels_last": BF16_ALL,
    "bf16_all, channels_last, graphs": (*BF16_ALL, GRAPHS),
}
BLOCK = {"cpu": 1, "cuda": 10}  # iterations timed at once: a GPU's are short, and the host works ahead of it


def compare_step_time(
    method: str, model: str, width: int, batch: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Time the textbook's iteration, each variant of ours, and torch-mimicry's where it has the same method and net."""
    real = random_images(batch)
    compose = partial(compose_run, method, model, width, real)
    makers: dict[str, Callable[..., Iteration]] = {
        "textbook": partial(textbook_iteration, method, compose(*PLAIN[model]), real)
    }
    for name, overrides in (GPU_VARIANTS if device.type == "cuda" else VARIANTS).items():
        makers[name] = partial(ganbench_iteration, compose(*overrides), real)
    mimicry = baselines.mimicry_version()
    if mimicry and (model, method) == ("sngan_resnet", "wgan-gp"):
        makers[mimicry] = partial(baselines.mimicry_iteration, width, Z_DIM, real)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(WorkerProcess(make, device)) for name, make in makers.items()}
        timings = time_interleaved(workers, repeats, device)
    rates = {name: round(batch / seconds, 1) for name, seconds in timings["seconds"].items()}
    return {"model": model, "width": width, "method": method, "batch": batch, "images_per_second": rates} | timings


def compose_run(method: str, model: str, width: int, real: Tensor, *overrides: str) -> DictConfig:
    """Compose the configuration of a run whose batches have the shape of `real` [N, 3, S, S]."""
    n, *shape = real.shape
    data = (f"protocol.batch={n}", "dataset=cifar10", f"dataset.shape={shape}", f"threads={torch.get_num_threads()}")
    nets = (*MODELS[model], f"model.width={width}", f"model.z_dim={Z_DIM}")
    return compose_config(f"loss={method}", *data, *nets, *overrides, "name=bench")


Iteration = Callable[[], Any]


def textbook_iteration(method: str, cfg: DictConfig, real: Tensor, device: torch.device) -> Iteration:
    """Return the textbook's iteration, with the players of `cfg`."""
    return partial(baselines.textbook_step, method, make_players(cfg, device), real.to(device), cfg.model.z_dim)


def ganbench_iteration(cfg: DictConfig, real: Tensor, device: torch.device) -> Iteration:
    """Return the iteration of a run, in a process that is configured as for a run."""
    configure_process(cfg, device)
    players = make_players(cfg, device)
    autocast, penalty = autocast_and_penalty(cfg.precision, device, build(cfg.penalty))
    train = real.to(device, memory_format=chosen_memory_format(cfg))
    objective = Objective(build(cfg.loss), penalty, autocast)
    batches = Batches(cfg, train)
    iteration = make_iteration(cfg, players, objective, batches)
    steps = count()
    return lambda: iteration(batches(next(steps)))


Timed = Callable[[], tuple[float, float]]  # runs something and returns its seconds, and the host's, as `seconds` does


def time_interleaved(timed: Mapping[str, Timed], repeats: int, device: torch.device) -> dict[str, Any]:
    """Time all in turns, so that a drift of the machine's speed affects all alike.

    Return the median seconds of each (on a GPU also those that the host was busy), and for all but the first how many
    times faster it is than the first: median and quartiles over the turns.
    """
    for run in timed.values():
        run()  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    host_seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, run in timed.items():
            total, host = run()
            seconds[name].append(total)
            host_seconds[name].append(host)
    results: dict[str, Any] = {"seconds": _medians(seconds)}
    if device.type == "cuda":
        results["host_seconds"] = _medians(host_seconds)
    first, *others = timed
    for name in others:
        results[name] = _speedup(seconds[first], seconds[name])
    return results


def _medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(each), 6) for name, each in seconds.items()}


def _speedup(baseline: list[float], seconds: list[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(baseline, seconds, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"times_faster": round(median, 2), "quartiles": [round(low, 2), round(high, 2)]}


def own_processes() -> ForkServerContext:
    """Return what starts processes that share nothing but what they have imported, of which none has used a device."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ganbench.bench.steps", "torch._dynamo"])  # the latter is every optimizer's
    return context


class WorkerProcess:
    """A process of its own for one iteration, so that no other one leaves memory in a state that affects it.

    Use as a context; call to run the iteration once and get its seconds.
    """

    def __init__(self, make: Callable[..., Iteration], device: torch.device):
        context = own_processes()
        self.connection, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(child, torch.get_num_threads(), make, device))
        self.process.start()
        child.close()

    def __call__(self) -> tuple[float, float]:
        self.connection.send("run")
        return self.connection.recv()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.process.join()


def _serve(connection: Connection, threads: int, make: Callable[..., Iteration], device: torch.device) -> None:
    torch.set_num_threads(threads)
    iteration = make(device=device)
    iteration()  # in addition to the warm-up: only from the second one on is memory in its final state
    try:
        while connection.recv():
            connection.send(seconds(iteration, device, BLOCK[device.type]))
    except EOFError:  # the parent closed its end
        pass


def seconds(call: Callable[[], Any], device: torch.device, calls: int = 1) -> tuple[float, float]:
    """Return the seconds of a call until the device is done, and until the host is free again; means over `calls`."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    host = time.perf_counter() - start
    synchronize(device)
    return (time.perf_counter() - start) / calls, host / calls


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def random_images(n: int, side: int = 32) -> Tensor:
    """Return images [n, 3, side, side] with values from -1 to 1."""
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
