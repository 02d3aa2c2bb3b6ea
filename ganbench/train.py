"""One run, from a configuration to a score. Read `train` first."""

import logging
import math
import multiprocessing
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ganbench import heap, kinks, pictures, streams
from ganbench.claim import claimed
from ganbench.collapse import spread
from ganbench.config import Refused, build
from ganbench.contract import refuse_critic, refuse_loss, refuse_penalty
from ganbench.data import Data, filled, scored_on, to_float, to_stored
from ganbench.footing import footing, refuse_moved
from ganbench.graphs import Fixed
from ganbench.inputs import draw
from ganbench.meter import Meter
from ganbench.metrics import with_reasons
from ganbench.models import evaluating
from ganbench.penalties import slope
from ganbench.players import Players, carried_on, in_precision, laid_out, make_critic, make_players
from ganbench.record import Record
from ganbench.steps import Diverged, iteration
from ganbench.stop import Stop

log = logging.getLogger("ganbench")


def train(cfg: DictConfig, out: Path) -> float:
    """Train as `cfg` says, record everything in the folder `out`, and return the ranked score (inf if diverged)."""
    device, p, z_dim = choose_device(cfg), cfg.protocol, cfg.model.z_dim
    torch.set_num_threads(cfg.threads)
    kinks.skip_zeros = cfg.speed.skip_zeros
    if cfg.speed.keep_memory:
        heap.keep()
    with Stop() as stop, claimed(out), Record(cfg, out) as record, beside_bar():
        data = laid_out(scored_on(build(cfg.dataset), p.scored_on.value).to(device), cfg)
        metric = build(cfg.metric, name=cfg.metric.name, data=data, device=device)
        loss, penalty, probe = build(cfg.loss), build(cfg.penalty), build(cfg.probe, name=cfg.loss.name)
        players = G, D, average, opt_g, opt_d = make_players(cfg, device)
        refuse_critic(D, to_float(data.train[:4]))
        refuse_loss(loss, cfg.loss.name)
        refuse_penalty(penalty, cfg.penalty.name, D, *to_float(data.train[:8]).chunk(2))
        stood_on = footing(cfg, data, metric, G, D, opt_g, opt_d)
        record.footing(stood_on)
        autocast, penalty = in_precision(cfg.precision, device, penalty)
        steps = p.images // (p.batch * p.n_critic)
        evaluate_at = {round(k * steps / p.evaluations) for k in range(p.evaluations + 1)}
        probe_at = {round(moment * steps) for moment in probe.moments}
        save_at = evaluate_at | set(range(0, steps, cfg.checkpoint_every))
        announce(record, device, cfg, players, steps, metric)

        meter, bar = Meter(device), progress(p.images)
        first = record.restore(players, meter)
        parts = {"players": players, "loss": loss, "penalty": penalty, "autocast": autocast}
        iterate = partial(iteration, **parts, decay=p.ema, reuse=p.reuse_fakes)
        if cfg.speed.graphs:
            iterate = Fixed(iterate, players, draw(cfg, data.train, first))
        for step in range(first, steps + 1):
            images = step * p.batch * p.n_critic
            if step in save_at or stop.asked:
                meter.refuse_not_finite()
                with meter.paused():
                    record.save(step, images, players, meter)
            stop.leave_if_asked()
            if step % p.log_every == 0 or step in evaluate_at:
                losses = meter.read(images)
                bar.update(images - bar.n)
                record.log(images, losses)
            if step in evaluate_at:
                with meter.paused():
                    drawn = partial(sample, z_dim=z_dim, seed=cfg.seed, device=device)
                    scores = evaluate(metric, drawn, players, data)
                    if step == steps:
                        scores |= evaluate_raw(metric, drawn, G)
                    record.log(images, scores)
                    record.flag_collapse()
                    shown_samples = drawn(average, n=pictures.number(data), stream="z_grid")
                    record.picture(images, pictures.picture(shown_samples, data, D))
                    record.note(score=scores[metric.name], images=images, t_train=meter.seconds)
                    log.info(line(images, p.images, metric.name, scores, losses))
            if step in probe_at:
                meter.refuse_not_finite()
                with meter.paused():
                    critics = {"onward": carried_on(cfg, D, opt_d), "scratch": make_critic(cfg, device)}
                    record.probe(images, probe(G, critics, loss, penalty, data, step * p.n_critic, autocast))
            if step == steps:
                break
            inputs = draw(cfg, data.train, step)
            record.now = inputs.moments[-1]
            for row, when in zip(iterate(inputs), [*inputs.moments, record.now], strict=True):
                meter.add(row, when)
        bar.close()
        record.note(t_beside=meter.beside)
        refuse_moved(stood_on, footing(cfg, data, metric, G, D, opt_g, opt_d))
        log.info(beside(scores, metric.floor))
        score = scores[metric.name]
        return math.inf if score is None else score
    return math.inf  # diverged: the record has ended the block


