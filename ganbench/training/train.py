"""One run, from a configuration to a score. Read `train` first."""

import logging
import math
import multiprocessing
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ganbench.config.compose import build
from ganbench.datasets import select_evaluation_split, to_float
from ganbench.models import linear_regions
from ganbench.runs.lock import run_lock
from ganbench.runs.recorder import Recorder
from ganbench.runs.signals import GracefulStop
from ganbench.training import pictures
from ganbench.training.batches import draw_batch
from ganbench.training.cuda_graphs import CudaGraphIteration
from ganbench.training.device import autocast_and_penalty, choose_device, keep_freed_memory, to_memory_format
from ganbench.training.evaluate import evaluate, evaluate_raw, final_line, format_score, progress_line, sample
from ganbench.training.footing import check_footing_at_end, footing
from ganbench.training.meter import Meter
from ganbench.training.players import Players, copy_critic, make_critic, make_players
from ganbench.training.preflight import check_critic, check_loss, check_penalty
from ganbench.training.steps import iteration

log = logging.getLogger("ganbench")


def train(cfg: DictConfig, out: Path) -> float:
    """Train as `cfg` says, record everything in the folder `out`, and return the ranked score (inf if diverged)."""
    device, p, z_dim = choose_device(cfg), cfg.protocol, cfg.model.z_dim
    torch.set_num_threads(cfg.threads)
    linear_regions.enabled = cfg.speed.skip_zeros
    if cfg.speed.keep_memory:
        keep_freed_memory()
    with GracefulStop() as stop, run_lock(out), Recorder(cfg, out) as record, beside_bar():
        data = to_memory_format(select_evaluation_split(build(cfg.dataset), p.scored_on.value).to(device), cfg)
        metric = build(cfg.metric, name=cfg.metric.name, data=data, device=device)
        loss, penalty, probe = (
            build(cfg.loss),
            build(cfg.penalty),
            build(cfg.probe, name=cfg.loss.name),
        )
        players = G, D, average, opt_g, opt_d = make_players(cfg, device)
        check_critic(D, to_float(data.train[:4]))
        check_loss(loss, cfg.loss.name)
        check_penalty(penalty, cfg.penalty.name, D, *to_float(data.train[:8]).chunk(2))
        stood_on = footing(cfg, data, metric, G, D, opt_g, opt_d)
        record.footing(stood_on)
        autocast, penalty = autocast_and_penalty(cfg.precision, device, penalty)
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
            iterate = CudaGraphIteration(iterate, players, draw_batch(cfg, data.train, first))
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
                    shown_samples = drawn(average, n=pictures.picture_size(data), stream="z_grid")
                    record.picture(images, pictures.sample_picture(shown_samples, data, D))
                    record.note(score=scores[metric.name], images=images, t_train=meter.seconds)
                    log.info(progress_line(images, p.images, metric.name, scores, losses))
            if step in probe_at:
                meter.refuse_not_finite()
                with meter.paused():
                    critics = {"onward": copy_critic(cfg, D, opt_d), "scratch": make_critic(cfg, device)}
                    record.probe(images, probe(G, critics, loss, penalty, data, step * p.n_critic, autocast))
            if step == steps:
                break
            inputs = draw_batch(cfg, data.train, step)
            record.now = inputs.moments[-1]
            for row, when in zip(iterate(inputs), [*inputs.moments, record.now], strict=True):
                meter.add(row, when)
        bar.close()
        record.note(t_beside=meter.beside)
        check_footing_at_end(stood_on, footing(cfg, data, metric, G, D, opt_g, opt_d))
        log.info(final_line(scores, metric.real_reference))
        score = scores[metric.name]
        return math.inf if score is None else score
    return math.inf  # diverged: the record has ended the block


def announce(
    record: Recorder, device: torch.device, cfg: DictConfig, players: Players, steps: int, metric: Any
) -> None:
    """Say and record what was chosen, and what real data score against real data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {cfg.threads} thread(s)"
    sizes = {who: sum(w.numel() for w in net.parameters()) for who, net in (("G", players.G), ("D", players.D))}
    record.note(device=name, precision=cfg.precision.value, weights=sizes, real_reference=metric.real_reference)
    record.mirror.summary({f"real_reference/{k}": v for k, v in metric.real_reference.items()})
    log.info(
        f"{name}, {cfg.precision.value}; {cfg.dataset.name}; {cfg.model.name} with {sizes['G']:,} + {sizes['D']:,} "
        f"weights; {steps:,} generator steps; real against real {metric.name} {format_score(metric.real_reference[metric.name])}"
    )


def progress(total: int) -> tqdm:
    """A bar on a terminal; nothing in logs, or in the processes of a sweep."""
    return tqdm(total=total, unit=" images", unit_scale=True, disable=not has_bar())


def has_bar() -> bool:
    return multiprocessing.parent_process() is None and sys.stderr.isatty()


def beside_bar() -> AbstractContextManager:
    """Where there is a bar, lines go above it: as two pieces, which those of two processes would not survive."""
    return logging_redirect_tqdm() if has_bar() else nullcontext()
