"""What happens between two records: means of what the steps return, and the seconds that training takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ganbench.training.steps import annotate_divergence, raise_if_not_finite


class Meter:
    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: list[dict[str, Tensor]] = []
        self.moments: list[dict[str, int]] = []  # of the last so many rows
        self.seconds, self.beside, self.clock = 0.0, 0.0, time.perf_counter()

    def add(self, row: dict[str, Tensor], moment: dict[str, int]) -> None:
        """What an update at this moment returned."""
        self.rows.append(row)
        self.moments.append(moment)

    def read(self, images: int) -> dict[str, float]:
        """The means since the last reading, the seconds of training so far and the images they took."""
        columns = self._columns()
        if not columns:
            return {}
        self.refuse_not_finite()
        means = torch.stack([column.mean() for column in columns.values()]).tolist()
        self.rows, self.moments = [], []
        self._tick()
        return dict(zip(columns, means, strict=True)) | {
            "t_train": self.seconds,
            "t_images_per_second": images / self.seconds,
        }

    def refuse_not_finite(self) -> None:
        """Raise Diverged for the first update since the last reading that had to be held back on the device."""
        if not self.moments or bool(torch.cat(list(self._columns().values())).isfinite().all()):
            return
        for row, moment in zip(self.rows[-len(self.moments) :], self.moments, strict=True):
            with annotate_divergence(moment):
                raise_if_not_finite(row)

    def state_dict(self) -> dict[str, Any]:
        """What has not been read yet, and the seconds up to the last reading or pause."""
        return {"seconds": self.seconds, "beside": self.beside, "unread": self._columns()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.beside, self.clock = state["seconds"], state["beside"], time.perf_counter()
        columns = state["unread"].items()
        self.rows = [{name: value} for name, column in columns for value in column.to(self.device)]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside does not count as training, but as beside it."""
        self._tick()
        yield
        now = time.perf_counter()
        self.beside, self.clock = self.beside + now - self.clock, now

    def _columns(self) -> dict[str, Tensor]:
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: torch.stack([row[name] for row in self.rows if name in row]) for name in names}

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
