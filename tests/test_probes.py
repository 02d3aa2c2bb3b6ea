"""The probe of the generator's gradient: what it measures, and that the run does not notice."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import rows, settings
from scipy import special, stats
from torch import Tensor, nn

from ganbench.config.compose import build
from ganbench.conformance.critics import LinearCritic
from ganbench.datasets import Data
from ganbench.losses import GAN, LSGAN, WGAN, Minimax
from ganbench.models.mlp import Critic as Perceptron
from ganbench.runs import checkpoint
from ganbench.training.players import Players
from ganbench.training.probes import CHUNKS, Vanishing, energy_gradient, measure_gradients
from ganbench.training.train import train
from ganbench.training.updates import Objective

TINY = ("experiment=smoke", "wandb=disabled", "device=cpu", "model.width=8", "protocol.images=128")
PROBE = ("probe=vanishing", "probe.steps=4", "probe.n=32", "probe.moments=[0,0.5,1]")


class Shift(nn.Module):
    """x = z + theta, in one dimension."""

    def __init__(self, theta: float):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta]))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.theta


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["gan", "dragan", "rpgan"])
def test_a_run_does_not_notice(loss: str, tmp_path: Path) -> None:
    """Spectral norm's power iteration, batch norm's statistics and Adam's moments included."""
    others = (*TINY, f"loss={loss}", "model.critic_norm=spectral")
    with_it, without = tmp_path / "with", tmp_path / "without"
    train(settings(*others, *PROBE), with_it)
    train(settings(*others), without)
    assert rows(with_it) == rows(without)
    ours, theirs = checkpoint.load(with_it), checkpoint.load(without)
    for part in ("G", "D", "average", "opt_g", "opt_d"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    lines = [json.loads(line) for line in (with_it / "probes.jsonl").read_text().splitlines()]
    reported = {(r["images"], r["critic"], r["steps"], r["loss"]) for r in lines}
    kinds = ("gan", "minimax") if loss in ("gan", "dragan") else (settings(f"loss={loss}").loss.name,)
    assert reported == {
        (i, c, k, kind) for i in (0, 64, 128) for c in ("onward", "scratch") for k in (0, 1, 2, 4) for kind in kinds
    }
    assert len(reported) == len(lines) and not (without / "probes.jsonl").exists()


@pytest.mark.slow
def test_the_run_s_own_critic_goes_on_and_a_fresh_one_starts(tmp_path: Path) -> None:
    train(settings(*TINY, *PROBE, "loss=hinge", "dataset=ring"), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "probes.jsonl").read_text().splitlines()]
    at = {(r["images"], r["critic"], r["steps"]): r["g_norm"] for r in lines}
    assert at[0, "onward", 0] == at[0, "scratch", 0] and at[0, "onward", 4] == at[0, "scratch", 4]
    assert at[128, "onward", 0] != at[128, "scratch", 0]
    assert len(set(at.values())) == len(at) - 4  # every step moves them, but for the four that begin alike


class Remembering(GAN):
    """A loss with a memory."""

    def __init__(self):
        self.seen = 0

    def g(self, fake: Tensor) -> Tensor:
        self.seen += len(fake) > 4  # not where it is asked before the first step, which would be its end
        return super().g(fake) / max(1, self.seen)


@pytest.mark.slow
def test_a_loss_with_a_memory_keeps_it(tmp_path: Path) -> None:
    own = (*TINY, "dataset=ring", "loss._target_=test_probes.Remembering")
    train(settings(*own, *PROBE), tmp_path / "with")
    train(settings(*own), tmp_path / "without")
    assert rows(tmp_path / "with") == rows(tmp_path / "without")


def adam(rate: float, *nets: nn.Module) -> list[torch.optim.Adam]:
    return [torch.optim.Adam(net.parameters(), rate) for net in nets]


def test_fewer_reals_than_samples() -> None:
    """Held-out data are gone round as often as it takes, for a loss that compares both."""
    data = Data(torch.randn(40, 1), torch.randn(3, 1))
    D = Perceptron((1,), 8)
    probe = Vanishing([], None, 1, 64, "rpgan", 8, 1, 0)
    G = Shift(1.0)
    critics = {"scratch": Players(G, D, G, *adam(1e-3, G, D))}
    reported = list(probe(critics, Objective(build(settings("loss=rpgan").loss), build(settings().penalty)), data, 0))
    assert [row["steps"] for row in reported] == [0, 1] and all(math.isfinite(row["g_norm"]) for row in reported)


