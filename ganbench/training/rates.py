"""Learning rates that change, as a pure function of the real images seen: there is nothing to save or to restore."""

import torch
from omegaconf import DictConfig
from torch.optim import Optimizer

from ganbench.config.schema import LrDecay
from ganbench.training.players import Players
from ganbench.training.schedule import Schedule


class LearningRates:
    """Set both players' rates before each step; with constant rates nothing is touched.

    The first rates, as the optimizers were built with them, are warmed up over the first `protocol.lr_warmup` images,
    and fall in a straight line to 0 at the end of the budget with `protocol.lr_decay=linear`.
    """

    def __init__(self, cfg: DictConfig, players: Players, schedule: Schedule):
        self.warmup = cfg.protocol.lr_warmup
        self.decays = cfg.protocol.lr_decay is LrDecay.linear
        self.total = cfg.protocol.images
        self.schedule = schedule
        self.on_device = cfg.speed.graphs  # a recorded iteration reads them where they were when it was recorded
        self.first = {"g_lr": _rates(players.opt_g), "d_lr": _rates(players.opt_d)}

    @property
    def are_constant(self) -> bool:
        return not (self.warmup or self.decays)

    def factor(self, step: int) -> float:
        """Return the share of the first rates with which a step is made, the same for all of its updates."""
        before, after = self.schedule.images(step), self.schedule.images(step + 1)
        factor = min(1.0, after / self.warmup) if self.warmup else 1.0
        return factor * (1 - before / self.total) if self.decays else factor

    def set(self, players: Players, step: int) -> None:
        """Set the rates of a step."""
        if self.are_constant:
            return
        factor = self.factor(step)
        for optimizer, first in zip((players.opt_g, players.opt_d), self.first.values(), strict=True):
            for group, rate in zip(optimizer.param_groups, first, strict=True):
                self._set(group, rate * factor)

    def terms(self, step: int) -> dict[str, float]:
        """Return the rates that the last update before a step was made with; nothing if they never change."""
        if self.are_constant or step == 0:
            return {}
        factor = self.factor(step - 1)
        return {name: first[0] * factor for name, first in self.first.items()}

    def _set(self, group: dict, rate: float) -> None:
        """Set the rate of a group of weights; on the device in place, unless a checkpoint has brought another."""
        if not self.on_device:
            group["lr"] = rate
            return
        device = group["params"][0].device
        if not (isinstance(group["lr"], torch.Tensor) and group["lr"].device == device):
            group["lr"] = torch.zeros((), device=device)
        group["lr"].fill_(rate)


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]
