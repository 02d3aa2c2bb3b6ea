"""What happens between two records: means of what the steps return, and the seconds that training takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Meter:
    def __init__(self) -> None:
        self.rows: list[dict[str, Tensor]] = []
        self.seconds, self.clock = 0.0, time.perf_counter()

    def add(self, row: dict[str, Tensor]) -> None:
        self.rows.append(row)

    def read(self, images: int) -> dict[str, float]:
        """The means since the last reading, the seconds of training so far and the images they took."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        if not names:
            return {}
        columns = [torch.stack([row[name] for row in self.rows if name in row]) for name in names]
        means = torch.stack([column.mean() for column in columns]).tolist()
        self.rows = []
        self._tick()
        return dict(zip(names, means, strict=True)) | {
            "t_train": self.seconds,
            "t_images_per_second": images / self.seconds,
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside does not count as training."""
        self._tick()
        yield
        self.clock = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
