"""Draw pictures of samples: a grid of images, or points over the critic's field."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ganbench.datasets import Data
from ganbench.models.layers import eval_mode

SIDE = 640  # pixels at which points are drawn; the picture is reduced to half, which smooths edges
FIELD_LEVELS = (-1, -0.5, 0, 0.5, 1)  # of the critic's field; each has one of these colors, red to blue
COLORS = ((103, 0, 31), (214, 96, 77), (247, 247, 247), (67, 147, 195), (5, 48, 97))
REAL_COLOR = "#8d97a5"
SAMPLE_COLOR = "#c2410c"
ARROW_COLOR = "#7f8b96"
MARGIN = 1.3  # the picture's half width, as a multiple of the largest coordinate of the reals


def picture_size(data: Data) -> int:
    """Return how many samples a picture shows."""
    return 64 if data.test.dim() == 4 else 1000


def sample_picture(x: Tensor, data: Data, D: nn.Module) -> Image.Image:
    """Draw images [N, C, H, W] as a grid, or points [N, 2] over held-out ones and the critic's field."""
    return grid(x.cpu()) if x.dim() == 4 else field(x.cpu(), data.test[:2000], D)


def grid(x: Tensor, columns: int = 8) -> Image.Image:
    """Tile uint8 images [N, C, H, W] with 1 or 3 channels; N must be a multiple of `columns`."""
    n, c, h, w = x.shape
    tiled = x.view(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(n // columns * h, columns * w, c)
    return Image.fromarray(tiled.expand(-1, -1, 3).contiguous().numpy() if c == 3 else tiled[..., 0].numpy())


def field(fake: Tensor, real: Tensor, D: nn.Module) -> Image.Image:
    """Draw samples [n, 2] in orange over reals [m, 2] in gray, over the critic's field.

    The field is blue where D's logit is above its median in the picture, red where below; arrows show where D's
    gradient pulls samples.
    """
    reach = MARGIN * float(real.abs().max())
    picture = _field_picture(D, _square_grid(reach, 80, real))
    draw = ImageDraw.Draw(picture)
    _dots(draw, _pixels(real, reach), 2, REAL_COLOR)
    points = _square_grid(reach, 15, real)
    for start, step in zip(_pixels(points, reach), _pull_directions(D, points) * 0.036 * SIDE, strict=True):
        _arrow(draw, start, start + step)
    _dots(draw, _pixels(fake.clamp(-10 * reach, 10 * reach), reach), 3, SAMPLE_COLOR)
    return picture.reduce(2).transpose(Image.Transpose.FLIP_TOP_BOTTOM)  # the second coordinate points up


def _field_picture(D: nn.Module, points: Tensor) -> Image.Image:
    levels = _logit_field(D, points)
    colors = np.stack([np.interp(levels, FIELD_LEVELS, channel) for channel in np.array(COLORS).T], 2)
    return Image.fromarray(colors.round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


@torch.no_grad()
def _logit_field(D: nn.Module, points: Tensor) -> np.ndarray:
    """Return D's logits less their median at the points [side^2, 2] of a square, scaled to ±1/1.5: [side, side]."""
    with eval_mode(D):
        logits = D(points)
    logits = (logits - logits.median()).nan_to_num(0.0, 0.0, 0.0)  # the logits of a diverging critic may be infinite
    side = math.isqrt(len(points))
    return (logits / (1.5 * (logits.abs().max() or 1.0))).view(side, side).cpu().numpy()


def _pull_directions(D: nn.Module, points: Tensor) -> np.ndarray:
    """Return the direction of D's gradient at each point [n, 2], as unit vectors."""
    points = points.clone().requires_grad_()
    with eval_mode(D):
        (gradient,) = torch.autograd.grad(D(points).sum(), points)
    return torch.nn.functional.normalize(gradient).cpu().numpy()


def _square_grid(reach: float, side: int, like: Tensor) -> Tensor:
    """Return points [side^2, 2] of the square from -reach to reach, row by row, on the device of `like`."""
    line = torch.linspace(-reach, reach, side)
    return torch.cartesian_prod(line, line).flip(1).to(like)


def _pixels(points: Tensor, reach: float) -> np.ndarray:
    """Return where points [n, 2] lie in the picture, in pixels."""
    return ((points / reach + 1) / 2 * SIDE).cpu().numpy()


def _dots(draw: ImageDraw.ImageDraw, centers: np.ndarray, radius: int, color: str) -> None:
    for x, y in centers:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _arrow(draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray) -> None:
    along = (end - start) * 0.4
    across = along[::-1] * (-0.6, 0.6)
    draw.line((*start, *end), fill=ARROW_COLOR, width=2)
    draw.polygon([tuple(end), tuple(end - along + across), tuple(end - along - across)], fill=ARROW_COLOR)
