"""Metrics against closed forms and second implementations."""

import math
from pathlib import Path

import pytest
import torch
from conftest import ganbench, settings

from ganbench import datasets, randomness
from ganbench.config.compose import build
from ganbench.errors import Refused
from ganbench.metrics import kid, modes
from ganbench.metrics.features import Inception, LeNet, embed
from ganbench.metrics.frechet import Moments, distance, extrapolated_distance, moments, root
from ganbench.metrics.images import ImageMetric
from ganbench.metrics.kid import kernel_distance
from ganbench.metrics.modes import ModesMetric, StackedModesMetric, energy_distance
from ganbench.metrics.prdc import diversity, memorization, memorization_of_reals, radii
from ganbench.metrics.scores import explain_non_finite, pairwise_distances
from ganbench.training import pictures
from ganbench.training.preflight import check_rankable

CPU = torch.device("cpu")


def image_metric(n_fake: int, n_real: int | None = None) -> ImageMetric:
    return ImageMetric("fd_lenet", LeNet(), n_fake, n_real, None, 5, 8, datasets.mnist5k(), CPU)


def normal(mean: torch.Tensor, cov: torch.Tensor) -> Moments:
    return Moments(10**6, mean.double(), cov.double())


def test_lenet_classifies_and_its_weights_are_the_shipped_ones() -> None:
    _, (_, labels) = datasets.mnist5k_labeled()
    guesses = LeNet().logits(datasets.mnist5k().test).argmax(1)
    assert (guesses == labels).double().mean().item() == pytest.approx(0.978, abs=0.002)


