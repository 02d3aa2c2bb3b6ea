"""What must be equal between runs that are compared, told from what was built and loaded, not from what was asked for.

A run writes it to footing.json before its first step; the report holds the runs of a table against each other.
"""

import hashlib
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from ganbench import randomness
from ganbench.datasets import Data, sha256


def footing(
    cfg: DictConfig, data: Data, metric: Any, G: nn.Module, D: nn.Module, opt_g: Optimizer, opt_d: Optimizer
) -> dict[str, dict[str, Any]]:
    """`equal` must be the same for all, `setting` where a track has one setting for all, `start` for all of one seed.

    `machine` may differ, and is told.
    """
    p, device = cfg.protocol, next(G.parameters()).device
    return {
        "equal": {
            "dataset": cfg.dataset.name,
            "train_data": digest(data.train),
            "held_out_data": digest(data.test),
            "generator": architecture(G),
            "critic": architecture(D),
            "z_dim": cfg.model.z_dim,
            "images": p.images,
            "batch": p.batch,
            "reuse_fakes": p.reuse_fakes,
            "ema": p.ema,
            "evaluations": p.evaluations,
            "precision": cfg.precision.value,
            "metric": cfg.metric.name,
            "metric_network": digest(*_weights(metric)),
            "n_fake": metric.n_fake,
            "n_real": cfg.metric.get("n_real"),
            "k_neighbors": cfg.metric.get("k_neighbors"),
            "streams": randomness.SCHEME,
            "scored_on": p.scored_on.value,
            "trials": p.trials,
            "space": OmegaConf.to_container(p.space) if p.space else None,
            "protocol": p.name,
            "track": p.track.value,
        },
        "setting": {
            "optimizer": _per_player(type(opt_g).__name__, type(opt_d).__name__),
            "lr": _per_player(opt_g.defaults["lr"], opt_d.defaults["lr"]),
            "betas": _per_player(
                *(list(o.defaults["betas"]) if "betas" in o.defaults else None for o in (opt_g, opt_d))
            ),
            "optimizer_options": _per_player(_options(opt_g), _options(opt_d)),
            "n_critic": p.n_critic,
            "penalty_weight": cfg.penalty.get("weight"),
        },
        "start": {
            "generator_weights": digest(*G.state_dict().values()),
            "critic_weights": digest(*D.state_dict().values()),
        },
        "machine": {
            "torch": torch.__version__,
            "device": device.type,
            "threads": cfg.threads,
            "channels_last": cfg.speed.channels_last,
            "fused_optimizer": _per_player(*(bool(o.defaults.get("fused")) for o in (opt_g, opt_d))),
            "graphs": cfg.speed.graphs,
            "fuse_rescaling": cfg.model.get("fuse_rescaling"),
            "fast_double_backward": cfg.model.get("fast_double_backward"),
        },
    }


def check_footing_at_end(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> None:
    """Raise RuntimeError if at its end a run no longer stands on what it says it stood on at its start."""
    moved = [field for field, value in before["equal"].items() if after["equal"][field] != value]
    if moved:
        values = f"{before['equal'][moved[0]]} before training and {after['equal'][moved[0]]} after it"
        raise RuntimeError(f"footing: {moved[0]} was {values}; what runs are compared on must not change.")


def _per_player(generator: Any, critic: Any) -> Any:
    """What is the same for both players is told once."""
    return generator if generator == critic else {"generator": generator, "critic": critic}


def _options(optimizer: Optimizer) -> dict[str, Any]:
    """What else it was built with, but what is off or unset, in which versions of torch differ."""
    own = {k: v for k, v in optimizer.defaults.items() if k not in ("lr", "betas", "fused", "capturable")}
    return {k: v for k, v in sorted(own.items()) if v is not None and v is not False and v != 0}


def architecture(net: nn.Module) -> str:
    """The class, its number of weights, and a digest of all its layers and their sizes."""
    layers = hashlib.sha256(repr(net).encode()).hexdigest()[:12]
    return f"{type(net).__name__}, {sum(w.numel() for w in net.parameters()):,} weights, layers {layers}"


def digest(*tensors: Tensor) -> str:
    """12 hexadecimal digits of the values, shapes and types of tensors."""
    return sha256(*tensors)[:12]


def _weights(metric: Any) -> list[Tensor]:
    """Of all networks that a metric looks through."""
    nets = [part for _, part in sorted(vars(metric).items()) if isinstance(part, nn.Module)]
    return [x for net in nets for x in net.state_dict().values()]
