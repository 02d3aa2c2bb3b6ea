"""What is asked of a loss, a penalty and a critic before the first step, and how it is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ganbench
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from ganbench import datasets
from ganbench.conformance.critics import LinearCritic
from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.losses import GAN, RaGAN
from ganbench.models import mlp
from ganbench.penalties import gp, none
from ganbench.randomness import seeded_initialization
from ganbench.training.preflight import (
    check_critic,
    check_data,
    check_generator,
    check_loss,
    check_metric,
    check_penalty,
    check_weights,
)


class FixedBatch(GAN):
    """Assumes a batch of 64."""

    def d(self, real, fake):
        return binary_cross_entropy_with_logits(real, torch.ones(64)) + softplus(fake).mean()


class FixedBatchOfG(GAN):
    def g(self, fake):
        return (softplus(-fake) * torch.ones(4)).mean()


class Counted(GAN):
    """Fades out with the number of its calls."""

    calls = 0

    def d(self, real, fake):
        self.calls += 1
        return super().d(real, fake) / self.calls


class Smoothed(nn.Module):
    """Keeps a running mean of its logits."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def d(self, real, fake):
        self.mean = 0.9 * self.mean + 0.1 * real.mean().detach()
        return softplus(-(real - self.mean)).mean() + softplus(fake).mean()

    def g(self, fake):
        return softplus(-fake).mean()


class Tempered(nn.Module):
    """Divides its logits by a number that nobody trains."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def d(self, real, fake):
        return (softplus(-real) + softplus(fake)).mean() / self.temperature

    def g(self, fake):
        return softplus(-fake).mean() / self.temperature


class RunningMean(GAN):
    """Begins with the mean of its first logits, so that the same logits again do not move it."""

    mean = None

    def d(self, real, fake):
        now = real.mean().detach()
        self.mean = now if self.mean is None else 0.9 * self.mean + 0.1 * now
        return super().d(real - self.mean, fake)


class Hidden(GAN):
    """Has a trained number, but is no module."""

    def __init__(self):
        self.weight = torch.ones((), requires_grad=True)

    def d(self, real, fake):
        return super().d(real, fake) * self.weight


class Misspelt(GAN):
    def g(self, fake):
        return softplus(-fakes).mean()  # noqa: F821


class Noisy(GAN):
    """Flips labels; which ones is for the seed of each step to say."""

    def d(self, real, fake):
        return super().d(torch.where(torch.rand(len(real)) < 0.5, -real, real), fake)


class NoFake(GAN):
    def g(self):
        return 0.0


class Named(GAN):
    def g(self, fake, other):
        return fake.mean()


class Numbers(GAN):
    def d(self, real, fake):
        return 1.0


class Detached(GAN):
    def g(self, fake):
        return super().g(fake).detach()


@pytest.mark.parametrize(
    ("loss", "printed"),
    [
        (NoFake(), "loss mine: g must take (fake) or (fake, real); it takes ()."),
        (Named(), "loss mine: g must take (fake) or (fake, real); it takes (fake, other)."),
        (object(), "loss mine: object needs d(real, fake) and g(fake) or g(fake, real)."),
        (Numbers(), "loss mine: d must return a scalar tensor; got a float."),
        (Detached(), "loss mine: g gives no gradient"),
        (FixedBatch(), "loss mine: d fails for logits of shape [4]: "),
        (FixedBatchOfG(), "loss mine: g fails for logits of shape [3]: "),
        (Misspelt(), "loss mine: g fails for logits of shape [4]: "),
        (Counted(), "loss mine: d returns another value when it is asked again"),
        (Smoothed(), "loss mine: d returns another value when it is asked again"),
        (RunningMean(), "loss mine: d returns another value when it is asked again"),
        (Tempered(), "loss mine has weights (temperature) that no optimizer trains"),
        (Hidden(), "loss mine has weights (weight) that no optimizer trains"),
    ],
)
def test_losses_are_refused(loss, printed: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_loss(loss, "mine")
    assert str(refusal.value).startswith(printed)
    for good in (GAN(), RaGAN(), Noisy()):
        check_loss(good, "good")


ASKED = LinearCritic((2,), 3.0), torch.zeros(4, 2), torch.ones(4, 2)


class Counting:
    """A penalty with a state, which a question must not use up."""

    asked = 0

    def __call__(self, D, real, fake, rng):
        self.asked += 1
        return gp(D, real, fake, rng, weight=1.0)


def test_a_question_leaves_no_trace() -> None:
    counting, D = Counting(), nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    before = D[0].weight.clone()
    check_penalty(counting, "counting", D, torch.zeros(4, 4), torch.ones(4, 4))
    check_critic(D, torch.randn(4, 4))
    assert counting.asked == 0 and torch.equal(D[0].weight, before) and D[0].weight.grad is None


@pytest.mark.parametrize(
    ("data", "printed"),
    [
        ((torch.ones(4, 2), torch.ones(4, 2)), r"must return a ganbench\.datasets\.Data\(train, test\); got a tuple"),
        (Data([1.0], torch.ones(4, 2)), "train must be a tensor; got a list"),
        (Data(torch.ones(4, 2), torch.ones(4, 3)), r"test must have the shape \[N, 2\], .* says; got \[4, 3\]"),
        (Data(torch.ones(4, 2), torch.ones(0, 2)), r"test must have the shape \[N, 2\], .* says; got \[0, 2\]"),
        (Data(torch.tensor(1.0), torch.ones(4, 2)), r"train must have the shape \[N, 2\], .* says; got \[\]"),
        (Data(torch.ones(4, 2).long(), torch.ones(4, 2)), r"train must be uint8 .*; got torch\.int64"),
        (Data(torch.ones(4, 2), torch.full((4, 2), -math.inf)), "test has numbers that are not finite"),
        (Data(torch.tensor([[0, math.nan], [1, 2]]), torch.ones(4, 2)), "train has numbers that are not finite"),
    ],
)
def test_data_are_refused(data: object, printed: str) -> None:
    check_data(Data(torch.ones(4, 2), torch.ones(4, 2)), "mine", [2])
    with pytest.raises(Refused, match=rf"^dataset mine:? {printed}"):
        check_data(data, "mine", [2])


class Averaging:
    """Keeps a running mean of the critic's slope."""

    mean = None

    def __call__(self, D, real, fake, rng):
        now = D(real).square().mean()
        self.mean = now if self.mean is None else 0.9 * self.mean.detach() + 0.1 * now
        return self.mean