def test_frechet_metric_grows_with_damage_and_is_small_for_reals() -> None:
    digits = datasets.mnist5k()
    metric = image_metric(1000, None)
    real = digits.train[:1000]
    noise = torch.randint(0, 256, real.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    damaged = [torch.where(noise < share * 256, noise, real) for share in (0.05, 0.2, 0.5)]
    (_, labels), _ = datasets.mnist5k_labeled()
    one_digit = digits.train[labels == 3]
    scores = [metric(x)["fd_lenet"] for x in (real, *damaged, noise)]
    assert metric.real_reference["fd_lenet"] == scores[0]
    assert scores == sorted(scores) and scores[1] > 2 * scores[0]
    assert metric(one_digit)["fd_lenet"] > 20 * scores[0]


def test_frechet_has_no_value_where_it_has_no_meaning() -> None:
    digits = datasets.mnist5k()
    metric = image_metric(64, None)
    few = metric(digits.train[:64])
    assert few["fd_lenet"] is None and "64 samples cannot span 64 features" in few["fd_lenet_why"]
    constant = metric(torch.zeros(200, 1, 32, 32, dtype=torch.uint8))
    assert constant["fd_lenet"] is None and constant["fd_lenet_why"] == "all 200 samples are the same"
    assert constant["recall"] is None and constant["kid"] is None
    assert metric(digits.train[:1].repeat(1001, 1, 1, 1)) == {
        k: v.replace("200", "1001") if v else v for k, v in constant.items()
    }
    too_many = image_metric(5000, None).real_reference
    assert too_many["fd_lenet"] is None and "the dataset has 4000" in too_many["fd_lenet_why"]
    with pytest.raises(Refused, match=r"metric\.n_real=2000 must be at most 1000, the number of held-out images"):
        image_metric(64, 2000)


def test_inception_weights_are_checked(inception_weights: tuple[Path, str], tmp_path: Path) -> None:
    file, sha256 = inception_weights
    with pytest.raises(Refused, match=rf"has SHA-256 {sha256}, expected 6726825d"):
        Inception(str(file))
    with pytest.raises(Refused, match=r"sha256=6726 is not a SHA-256"):
        Inception(str(file), "6726")
    with pytest.raises(Refused, match=r"none\.pth cannot be read \(No such file"):
        Inception(str(tmp_path / "none.pth"))


def test_points_without_a_good_sample_and_points_that_are_none() -> None:
    mixture = datasets.ring(n=10_000)
    metric = ModesMetric("energy_distance", 2000, 2000, 5, mixture, CPU)
    astray = metric(mixture.train[:1000] + 0.5)
    assert astray["modes"] == 0 and astray["high_quality"] == 0 and astray["modes_kl"] is None
    assert metric(torch.full((10, 2), float("nan")))["energy_distance"] is None


def test_what_is_computed_once_of_the_reals_is_what_would_be_computed_each_time() -> None:
    real, fake = torch.randn(2, 230, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fake = fake[:170] * 1.1
    assert diversity(real, fake, 3, radii(real[:170], 3)) == diversity(real, fake, 3)
    assert diversity(real, fake, 3, radii(real, 3)) == diversity(real, fake, 3)  # of too many: not used
    assert kernel_distance(real, fake, kid.mean_kernel(real)) == kernel_distance(real, fake)
    assert energy_distance(fake, real, modes.mean_distance(real)) == energy_distance(fake, real)
    sorted_ = torch.cdist(real, real).sort(1).values
    assert torch.allclose(radii(real, 3), sorted_[:, 3], rtol=1e-12)
    assert radii(real[:3], 3).tolist() == [math.inf] * 3


def test_stacked_digits_are_read() -> None:
    """Their labels by drawing them again; a right triple is three right digits, each with the classifier's 0.978."""
    stacked = datasets.stacked_mnist5k(n=5000)
    _, (_, labels) = datasets.mnist5k_labeled()
    drawn = labels[torch.randint(1000, (1000, 3), generator=randomness.generator(0, "dataset/stacked/test"))]
    metric = StackedModesMetric("modes_kl", 2000, 500, 5, stacked, CPU)
    features = metric.read(stacked.test, embed)
    triples = metric.triples(features)
    assert features.shape == (1000, 192)
    assert (triples == drawn @ torch.tensor([100, 10, 1])).double().mean().item() == pytest.approx(0.935, abs=0.01)
    assert metric.real_reference["modes"] == pytest.approx(1000 * (1 - math.exp(-2)), abs=25)
    one = metric(stacked.train[:1].repeat(600, 1, 1, 1))
    assert one["modes"] == 1 and one["modes_kl"] == pytest.approx(math.log(1000)) and one["recall"] == 0


def test_classes_that_are_missing_are_counted() -> None:
    digits = datasets.mnist5k()
    (_, labels), _ = datasets.mnist5k_labeled()
    metric = image_metric(1000)
    assert metric.real_reference["classes"] == 10 and metric.real_reference["classes_kl"] < 0.01
    assert metric.real_reference["histogram"] == pytest.approx([0.1] * 10, abs=0.03)
    few = metric(digits.train[labels < 4])  # 1,600 of four digits
    assert few["classes"] == 4 and few["classes_kl"] == pytest.approx(math.log(10 / 4), rel=0.1)
    assert few["histogram"] == pytest.approx([0.25] * 4 + [0] * 6, abs=0.02)
    mixed = torch.cat([digits.train[labels == 0], digits.train[labels == 1][:4]])
    assert metric(mixed)["classes"] == 1  # four of 404 are less than a fifth of a tenth
    metric.class_counter.classify = lambda features: torch.full((len(features),), 12)  # only clothes
    none = metric(digits.train[:100])
    assert none["classes"] == 0 and none["classes_kl"] is None and none["histogram"] == [0] * 10
    assert none["classes_kl_why"] == "no sample is of a class that reals have"


def test_points_are_counted_by_mode() -> None:
    mixture = datasets.ring(n=10_000)
    metric = ModesMetric("energy_distance", 2000, 2000, 5, mixture, CPU)
    one = mixture.train[(mixture.train - mixture.modes.centers[2]).norm(dim=1) < 0.1]
    far = torch.full((len(one), 2), 9.0)
    assert metric(torch.cat([one, far]))["histogram"] == pytest.approx([0, 0, 0.5, 0, 0, 0, 0, 0])


def test_copies_are_told_from_new_samples() -> None:
    metric = image_metric(1000)
    digits = datasets.mnist5k()
    assert metric(digits.train[1000:2000])["memorization"] < 0.01
    assert 0.7 < metric.real_reference["memorization"] < 1  # four times as many to train on as held out
    copies = metric(digits.test)  # of what it should be compared with
    assert copies["memorization"] is None and "copies of held-out" in copies["memorization_why"]
    noisy = (digits.train[:1000].float() + 8 * torch.randn(1000, 1, 32, 32)).clamp(0, 255).to(torch.uint8)
    assert metric(noisy)["memorization"] < 0.7 * metric.real_reference["memorization"]


class Pixels(torch.nn.Module):
    """Features as they are: the d pixels of an image [N, 1, 1, d], 255 read as `broken`."""

    def __init__(self, broken: float):
        super().__init__()
        self.broken = broken

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).double().masked_fill(x.flatten(1) == 255, self.broken)


def pixel_metric(broken: float, train: torch.Tensor, test: torch.Tensor) -> ImageMetric:
    return ImageMetric("fd", Pixels(broken), 50, None, None, 5, 2, datasets.Data(train, test), CPU)


@pytest.fixture
def pixels(rng: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Training, held-out and generated images of eight pixels each, none of them 255."""
    return torch.randint(0, 255, (3, 150, 1, 1, 8), generator=rng).to(torch.uint8).unbind()


def all_none(scores: dict, why: str) -> bool:
    names = [name for name in scores if not name.endswith("_why")]
    return bool(names) and all(scores[n] is None and scores[f"{n}_why"] == why for n in names)


BROKEN = [math.nan, math.inf, -math.inf, 1e200]


@pytest.mark.parametrize("broken", BROKEN)
def test_one_broken_row_of_features_is_no_score(broken: float, pixels: tuple[torch.Tensor, ...]) -> None:
    train, test, fake = pixels
    metric = pixel_metric(broken, train, test)
    assert metric(fake)["fd"] > 0 and None not in metric(fake).values()
    fake[7, 0, 0, 3] = 255
    assert all_none(metric(fake), "features are not finite")


@pytest.mark.parametrize("broken", BROKEN)
def test_one_broken_row_of_real_features(broken: float, pixels: tuple[torch.Tensor, ...]) -> None:
    """In training data it is what memorization cannot be told from; without held-out data there is no metric."""
    train, test, fake = pixels
    train[90, 0, 0, 3] = 255
    metric = pixel_metric(broken, train, test)
    assert metric(fake)["fd"] > 0 and metric(fake)["recall"] is not None
    for scores in (metric(fake), metric.real_reference):
        assert scores["memorization"] is None and scores["memorization_why"] == "features are not finite"
    with pytest.raises(Refused, match="metric=fd: features of held-out data by Pixels are not finite; choose another"):
        _ = pixel_metric(broken, test, train).real_reference


@pytest.mark.parametrize("broken", BROKEN)
def test_no_measure_counts_a_broken_row(broken: float, rng: torch.Generator) -> None:
    """Each on its own, with the row among either set: NaN or none, and never a number."""
    fine, spoiled = torch.randn(2, 200, 4, generator=rng, dtype=torch.float64).unbind()
    spoiled[3, 1] = broken
    whole = moments(fine)
    for a, b in ((fine, spoiled), (spoiled, fine)):
        assert math.isnan(distance(moments(a), moments(b)))
        assert not math.isfinite(kernel_distance(a, b)) and not math.isfinite(energy_distance(a, b))
        for scores in (diversity(a, b, 5), memorization(a, b, fine), memorization(a, fine, b)):
            assert all_none(scores, "features are not finite")
        assert all_none(memorization_of_reals(a, b), "features are not finite")
    assert math.isnan(extrapolated_distance(whole, spoiled, root(whole.cov)))


def test_a_score_that_is_not_finite_says_so() -> None:
    reported = explain_non_finite(
        {"a": math.nan, "b": -math.inf, "c": 1.0, "d": None, "d_why": "x", "histogram": [0.5]}
    )
    why = "the score is not finite (NaN or infinity)"
    assert reported == {"a": None, "a_why": why, "b": None, "b_why": why} | {
        "c": 1.0,
        "d": None,
        "d_why": "x",
        "histogram": [0.5],
    }


@pytest.mark.parametrize(("generated", "held_out", "spans"), [(8, 100, 8), (100, 8, 8), (9, 100, None), (100, 9, None)])
def test_a_covariance_that_lacks_rank_is_no_score(
    generated: int, held_out: int, spans: int | None, pixels: tuple[torch.Tensor, ...]
) -> None:
    """d + 1 samples span d features, d do not: whichever set has too few."""
    train, test, fake = pixels
    scores = pixel_metric(math.nan, train, test[:held_out])(fake[:generated])
    assert (scores["fd"] is None) == (spans is not None)
    if spans:
        assert scores["fd_why"] == scores["fd_inf_why"] == "8 samples cannot span 8 features"
    assert scores["kid"] is not None and scores["recall"] is not None


def test_identical_sets_are_no_distance_apart(pixels: tuple[torch.Tensor, ...]) -> None:
    train, test, _ = pixels
    assert 0 <= pixel_metric(math.nan, train, test)(test)["fd"] < 1e-6  # of features with a variance of 5,000
    for seed in range(20):
        x = moments(torch.randn(50, 16, generator=torch.Generator().manual_seed(seed)))
        assert 0 <= distance(x, x) < 1e-9


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_points_and_stacked_digits_with_one_broken_row(broken: float) -> None:
    mixture = datasets.ring(n=5000)
    fake = mixture.train[:300].clone()
    fake[3, 0] = broken
    assert all_none(
        ModesMetric("energy_distance", 300, 300, 5, mixture, CPU)(fake), "samples are not finite or exceed 1e18"
    )
    stacked = datasets.stacked_mnist5k(n=500)
    metric = StackedModesMetric("modes_kl", 100, 100, 5, stacked, CPU)
    metric.classifier.body[-2].bias[0] = broken
    assert all_none(metric(stacked.train[:100]), "features are not finite")


def test_distances_of_points_keep_their_digits_in_single_precision() -> None:
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    near = x + 1e-4
    expected = torch.cdist(x.double(), near.double())
    assert (pairwise_distances(x, near) - expected).abs().max() < 1e-6
    assert (torch.cdist(x, near) - expected).abs().max() > 1e-5  # what it is there for
    torch.testing.assert_close(pairwise_distances(x.double(), near.double()), expected)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_tree_finds_the_neighbors_that_counting_finds(d: int) -> None:
    x = torch.randn(400, d, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, x[:10]])  # some are twice there
    for k in (1, 5):
        expected = torch.cdist(x.double(), x.double()).topk(k + 1, largest=False).values[:, k]
        torch.testing.assert_close(radii(x, k).double(), expected, rtol=1e-5, atol=1e-6)
    assert radii(x[:3], 5).isinf().all()


def test_points_are_measured_in_single_precision_as_in_double() -> None:
    made = [torch.randn(500, 2, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    expected = diversity(*(x.double() for x in made), 5)
    assert diversity(*made, 5) == pytest.approx(expected, abs=1e-3)
    double = float(energy_distance(*(x.double() for x in made)))
    assert float(energy_distance(*made)) == pytest.approx(double, abs=1e-7)


def test_points_that_no_number_holds_are_refused() -> None:
    cfg = settings("dataset=ring")
    ring = build(cfg.dataset)
    test = ring.test.clone()
    test[3, 1] = math.nan
    with pytest.raises(Refused, match="held-out points are not finite"):
        build(cfg.metric, name=cfg.metric.name, data=ring._replace(test=test), device=CPU)
    metric = build(cfg.metric, name=cfg.metric.name, data=ring, device=CPU)
    far = metric(ring.train[:2500] * 1e20)
    assert far["energy_distance"] is None and "exceed 1e18" in far["energy_distance_why"]


class Up(torch.nn.Module):
    """A critic that prefers points further up."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 1]


def test_the_picture_of_points_is_the_right_way_up() -> None:
    """Blue where the critic is high, an arrow at the center that points there, samples and reals where they are."""
    real, fake = torch.tensor([[1.0, 0.6]]), torch.tensor([[-0.7, 0.65]])
    found = pictures.field(fake, real, Up())
    reach, side = 1.3, found.size[0]

    def at(x: float, y: float) -> tuple[int, ...]:
        return found.getpixel((round((x / reach + 1) / 2 * side), round((1 - (y / reach + 1) / 2) * side)))

    red, blue = at(0.05, -1.25), at(0.05, 1.25)
    assert red[0] > red[2] + 50 and blue[2] > blue[0] + 50
    assert found.size == (320, 320)
    assert sum(abs(a - b) for a, b in zip(at(1.0, 0.6), (0x8D, 0x97, 0xA5), strict=True)) < 20
    assert sum(abs(a - b) for a, b in zip(at(-0.7, 0.65), (0xC2, 0x41, 0x0C), strict=True)) < 20
    light = [sum(at(0, y)) for y in (-0.05, 0.05)]
    assert light[1] < light[0] - 100


def test_the_kernel_distance_ranks_where_there_are_few_samples() -> None:
    """Fewer held-out images than features: no Fréchet distance, and it is no more needed."""
    digits = datasets.mnist5k()
    few = datasets.Data(digits.train[:200], digits.test[:60])
    metric = ImageMetric("kid", LeNet(), 60, None, None, 5, 0, few, CPU, frechet="fd_lenet")
    scores = metric(digits.train[300:360])
    assert metric.cannot_rank is None and metric.real_reference["kid"] is not None
    assert scores["fd_lenet"] is None and abs(scores["kid"]) < 1 < metric(255 - digits.train[300:360])["kid"]
    assert ImageMetric("fd_lenet", LeNet(), 60, None, None, 5, 0, few, CPU).cannot_rank
    enough = datasets.Data(digits.train[:200], digits.test[:65])
    assert ImageMetric("fd_lenet", LeNet(), 65, None, None, 5, 0, enough, CPU).cannot_rank is None
    assert ImageMetric("fd_lenet", LeNet(), 64, None, None, 5, 0, enough, CPU).cannot_rank


def test_that_there_can_be_no_score_is_known_before_features_are_computed() -> None:
    """With Inception on a CPU those of 10,000 images take the better part of an hour."""
    seen: list[int] = []

    class Counting(LeNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    digits = datasets.mnist5k()
    metric = ImageMetric("fd_lenet", Counting(), 64, None, None, 5, 0, digits, CPU)
    with pytest.raises(Refused, match="64 samples cannot span 64 features"):
        check_rankable(metric, "fd_lenet")
    assert sum(seen) <= 1
    assert metric.real_reference["kid"] is not None and sum(seen) > 1000  # computed once it is asked for


@pytest.mark.slow
def test_a_run_that_can_have_no_score_is_refused(tmp_path: Path) -> None:
    refusal = ganbench("metric.n_fake=64", "wandb=disabled", "name=a", "device=cpu", cwd=tmp_path)
    assert refusal.returncode == 2 and "Traceback" not in refusal.stderr
    assert (
        "metric=fd_lenet: no run can have a score, since 64 samples cannot span 64 features; use metric=kid"
        in refusal.stderr
    )
    assert not (tmp_path / "outputs/run/a/metrics.jsonl").read_text()