def choose_device(cfg: DictConfig) -> torch.device:
    wanted = cfg.device.value
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Refused("device=cuda: torch finds no GPU here; allowed are device=cpu and device=auto.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if cfg.speed.graphs and wanted != "cuda":
        raise Refused(f"speed.graphs=true: device={cfg.device.value} is no GPU here; allowed is false, or device=cuda.")
    return torch.device(wanted)


def announce(record: Record, device: torch.device, cfg: DictConfig, players: Players, steps: int, metric: Any) -> None:
    """Say and record what was chosen, and what real data score against real data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {cfg.threads} thread(s)"
    sizes = {who: sum(w.numel() for w in net.parameters()) for who, net in (("G", players.G), ("D", players.D))}
    record.note(device=name, precision=cfg.precision.value, weights=sizes, floor=metric.floor)
    record.mirror.summary({f"floor/{k}": v for k, v in metric.floor.items()})
    log.info(
        f"{name}, {cfg.precision.value}; {cfg.dataset.name}; {cfg.model.name} with {sizes['G']:,} + {sizes['D']:,} "
        f"weights; {steps:,} generator steps; real against real {metric.name} {shown(metric.floor[metric.name])}"
    )


def progress(total: int) -> tqdm:
    """A bar on a terminal; nothing in logs, or in the processes of a sweep."""
    return tqdm(total=total, unit=" images", unit_scale=True, disable=not has_bar())


def has_bar() -> bool:
    return multiprocessing.parent_process() is None and sys.stderr.isatty()


def beside_bar() -> AbstractContextManager:
    """Where there is a bar, lines go above it: as two pieces, which those of two processes would not survive."""
    return logging_redirect_tqdm() if has_bar() else nullcontext()


@torch.no_grad()
def sample(G: nn.Module, n: int, z_dim: int, seed: int, device: torch.device, stream: str = "z_eval") -> Tensor:
    """n samples as the dataset would store them, of the same z at every call, from G in evaluation mode."""
    sizes = [min(250, n - first) for first in range(0, n, 250)]
    with evaluating(G):
        return filled(n, (stored(G(streams.normal((m, z_dim), seed, stream, i, device))) for i, m in enumerate(sizes)))


def stored(x: Tensor) -> Tensor:
    """Generated samples as the dataset would store them. Raises Diverged where they are not finite."""
    if not x.isfinite().all():
        raise Diverged("generated samples are not finite", "samples", float(x[~x.isfinite()][0]), "generator")
    return to_stored(x)


def evaluate(
    metric: Callable[[Tensor], dict], draw: Callable[..., Tensor], players: Players, data: Data
) -> dict[str, float | str | None]:
    """Scores and spread of the averaged generator, and the critic's mean slopes."""
    fake = draw(players.average, n=metric.n_fake)
    with evaluating(players.D):
        slopes = {
            f"d_slope_{name}": slope(players.D, to_float(x[:256])).detach().mean().item()
            for name, x in (("real", data.train), ("fake", fake))
        }
    return with_reasons(metric(fake)) | slopes | {"g_spread": spread(fake, data.train)}


def evaluate_raw(
    metric: Callable[[Tensor], dict], draw: Callable[..., Tensor], G: nn.Module
) -> dict[str, float | str | None]:
    """The scores of the generator itself, `…_raw`: what averaging has brought."""
    scores = with_reasons(metric(draw(G, n=metric.n_fake)))
    return {f"{name}_raw": value for name, value in scores.items() if name != "histogram"}


def line(images: int, total: int, name: str, scores: dict[str, Any], losses: dict[str, float]) -> str:
    parts = [f"{images:>9,}/{total:,} images", f"{name} {shown(scores[name])}"]
    parts += [f"(raw {shown(scores[key])})" for key in (f"{name}_raw",) if key in scores]
    parts += [f"{who} {losses[who]:.3f}" for who in ("d_loss", "g_loss") if who in losses]
    return "  ".join(parts + [f"{losses[k]:,.0f} images/s" for k in losses if k == "t_images_per_second"])


def beside(scores: dict[str, Any], floor: dict[str, Any]) -> str:
    """The last scores, each with what real data get in brackets; where there is none, why."""
    told = [k for k in floor if k in scores and not (k.endswith("_why") or k == "histogram")]
    parts = [f"{k} {explained(scores, k)} ({explained(floor, k)})" for k in told]
    return "at the end (in brackets: real data)  " + "  ".join(parts)


def explained(scores: dict[str, Any], name: str) -> str:
    why = scores.get(f"{name}_why")
    return shown(scores[name]) + (f": {why}" if why else "")


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