def overwriting(D, real, fake, rng):
    x = real.clone().requires_grad_()
    squares = (D(x) * x.sum(1)).square()
    with torch.no_grad():
        x.zero_()
    return squares.mean()


def partly_frozen() -> nn.Module:
    D = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0))
    D[0].requires_grad_(False)
    return D


def test_penalties_are_refused() -> None:
    with pytest.raises(Refused, match=r"penalty mine must return a scalar; got shape \[4\]"):
        check_penalty(lambda D, real, fake, rng: D(real).square() + 1, "mine", *ASKED)
    with pytest.raises(Refused, match="penalty mine gives no gradient to the critic's weights"):
        check_penalty(lambda D, real, fake, rng: gp(D, real, fake, rng, 1.0).detach(), "mine", *ASKED)
    with pytest.raises(Refused, match="penalty mine returns another value when it is asked again"):
        check_penalty(Averaging(), "mine", *ASKED)
    with pytest.raises(Refused, match=r"penalty mine is nan for samples of shape \[4, 2\] and new weights"):
        check_penalty(lambda *a: gp(*a, weight=math.nan), "mine", *ASKED)
    with pytest.raises(Refused, match=r"penalty mine fails where it is differentiated: .*: RuntimeError: one of the"):
        check_penalty(overwriting, "mine", *ASKED)
    for good in (none, lambda *a: gp(*a, weight=1.0)):
        check_penalty(good, "good", *ASKED)
        check_penalty(good, "good", partly_frozen(), *ASKED[1:])


