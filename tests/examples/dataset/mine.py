import torch

from ganbench import randomness
from ganbench.datasets import Data, Modes


def corners(shape: tuple[int] = (2,), n: int = 50_000, std: float = 0.05) -> Data:
    """Four normals at the corners of a square; a sixth of the points is held out."""
    rng = randomness.generator(0, "dataset/corners")  # the same points for every seed of a comparison
    centers = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    total = n + n // 5
    which = torch.randint(len(centers), (total,), generator=rng)
    points = centers[which] + std * torch.randn(total, 2, generator=rng)
    return Data(train=points[:n], test=points[n:], modes=Modes(centers, std))
