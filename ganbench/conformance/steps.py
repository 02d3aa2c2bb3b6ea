"""The two steps against gradient descent written out: what moves, by how much, and what does not."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.training import steps
from ganbench.training.preflight import generator_loss

RATE = 0.1


class Counting(torch.optim.SGD):
    """Plain gradient descent that counts its steps."""

    taken = 0

    def step(self, closure=None):
        self.taken += 1
        return super().step(closure)


def check(
    name: str, loss, penalty: Callable[..., Tensor], D: nn.Module, G: nn.Module, x: Tensor, z: Tensor,
    critic_step: Callable = steps.critic_step,
) -> Checks:  # fmt: skip
    """Of a pair, on nets of one's choice: real samples x and as many z."""
    D, G = copy.deepcopy(D), copy.deepcopy(G)
    with torch.no_grad():
        D(x)  # a first turn of what turns with every forward
    checks = [
        partial(_critic, name, loss, penalty, D, G, x, z, critic_step),
        partial(_generator, name, loss, D, G, x, z),
        partial(_precision, name, loss, penalty, D, G, x, z, critic_step),
    ]
    yield from run_checks("step", name, checks)


def _critic(name, loss, penalty, D, G, x, z, critic_step) -> Checks:
    D, twin, G = copy.deepcopy(D), copy.deepcopy(D), copy.deepcopy(G)
    before = _weights(G)
    optimizer = Counting(D.parameters(), RATE)
    critic_step(D, G, x, z, loss, penalty, optimizer, seeded_rng(3))
    with torch.no_grad():
        fake = copy.deepcopy(G)(z)
    value = loss.d(*twin(torch.cat([x, fake])).chunk(2))
    value = value + penalty(twin.eval(), x, fake, seeded_rng(3))
    _descend(twin, value)
    getattr(penalty, "project", lambda D: None)(twin)
    claim = "D moves down the gradient of loss plus penalty"
    yield check_close("step", name, claim, _weights(D), _weights(twin), rel=1e-3, abs=1e-5)
    yield check_true("step", name, "D's optimiser steps once for both", optimizer.taken == 1)
    yield check_true("step", name, "G stays while D moves", torch.equal(_weights(G), before))


def _generator(name, loss, D, G, x, z) -> Checks:
    D, G, twin = copy.deepcopy(D), copy.deepcopy(G), copy.deepcopy(G)
    before, judge = _weights(D), copy.deepcopy(D)
    steps.generator_step(D, G, x, z, loss, torch.optim.SGD(G.parameters(), RATE))
    fake, real = judge(torch.cat([twin(z), x])).split(len(z))
    _descend(twin, generator_loss(loss, fake, real))
    yield check_close(
        "step", name, "G moves down the gradient of its loss", _weights(G), _weights(twin), rel=1e-3, abs=1e-5
    )
    free = all(w.requires_grad for w in D.parameters())
    yield check_true(
        "step", name, "D stays while G moves, and can move again", torch.equal(_weights(D), before) and free
    )


def _precision(name, loss, penalty, D, G, x, z, critic_step) -> Checks:
    """In bf16 the players' nets may round; losses and penalties may not."""
    seen: list[torch.dtype] = []

    class Watched:
        def d(self, real: Tensor, fake: Tensor) -> Tensor:
            seen.extend([real.dtype, fake.dtype])
            return loss.d(real, fake)

    def watching(D: nn.Module, real: Tensor, fake: Tensor, noise: torch.Generator) -> Tensor:
        seen.extend([D(real).dtype, real.dtype, fake.dtype])
        return penalty(D, real, fake, noise)

    D, G = copy.deepcopy(D), copy.deepcopy(G)
    half = partial(torch.autocast, "cpu", torch.bfloat16)
    critic_step(D, G, x, z, Watched(), watching, torch.optim.SGD(D.parameters(), RATE), seeded_rng(3), half)
    yield check_true("step", name, "loss and penalty stay fp32 in bf16", seen == [torch.float32] * 5)


def turns_alike(
    name: str, loss, penalty: Callable[..., Tensor], D: nn.Module, G: nn.Module, x: Tensor, z: Tensor
) -> Checks:
    """A penalty must not turn spectral norm's power iteration more often than no penalty does."""
    turned = []
    for one in (penalty, lambda D, real, fake, noise: real.new_zeros(())):
        twin = copy.deepcopy(D)
        steps.critic_step(
            twin, copy.deepcopy(G), x, z, loss, one, torch.optim.SGD(twin.parameters(), 0.0), seeded_rng(3)
        )
        turned.append(torch.cat([b.flatten() for b in twin.buffers()] or [torch.zeros(1)]))
    yield check_true("step", name, "turns spectral norm no more often than no penalty does", torch.equal(*turned))


def _descend(net: nn.Module, value: Tensor) -> None:
    found = torch.autograd.grad(value, list(net.parameters()), allow_unused=True)
    with torch.no_grad():
        for w, g in zip(net.parameters(), found, strict=True):
            w -= RATE * (g if g is not None else torch.zeros_like(w))


def _weights(net: nn.Module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in net.parameters()])
