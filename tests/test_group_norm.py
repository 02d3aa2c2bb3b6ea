"""Our group norm is torch's: values, gradients, gradients of gradients, and what these cost."""

from collections import Counter

import pytest
import torch
from conftest import settings
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ganbench.config.compose import build
from ganbench.models.group_norm import GroupNorm, group_norm
from ganbench.penalties import input_gradient_norm

GROUPS = [1, 2, 6]  # of six channels: layer norm, groups, instance norm


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


@pytest.mark.parametrize("eps", [1e-5, 0.5])  # with the second, the normalized values are far from variance 1
@pytest.mark.parametrize("groups", GROUPS)
def test_its_two_derivatives_by_finite_differences(groups: int, eps: float) -> None:
    given = drawn(2, 6, 3, 2), drawn(6), drawn(6)
    assert torch.autograd.gradcheck(lambda *x: group_norm(*x, groups, eps), given)
    assert torch.autograd.gradgradcheck(lambda *x: group_norm(*x, groups, eps), given)


@pytest.mark.parametrize("groups", GROUPS)
def test_all_that_two_passes_give_is_torch_s(groups: int) -> None:
    """The gradients of a functional of all three first derivatives, by everything they depend on."""
    x, w, b, by_y = drawn(4, 6, 5, 7), drawn(6), drawn(6), drawn(4, 6, 5, 7)
    found = []
    for norm in (lambda: group_norm(x, w, b, groups, 1e-5), lambda: nn.functional.group_norm(x, groups, w, b, 1e-5)):
        y = norm()
        first = torch.autograd.grad(y.sin(), (x, w, b), by_y, create_graph=True)
        functional = sum((each.sin() ** 2).sum() for each in first)
        found.append([y, *first, *torch.autograd.grad(functional, (x, w, b, by_y))])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("groups", GROUPS)
def test_without_a_penalty_no_bit_differs_from_torch(groups: int) -> None:
    x, layer = drawn(4, 6, 8, 8, dtype=torch.float32), GroupNorm(groups, 6)
    found = []
    for net in (layer, nn.GroupNorm(groups, 6)):
        y = net(x)
        found.append([y, *torch.autograd.grad(y.sin().sum(), (x, *net.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_in_half_precision_it_is_torch_s() -> None:
    x, layer = drawn(4, 6, 8, 8, dtype=torch.float32), GroupNorm(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (net(x.bfloat16()) for net in (layer, nn.GroupNorm(2, 6)))
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


class Operators(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("model", "norm"), [("dcgan", "instance"), ("dcgan", "layer"), ("sngan_resnet", "layer")])
def test_a_penalty_takes_half_the_operations(model: str, norm: str) -> None:
    counts, gradients = [], []
    for fast in ("true", "false"):
        switch = f"++model.critic.fast_double_backward={fast}"
        cfg = settings(f"model={model}", f"model.critic_norm={norm}", switch)
        torch.manual_seed(0)
        D = build(cfg.model.critic)
        x = drawn(8, *cfg.dataset.shape, dtype=torch.float32)
        with Operators() as operators:
            penalty = (input_gradient_norm(D, x) - 1).square().mean()
            gradients.append(torch.autograd.grad(penalty, list(D.parameters()), allow_unused=True))
        counts.append(operators.count.total())
    assert counts[0] < 0.6 * counts[1], counts
    for ours, theirs in zip(*gradients, strict=True):
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=1e-5)
