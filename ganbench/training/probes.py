"""Probe whether the generator's gradient vanishes as the critic gets better, on copies: the run does not change."""

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganbench import randomness
from ganbench.datasets import Data, real_batch, to_float
from ganbench.errors import Diverged
from ganbench.interfaces import Loss
from ganbench.losses import GAN, Minimax
from ganbench.metrics.modes import energy_distance
from ganbench.models.layers import eval_mode
from ganbench.penalties import input_gradient_norm
from ganbench.progress import tracked
from ganbench.training.batches import CriticBatch
from ganbench.training.players import Players
from ganbench.training.preflight import generator_loss, is_relativistic
from ganbench.training.updates import Objective, critic_update, saturated_share

CHUNKS = 16  # a gradient is taken on each chunk of z: their scatter is the noise in the signal-to-noise ratio


class Vanishing:
    """Freeze the generator, train two critics on, the run's own and a fresh one, and measure the generator's gradient.

    It is measured after 0, 1, 2, 4, … up to `steps` critic updates, on `n` samples (Arjovsky and Bottou 2017,
    arXiv:1701.04862, figure 2). `moments` says when, as shares of the budget, for runs of these `seeds` (None for all);
    an empty list turns the probe off. `name` is the name of the run's loss.
    """

    def __init__(  # every key of conf/probe/vanishing.yaml, and the name of the run's loss
        self,
        moments: list[float],
        seeds: list[int] | None,
        steps: int,
        n: int,
        name: str,
        batch: int,
        z_dim: int,
        seed: int,
    ):
        self.moments = moments if seeds is None or seed in seeds else []
        self.update_counts = [0, *(2**i for i in range(steps.bit_length()))]
        self.n = n
        self.name = name
        self.batch = batch
        self.z_dim = z_dim
        self.seed = seed

    def __call__(
        self, critics: dict[str, Players], objective: Objective, data: Data, first: int
    ) -> Iterator[dict[str, str | float]]:
        """Yield a row for each critic, number of updates, and generator's loss.

        `critics` are the run's players with a critic to train, by name: hand over copies of critics. They see the
        real batches from critic step `first` on; one that diverges has NaN in all further rows. Under a critic of the
        GAN loss the minimax generator is measured as well: it is the one that the theory is about.
        """
        loss = copy.deepcopy(objective.loss)
        losses = {self.name: loss} | ({"minimax": Minimax()} if isinstance(loss, GAN) else {})
        z = randomness.normal((self.n, self.z_dim), self.seed, "z_probe_look", 0, data.train.device)
        real = to_float(data.test[torch.arange(self.n) % len(data.test)])
        G = copy.deepcopy(next(iter(critics.values())).G)  # the run's generator, which all of them face
        target = energy_gradient(G, z, real)
        for name, players in critics.items():
            players = players._replace(G=G)
            own = dataclasses.replace(objective, loss=loss, penalty=copy.deepcopy(objective.penalty))
            done = 0
            alive = True
            for updates in self.update_counts:
                alive = alive and self._train_critic(players, own, data, range(first + done, first + updates))
                done = updates
                for kind, row in measure_gradients(players.G, players.D, losses, z, real, target).items():
                    row = row if alive else dict.fromkeys(row, math.nan)
                    yield {"critic": name, "steps": updates, "loss": kind} | row

    def _train_critic(self, players: Players, objective: Objective, data: Data, steps: range) -> bool:
        """Train the critic for these critic steps; return False if it diverged, which is no reason to end the run."""
        for k in tracked(steps, "training a probe's critic"):
            real = real_batch(data.train, self.seed, k, self.batch, mirrored=data.mirrored)
            z = randomness.normal((self.batch, self.z_dim), self.seed, "z_probe", k, real.device)
            rng = randomness.generator(self.seed, "penalty_probe", k, real.device)
            augment_rng = (
                randomness.generator(self.seed, "augment_probe", k, real.device) if objective.augment else None
            )
            try:
                critic_update(players, CriticBatch(real, z, rng, when={}, augment_rng=augment_rng), objective)
            except Diverged:
                return False
        skipped = getattr(players.opt_d, "found_inf", None)  # by a fused optimizer, without a word
        return skipped is None or not bool(skipped)


