"""Pictures of samples."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ganbench.data import Data
from ganbench.models import evaluating


def number(data: Data) -> int:
    """Of samples that a picture wants."""
    return 64 if data.test.dim() == 4 else 1000


def picture(x: Tensor, data: Data, D: nn.Module) -> Image.Image:
    """Images [N, C, H, W] as a grid eight wide; points [N, d] over real ones and the critic's field."""
    return grid(x.cpu()) if x.dim() == 4 else field(x.cpu(), data.test[:2000], D)


def grid(x: Tensor, columns: int = 8) -> Image.Image:
    """uint8 images [N, C, H, W], N a multiple of `columns`."""
    n, c, h, w = x.shape
    tiled = x.view(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(n // columns * h, columns * w, c)
    return Image.fromarray(tiled.expand(-1, -1, 3).contiguous().numpy() if c == 3 else tiled[..., 0].numpy())


def field(fake: Tensor, real: Tensor, D: nn.Module) -> Image.Image:
    """Orange samples over grey reals; blue where D's logit is above its median over the picture, red where below;
    arrows point where D pulls samples.
    """
    # A quarter of a second that grids of images need not wait.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reach = 1.3 * float(real.abs().max())
    figure = Figure(figsize=(3.2, 3.2), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_axis_off()
    _, logits, _ = _judged(D, reach, 80, real)
    most = float(np.abs(logits).max()) or 1.0
    axes.pcolormesh(*[np.linspace(-reach, reach, 80)] * 2, logits, cmap="RdBu", vmin=-1.5 * most, vmax=1.5 * most)
    axes.scatter(*real.cpu().numpy().T, s=2, c="#8d97a5", linewidths=0)
    points, _, pull = _judged(D, reach, 15, real)
    axes.quiver(*points.T, *pull.T, color="#3e4c59", alpha=0.55, width=0.004, scale=28)
    axes.scatter(*fake.clamp(-10 * reach, 10 * reach).numpy().T, s=5, c="#c2410c", linewidths=0)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def _judged(D: nn.Module, reach: float, side: int, like: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a square [side^2, 2], their logits less the median [side, side], and the directions of D's gradient."""
    line = torch.linspace(-reach, reach, side)
    points = torch.cartesian_prod(line, line).flip(1).to(like).requires_grad_()
    with evaluating(D):
        logits = D(points)
    (pull,) = torch.autograd.grad(logits.sum(), points)
    logits, pull = logits.detach(), torch.nn.functional.normalize(pull)
    parts = points.detach(), (logits - logits.median()).view(side, side), pull
    return tuple(part.cpu().numpy() for part in parts)
