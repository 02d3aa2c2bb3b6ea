"""ganbench's image metrics against torch-fidelity's, on the same images and the same (random) Inception weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ganbench.conformance.metrics import distance_by_sqrtm
from ganbench.datasets import Data
from ganbench.metrics.features import Inception
from ganbench.metrics.frechet import distance, moments
from ganbench.metrics.images import ImageMetric, embed

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
N, K = 70, 3
Weights = tuple[Path, str]


class Images(Dataset):
    """What torch-fidelity takes: color images one by one."""

    def __init__(self, images: Tensor):
        self.images = images.expand(-1, 3, -1, -1).contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def pictures(seed: int, channels: int, size: int, n: int = N) -> Tensor:
    """Blobs of many brightnesses, brighter and rougher for odd seeds."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 3 + seed % 2, 3 + seed % 2, generator=rng) * torch.rand(n, 1, 1, 1, generator=rng)
    smooth = interpolate(coarse, (size, size), mode="bilinear")
    return ((smooth + 0.2 * (seed % 2)).clamp(0, 1) * 255).to(torch.uint8)


def ours(features: nn.Module, real: Tensor, fake: Tensor) -> dict:
    return ImageMetric("fid", features, len(fake), None, 2, K, 0, Data(real, real), CPU)(fake)


def theirs(file: Path, layer: str, real: Tensor, fake: Tensor, fid: bool = True) -> dict:
    """Its first input is the generated one. All samples in one subset, so that no draw is left in KID."""
    layers = {f"feature_layer_{m}": layer for m in ("fid", "kid", "prc")}
    return calculate_metrics(
        input1=Images(fake), input2=Images(real), fid=fid, isc=not fid, kid=True, prc=True, cuda=False,
        cache=False, verbose=False, save_cpu_ram=True, batch_size=4, feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(file), kid_subsets=1, kid_subset_size=len(real), prc_neighborhood=K,
        isc_splits=10, samples_shuffle=False,
        **layers,
    )  # fmt: skip


def inception(weights: Weights, layer: str) -> Inception:
    """Ours, cut short after a layer: with 64 features a test can afford more samples than features."""
    net = Inception(*map(str, weights))
    net.net = FeatureExtractorInceptionV3("x", [layer], feature_extractor_weights_path=str(weights[0]))
    net.class_logits = None  # they come of the last layer only
    return net


NAMES = {
    "fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean",
    "precision": "precision", "recall": "recall",
}  # fmt: skip
NAMES_WITHOUT_FID = {ours: theirs for ours, theirs in NAMES.items() if ours != "fid"}
NAMES_WITHOUT_FID["inception_score"] = "inception_score_mean"


def agree(actual: dict, expected: dict, names: dict[str, str] = NAMES, rounding: float = 0.0) -> None:
    for our_name, their_name in names.items():
        assert actual[our_name] == pytest.approx(expected[their_name], rel=1e-4, abs=rounding), our_name


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (64, 3)])
def test_metrics_agree(inception_weights: Weights, size: int, channels: int) -> None:
    real, fake = (pictures(seed, channels, size) for seed in (0, 1))
    expected = theirs(inception_weights[0], "64", real, fake)
    assert expected["frechet_inception_distance"] > 0 and 0 < expected["precision"] < 1
    agree(ours(inception(inception_weights, "64"), real, fake), expected)


def test_all_features_agree(inception_weights: Weights) -> None:
    """At the layer of FID itself, where fewer samples than features have no distance, but the other scores."""
    real, fake = (pictures(seed, 3, 32, n=12) for seed in (0, 1))
    actual = ours(Inception(*map(str, inception_weights)), real, fake)
    assert actual["fid"] is None and actual["fid_why"] == "12 samples cannot span 2048 features"
    # Random weights tell images apart so little here that torch-fidelity's float32 sums of KID's kernel show.
    expected = theirs(inception_weights[0], "2048", real, fake, fid=False)
    agree(actual, expected, NAMES_WITHOUT_FID, rounding=1e-6)


def test_class_logits_are_those_of_the_network(inception_weights: Weights) -> None:
    """Ours follow from the features; with random weights their score is too near 1 to tell."""
    file = str(inception_weights[0])
    both = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], feature_extractor_weights_path=file)
    features, logits = both(pictures(0, 3, 32, 3))
    assert logits.shape == (3, 1008) and logits.std() > 0
    ours = Inception(*map(str, inception_weights)).class_logits(features.double())
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4 * float(logits.std()))


def test_features_do_not_depend_on_the_batch(inception_weights: Weights) -> None:
    """And so no score does."""
    net, images = inception(inception_weights, "64"), pictures(0, 3, 32, 17)
    in_parts, at_once = (embed(net, images, size) for size in (7, 250))
    assert in_parts.std(0).min() > 0
    torch.testing.assert_close(in_parts, at_once, rtol=1e-5, atol=1e-6 * float(in_parts.std()))


def test_the_matrix_root_agrees_on_many_features() -> None:
    """1,024, against scipy's general square root. (`make bench` compares both on 2,048, and what they cost.)"""
    rng = np.random.default_rng(0)
    scale = 1 / np.arange(1, 1025) ** 0.5  # as unequal as Inception's
    x, y = (torch.from_numpy(rng.normal(size=(1250, 1024)) * scale * shift) for shift in (1.0, 1.2))
    a, b = moments(x), moments(y)
    assert distance(a, b) == pytest.approx(distance_by_sqrtm(a, b), rel=1e-6)