class Gradients(NamedTuple):
    """The gradients of a generator's loss on one chunk of z."""

    by_weights: Tensor  # of all of G's weights, in one vector
    by_logits: Tensor  # [chunk], of the critic's logits


def measure_gradients(
    G: nn.Module, D: nn.Module, losses: dict[str, Loss], z: Tensor, real: Tensor, target: Tensor
) -> dict[str, dict[str, float]]:
    """Measure the gradient of G's weights that D leaves each loss, on z [n, z_dim] and reals; always in fp32.

    - `g_norm`: norm of the gradient
    - `snr`: that norm over the scatter of the gradient between chunks of z
    - `cosine`: between the gradient and `target`, the gradient of the energy distance to the reals (`energy_gradient`):
      a large gradient may still point nowhere
    - `saturated`: share of samples with |dL_G/dD(x)| < 0.001
    - `d_slope_fake`: median gradient norm of the critic at the samples
    - `critic_auc`: share of pairs of a held-out real and a sample that D ranks correctly
    """
    with eval_mode(D):
        pairs = zip(z.chunk(CHUNKS), real.chunk(CHUNKS), strict=True)
        chunks = [_chunk_gradients(G, D, losses, z_chunk, real_chunk) for z_chunk, real_chunk in pairs]
        with torch.no_grad():
            fake = G(z)
        of_critic = {"d_slope_fake": input_gradient_norm(D, fake).median(), "critic_auc": critic_auc(D, real, fake)}
    rows = {}
    for name in losses:
        row = _of_gradients([chunk[name] for chunk in chunks], target) | of_critic
        rows[name] = {key: value.item() for key, value in row.items()}
    return rows


def _chunk_gradients(
    G: nn.Module, D: nn.Module, losses: dict[str, Loss], z: Tensor, real: Tensor
) -> dict[str, Gradients]:
    """Return the gradients of each loss on one chunk."""
    fake_logits = D(G(z))
    relativistic = any(is_relativistic(loss) for loss in losses.values())
    real_logits = D(real).detach() if relativistic else torch.empty(0)  # others do not look at them
    gradients = {}
    for name, loss in losses.items():
        value = generator_loss(loss, fake_logits, real_logits)
        *by_weights, by_logits = torch.autograd.grad(value, [*G.parameters(), fake_logits], retain_graph=True)
        gradients[name] = Gradients(_flatten(by_weights), by_logits)
    return gradients


def _of_gradients(chunks: list[Gradients], target: Tensor) -> dict[str, Tensor]:
    """Return the measures of one loss's gradient, from its gradients on all chunks."""
    by_weights = torch.stack([chunk.by_weights for chunk in chunks])
    mean = by_weights.mean(0)
    scatter = (by_weights - mean).square().sum(1).mean().sqrt()
    return {
        "g_norm": mean.norm(),
        "snr": mean.norm() / scatter,
        "cosine": torch.nn.functional.cosine_similarity(mean, target, dim=0),
        "saturated": torch.stack([saturated_share(chunk.by_logits) for chunk in chunks]).mean(),
    }


def energy_gradient(G: nn.Module, z: Tensor, real: Tensor) -> Tensor:
    """Return the gradient of all of G's weights, in one vector, of the energy distance from G(z) to the reals.

    The distance is taken between the samples themselves (points, or pixels), not between features.
    """
    distance = energy_distance(G(z).flatten(1), real.flatten(1))
    return _flatten(torch.autograd.grad(distance, list(G.parameters())))


@torch.no_grad()
def critic_auc(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the share of pairs of a real and a fake in which D's logit is higher for the real: its ROC AUC."""
    return (D(real)[:, None] > D(fake)[None]).float().mean()


def _flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate tensors of any shape to one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])
