"""The same work by another library, where it is installed beside ganbench: `pip install --no-deps torch-mimicry`."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor


def installed() -> str | None:
    return f"torch-mimicry {version('torch-mimicry')}" if find_spec("torch_mimicry") else None


def mimicry(width: int, z_dim: int, real: Tensor, device: torch.device) -> Callable[[], None]:
    """An iteration of its WGAN-GP on residual nets for 32x32 images [N, 3, 32, 32], by its own training steps."""
    # Its metrics want TensorFlow, its logger TensorBoard, its pictures scikit-image, and its datasets a torch before 2.
    # Its training steps want none of that.
    others = ("torch_mimicry.metrics", "torch_mimicry.datasets", "torch.utils.tensorboard", "skimage")
    unused = {name: ModuleType(name) for name in others}
    unused["torch.utils.tensorboard"].SummaryWriter = unused["skimage"].io = None
    sys.modules.update(unused)
    try:
        from torch_mimicry.nets import wgan_gp
        from torch_mimicry.training.metric_log import MetricLog
    finally:
        for name in unused:
            del sys.modules[name]

    G = wgan_gp.WGANGPGenerator32(nz=z_dim, ngf=width).to(device)
    D = wgan_gp.WGANGPDiscriminator32(ndf=width).to(device)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.9)) for net in (G, D))
    given = {"real_batch": (real.to(device), None), "device": device, "log_data": MetricLog()}

    def iteration() -> None:
        D.train_step(netG=G, optD=opt_d, **given)
        G.train_step(netD=D, optG=opt_g, **given)

    return iteration