def test_critics_are_refused() -> None:
    flat = nn.Flatten(0)
    with pytest.raises(Refused, match="mixes the samples of a batch"):
        check_critic(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), flat), torch.randn(4, 4))
    with pytest.raises(Refused, match=r"must return one logit per sample, shape \[4\]; got \[4, 1\]"):
        check_critic(nn.Linear(4, 1), torch.randn(4, 4))
    for good in (LinearCritic((4,), 1.0), nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1), flat)):
        check_critic(good, torch.randn(4, 4))
    for part in good.parameters():
        nn.init.zeros_(part)
    check_critic(good, torch.randn(4, 4))  # a start at zero is no fault


def test_what_fails_in_a_users_file_is_named_with_its_line() -> None:
    with pytest.raises(Refused, match=r"test_preflight\.py, line \d+: NameError: name 'fakes' is not defined"):
        check_loss(Misspelt(), "mine")


def test_critics_that_fail_are_refused_by_name() -> None:
    class Tuple(nn.Linear):
        def forward(self, x):
            return super().forward(x).squeeze(1), x

    with pytest.raises(Refused, match=r"critic Tuple must return a tensor of logits; got a tuple\."):
        check_critic(Tuple(4, 1), torch.randn(4, 4))
    with pytest.raises(Refused, match=r"critic Linear fails for samples of shape \[4, 5\]: .*RuntimeError: mat1"):
        check_critic(nn.Linear(4, 1), torch.randn(4, 5))


def image_net(*last: nn.Module, z_dim: int = 8, size: int = 3 * 16 * 16) -> nn.Module:
    return nn.Sequential(nn.Linear(z_dim, size), *last)


def shaped(*shape: int) -> nn.Module:
    return nn.Unflatten(1, shape)


class Batch64(nn.Linear):
    def forward(self, z):
        return super().forward(z).view(64, 3, 16, 16)


class Call(nn.Module):
    """Passes what it gets through a function."""

    def __init__(self, function: Callable[[torch.Tensor], object]):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


IMAGES = torch.linspace(-1, 1, 4 * 3 * 16 * 16).view(4, 3, 16, 16)


@pytest.mark.parametrize(
    ("G", "printed"),
    [
        (
            image_net(shaped(3, 16, 16), nn.Sigmoid()),
            "Sequential returns no negative values, and data reach from -1 to 1",
        ),
        (image_net(shaped(3, 16, 16), nn.ReLU()), "returns no negative values"),
        (image_net(shaped(3, 16, 16), nn.LogSigmoid()), "returns no positive values"),
        (image_net(shaped(3, 16, 16), Call(lambda x: 127.5 * x.tanh() + 127.5)), "returns no negative values"),
        (image_net(nn.Tanh()), r"must return samples of shape \[3, 3, 16, 16\], .*; got \[3, 768\]"),
        (image_net(shaped(16, 16, 3), nn.Tanh()), r"got \[3, 16, 16, 3\]"),
        (image_net(shaped(3, 16, 16), Call(torch.Tensor.double)), "must return float32, not float64; use precision"),
        (image_net(shaped(3, 16, 16), Call(torch.Tensor.bfloat16)), "must return float32, not bfloat16"),
        (image_net(shaped(3, 16, 16), Call(lambda x: (x, x))), "must return a tensor of samples; got a tuple"),
        (image_net(shaped(3, 16, 16), Call(torch.Tensor.detach)), "gives no gradient to its weights"),
        (image_net(shaped(3, 16, 16), z_dim=9), r"fails for z of shape \[3, 8\]: .*RuntimeError: mat1 and mat2"),
        (Batch64(8, 768), r"generator Batch64 fails for z of shape \[3, 8\]: .*RuntimeError: shape"),
    ],
)
def test_generators_are_refused(G: nn.Module, printed: str) -> None:
    with pytest.raises(Refused, match=printed):
        check_generator(G, 8, IMAGES)


def test_good_generators_are_not() -> None:
    for good in (image_net(shaped(3, 16, 16), nn.Tanh()), image_net(shaped(3, 16, 16), nn.Dropout(), nn.Tanh())):
        check_generator(good, 8, IMAGES)
    check_generator(image_net(shaped(3, 16, 16), nn.Sigmoid()), 8, IMAGES.abs())  # data of one sign
    for part in good.parameters():
        nn.init.zeros_(part)
    check_generator(good, 8, IMAGES)  # a start at zero is no fault


