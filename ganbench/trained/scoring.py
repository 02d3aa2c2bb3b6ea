"""Score a trained generator by a metric."""

import time
from functools import partial

import torch

from ganbench import __version__
from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.metrics.protocol import Protocol
from ganbench.runs.identity import commit
from ganbench.runs.resume import load_footing
from ganbench.trained.evaluations import Evaluation, identity
from ganbench.trained.folder import RunFolder
from ganbench.trained.generator import configure, load_generator
from ganbench.training.evaluate import sample, score
from ganbench.training.footing import digest
from ganbench.training.run import load_data, load_metric


def evaluate(run: RunFolder) -> Evaluation:
    """Score a run's averaged generator by the metric in its settings, as the run itself would have."""
    cfg = run.cfg
    device = configure(cfg)
    trained = load_generator(run, device)
    data = load_data(cfg, device)
    _check_same_data(run, data)
    metric = load_metric(cfg, data, device)
    sampler = partial(sample, z_dim=cfg.model.z_dim, seed=cfg.seed, device=device)
    scores = score(metric, sampler, trained.G)
    protocol: Protocol | None = getattr(metric, "protocol", None)
    declared = {"metric_protocol": protocol.facts()} if protocol else {}
    return (
        identity(run)
        | declared
        | {
            "score": scores[metric.name],
            "scores": scores,
            "real_reference": metric.real_reference,
            "n_fake": metric.n_fake,
            "n_held_out": len(data.test),
            "scored_on": cfg.protocol.scored_on.value,
            "held_out_data": digest(data.test),
            "images": trained.images,
            "ganbench": __version__,
            "commit": commit(),
            "torch": torch.__version__,
            "device": device.type,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )


def _check_same_data(run: RunFolder, data: Data) -> None:
    """Raise Refused if the real data are not those of the run: its scores would not belong together."""
    footing = load_footing(run.folder)["equal"]
    for kind, x in (("held-out", data.test), ("training", data.train)):
        before = footing["held_out_data" if kind == "held-out" else "train_data"]
        now = digest(x)
        if before != now:
            raise Refused(
                f"{run.folder}: the {kind} data have digest {now}, and had {before} when the run began; put "
                "back the data that it was trained with."
            )
