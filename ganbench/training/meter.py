"""Collect the terms of updates between two log lines, and the seconds that training takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ganbench.training.iteration import annotate_divergence
from ganbench.training.updates import Terms, raise_if_not_finite


class Meter:
    """Means of the updates' terms since the last reading, and two clocks: training, and everything else."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: list[Terms] = []
        self.when: list[dict[str, int]] = []  # of the last rows; those of a checkpoint have lost theirs
        self.training_seconds = 0.0
        self.other_seconds = 0.0
        self.clock = time.perf_counter()

    def add(self, terms: Terms, when: dict[str, int]) -> None:
        """Collect the terms of one update."""
        self.rows.append(terms)
        self.when.append(when)

    def read(self, images: int) -> dict[str, float]:
        """Return the means since the last reading, the seconds of training so far and the images per second.

        Raise Diverged for a term that is not finite; return nothing if there was no update.
        """
        columns = self._columns()
        if not columns:
            return {}
        self.raise_if_not_finite()
        means = torch.stack([column.mean() for column in columns.values()]).tolist()
        self.rows = []
        self.when = []
        self._tick()
        speed = {"t_train": self.training_seconds, "t_images_per_second": images / self.training_seconds}
        return dict(zip(columns, means, strict=True)) | speed

    def raise_if_not_finite(self) -> None:
        """Raise Diverged for the first update since the last reading that the device had to skip."""
        if not self.when or bool(torch.cat(list(self._columns().values())).isfinite().all()):
            return
        for terms, when in zip(self.rows[-len(self.when) :], self.when, strict=True):
            with annotate_divergence(when):
                raise_if_not_finite(terms)

    def state_dict(self) -> dict[str, Any]:
        """Return the unread terms, and the seconds up to the last reading or pause."""
        return {"seconds": self.training_seconds, "other_seconds": self.other_seconds, "unread": self._columns()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, and start the clock now."""
        self.training_seconds = state["seconds"]
        self.other_seconds = state["other_seconds"]
        self.clock = time.perf_counter()
        self.rows = [{name: value} for name, column in state["unread"].items() for value in column.to(self.device)]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block's time from training time."""
        self._tick()
        yield
        now = time.perf_counter()
        self.other_seconds += now - self.clock
        self.clock = now

    def _columns(self) -> dict[str, Tensor]:
        names = dict.fromkeys(name for terms in self.rows for name in terms)
        return {name: self._column(name) for name in names}

    def _column(self, name: str) -> Tensor:
        """Return one term of all updates that had it."""
        return torch.stack([terms[name] for terms in self.rows if name in terms])

    def _tick(self) -> None:
        now = time.perf_counter()
        self.training_seconds += now - self.clock
        self.clock = now
