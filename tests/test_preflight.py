"""What is asked of a loss, a penalty and a critic before the first step, and how it is refused."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ganbench
from torch import nn

from ganbench.conformance.critics import LinearCritic
from ganbench.errors import Refused
from ganbench.losses import GAN, RaGAN
from ganbench.penalties import gp, none
from ganbench.training.preflight import check_critic, check_loss, check_metric, check_penalty


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
        (Named(), "loss mine: g must take (fake) or (fake, real); it takes (fake, other)."),
        (object(), "loss mine: object needs d(real, fake) and g(fake) or g(fake, real)."),
        (Numbers(), "loss mine: d must return a scalar tensor; got a float."),
        (Detached(), "loss mine: g gives no gradient"),
    ],
)
def test_losses_are_refused(loss, printed: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_loss(loss, "mine")
    assert str(refusal.value).startswith(printed)
    for good in (GAN(), RaGAN()):
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


def test_penalties_are_refused() -> None:
    with pytest.raises(Refused, match=r"penalty mine must return a scalar; got shape \[4\]"):
        check_penalty(lambda D, real, fake, rng: D(real).square() + 1, "mine", *ASKED)
    with pytest.raises(Refused, match="penalty mine gives no gradient to the critic's weights"):
        check_penalty(lambda D, real, fake, rng: gp(D, real, fake, rng, 1.0).detach(), "mine", *ASKED)
    for good in (none, lambda *a: gp(*a, weight=1.0)):
        check_penalty(good, "good", *ASKED)


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
    done = ganbench("loss._target_=mine.PerSample", "experiment=smoke", "wandb=disabled", "name=x", cwd=tmp_path)
    printed = "loss gan: d must return a scalar; got shape [4], so take the mean over the batch."
    assert done.returncode == 2 and printed in done.stderr and "Traceback" not in done.stderr
    status = json.loads((tmp_path / "outputs/run/x/status.json").read_text())
    assert status["status"] == "failed" and printed in status["reason"]
    assert (tmp_path / "outputs/run/x/metrics.jsonl").read_text() == ""


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
