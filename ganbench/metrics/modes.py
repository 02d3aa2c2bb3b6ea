"""Metrics for 2-D mixtures, where moments would hide missing modes."""

import torch
from torch import Tensor

from ganbench.config import Refused
from ganbench.data import Data, Modes
from ganbench.metrics import Scores, floor, held_out


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X-Y| - E|X-X'| - E|Y-Y'|, unbiased, so that it may fall below 0 for equal distributions."""
    x, y = x.double(), y.double()
    within = sum(torch.cdist(s, s).sum() / (len(s) * (len(s) - 1)) for s in (x, y))
    return float(2 * torch.cdist(x, y).mean() - within)


def nearest(x: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """For each sample the index of its nearest mode, and whether it lies within three standard deviations of it."""
    far, which = torch.cdist(x.double(), modes.centres.double()).min(1)
    return which, far < 3 * modes.std


class ModesMetric:
    """Energy distance to held-out points, modes covered by at least one good sample, and the share of good ones.

    A sample is good within three standard deviations of a mode (Lin et al. 2018, arXiv:1712.04086, section 4.1).
    """

    def __init__(self, name: str, n_fake: int, n_real: int | None, data: Data, device: torch.device):
        if data.modes is None:
            raise Refused("metric=modes needs a dataset with known modes, such as dataset=ring or dataset=grid.")
        self.name, self.n_fake, self.modes = name, n_fake, data.modes
        self.real = held_out(data.test, n_real)
        self.floor = floor(self, name, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        if not fake.isfinite().all():
            return {self.name: None, f"{self.name}_why": "samples are not finite"}
        which, good = nearest(fake, self.modes)
        return {
            self.name: energy_distance(fake, self.real),
            "modes": float(which[good].unique().numel()),
            "high_quality": float(good.double().mean()),
        }
