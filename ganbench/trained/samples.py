"""Draw samples of a trained generator, and write them into files or a picture."""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganbench import randomness
from ganbench.datasets import concatenate
from ganbench.trained.generator import Trained
from ganbench.training.evaluate import chunk_sizes, finite_samples, sample, sample_chunks
from ganbench.training.pictures import grid

ROWS = 8  # of a picture
STEPS = 8  # of a walk, its ends included


def draw(trained: Trained, n: int, seed: int) -> Iterator[Tensor]:
    """Draw n samples in the dataset's format, in chunks. With the run's seed the first are those that it scored."""
    sizes = _chunk_sizes(n, trained.cfg.metric.get("n_fake") or n)
    left = n
    for chunk in sample_chunks(trained.G, sizes, trained.cfg.model.z_dim, seed, trained.device):
        yield chunk[:left].cpu()
        left -= len(chunk)


def _chunk_sizes(n: int, n_fake: int) -> list[int]:
    """Return chunks of n samples or more that begin as those of an evaluation: chunks decide what is drawn."""
    sizes = chunk_sizes(n_fake) + chunk_sizes(n - n_fake)
    starts = accumulate(sizes, initial=0)
    return [size for start, size in zip(starts, sizes, strict=False) if start < n]


def grid_picture(trained: Trained, seed: int) -> Image.Image:
    """Draw 64 samples; with the run's seed they are those of its own pictures."""
    samples = sample(trained.G, ROWS * ROWS, trained.cfg.model.z_dim, seed, trained.device, stream="z_grid")
    return grid(samples.cpu(), ROWS)


@torch.no_grad()
def walks_picture(trained: Trained, seed: int) -> Image.Image:
    """Draw eight rows, each a walk between two z along the great circle."""
    ends = randomness.normal((2, ROWS, trained.cfg.model.z_dim), seed, "z_walk", 0, trained.device)
    z = great_circle(ends[0], ends[1], STEPS).flatten(0, 1)
    randomness.seed_globals(randomness.key(seed, "own_z_walk"), trained.device)
    return grid(finite_samples(trained.G(z)).cpu(), STEPS)


def great_circle(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Walk from a [N, d] to b [N, d]: [N, steps, d]. Directions turn evenly on the sphere, norms change evenly.

    On a straight line z would be shorter than those that a generator was trained with (White 2016, arXiv:1609.04468).
    """
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)[:, None]
    norm_a, norm_b = (x.norm(dim=1)[:, None, None] for x in (a, b))
    a, b = a[:, None] / norm_a, b[:, None] / norm_b
    angle = (a * b).sum(2, keepdim=True).clamp(-1, 1).acos()
    directions = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    straight = (1 - t) * a + t * b  # of z that are parallel, which no single circle joins
    directions = torch.where(angle.sin() < 1e-4, straight, directions)
    return ((1 - t) * norm_a + t * norm_b) * directions


def as_array(chunks: Iterable[Tensor], n: int) -> np.ndarray:
    """Join n samples to one array: images [N, H, W, C] of uint8, points [N, 2]."""
    return _pixels_last(concatenate(n, chunks))


def write_samples(chunks: Iterable[Tensor], n: int, out: Path) -> None:
    """Write n samples to `out`: one file for a name that ends in .npz or .npy, else a folder."""
    if out.suffix == ".npz":
        np.savez(out, _as_rgb(as_array(chunks, n)))  # called arr_0, as FID tools expect
    elif out.suffix == ".npy":
        np.save(out, as_array(chunks, n))
    else:
        out.mkdir()
        _write_into(out, chunks, n)


def _write_into(folder: Path, chunks: Iterable[Tensor], n: int) -> None:
    """Write images as 00000.png and so on, points as samples.npy."""
    digits = max(5, len(str(n - 1)))
    first = 0
    points = []
    for chunk in chunks:
        if chunk.dim() == 2:
            points.append(chunk)
            continue
        for i, image in enumerate(chunk, first):
            grid(image[None], 1).save(folder / f"{i:0{digits}}.png")
        first += len(chunk)
    if points:
        np.save(folder / "samples.npy", torch.cat(points).numpy())


def _pixels_last(x: Tensor) -> np.ndarray:
    """Return images [N, C, H, W] as [N, H, W, C], points as they are."""
    return x.permute(0, 2, 3, 1).contiguous().numpy() if x.dim() == 4 else x.numpy()


def _as_rgb(x: np.ndarray) -> np.ndarray:
    """Return gray images with three equal channels, which networks of FID take; all others as they are."""
    return np.repeat(x, 3, axis=3) if x.shape[-1] == 1 and x.ndim == 4 else x
