"""One training step of every loss with every penalty, on points and on images."""

import copy
from contextlib import nullcontext

import pytest
import torch
from conftest import settings

from ganbench import randomness
from ganbench.config.compose import build
from ganbench.config.schema import CONF, Precision
from ganbench.training.batches import CriticBatch, GeneratorBatch
from ganbench.training.device import AutocastPenalty, player_autocast
from ganbench.training.iteration import update_average
from ganbench.training.players import Players, make_players
from ganbench.training.preflight import check_critic
from ganbench.training.updates import Objective, critic_update, generator_update

LOSSES = ["gan", "minimax", "lsgan", "wgan", "hinge", "rpgan", "ragan"]
PENALTIES = sorted(p.stem for p in (CONF / "penalty").glob("*.yaml"))


def players(cfg) -> Players:
    return make_players(cfg, torch.device("cpu"))


def critic_batch(real: torch.Tensor, z: torch.Tensor, rng: torch.Generator) -> CriticBatch:
    return CriticBatch(real, z, rng, when={})


def weights(net):
    return torch.cat([w.detach().flatten() for w in net.parameters()])


# Every pair on points; on images every loss, and every penalty.
ON_IMAGES = sorted({*((loss, "none") for loss in LOSSES), *(("wgan", penalty) for penalty in PENALTIES)})


@pytest.mark.parametrize(
    ("loss", "penalty", "dataset"),
    [(loss, penalty, "ring") for loss in LOSSES for penalty in PENALTIES]
    + [pytest.param(*pair, "mnist5k", marks=pytest.mark.slow) for pair in ON_IMAGES],
)
def test_a_step(loss: str, penalty: str, dataset: str, rng: torch.Generator) -> None:
    cfg = settings(f"dataset={dataset}", f"loss={loss}", f"penalty={penalty}", "model.width=8")
    everyone = players(cfg)
    G, D = everyone.G, everyone.D
    shape = tuple(cfg.dataset.shape)
    real, z = torch.rand(6, *shape, generator=rng) * 2 - 1, torch.randn(6, cfg.model.z_dim, generator=rng)
    objective = Objective(build(cfg.loss), build(cfg.penalty))
    g0, d0 = weights(G), weights(D)

    with torch.no_grad():
        fake = G(z)
    on_real, on_fake = D(real), D(fake)
    reported = critic_update(everyone, critic_batch(real, z, rng), objective)
    assert reported["d_loss"].item() == pytest.approx(objective.loss.d(on_real, on_fake).item(), rel=1e-4, abs=1e-5)
    assert reported["d_real"].item() == pytest.approx(on_real.mean().item(), rel=1e-4, abs=1e-5)
    assert torch.equal(weights(G), g0) and not torch.equal(weights(D), d0)

    d1 = weights(D)
    reported |= generator_update(everyone, GeneratorBatch(real, z), objective)
    assert torch.equal(weights(D), d1) and not torch.equal(weights(G), g0)
    assert all(w.requires_grad for w in D.parameters())
    assert all(value.isfinite() and not value.requires_grad for value in reported.values())
    assert reported["d_grad_norm"] > 0 and reported["g_grad_norm"] > 0
    if cfg.penalty.name == "clip":
        assert weights(D).abs().max() <= cfg.penalty.c


def test_a_critic_step_follows_the_sum_of_loss_and_penalty() -> None:
    """Against plain gradient descent on the same sum, written out."""
    cfg = settings("dataset=ring", "loss=wgan-gp", "optimizer=rmsprop", "penalty.weight=3")
    everyone = players(cfg)
    G, D = everyone.G, everyone.D
    twin = copy.deepcopy(D)
    real, z = torch.randn(16, 2), torch.randn(16, cfg.model.z_dim)
    descending = everyone._replace(opt_d=torch.optim.SGD(D.parameters(), 0.1))
    objective = Objective(build(cfg.loss), build(cfg.penalty))
    critic_update(descending, critic_batch(real, z, randomness.generator(0, "p")), objective)
    fake = G(z).detach()
    share = torch.rand(16, generator=randomness.generator(0, "p"))[:, None]
    x = (real + share * (fake - real)).requires_grad_()
    (inner,) = torch.autograd.grad(twin(x).sum(), x, create_graph=True)
    total = twin(fake).mean() - twin(real).mean() + 3 * ((inner.square().sum(1).sqrt() - 1) ** 2).mean()
    gradients = torch.autograd.grad(total, list(twin.parameters()), allow_unused=True, materialize_grads=True)
    for after, before, g in zip(D.parameters(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(after, before - 0.1 * g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "layer", "instance", "spectral"])
def test_no_critic_mixes_samples(norm: str) -> None:
    D = players(settings(f"model.critic_norm={norm}")).D
    check_critic(D, torch.randn(4, 1, 32, 32))
    assert D(torch.randn(4, 1, 32, 32)).shape == (4,)


def test_average_follows_weights_and_statistics() -> None:
    G = players(settings()).G
    average = copy.deepcopy(G)
    start = {k: v.clone() for k, v in average.state_dict().items()}
    for value in G.state_dict().values():
        value.add_(1)
    update_average(average, G, decay=0.75)
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, start[name] + 0.25)


@pytest.mark.parametrize("name", ["gp", "dragan", "r1", "clip"])
def test_penalties_in_bf16_are_those_of_fp32_to_its_digits(name: str, rng: torch.Generator) -> None:
    cfg = settings("loss=wgan", f"penalty={name}", "model.width=8")
    D = players(cfg).D
    real, fake = torch.rand(2, 32, 1, 32, 32, generator=rng) * 2 - 1
    penalty = build(cfg.penalty)
    half = AutocastPenalty(penalty, player_autocast(Precision.bf16_all, torch.device("cpu")))
    found = []
    for each in (penalty, half):
        value = each(D, real, fake, torch.Generator().manual_seed(1))
        assert value.dtype == torch.float32
        D.zero_grad()
        (value + 0 * D(real).sum()).backward()
        found.append((value.item(), torch.cat([w.grad.flatten() for w in D.parameters()])))
    (expected, gradient), (value, other) = found
    assert value == pytest.approx(expected, rel=0.01) and (value != expected or name == "clip")
    if name == "clip":
        half.project(D)
        assert all(w.abs().max() <= 0.01 for w in D.parameters())
    else:
        assert torch.nn.functional.cosine_similarity(gradient, other, dim=0) > 0.99


def test_bf16_leaves_the_penalty_in_fp32(rng: torch.Generator) -> None:
    cfg = settings("loss=wgan-gp", "model.width=8")
    found = []
    for autocast in (nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)):
        everyone = players(cfg)
        seen = []

        def watching(D, real, fake, rng, seen=seen):
            seen.append((D(real).dtype, real.dtype, fake.dtype))
            return build(cfg.penalty)(D, real, fake, rng)

        real, z = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(1)), torch.ones(8, 64)
        objective = Objective(build(cfg.loss), watching, autocast)
        reported = critic_update(everyone, critic_batch(real, z, randomness.generator(0, "p")), objective)
        assert seen == [(torch.float32,) * 3]
        found.append(reported["d_penalty"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-2)
