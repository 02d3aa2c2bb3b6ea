"""An iteration asks nothing of the host, and of one device only: shown without a GPU, on tensors without data.

A tensor on `meta` has a shape and a type, so an iteration runs from its first operation to its last; what needs a
value on the host (`.item()`, a branch) or mixes in a tensor from there fails. There is no autocast for `meta`: half
precision is left to test_gpu.py.
"""

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from conftest import settings
from iterations import iterating
from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganbench import penalties
from ganbench.training.batches import Batch, CriticBatch, GeneratorBatch
from ganbench.training.players import make_players

META = torch.device("meta")
N = 4
LOSSES = ("gan", "minimax", "lsgan", "lsgan_pearson", "hinge", "wgan", "ragan", "rsgan", "rpgan")
PENALTIES = (
    *("clip", "dragan", "dragan-normal", "dragan-notebook", "dragan-perturbed", "gp", "lp", "maxgp"),
    *("none", "r1", "r1r2", "r2", "zero_centered"),
)
NETS = {
    "dcgan": ("model=dcgan", "model.width=4"),
    "sngan_resnet": ("model=sngan_resnet", "model.width=4"),
    "mlp": ("dataset=ring", "model.width=8"),
}
OTHER_NETS = {
    "sngan_cnn": ("model=sngan_cnn", "model.width=2"),
    "infogan": ("model=infogan", "model.width=2"),
    "r3gan": ("model=r3gan", "model.width=8"),
}
CASES = [
    *((f"loss={loss}", *NETS[net]) for net in NETS for loss in LOSSES),
    *(("loss=gan", f"penalty={penalty}", *NETS[net]) for net in NETS for penalty in PENALTIES),
    *((f"loss={loss}", *OTHER_NETS[net]) for net in OTHER_NETS for loss in ("gan", "wgan-gp")),
    *(("loss=wgan-gp", *NETS["dcgan"], f"protocol.reuse_fakes={reuse}") for reuse in ("true", "false")),
    *(
        (f"loss={loss}", *NETS["dcgan"], f"augment={name}")
        for name in ("flip", "diffaug")
        for loss in ("wgan-gp", "rpgan")
    ),
    *(("loss=wgan-gp", *NETS["dcgan"], f"model.critic_norm={norm}") for norm in ("none", "layer", "spectral")),
]


class OneDevice(TorchDispatchMode):
    """Counts operations, and fails at the first that sees a tensor of the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        assert all(x.is_meta for x in tensors), f"{func} mixes devices: {[str(x.device) for x in tensors]}"
        self.operations += 1
        return made


class Noise:
    """Stands for a torch.Generator, which no one has on `meta`."""

    device = META


def without_generator(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *shape, generator, **options: draw(*shape, **options)


def meta_batch(cfg: DictConfig) -> Batch:
    """Two critic updates and one of the generator."""
    real = torch.empty(N, *cfg.dataset.shape, device=META)
    z = torch.empty(N, cfg.model.z_dim, device=META)
    critic = CriticBatch(real, z, Noise(), when={}, augment_rng=Noise())  # type: ignore[arg-type]
    return Batch([critic] * 2, GeneratorBatch(real, z, augment_rng=Noise()), key=0)  # type: ignore[arg-type]


def operations(*overrides: str) -> int:
    """Run one iteration on `meta` and return of how many operations it consists, without the optimizers'."""
    cfg = settings(*overrides)
    players = make_players(cfg, META)
    for optimizer in (players.opt_g, players.opt_d):
        optimizer.found_inf = torch.zeros((), device=META)  # type: ignore[attr-defined]  # as of fused ones, on a GPU
        optimizer.step = lambda: None  # type: ignore[method-assign]  # torch's own, and on the host if not fused
    draws = {name: without_generator(getattr(torch, name)) for name in ("rand", "randn")}
    with patch.multiple(torch, **draws), OneDevice() as mode:
        iterating(cfg, players, META)(meta_batch(cfg))
    return mode.operations


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_nothing_is_asked_of_the_host(overrides: tuple[str, ...]) -> None:
    assert operations(*overrides) > 50


# With n_critic=2. On small nets a GPU waits for launches, so an iteration of more operations should be noticed; if it
# comes to consist of fewer, lower these.
CEILINGS = {"gan": 375, "lsgan": 390, "hinge": 385, "wgan-gp": 730, "wgan-lp": 740, "dragan": 760}


@pytest.mark.parametrize("method", CEILINGS)
def test_an_iteration_has_no_more_operations_than_it_had(method: str) -> None:
    found = operations(f"loss={method}", *NETS["dcgan"])
    assert 0.9 * CEILINGS[method] < found <= CEILINGS[method]


NET_CEILINGS = {"sngan_resnet": 2600, "sngan_cnn": 1620, "infogan": 530, "r3gan": 1360, "mlp": 550}  # of wgan-gp


@pytest.mark.parametrize("net", NET_CEILINGS)
def test_nor_has_one_of_other_nets(net: str) -> None:
    found = operations("loss=wgan-gp", *{**NETS, **OTHER_NETS}[net])
    assert 0.9 * NET_CEILINGS[net] < found <= NET_CEILINGS[net]


def reads_a_value(D, real: Tensor, fake: Tensor, rng: object) -> Tensor:
    return D(real).mean() * float(real.mean())


def branches(D, real: Tensor, fake: Tensor, rng: object) -> Tensor:
    return D(real).mean() if real.mean() > 0 else D(fake).mean()


def has_a_constant(D, real: Tensor, fake: Tensor, rng: object) -> Tensor:
    return (D(real) * torch.linspace(0, 1, N)).mean()


def draws_on_the_host(D, real: Tensor, fake: Tensor, rng: object) -> Tensor:
    return D(real + torch.empty(N).uniform_()[0] * fake).mean()


@pytest.mark.parametrize("fault", [reads_a_value, branches, has_a_constant, draws_on_the_host])
def test_what_asks_the_host_is_seen(fault: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "gp", lambda *given, weight: fault(*given))
    with pytest.raises((RuntimeError, AssertionError), match=r"meta|mixes devices"):
        operations("loss=wgan-gp", *NETS["dcgan"])
