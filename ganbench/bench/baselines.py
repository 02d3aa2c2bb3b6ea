"""What ganbench's training iteration is compared with: the step as tutorials write it, and torch-mimicry's.

The textbook's step is correct and plain: noise from the global generator, D called on real and on fake samples
separately, the generator's graph kept where it is not needed, gradients of D's weights computed in G's step, optimizers
with their defaults.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from ganbench.training.players import Players

CriticLoss = Callable[[Tensor, Tensor], Tensor]
GeneratorLoss = Callable[[Tensor], Tensor]

LOSSES: dict[str, tuple[CriticLoss, GeneratorLoss]] = {
    "gan": (lambda real, fake: softplus(-real).mean() + softplus(fake).mean(), lambda fake: softplus(-fake).mean()),
    "hinge": (lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda fake: -fake.mean()),
    "wgan-gp": (lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()),
}
LOSSES["dragan"] = LOSSES["gan"]


def textbook_step(method: str, players: Players, real: Tensor, z_dim: int) -> None:
    """Update the critic once and the generator once."""
    G, D = players.G, players.D
    d_loss, g_loss = LOSSES[method]
    fake = G(torch.randn(len(real), z_dim, device=real.device))
    loss = d_loss(D(real), D(fake.detach()))
    points = penalized_points(method, real, fake)
    if points is not None:
        loss = loss + gradient_penalty(D, points)
    players.opt_d.zero_grad()
    loss.backward()
    players.opt_d.step()
    fake = G(torch.randn(len(real), z_dim, device=real.device))
    loss = g_loss(D(fake))
    players.opt_g.zero_grad()
    loss.backward()
    players.opt_g.step()


def penalized_points(method: str, real: Tensor, fake: Tensor) -> Tensor | None:
    """Return the samples at which the method penalizes the critic; None for a method without a penalty."""
    u = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    if method == "wgan-gp":
        return real + u * (fake.detach() - real)
    if method == "dragan":
        return (real + (2 * u - 1) * 0.5 * real.std() * torch.rand_like(real)).clamp(-1, 1)
    return None


def gradient_penalty(D: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return 10 * ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def mimicry_version() -> str | None:
    """Return torch-mimicry's name and version if it is installed: `pip install --no-deps torch-mimicry`."""
    return f"torch-mimicry {version('torch-mimicry')}" if find_spec("torch_mimicry") else None


def mimicry_iteration(width: int, z_dim: int, real: Tensor, device: torch.device) -> Callable[[], None]:
    """Return torch-mimicry's iteration of WGAN-GP on residual nets for images [N, 3, 32, 32], by its training steps."""
    wgan_gp, MetricLog = _import_mimicry()
    G = wgan_gp.WGANGPGenerator32(nz=z_dim, ngf=width).to(device)
    D = wgan_gp.WGANGPDiscriminator32(ndf=width).to(device)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.9)) for net in (G, D))
    arguments = {"real_batch": (real.to(device), None), "device": device, "log_data": MetricLog()}

    def iteration() -> None:
        D.train_step(netG=G, optD=opt_d, **arguments)
        G.train_step(netD=D, optG=opt_g, **arguments)

    return iteration


def _import_mimicry() -> tuple[ModuleType, type]:
    """Import torch-mimicry with stand-ins for what its training steps do not need.

    Its metrics import TensorFlow, its logger TensorBoard, its pictures scikit-image, and its datasets an old torch.
    """
    names = ("torch_mimicry.metrics", "torch_mimicry.datasets", "torch.utils.tensorboard", "skimage")
    stand_ins = {name: ModuleType(name) for name in names}
    setattr(stand_ins["torch.utils.tensorboard"], "SummaryWriter", None)  # noqa: B010 (mypy knows no such attribute)
    setattr(stand_ins["skimage"], "io", None)  # noqa: B010
    sys.modules.update(stand_ins)
    try:
        from torch_mimicry.nets import wgan_gp
        from torch_mimicry.training.metric_log import MetricLog
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return wgan_gp, MetricLog