def test_a_generator_that_begins_on_one_side_is_not_refused() -> None:
    """Untrained, a small net of points reaches no further than its biases lie apart."""
    points = datasets.ring(n=500).train
    one_sided = 0
    for seed in range(60):
        with seeded_initialization(seed, "init/G"):
            G = mlp.Generator((2,), 8, 16)
        fake = G(torch.randn(64, 8))
        one_sided += bool((fake.max() <= 0) | (fake.min() >= 0))
        check_generator(G, 8, points)
    assert one_sided > 0
    softplus = nn.Sequential(mlp.Generator((2,), 8, 16), nn.Softplus())
    with pytest.raises(Refused, match="returns no negative values"):
        check_generator(softplus, 8, points)


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 2)]


@pytest.mark.parametrize(
    ("net", "printed"),
    [
        (nn.LazyLinear(4), "critic LazyLinear has lazy layers"),
        (nn.Sequential(nn.Linear(2, 2), nn.LazyConv2d(4, 3)), "critic Sequential has lazy layers"),
        (Unregistered(), "critic Unregistered has no weights to train"),
        (nn.Linear(2, 2).requires_grad_(False), "critic Linear has no weights to train"),
    ],
)
def test_nets_without_weights_are_refused(net: nn.Module, printed: str) -> None:
    with pytest.raises(Refused, match=printed):
        check_weights(net, "critic")
    check_weights(nn.Linear(2, 2), "critic")


MINE = """
from torch.nn.functional import softplus

class PerSample:
    def d(self, real, fake):
        return softplus(-real) + softplus(fake)
    def g(self, fake):
        return softplus(-fake).mean()
"""


@pytest.mark.slow
def test_a_run_with_a_broken_loss_ends_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    typed = ("loss._target_=mine.PerSample", "experiment=smoke", "wandb=disabled", "device=cpu", "name=x")
    done = ganbench(*typed, cwd=tmp_path)
    printed = "loss gan: d must return a scalar; got shape [4], so take the mean over the batch."
    assert done.returncode == 2 and done.stderr == f"{printed}\n"
    status = json.loads((tmp_path / "outputs/run/x/status.json").read_text())
    assert status["status"] == "failed" and status["reason"] == printed
    assert (tmp_path / "outputs/run/x/metrics.jsonl").read_text() == ""
    (tmp_path / "mine.py").write_text(MINE.replace("softplus(-real) + softplus(fake)", "(real - fake).square().mean()"))
    mended = ganbench(*typed, "protocol.images=128", "protocol.lr=0.5", cwd=tmp_path)  # other code, other settings
    assert mended.returncode == 0, mended.stderr
    assert "lr: 0.5" in (tmp_path / "outputs/run/x/config.yaml").read_text()
    assert "refused" not in json.loads((tmp_path / "outputs/run/x/status.json").read_text())
    other = ganbench(*typed, "protocol.images=128", cwd=tmp_path)
    assert other.returncode == 2 and "contains a run with protocol.lr=0.5, not 0.002" in other.stderr


class OwnMetric:
    n_fake = 8
    name = "mine"
    real_reference = {"mine": 0.0}  # noqa: RUF012


def test_metrics_say_what_is_needed_of_them() -> None:
    check_metric(OwnMetric(), "mine")
    for attribute, value, printed in (
        ("n_fake", None, "metric mine: OwnMetric needs n_fake"),
        ("name", "other", "metric mine: OwnMetric needs name=mine and real_reference"),
        ("real_reference", {"other": 0.0}, "metric mine: OwnMetric needs name=mine and real_reference"),
    ):
        metric = OwnMetric()
        setattr(metric, attribute, value)
        with pytest.raises(Refused, match=printed):
            check_metric(metric, "mine")


class Swapped:
    def d(self, real, fake):
        return (fake - real).mean()

    def g(self, real, fake):
        return (real - fake).mean()


class ByKeyword(Swapped):
    def g(self, fake, *, real):
        return (real - fake).mean()


@pytest.mark.parametrize("loss", [Swapped(), ByKeyword()])
def test_a_relativistic_loss_takes_fakes_first(loss) -> None:
    with pytest.raises(Refused, match=r"loss mine: g must take \(fake\) or \(fake, real\)"):
        check_loss(loss, "mine")
