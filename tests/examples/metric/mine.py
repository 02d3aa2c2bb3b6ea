import torch

from ganbench import randomness
from ganbench.datasets import Data


class SlicedWasserstein:
    """Mean Wasserstein distance of points [N, d] to held-out points, over random directions; lower is better."""

    def __init__(self, name: str, n_fake: int, n_directions: int, data: Data, device: torch.device):
        self.name, self.n_fake = name, n_fake  # the key of the score that ranks, and how many samples it takes
        self.directions = randomness.normal((data.test.shape[1], n_directions), 0, "metric/sliced", 0, device)
        self.directions /= self.directions.norm(dim=0)
        self.held_out = self._projected(data.test[:n_fake])
        self.real_reference = self(data.train[:n_fake])  # the score of real data: what a perfect generator gets

    def __call__(self, fake):
        return {self.name: float((self._projected(fake) - self.held_out).abs().mean())}

    def _projected(self, x):
        return (x @ self.directions).sort(dim=0).values
