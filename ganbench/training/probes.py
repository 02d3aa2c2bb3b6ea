"""Does the generator's gradient vanish as the critic gets better? Copies answer; the run itself is left as it was."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ganbench import randomness
from ganbench.datasets import Data, real_batch, to_float
from ganbench.errors import Diverged
from ganbench.losses import GAN, Minimax
from ganbench.metrics.modes import energy_distance
from ganbench.models.layers import eval_mode
from ganbench.penalties import input_gradient_norm
from ganbench.training.players import Critic
from ganbench.training.preflight import generator_loss, is_relativistic
from ganbench.training.steps import critic_step, saturated_share

CHUNKS = 16  # of the z that gradients are taken on: how they scatter tells signal from noise


class Vanishing:
    """The generator stands still while two critics train on, for `steps` steps: the run's own, and a fresh one.

    After 0, 1, 2, 4, … steps it is measured what each leaves of the generator's gradient (Arjovsky and Bottou 2017,
    arXiv:1701.04862, figure 2), on `n` samples. `moments` are shares of the budget, for runs of these `seeds` (None
    for all); without any the probe is off. `name` is that of the run's loss.
    """

    def __init__(
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
        self.n, self.name = n, name
        self.batch, self.z_dim, self.seed = batch, z_dim, seed
        self.stops = [0, *(2**i for i in range(steps.bit_length()))]

    def __call__(
        self,
        G: nn.Module,
        critics: dict[str, Critic],
        loss,
        penalty: Callable[..., Tensor],
        data: Data,
        first: int,
        autocast: Callable = nullcontext,
    ) -> Iterator[dict[str, str | float]]:
        """A row for each critic, stop and generator's loss. `critics` are trained, so hand over copies.

        They see the real batches from critic step `first` on; one that diverges has NaN in all rows to come. Under a
        critic of the GAN loss the minimax generator is measured as well: it is the one of which the theory speaks.
        """
        G, loss = copy.deepcopy(G), copy.deepcopy(loss)
        losses = {self.name: loss} | ({"minimax": Minimax()} if isinstance(loss, GAN) else {})
        z = randomness.normal((self.n, self.z_dim), self.seed, "z_probe_look", 0, data.train.device)
        real = to_float(data.test[torch.arange(self.n) % len(data.test)])
        towards = energy_gradient(G, z, real)
        for name, (D, optimizer) in critics.items():
            done, alive = 0, True
            own_penalty = copy.deepcopy(penalty)
            for stop in self.stops:
                steps = range(first + done, first + stop)
                alive = alive and self._trained(D, G, optimizer, loss, own_penalty, data, steps, autocast)
                done = stop
                for kind, row in measure_gradients(G, D, losses, z, real, towards).items():
                    row = row if alive else dict.fromkeys(row, math.nan)
                    yield {"critic": name, "steps": stop, "loss": kind} | row

    def _trained(self, D, G, optimizer, loss, penalty, data: Data, steps: range, autocast: Callable) -> bool:
        """Whether D could be trained for these steps; a copy that diverges is no reason to end the run."""
        for k in steps:
            real = real_batch(data.train, self.seed, k, self.batch)
            z = randomness.normal((self.batch, self.z_dim), self.seed, "z_probe", k, real.device)
            rng = randomness.generator(self.seed, "penalty_probe", k, real.device)
            try:
                critic_step(D, G, real, z, loss, penalty, optimizer, rng, autocast)
            except Diverged:
                return False
        return True


def measure_gradients(
    G: nn.Module, D: nn.Module, losses: dict, z: Tensor, real: Tensor, towards: Tensor
) -> dict[str, dict]:
    """What D leaves of each loss's gradient of G's weights, over z [n, z_dim] and as many reals; always in fp32.

    `g_norm` is that gradient's norm; `snr` its norm over its scatter between parts of z; `saturated` the share of
    samples with |dL_G/dD(x)| < 0.001; `d_slope_fake` the median ‖∇D‖ at samples; `critic_auc` the share of pairs of a
    held-out real and a sample that D ranks rightly; `cosine` that between the gradient and the one which would lower
    the energy distance to the reals: a large gradient may still point nowhere.
    """
    with eval_mode(D):
        of_parts = [_part(G, D, losses, *part) for part in zip(z.chunk(CHUNKS), real.chunk(CHUNKS), strict=True)]
        with torch.no_grad():
            fake = G(z)
        beside = {"d_slope_fake": input_gradient_norm(D, fake).median(), "critic_auc": critic_auc(D, real, fake)}
    found = {}
    for i, name in enumerate(losses):
        on_weights, on_logits = (torch.stack(each) for each in zip(*(part[i] for part in of_parts), strict=True))
        shares = {"saturated": torch.stack([saturated_share(gradient) for gradient in on_logits]).mean()}
        row = _of_gradients(on_weights, towards) | shares | beside
        found[name] = {key: value.item() for key, value in row.items()}
    return found


def _part(G: nn.Module, D: nn.Module, losses: dict, z: Tensor, real: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each loss the gradient of all of G's weights in one vector, and dL/dD(x) of each sample."""
    fake = G(z)
    logits, on_real = D(fake), D(real).detach() if any(map(is_relativistic, losses.values())) else None
    found = []
    for loss in losses.values():
        *on_weights, on_logits = torch.autograd.grad(
            generator_loss(loss, logits, on_real), [*G.parameters(), logits], retain_graph=True
        )
        found.append((_flat(on_weights), on_logits))
    return found


def _of_gradients(each: Tensor, towards: Tensor) -> dict[str, Tensor]:
    mean = each.mean(0)
    scatter = (each - mean).square().sum(1).mean().sqrt()
    return {
        "g_norm": mean.norm(),
        "snr": mean.norm() / scatter,
        "cosine": torch.nn.functional.cosine_similarity(mean, towards, dim=0),
    }


def energy_gradient(G: nn.Module, z: Tensor, real: Tensor) -> Tensor:
    """The gradient by G's weights of the energy distance, in the space of the data, of G(z) to the reals."""
    distance = energy_distance(G(z).flatten(1), real.flatten(1))
    return _flat(torch.autograd.grad(distance, list(G.parameters())))


@torch.no_grad()
def critic_auc(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return (D(real)[:, None] > D(fake)[None]).float().mean()


def _flat(tensors) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])
