"""Record what must be equal between runs that are compared, from what was built and loaded.

That is not what was asked for: data, nets and optimizers are looked at. A run writes its footing to footing.json before
the first step, and the report compares these files.
"""

import hashlib
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from ganbench import gpu, randomness
from ganbench.config.compose import is_augmented
from ganbench.config.schema import LrDecay
from ganbench.datasets import Data
from ganbench.disk_cache import sha256
from ganbench.interfaces import Metric
from ganbench.metrics.protocol import Protocol
from ganbench.runs.identity import method_code_digest, shared_code_digest
from ganbench.training.players import Players, chosen_init

Fields = dict[str, Any]


def footing(cfg: DictConfig, data: Data, metric: Metric, players: Players) -> dict[str, Fields]:
    """Return the footing of a run, by what must agree: between all runs, within a track, of one method, of one seed.

    `machine` may differ between runs, and the report says so; what was found in a folder of images is a part of it.
    """
    return {
        "equal": _equal(cfg, data, metric, players),
        "setting": _setting(cfg, players),
        "method": {"code": method_code_digest(cfg)},
        "start": {
            "generator_weights": digest(*players.G.state_dict().values()),
            "critic_weights": digest(*players.D.state_dict().values()),
        },
        "machine": _machine(cfg, players) | ({"images_found": dict(data.facts)} if data.facts else {}),
    }


def _equal(cfg: DictConfig, data: Data, metric: Metric, players: Players) -> Fields:
    """Return what must be the same for all runs."""
    p = cfg.protocol
    return {
        "code": shared_code_digest(cfg),
        "dataset": cfg.dataset.name,
        "train_data": _data_digest(data, "train"),
        "held_out_data": _data_digest(data, "test"),
        "generator": architecture(players.G),
        "critic": architecture(players.D),
        "z_dim": cfg.model.z_dim,
        "init": chosen_init(cfg),
        "images": p.images,
        "batch": p.batch,
        "reuse_fakes": p.reuse_fakes,
        "flip_reals": p.flip_reals,
        "augment": _augment(cfg),
        "ema": p.ema if p.ema_half_life is None else f"half-life of {p.ema_half_life:g} images",
        "evaluations": p.evaluations,
        "precision": cfg.precision.value,
        "metric": cfg.metric.name,
        "metric_network": digest(*_metric_weights(metric)),
        **_metric_protocol(metric),
        "n_fake": metric.n_fake,
        "n_real": cfg.metric.get("n_real"),
        "reference": cfg.metric.get("reference"),
        "n_pairs": cfg.metric.get("n_pairs"),
        "k_neighbors": cfg.metric.get("k_neighbors"),
        "streams": randomness.SCHEME,
        "scored_on": p.scored_on.value,
        "trials": p.trials,
        "space": OmegaConf.to_container(p.space) if p.space else None,
        "protocol": p.name,
        "track": p.track.value,
    }


def _setting(cfg: DictConfig, players: Players) -> Fields:
    """Return what must be the same for all runs of a track with one setting for all."""
    opt_g, opt_d = players.opt_g, players.opt_d
    return {
        "optimizer": _per_player(type(opt_g).__name__, type(opt_d).__name__),
        "lr": _per_player(opt_g.defaults["lr"], opt_d.defaults["lr"]),
        "betas": _per_player(_betas(opt_g), _betas(opt_d)),
        "optimizer_options": _per_player(_options(opt_g), _options(opt_d)),
        "lr_schedule": _lr_schedule(cfg.protocol),
        "n_critic": cfg.protocol.n_critic,
        "critic_start": _critic_start(cfg.protocol),
        "generator_batch": cfg.protocol.generator_batch or cfg.protocol.batch,
        "penalty_weight": cfg.penalty.get("weight"),
    }


def _augment(cfg: DictConfig) -> str | None:
    """Describe what the critic sees of samples; None for the samples themselves, as in runs of earlier versions."""
    if not is_augmented(cfg):
        return None
    of_hydra = ("name", "_target_", "_partial_")
    arguments = [f"{key!s}={value}" for key, value in cfg.augment.items() if key not in of_hydra]
    return f"{cfg.augment['_target_']}({', '.join(arguments)})"


