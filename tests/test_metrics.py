"""Metrics against closed forms and second implementations."""

import math
from pathlib import Path

import pytest
import torch

from ganbench import data, streams
from ganbench.config import Refused
from ganbench.metrics.features import Inception, LeNet
from ganbench.metrics.frechet import Moments
from ganbench.metrics.images import ImageMetric
from ganbench.metrics.modes import ModesMetric, StackedModesMetric

CPU = torch.device("cpu")


def image_metric(n_fake: int, n_real: int | None = None) -> ImageMetric:
    return ImageMetric("fd_lenet", LeNet(), n_fake, n_real, None, 5, 8, data.mnist5k(), CPU)


def normal(mean: torch.Tensor, cov: torch.Tensor) -> Moments:
    return Moments(10**6, mean.double(), cov.double())


def test_lenet_classifies_and_its_weights_are_the_shipped_ones() -> None:
    _, (_, labels) = data.mnist5k_labelled()
    guesses = LeNet().logits(data.mnist5k().test).argmax(1)
    assert (guesses == labels).double().mean().item() == pytest.approx(0.978, abs=0.002)


def test_frechet_metric_grows_with_damage_and_is_small_for_reals() -> None:
    digits = data.mnist5k()
    metric = image_metric(1000, None)
    real = digits.train[:1000]
    noise = torch.randint(0, 256, real.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    damaged = [torch.where(noise < share * 256, noise, real) for share in (0.05, 0.2, 0.5)]
    (_, labels), _ = data.mnist5k_labelled()
    one_digit = digits.train[labels == 3]
    scores = [metric(x)["fd_lenet"] for x in (real, *damaged, noise)]
    assert metric.floor["fd_lenet"] == scores[0]
    assert scores == sorted(scores) and scores[1] > 2 * scores[0]
    assert metric(one_digit)["fd_lenet"] > 20 * scores[0]


def test_frechet_has_no_value_where_it_has_no_meaning() -> None:
    digits = data.mnist5k()
    metric = image_metric(64, None)
    few = metric(digits.train[:64])
    assert few["fd_lenet"] is None and "64 samples cannot span 64 features" in few["fd_lenet_why"]
    constant = metric(torch.zeros(200, 1, 32, 32, dtype=torch.uint8))
    assert constant["fd_lenet"] is None and constant["fd_lenet_why"] == "all 200 samples are the same"
    assert constant["recall"] is None and constant["kid"] is None
    assert metric(digits.train[:1].repeat(1001, 1, 1, 1)) == {
        k: v.replace("200", "1001") if v else v for k, v in constant.items()
    }
    too_many = image_metric(5000, None).floor
    assert too_many["fd_lenet"] is None and "4000 real ones are at hand" in too_many["fd_lenet_why"]
    with pytest.raises(Refused, match=r"metric\.n_real=2000: the dataset holds out 1000 samples"):
        image_metric(64, 2000)


def test_inception_weights_are_checked(inception_weights: tuple[Path, str], tmp_path: Path) -> None:
    file, sha256 = inception_weights
    with pytest.raises(Refused, match=rf"has SHA-256 {sha256}, expected 6726825d"):
        Inception(str(file))
    with pytest.raises(Refused, match=r"sha256=6726 is no SHA-256"):
        Inception(str(file), "6726")
    with pytest.raises(Refused, match=r"none\.pth cannot be read \(No such file"):
        Inception(str(tmp_path / "none.pth"))


def test_points_without_a_good_sample_and_points_that_are_none() -> None:
    mixture = data.ring(n=10_000)
    metric = ModesMetric("energy_distance", 2000, 2000, 5, mixture, CPU)
    astray = metric(mixture.train[:1000] + 0.5)
    assert astray["modes"] == 0 and astray["high_quality"] == 0 and astray["modes_kl"] is None
    assert metric(torch.full((10, 2), float("nan")))["energy_distance"] is None


def test_stacked_digits_are_read() -> None:
    """Their labels by drawing them again; a right triple is three right digits, each with the classifier's 0.978."""
    stacked = data.stacked_mnist5k(n=5000)
    _, (_, labels) = data.mnist5k_labelled()
    drawn = labels[torch.randint(1000, (1000, 3), generator=streams.generator(0, "dataset/stacked/test"))]
    metric = StackedModesMetric("modes_kl", 2000, 500, 5, stacked, CPU)
    features, triples = metric.read(stacked.test)
    assert features.shape == (1000, 192)
    assert (triples == drawn @ torch.tensor([100, 10, 1])).double().mean().item() == pytest.approx(0.935, abs=0.01)
    assert metric.floor["modes"] == pytest.approx(1000 * (1 - math.exp(-2)), abs=25)
    one = metric(stacked.train[:1].repeat(600, 1, 1, 1))
    assert one["modes"] == 1 and one["modes_kl"] == pytest.approx(math.log(1000)) and one["recall"] == 0


def test_classes_that_are_missing_are_counted() -> None:
    digits = data.mnist5k()
    (_, labels), _ = data.mnist5k_labelled()
    metric = image_metric(1000)
    assert metric.floor["classes"] == 10 and metric.floor["classes_kl"] < 0.01
    assert metric.floor["histogram"] == pytest.approx([0.1] * 10, abs=0.03)
    few = metric(digits.train[labels < 4])  # 1,600 of four digits
    assert few["classes"] == 4 and few["classes_kl"] == pytest.approx(math.log(10 / 4), rel=0.1)
    assert few["histogram"] == pytest.approx([0.25] * 4 + [0] * 6, abs=0.02)
    mixed = torch.cat([digits.train[labels == 0], digits.train[labels == 1][:4]])
    assert metric(mixed)["classes"] == 1  # four of 404 are less than a fifth of a tenth
    metric.classes.tell = lambda features: torch.full((len(features),), 12)  # only clothes
    none = metric(digits.train[:100])
    assert none["classes"] == 0 and none["classes_kl"] is None and none["histogram"] == [0] * 10
    assert none["classes_kl_why"] == "no sample is of a class that reals have"


def test_points_are_counted_by_mode() -> None:
    mixture = data.ring(n=10_000)
    metric = ModesMetric("energy_distance", 2000, 2000, 5, mixture, CPU)
    one = mixture.train[(mixture.train - mixture.modes.centres[2]).norm(dim=1) < 0.1]
    far = torch.full((len(one), 2), 9.0)
    assert metric(torch.cat([one, far]))["histogram"] == pytest.approx([0, 0, 0.5, 0, 0, 0, 0, 0])


def test_copies_are_told_from_new_samples() -> None:
    metric = image_metric(1000)
    digits = data.mnist5k()
    assert metric(digits.train[1000:2000])["memorisation"] < 0.01
    assert 0.7 < metric.floor["memorisation"] < 1  # four times as many to train on as held out
    copies = metric(digits.test)  # of what it should be compared with
    assert copies["memorisation"] is None and "copies of held-out" in copies["memorisation_why"]
    noisy = (digits.train[:1000].float() + 8 * torch.randn(1000, 1, 32, 32)).clamp(0, 255).to(torch.uint8)
    assert metric(noisy)["memorisation"] < 0.7 * metric.floor["memorisation"]
