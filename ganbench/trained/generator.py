"""Load the generator of a run from its newest checkpoint."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import nn

from ganbench import randomness
from ganbench.config.schema import Precision
from ganbench.errors import Refused
from ganbench.runs import checkpoint
from ganbench.trained.folder import RunFolder
from ganbench.training.device import choose_device, configure_process
from ganbench.training.players import make_generator

CPU = torch.device("cpu")


class Trained(NamedTuple):
    """A generator in eval mode that maps z [N, z_dim] to samples, images in [-1, 1], and where it comes from."""

    G: nn.Module
    cfg: DictConfig
    device: torch.device
    images: int  # real images that the critic had seen


def load_generator(run: RunFolder, device: torch.device = CPU, part: str = "average") -> Trained:
    """Load the averaged generator, or for part "G" the one that is not averaged. Raise Refused if it is damaged."""
    state = _read(run.checkpoint)
    randomness.seed_globals(randomness.key(run.cfg.seed, "own_start"), device)  # as when the run began
    try:
        G = make_generator(run.cfg, device)
        G.load_state_dict(state[part])
    except Exception as error:  # a class of the user's that has changed can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        target = run.cfg.model.generator["_target_"]
        raise Refused(
            f"{run.folder}: {target} does not take the run's weights ({reason:.200}); use the code that made the run."
        ) from error
    return Trained(G.eval().requires_grad_(False), run.cfg, device, state["images"])


def configure(cfg: DictConfig) -> torch.device:
    """Have this process compute as the run's evaluations did; return the device. Raise Refused if it is not here."""
    cfg.speed.graphs = False  # only training is recorded
    precision = cfg.precision
    cfg.precision = Precision.fp32  # what a run needed of a GPU in training, a generator does without
    device = choose_device(cfg)
    cfg.precision = precision
    configure_process(cfg, device)
    return device


def _read(file: Path) -> dict[str, Any]:
    """Read the newest checkpoint. Raise Refused if it is damaged: the one before it is another generator."""
    try:
        return checkpoint.read(file)
    except checkpoint.Damaged as damage:
        raise Refused(f"{str(damage).rstrip('.')}; remove it to use the checkpoint before it.") from None
    except (OSError, ValueError) as fault:
        raise Refused(str(fault)) from None
