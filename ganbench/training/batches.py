"""What an iteration draws, as a pure function of its step."""

from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench import randomness
from ganbench.datasets import real_batch


class Batch(NamedTuple):
    """For each critic update a real batch, z, a generator of noise, and when it is; and the generator's z."""

    real: list[Tensor]
    z_d: list[Tensor]
    rng: list[torch.Generator]
    moments: list[dict[str, int]]
    z_g: Tensor


def draw_batch(cfg: DictConfig, train: Tensor, step: int) -> Batch:
    p, device = cfg.protocol, train.device
    updates, size = range(step * p.n_critic, (step + 1) * p.n_critic), (p.batch, cfg.model.z_dim)
    return Batch(
        [real_batch(train, cfg.seed, k, p.batch) for k in updates],
        [randomness.normal(size, cfg.seed, "z_d", k, device) for k in updates],
        [randomness.generator(cfg.seed, "penalty", k, device) for k in updates],
        [{"step": step, "critic_step": k, "images": (k + 1) * p.batch} for k in updates],
        randomness.normal(size, cfg.seed, "z_g", step, device),
    )
