"""What is asked of a loss, a penalty and a critic before the first step, and how it is refused."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ganbench
from torch import nn

from ganbench.config import Refused
from ganbench.contract import LinearCritic, refuse_critic, refuse_loss, refuse_penalty
from ganbench.losses import GAN, RaGAN
from ganbench.penalties import gp, none


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
    ("loss", "said"),
    [
        (Named(), "loss mine: g takes fake, other: due is g(fake) or g(fake, real)."),
        (Numbers(), "loss mine: d returns a float: a tensor of one number is due."),
        (Detached(), "loss mine: g gives no gradient"),
    ],
)
def test_losses_are_refused(loss, said: str) -> None:
    with pytest.raises(Refused) as refusal:
        refuse_loss(loss, "mine")
    assert str(refusal.value).startswith(said)
    for good in (GAN(), RaGAN()):
        refuse_loss(good, "good")


def test_penalties_are_refused() -> None:
    with pytest.raises(Refused, match=r"penalty mine returns shape \[4\] rather than one number"):
        refuse_penalty(lambda D, real, fake, rng: D(real).square() + 1, "mine", (2,))
    with pytest.raises(Refused, match="penalty mine gives no gradient to the critic's weights"):
        refuse_penalty(lambda D, real, fake, rng: gp(D, real, fake, rng, 1.0).detach(), "mine", (2,))
    for good in (none, lambda *a: gp(*a, weight=1.0)):
        refuse_penalty(good, "good", (1, 4, 4))


def test_critics_are_refused() -> None:
    flat = nn.Flatten(0)
    with pytest.raises(Refused, match="mixes the samples of a batch"):
        refuse_critic(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), flat), torch.randn(4, 4))
    with pytest.raises(Refused, match=r"returns shape \[4, 1\] for 4 samples: one logit each is due"):
        refuse_critic(nn.Linear(4, 1), torch.randn(4, 4))
    refuse_critic(LinearCritic((4,), 1.0), torch.randn(4, 4))


MINE = """
from torch.nn.functional import softplus

class PerSample:
    def d(self, real, fake):
        return softplus(-real) + softplus(fake)
    def g(self, fake):
        return softplus(-fake).mean()
"""


def test_a_run_with_a_broken_loss_ends_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = ganbench("loss._target_=mine.PerSample", "experiment=smoke", "wandb=disabled", "name=x", cwd=tmp_path)
    said = "loss gan: d returns shape [4] rather than one number: take the mean over the batch."
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    status = json.loads((tmp_path / "outputs/run/x/status.json").read_text())
    assert status["status"] == "failed" and said in status["reason"]
    assert (tmp_path / "outputs/run/x/metrics.jsonl").read_text() == ""
