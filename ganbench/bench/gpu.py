"""What a GPU brings: to an iteration, to an evaluation with FID, and to a sweep whose runs share it."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganbench import gpu
from ganbench.bench.costs import run_ganbench
from ganbench.bench.steps import compare_step_time, own_processes, synchronize
from ganbench.datasets import Data
from ganbench.metrics.features import Inception, embed
from ganbench.metrics.frechet import distance, moments
from ganbench.metrics.images import ImageMetric


class Sizes(NamedTuple):
    """How much is measured; less only where a test asks whether it can be."""

    nets: tuple[tuple[str, int], ...] = (("dcgan", 64), ("sngan_resnet", 64))  # with their width
    methods: tuple[str, ...] = ("gan", "wgan-gp")
    batch: int = 64
    repeats: int = 5
    samples: int = 10_000  # of an evaluation, as in conf/metric/fid.yaml
    run: tuple[str, ...] = ("protocol.images=12800", "protocol.evaluations=1")
    seeds: str = "0,1,2,3"


FULL = Sizes()


def measure_gpu(device: torch.device, sizes: Sizes = FULL) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure part after part, each in processes of its own, so that one that dies costs only itself."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "card": partial(_apart, _card, device),
        "evaluation": partial(_apart, _evaluation, device, sizes),
        "sweeps": partial(_sweeps, device.type, sizes),
    }
    for model, width in sizes.nets:
        for method in sizes.methods:
            compare = partial(compare_step_time, method, model, width, sizes.batch, sizes.repeats, device)
            parts[f"iteration of {method}, {model}-{width}"] = compare
    for name, measure in parts.items():
        start = time.perf_counter()
        try:
            found = measure()
        except (RuntimeError, EOFError, OSError) as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
        yield name, found | {"took_seconds": round(time.perf_counter() - start, 1)}


def _apart(measure: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    with own_processes().Pool(1) as pool:
        return pool.apply(measure, arguments)


def _card(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    gpu.choose_kernels(tf32=False, deterministic=True, benchmark=False)
    gigabytes = torch.cuda.get_device_properties(device).total_memory / 1e9
    return gpu.facts(device) | {"gigabytes": round(gigabytes, 1)}


def _evaluation(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Time FID's metric with an Inception network of random weights: building it, scoring samples, and its parts."""
    with tempfile.TemporaryDirectory() as folder:
        features = Inception(*random_inception_weights(Path(folder, "inception.pth")))
    n = sizes.samples
    train, test, fake = (_random_images(n, seed).to(device) for seed in range(3))

    def build() -> ImageMetric:
        metric = ImageMetric("fid", features, n, None, n, 5, 0, Data(train, test), device)
        assert metric.real_reference  # which computes what depends on real data, as a run does before its first step
        return metric

    found: dict[str, Any] = {"samples": n}
    metric = _timed(found, "building", device, build)
    for name in ("first_scoring", "scoring"):
        _timed(found, name, device, lambda: metric(fake))
    x = _timed(found, "features", device, lambda: embed(features, fake))
    _timed(found, "distance", device, lambda: distance(metric.moments, moments(x), metric.root))
    if device.type == "cuda":
        found["peak_gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def _timed(found: dict[str, Any], name: str, device: torch.device, call: Callable[[], Any]) -> Any:
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    found[f"{name}_seconds"] = round(time.perf_counter() - start, 3)
    return result


def _random_images(n: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=rng, dtype=torch.uint8)


def random_inception_weights(file: Path) -> tuple[str, str]:
    """Write weights of Inception's layout and random values to a file; return its path and SHA-256."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Net

    # The library can build its net only from a file, so borrow its layout by letting it load nothing.
    class Unloaded(Net):
        def load_state_dict(self, *_: object, **__: object) -> None:
            pass

    torch.save({}, file)
    state = Unloaded("x", ["2048"], feature_extractor_weights_path=str(file)).state_dict()
    rng = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.is_floating_point() and value.dim() > 1:
            state[name] = torch.randn(value.shape, generator=rng) * (2 / value[0].numel()) ** 0.5
    torch.save(state, file)
    return str(file), hashlib.sha256(file.read_bytes()).hexdigest()


def _sweeps(device: str, sizes: Sizes) -> dict[str, Any]:
    """Time a sweep whose runs go one at a time, and one with sweep.parallel=auto; compare their scores."""
    seconds = {}
    scores = {}
    for at_once in ("auto", "1"):  # the first one also fills the cache of features
        with tempfile.TemporaryDirectory() as folder:
            sweep = ("--multirun", "loss=gan,wgan-gp", f"seed={sizes.seeds}", *sizes.run, "wandb=disabled")
            start = time.perf_counter()
            run_ganbench(folder, device, *sweep, f"sweep.parallel={at_once}")
            seconds[at_once] = round(time.perf_counter() - start, 1)
            statuses = sorted(Path(folder, "outputs/sweep/bench").glob("*/status.json"))
            scores[at_once] = [json.loads(status.read_text())["score"] for status in statuses]
    return {
        "runs": len(scores["1"]),
        "seconds_one_at_a_time": seconds["1"],
        "seconds_auto": seconds["auto"],
        "times_faster": round(seconds["1"] / seconds["auto"], 2),
        "equal_scores": scores["1"] == scores["auto"],
    }
