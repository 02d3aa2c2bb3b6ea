"""Pictures of samples."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ganbench.datasets import Data
from ganbench.models.layers import eval_mode

SIDE = 640  # pixels at which points are drawn; the picture has half as many, and so smooth edges
FIELD_LEVELS = (-1, -0.5, 0, 0.5, 1)  # of the field, and their colours
COLORS = ((103, 0, 31), (214, 96, 77), (247, 247, 247), (67, 147, 195), (5, 48, 97))
ARROW = "#7f8b96"


def picture_size(data: Data) -> int:
    """Of samples that a picture wants."""
    return 64 if data.test.dim() == 4 else 1000


def sample_picture(x: Tensor, data: Data, D: nn.Module) -> Image.Image:
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
    reach = 1.3 * float(real.abs().max())
    heights = _logit_field(D, _square_grid(reach, 80, real))
    colours = np.stack([np.interp(heights, FIELD_LEVELS, channel) for channel in np.array(COLORS).T], 2)
    picture = Image.fromarray(colours.round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    _dots(draw, _pixels(real, reach), 2, "#8d97a5")
    points = _square_grid(reach, 15, real)
    for start, way in zip(_pixels(points, reach), _pull_directions(D, points) * 0.036 * SIDE, strict=True):
        _arrow(draw, start, start + way)
    _dots(draw, _pixels(fake.clamp(-10 * reach, 10 * reach), reach), 3, "#c2410c")
    return picture.reduce(2).transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def _pixels(points: Tensor, reach: float) -> np.ndarray:
    """Where points [n, 2] lie in the picture."""
    return ((points / reach + 1) / 2 * SIDE).cpu().numpy()


def _dots(draw: ImageDraw.ImageDraw, at: np.ndarray, radius: int, colour: str) -> None:
    for x, y in at:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _arrow(draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray) -> None:
    along = (end - start) * 0.4
    across = along[::-1] * (-0.6, 0.6)
    draw.line((*start, *end), fill=ARROW, width=2)
    draw.polygon([tuple(end), tuple(end - along + across), tuple(end - along - across)], fill=ARROW)


def _pull_directions(D: nn.Module, points: Tensor) -> np.ndarray:
    """The direction of D's gradient at each point [n, 2]."""
    points = points.clone().requires_grad_()
    with eval_mode(D):
        (pull,) = torch.autograd.grad(D(points).sum(), points)
    return torch.nn.functional.normalize(pull).cpu().numpy()


@torch.no_grad()
def _logit_field(D: nn.Module, points: Tensor) -> np.ndarray:
    """D's logits less their median, for points of a square: [side, side], within ±1/1.5."""
    with eval_mode(D):
        logits = D(points)
    logits = (logits - logits.median()).nan_to_num(0.0, 0.0, 0.0)  # a critic may be past all numbers
    side = math.isqrt(len(points))
    return (logits / (1.5 * (logits.abs().max() or 1.0))).view(side, side).cpu().numpy()


def _square_grid(reach: float, side: int, like: Tensor) -> Tensor:
    """Points [side^2, 2], row by row."""
    line = torch.linspace(-reach, reach, side)
    return torch.cartesian_prod(line, line).flip(1).to(like)