def test_only_the_seeds_asked_for() -> None:
    probe = build(settings(*PROBE, "probe.seeds=[1,2]", "seed=2").probe, name="gan")
    assert probe.moments == [0, 0.5, 1]
    assert build(settings(*PROBE, "probe.seeds=[1,2]", "seed=0").probe, name="gan").moments == []


def test_measures_by_hand() -> None:
    """A critic D(x) = w·x over fakes z + 1 and reals at 0."""
    D, G = LinearCritic((1,), 0.7), Shift(1.0)
    w = D.w.item()
    z = torch.linspace(-2, 2, 64)[torch.randperm(64, generator=torch.Generator().manual_seed(0))][:, None]
    real = torch.zeros(32, 1)
    towards = energy_gradient(G, z, real)
    found = measure_gradients(G, D, {"gan": GAN(), "wgan": WGAN(), "lsgan": LSGAN()}, z, real, towards)
    logits = w * (z + 1)
    each = -torch.sigmoid(-logits) * w  # d softplus(-D) / d theta
    parts = torch.stack([part.mean() for part in each.chunk(CHUNKS)])
    assert found["gan"]["g_norm"] == pytest.approx(abs(each.mean().item()), rel=1e-5)
    assert found["gan"]["snr"] == pytest.approx(abs((parts.mean() / parts.std(correction=0)).item()), rel=1e-4)
    assert found["wgan"]["g_norm"] == pytest.approx(0.7) and found["lsgan"]["g_norm"] == pytest.approx(
        abs((2 * (logits - 1) * w).mean().item()), rel=1e-5
    )
    assert found["gan"]["d_slope_fake"] == pytest.approx(0.7)
    higher = ((logits < 0) if w < 0 else (logits > 0)).float().mean().item()
    assert found["wgan"]["critic_auc"] == pytest.approx(higher if w < 0 else (logits < 0).float().mean().item())
    # fakes lie to the right of the reals: lowering theta lowers the energy distance
    assert towards.item() > 0
    assert found["wgan"]["cosine"] == pytest.approx(-math.copysign(1, w))


@pytest.mark.parametrize(("shift", "expected"), [(-20.0, 1.0), (0.0, 0.0)])
def test_saturation_is_a_share_of_samples(shift: float, expected: float) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return shift + 0 * x.sum(1)

    G, z, real = Shift(0.0), torch.randn(64, 1), torch.zeros(64, 1)
    found = measure_gradients(G, Flat(), {"minimax": Minimax(), "gan": GAN()}, z, real, energy_gradient(G, z, real))
    assert found["minimax"]["saturated"] == expected  # sigmoid(D)
    assert found["gan"]["saturated"] == 0  # sigmoid(-D)


@pytest.mark.slow
@pytest.mark.parametrize("theta", [1.0, 2.0])
def test_against_theory(theta: float) -> None:
    """Critics trained on N(0,1) against N(theta,1) leave what the best one leaves: theta E[p/(p+q)] and the rest."""
    minimax = theta * stats.norm(theta).expect(lambda x: special.expit(theta**2 / 2 - theta * x))
    found = _at_the_end(theta)
    for kind, expected in (("minimax", minimax), ("gan", theta - minimax)):
        assert found[kind]["g_norm"] == pytest.approx(expected, rel=0.15)
        assert found[kind]["cosine"] == pytest.approx(1)


def _at_the_end(theta: float) -> dict[str, dict]:
    rng = torch.Generator().manual_seed(0)
    data = Data(torch.randn(20_000, 1, generator=rng), torch.randn(4000, 1, generator=rng))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        D = Perceptron((1,), 32)
    G = Shift(theta)
    players = Players(G, D, G, *adam(2e-3, G, D))
    probe = Vanishing([], None, 512, 4000, "gan", 512, 1, 0)
    penalty = build(settings().penalty)
    reported = list(probe({"scratch": players}, Objective(GAN(), penalty), data, 0))
    assert [r["steps"] for r in reported if r["loss"] == "gan"] == [0, *(2**i for i in range(10))]
    return {r["loss"]: r for r in reported if r["steps"] == 512}
