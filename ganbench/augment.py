"""Augmentations of what the critic sees. ADD AN AUGMENTATION HERE: a function `(x, rng, ...)` that returns x changed.

`x` are float images [N, C, H, W] in [-1, 1], real and generated ones in one batch, so that both are changed alike;
`rng` is the only source of noise, and every image has a draw of its own. The generator learns through it, so it must be
differentiable by x. Then add conf/augment/<name>.yaml with `name`, `_target_`, `_partial_: true` and the arguments.
"""

from typing import Literal

import torch
from torch import Tensor


def none(x: Tensor, rng: torch.Generator | None) -> Tensor:
    """Return x itself."""
    return x


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    return torch.where(_uniform(x, rng) < 0.5, x.flip(3), x)


def diffaug(x: Tensor, rng: torch.Generator, policy: list[Literal["color", "translation", "cutout"]]) -> Tensor:
    """Apply differentiable augmentation (Zhao et al. 2020, arXiv:2006.10738, section 3), in the order of `policy`."""
    for name in policy:
        x = POLICIES[name](x, rng)
    return x


def color(x: Tensor, rng: torch.Generator) -> Tensor:
    """Shift the brightness by -0.5 to 0.5, scale the saturation by 0 to 2 and the contrast by 0.5 to 1.5."""
    x = x + (_uniform(x, rng) - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (2 * _uniform(x, rng))
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (0.5 + _uniform(x, rng))


def translation(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its sides, in whole pixels; what comes in from outside is 0."""
    height, width = x.shape[2:]
    row = _positions(x, height) - _shift(x, rng, _rounded(height / 8))
    column = _positions(x, width) - _shift(x, rng, _rounded(width / 8))
    inside = _is_inside(row, height)[:, :, None] & _is_inside(column, width)[:, None]
    source = row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None]
    moved = x.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return moved.view_as(x) * inside[:, None]


def cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """Set a square of half the sides to 0, around any point of the image, so that some of it may lie outside."""
    height, width = x.shape[2:]
    inside = _in_hole(x, rng, height)[:, :, None] & _in_hole(x, rng, width)[:, None]
    return x * ~inside[:, None]


POLICIES = {"color": color, "translation": translation, "cutout": cutout}


def _in_hole(x: Tensor, rng: torch.Generator, side: int) -> Tensor:
    """Draw an interval of half a side for each image, and tell [N, side] which pixels lie in it."""
    length = _rounded(side / 2)
    centers = side + 1 - length % 2  # one more for an even length, which has no pixel in its middle
    first = _whole(x, rng, centers) - length // 2
    position = _positions(x, side)
    return (position >= first) & (position < first + length)


def _shift(x: Tensor, rng: torch.Generator, most: int) -> Tensor:
    """Draw a whole number from -most to most for each image, shaped [N, 1]."""
    return _whole(x, rng, 2 * most + 1) - most


def _whole(x: Tensor, rng: torch.Generator, n: int) -> Tensor:
    """Draw a whole number from 0 to below n for each image, shaped [N, 1]."""
    return (_uniform(x, rng).view(-1, 1).double() * n).long()  # in float, the product may round up to n


def _uniform(x: Tensor, rng: torch.Generator) -> Tensor:
    """Draw a number from 0 to below 1 for each image, shaped [N, 1, 1, 1]."""
    return torch.rand(len(x), generator=rng, device=x.device, dtype=x.dtype).view(-1, 1, 1, 1)


def _positions(x: Tensor, side: int) -> Tensor:
    return torch.arange(side, device=x.device)[None]


def _is_inside(position: Tensor, side: int) -> Tensor:
    return (position >= 0) & (position < side)


def _rounded(length: float) -> int:
    """Round halves up, as the authors' code does."""
    return int(length + 0.5)