def _lr_schedule(p: DictConfig) -> str:
    """Describe how the rates change."""
    warmup = [f"warm-up over {p.lr_warmup:,} images"] if p.lr_warmup else []
    decay = ["linear decay to 0"] if p.lr_decay is LrDecay.linear else []
    return ", ".join(warmup + decay) or "constant"


def _critic_start(p: DictConfig) -> str:
    """Describe the steps with another number of updates of the critic."""
    if p.critic_start is None:
        return "none"
    again = "" if p.critic_start_every is None else f" and at every {p.critic_start_every:,}th"
    return f"{p.critic_start} critic updates at the first {p.critic_start_steps:,} steps{again}"


def _machine(cfg: DictConfig, players: Players) -> Fields:
    """Return where and how the run computes."""
    fused = [bool(optimizer.defaults.get("fused")) for optimizer in (players.opt_g, players.opt_d)]
    device = next(players.G.parameters()).device
    return {
        "torch": torch.__version__,
        "device": device.type,
        **(gpu.facts(device) if device.type == "cuda" else {}),
        "threads": cfg.threads,
        "channels_last": cfg.speed.channels_last,
        "fused_optimizer": _per_player(*fused),
        "graphs": cfg.speed.graphs,
        "fuse_rescaling": cfg.model.get("fuse_rescaling"),
        "fast_double_backward": cfg.model.get("fast_double_backward"),
    }


def check_footing_at_end(before: dict[str, Fields], after: dict[str, Fields]) -> None:
    """Raise RuntimeError if training has changed something that must be equal between runs.

    Files of code may change meanwhile: the run goes on with what it has imported.
    """
    fields = [field for field in before["equal"] if field != "code"]
    changed = [field for field in fields if after["equal"][field] != before["equal"][field]]
    if changed:
        field = changed[0]
        raise RuntimeError(
            f"footing: {field} was {before['equal'][field]} before training and {after['equal'][field]} after it, "
            "so the run cannot be compared; check that nothing changes the data, the nets' layers or the metric."
        )


def architecture(net: nn.Module) -> str:
    """Describe a net: its class, number of weights, and a digest of all layers and their sizes."""
    layers = hashlib.sha256(repr(net).encode()).hexdigest()[:12]
    return f"{type(net).__name__}, {sum(w.numel() for w in net.parameters()):,} weights, layers {layers}"


def digest(*tensors: Tensor) -> str:
    """Return a digest of the values, shapes and types of tensors, as 12 hexadecimal digits."""
    return sha256(*tensors)[:12]


def _data_digest(data: Data, part: str) -> str:
    """Return the digest of a part of the data; one that was verified as data loaded stands until something is written.

    To the data or to the file that they are mapped from: of many gigabytes on disk that is known at once.
    """
    x: Tensor = getattr(data, part)
    if data.digests is None or x._version > 0 or (data.has_changed is not None and data.has_changed()):
        return digest(x)
    return data.digests[part][:12]


def _per_player(generator: Any, critic: Any) -> Any:
    """Collapse two equal values into one; otherwise keep both, by player."""
    return generator if generator == critic else {"generator": generator, "critic": critic}


def _betas(optimizer: Optimizer) -> list[float] | None:
    return list(optimizer.defaults["betas"]) if "betas" in optimizer.defaults else None


def _options(optimizer: Optimizer) -> Fields:
    """Return the other optimizer options; falsy ones are dropped: their defaults differ between torch versions."""
    own = {k: v for k, v in optimizer.defaults.items() if k not in ("lr", "betas", "fused", "capturable")}
    return {k: v for k, v in sorted(own.items()) if v is not None and v is not False and v != 0}


def _metric_protocol(metric: Metric) -> Fields:
    protocol: Protocol | None = getattr(metric, "protocol", None)
    return {"metric_protocol": protocol.sentence} if protocol else {}


def _metric_weights(metric: Metric) -> list[Tensor]:
    """Return the weights of all networks that are attributes of the metric."""
    nets = [part for _, part in sorted(vars(metric).items()) if isinstance(part, nn.Module)]
    return [x for net in nets for x in net.state_dict().values()]
