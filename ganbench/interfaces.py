"""What a loss, a penalty, a critic, an augmentation and a metric are: the protocols that users' own classes fit, too.

`training/preflight.py` asks each of them for it before the first update of every run.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

# A score that could not be measured is None and has its reason under `<name>_why`. Shares of classes are lists.
Scores = dict[str, float | str | list[float] | None]


class Critic(Protocol):
    """Map samples [N, ...] to raw logits [N], each sample by itself."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class Loss(Protocol):
    """A game: both methods take raw logits [N] and return a scalar that the player minimizes."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's loss."""
        ...

    @property
    def g(self) -> Callable[..., Tensor]:
        """Return the generator's loss: g(fake), or g(fake, real) for a relativistic loss."""
        ...


class Penalty(Protocol):
    """Return a scalar with the weight included; `real` and `fake` are float batches [N, ...] of one shape.

    `rng` is the only source of noise.
    """

    def __call__(self, D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, /) -> Tensor: ...


@runtime_checkable
class Projection(Protocol):
    """A penalty that also moves the critic's weights, such as clipping: called after each critic update."""

    def project(self, D: nn.Module) -> None: ...


class Augment(Protocol):
    """Return images [N, C, H, W] changed, of the same shape and differentiable by x; `rng` is the only noise."""

    def __call__(self, x: Tensor, rng: Any, /) -> Tensor: ...


class Metric(Protocol):
    """Score generated samples [n_fake, ...] in the dataset's format.

    It may have `protocol`, which says how the score is taken (metrics/protocol.py): scores of two never share a table.
    """

    name: str  # key of the score that ranks
    n_fake: int  # how many samples it takes
    real_reference: Scores  # scores of real training data, the level that a perfect generator would reach

    def __call__(self, fake: Tensor, /) -> Scores: ...
