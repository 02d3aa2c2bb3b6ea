"""Checks of both updates against gradient descent written out: what moves, by how much, and what does not."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.conformance.descent import descending
from ganbench.interfaces import Critic, Loss, Penalty, Projection
from ganbench.penalties import none as no_penalty
from ganbench.training.batches import CriticBatch, GeneratorBatch
from ganbench.training.preflight import generator_loss
from ganbench.training.updates import Objective, critic_update, generator_update

RATE = 0.1


class CountingSGD(torch.optim.SGD):
    """Plain gradient descent that counts its steps."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        return super().step(closure)


class Game(NamedTuple):
    """Two nets, which no check changes, and as many real samples as z."""

    D: nn.Module
    G: nn.Module
    real: Tensor  # [N, ...]
    z: Tensor  # [N, z_dim]

    def copy(self) -> "Game":
        return self._replace(D=copy.deepcopy(self.D), G=copy.deepcopy(self.G))


def check(name: str, objective: Objective, game: Game, critic_update: Callable = critic_update) -> Checks:
    """Check the updates with a method's loss and penalty."""
    game = game.copy()
    with torch.no_grad():
        game.D(game.real)  # the first power iteration, so that the next ones change little
    checks = [
        partial(_critic_update, name, objective, game, critic_update),
        partial(_generator_update, name, objective, game),
        partial(_augmentation, name, objective, game, critic_update),
        partial(_precision, name, objective, game, critic_update),
    ]
    yield from run_checks("step", name, checks)


def _critic_update(name: str, objective: Objective, game: Game, critic_update: Callable) -> Checks:
    loss, penalty = objective.loss, objective.penalty
    D, G, real, z = game.copy()
    twin = copy.deepcopy(D)
    G_before = _weights(G)
    with torch.no_grad():
        fake = copy.deepcopy(G)(z)
    optimizer = CountingSGD(D.parameters(), RATE)
    critic_update(descending(D, G, RATE)._replace(opt_d=optimizer), _critic_batch(real, z), objective)
    value = loss.d(*twin(torch.cat([real, fake])).chunk(2))
    value = value + penalty(twin.eval(), real, fake, seeded_rng(3))
    _descend(twin, value)
    if isinstance(penalty, Projection):
        penalty.project(twin)
    description = "D descends the gradient of loss + penalty"
    yield check_close("step", name, description, _weights(D), _weights(twin), rel=1e-3, abs=1e-5)
    yield check_true("step", name, "one optimizer step for loss and penalty together", optimizer.count == 1)
    yield check_true("step", name, "the critic's update leaves G unchanged", torch.equal(_weights(G), G_before))


def _generator_update(name: str, objective: Objective, game: Game) -> Checks:
    D, G, real, z = game.copy()
    twin = copy.deepcopy(G)
    D_before = copy.deepcopy(D)
    generator_update(descending(D, G, RATE), GeneratorBatch(real, z), objective)
    d_unchanged = torch.equal(_weights(D), _weights(D_before))
    d_trainable = all(w.requires_grad for w in D.parameters())
    d_fake, d_real = D_before(torch.cat([twin(z), real])).split(len(z))
    _descend(twin, generator_loss(objective.loss, d_fake, d_real))
    description = "G descends the gradient of its loss"
    yield check_close("step", name, description, _weights(G), _weights(twin), rel=1e-3, abs=1e-5)
    description = "the generator's update leaves D unchanged and trainable"
    yield check_true("step", name, description, d_unchanged and d_trainable)


def _augmentation(name: str, objective: Objective, game: Game, critic_update: Callable) -> Checks:
    """Check both updates with an augmentation that halves every sample: nothing may be judged as it was."""
    loss, penalty = objective.loss, objective.penalty
    halving = dataclasses.replace(objective, augment=lambda x, rng: x / 2)
    D, G, real, z = game.copy()
    twin = copy.deepcopy(D)
    with torch.no_grad():
        fake = copy.deepcopy(G)(z)
    critic_update(descending(D, G, RATE), _critic_batch(real, z), halving)
    value = loss.d(*twin(torch.cat([real, fake]) / 2).chunk(2))
    value = value + penalty(twin.eval(), real / 2, fake / 2, seeded_rng(3))
    _descend(twin, value)
    if isinstance(penalty, Projection):
        penalty.project(twin)
    description = "loss and penalty see reals and fakes augmented alike"
    yield check_close("step", name, description, _weights(D), _weights(twin), rel=1e-3, abs=1e-5)
    D, G, real, z = game.copy()
    judge = copy.deepcopy(D)
    student = copy.deepcopy(G)
    generator_update(descending(D, G, RATE), GeneratorBatch(real, z), halving)
    d_fake, d_real = judge(torch.cat([student(z), real]) / 2).split(len(z))
    _descend(student, generator_loss(loss, d_fake, d_real))
    description = "G learns through the augmentation"
    yield check_close("step", name, description, _weights(G), _weights(student), rel=1e-3, abs=1e-5)


class RecordingLoss:
    """Keep the data types of the critic's logits that a loss was called with."""

    def __init__(self, loss: Loss):
        self.loss = loss
        self.g = loss.g
        self.dtypes: list[torch.dtype] = []

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        self.dtypes += [real.dtype, fake.dtype]
        return self.loss.d(real, fake)


class RecordingPenalty:
    """Keep the data types of the logits and samples that a penalty was called with."""

    def __init__(self, penalty: Penalty):
        self.penalty = penalty
        self.dtypes: list[torch.dtype] = []

    def __call__(self, D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        self.dtypes += [D(real).dtype, real.dtype, fake.dtype]
        return self.penalty(D, real, fake, rng)


def _precision(name: str, objective: Objective, game: Game, critic_update: Callable) -> Checks:
    """Check that under bf16 autocast the players' nets may round, but losses and penalties do not."""
    loss, penalty = RecordingLoss(objective.loss), RecordingPenalty(objective.penalty)
    bf16 = partial(torch.autocast, "cpu", torch.bfloat16)
    D, G, real, z = game.copy()
    critic_update(descending(D, G, RATE), _critic_batch(real, z), Objective(loss, penalty, bf16))
    in_fp32 = loss.dtypes + penalty.dtypes == [torch.float32] * 5
    yield check_true("step", name, "loss and penalty stay in fp32 under bf16 autocast", in_fp32)


def power_iterations(name: str, objective: Objective, game: Game) -> Checks:
    """Check that a penalty adds no spectral-norm power iteration: all buffers end as they do without it."""
    buffers = []
    for penalty in (objective.penalty, no_penalty):
        D, G, real, z = game.copy()
        critic_update(descending(D, G, 0.0), _critic_batch(real, z), Objective(objective.loss, penalty))
        buffers.append(torch.cat([b.flatten() for b in D.buffers()] or [torch.zeros(1)]))
    yield check_true("step", name, "a penalty adds no spectral-norm power iteration", torch.equal(*buffers))


def _critic_batch(real: Tensor, z: Tensor) -> CriticBatch:
    return CriticBatch(real, z, seeded_rng(3), when={})


def _descend(net: nn.Module, value: Tensor) -> None:
    weights = list(net.parameters())
    gradients = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            w.sub_(RATE * g)


def _weights(net: nn.Module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in net.parameters()])
