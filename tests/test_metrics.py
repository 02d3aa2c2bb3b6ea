"""Metrics against closed forms and second implementations."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from ganbench import data
from ganbench.config import Refused
from ganbench.metrics.features import Inception, LeNet
from ganbench.metrics.frechet import Moments, distance, moments
from ganbench.metrics.images import ImageMetric
from ganbench.metrics.modes import ModesMetric, energy_distance

CPU = torch.device("cpu")


def image_metric(n_fake: int, n_real: int | None = None) -> ImageMetric:
    return ImageMetric("fd_lenet", LeNet(), n_fake, n_real, None, 5, 8, data.mnist5k(), CPU)


def normal(mean: torch.Tensor, cov: torch.Tensor) -> Moments:
    return Moments(10**6, mean.double(), cov.double())


def test_frechet_of_known_normals() -> None:
    d = 64
    zero, one, eye = torch.zeros(d), torch.ones(d), torch.eye(d)
    assert distance(normal(zero, eye), normal(one, eye)) == pytest.approx(d, rel=1e-12)
    assert distance(normal(zero, eye), normal(zero, 4 * eye)) == pytest.approx(d, rel=1e-12)
    a, b = torch.rand(2, d, dtype=torch.float64) * 3
    apart = distance(normal(zero, a.diag()), normal(zero, b.diag()))
    assert apart == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-10)
    assert distance(normal(zero, a.diag()), normal(zero, a.diag())) == pytest.approx(0, abs=1e-10)


def test_frechet_agrees_with_a_matrix_square_root() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(500, 40)) @ rng.normal(size=(40, 40)) for _ in range(2))
    a, b = moments(torch.from_numpy(x)), moments(torch.from_numpy(y))
    product = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * product)
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert distance(b, a) == pytest.approx(expected, rel=1e-6)


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
    assert constant == {"fd_lenet": None, "fd_lenet_why": "all 200 samples are the same"}
    too_many = image_metric(5000, None).floor
    assert too_many["fd_lenet"] is None and "has 4000 to train on" in too_many["fd_lenet_why"]
    with pytest.raises(Refused, match=r"metric\.n_real=2000: the dataset holds out 1000 samples"):
        image_metric(64, 2000)


def test_inception_weights_are_checked(inception_weights: tuple[Path, str], tmp_path: Path) -> None:
    file, sha256 = inception_weights
    with pytest.raises(Refused, match=rf"has SHA-256 {sha256}, expected 6726825d"):
        Inception(str(file))
    with pytest.raises(Refused, match=r"sha256=6726 is no SHA-256"):
        Inception(str(file), "6726")
    with pytest.raises(Refused, match="there is no such file"):
        Inception(str(tmp_path / "none.pth"))


def test_hostile_weights_run_nothing(tmp_path: Path) -> None:
    import os
    import pickle

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    file = tmp_path / "hostile.pth"
    torch.save({"x": Hostile()}, file)
    with pytest.raises(pickle.UnpicklingError):
        Inception(str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    assert not (tmp_path / "owned").exists()


def test_energy_distance_of_shifted_normals() -> None:
    """For N(0,1) and N(m,1): 2 E|N(m,2)| - 2 E|N(0,2)|, E|N(m,s^2)| by the folded normal's mean."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4000, 1, generator=rng)

    def folded(m: float) -> float:
        s = 2**0.5
        return s * (2 / np.pi) ** 0.5 * np.exp(-(m**2) / 4) + m * (1 - 2 * scipy.stats.norm.cdf(-m / s))

    assert energy_distance(x, y + 1.5) == pytest.approx(2 * folded(1.5) - 2 * folded(0), rel=0.05)
    assert energy_distance(x, y) == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(("make", "modes"), [(data.ring, 8), (data.grid, 25)])
def test_modes_of_a_perfect_and_of_a_partial_sampler(make, modes: int) -> None:
    mixture = make(n=10_000)
    metric = ModesMetric("energy_distance", 2000, 2000, 5, mixture, CPU)
    perfect = metric(mixture.train[:5000])
    assert perfect["modes"] == modes
    assert perfect["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.006)
    assert perfect["energy_distance"] == pytest.approx(0, abs=0.01)
    _, which = torch.cdist(mixture.train, mixture.modes.centres).min(1)
    partial = metric(mixture.train[which < 3])
    assert partial["modes"] == 3 and partial["energy_distance"] > 0.3
    astray = metric(mixture.train[:1000] + 0.5)
    assert astray["modes"] == 0 and astray["high_quality"] == 0
    assert metric(torch.full((10, 2), float("nan")))["energy_distance"] is None
