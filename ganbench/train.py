"""One run, from a configuration to a score. Read `train` first."""

import copy
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm import tqdm

from ganbench import checkpoint, ema, streams
from ganbench.config import Refused, build
from ganbench.data import batch, to_float, to_stored
from ganbench.models import refuse_mixing
from ganbench.penalties import slope
from ganbench.pictures import picture
from ganbench.record import Diverged, Record
from ganbench.steps import critic_step, generator_step

log = logging.getLogger("ganbench")


def train(cfg: DictConfig, out: Path) -> float:
    """Train as `cfg` says, record everything in the folder `out`, and return the ranked score (inf if diverged)."""
    device = choose_device(cfg.device.value)
    torch.set_num_threads(cfg.threads)
    with Record(cfg, out) as record:
        data = build(cfg.dataset).to(device)
        metric = build(cfg.metric, name=cfg.metric.name, data=data, device=device)
        with streams.initialising(cfg.seed, "init/G"):
            G = build(cfg.model.generator).to(device)
        with streams.initialising(cfg.seed, "init/D"):
            D = build(cfg.model.critic).to(device)
        refuse_mixing(D, to_float(data.train[:4]))
        average = copy.deepcopy(G).requires_grad_(False)
        loss, penalty = build(cfg.loss), build(cfg.penalty)
        opt_g = build(cfg.optimizer.generator, params=G.parameters())
        opt_d = build(cfg.optimizer.critic, params=D.parameters())

        z = partial(streams.normal, seed=cfg.seed, device=device)
        z_dim, p = cfg.model.z_dim, cfg.protocol
        autocast = (
            partial(torch.autocast, device.type, torch.bfloat16) if cfg.precision.value == "bf16" else nullcontext
        )
        images_per_step = p.batch * p.n_critic
        steps = p.images // images_per_step
        evaluate_at = {round(k * steps / p.evaluations) for k in range(p.evaluations + 1)}
        announce(record, device, cfg, G, D, steps, metric)

        rows: list[dict[str, Tensor]] = []
        seconds, clock = 0.0, time.perf_counter()
        with progress(p.images) as bar:
            for step in range(steps + 1):
                images = step * images_per_step
                if step in evaluate_at or step % p.log_every == 0:
                    losses = means(rows)
                    seconds += time.perf_counter() - clock
                    bar.update(images - bar.n)
                    if rows:
                        record.log(images, losses | {"t_train": seconds, "t_images_per_second": images / seconds})
                        stop_if_diverged(losses, step)
                    if step in evaluate_at:
                        draw = partial(sample, z_dim=z_dim, seed=cfg.seed, device=device)
                        scores = evaluate(metric, draw, average, G, D, data)
                        record.log(images, scores)
                        record.picture(images, picture(draw(average, n=64, stream="z_grid"), data))
                        record.note(score=scores[metric.name], images=images, t_train=seconds)
                        checkpoint.save(
                            out / "checkpoints", step, images, G=G, D=D, average=average, opt_g=opt_g, opt_d=opt_d
                        )
                        log.info(
                            line(images, p.images, metric.name, scores, losses, images / seconds if rows else None)
                        )
                    rows, clock = [], time.perf_counter()
                if step == steps:
                    break
                for k in range(step * p.n_critic, (step + 1) * p.n_critic):
                    real = batch(data.train, cfg.seed, k, p.batch)
                    noise = z((p.batch, z_dim), stream="z_d", counter=k)
                    rng = streams.generator(cfg.seed, "penalty", k, device)
                    rows.append(critic_step(D, G, real, noise, loss, penalty, opt_d, rng, autocast))
                noise = z((p.batch, z_dim), stream="z_g", counter=step)
                rows.append(generator_step(D, G, noise, loss, opt_g, autocast))
                ema.update(average, G, p.ema)
        return scores[metric.name] if scores[metric.name] is not None else float("inf")
    return float("inf")


def choose_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Refused("device=cuda: torch finds no GPU here; allowed are device=cpu and device=auto.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def announce(
    record: Record, device: torch.device, cfg: DictConfig, G: nn.Module, D: nn.Module, steps: int, metric: Any
) -> None:
    """Say and record what was chosen and what real data score against real data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {cfg.threads} thread(s)"
    sizes = {who: sum(w.numel() for w in net.parameters()) for who, net in (("G", G), ("D", D))}
    record.note(device=name, weights=sizes, floor=metric.floor)
    record.wandb.summary.update({"floor": metric.floor.get(metric.name)})
    log.info(
        f"{name}, {cfg.precision.value}; {cfg.dataset.name}; {cfg.model.name} with {sizes['G']:,} + {sizes['D']:,} "
        f"weights; {steps:,} generator steps; real against real {metric.name} {shown(metric.floor[metric.name])}"
    )


def progress(total: int):
    """A bar on a terminal; nothing in logs, or in the processes of a sweep."""
    inside = multiprocessing.parent_process() is not None
    return tqdm(total=total, unit=" images", unit_scale=True, disable=inside or not sys.stderr.isatty())


def means(rows: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each value over the rows that have it; the one place where a log waits for the device."""
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        return {}
    values = torch.stack([torch.stack([row[name] for row in rows if name in row]).mean() for name in names])
    return dict(zip(names, values.tolist(), strict=True))


def stop_if_diverged(losses: dict[str, float], step: int) -> None:
    for name, value in losses.items():
        if not torch.isfinite(torch.tensor(value)):
            raise Diverged(f"{name} was {value} before generator step {step}")


@torch.no_grad()
def sample(G: nn.Module, n: int, z_dim: int, seed: int, device: torch.device, stream: str = "z_eval") -> Tensor:
    """n samples as the dataset would store them, of the same z at every call, from G in evaluation mode."""
    training = G.training
    G.eval()
    sizes = [min(250, n - first) for first in range(0, n, 250)]
    parts = [to_stored(G(streams.normal((m, z_dim), seed, stream, i, device))) for i, m in enumerate(sizes)]
    G.train(training)
    return torch.cat(parts)


def evaluate(
    metric: Callable[[Tensor], dict], draw: Callable[..., Tensor], average: nn.Module, G: nn.Module, D: nn.Module, data
) -> dict[str, float | str | None]:
    """Scores of the averaged generator, of the last one (`…_raw`), and the critic's mean slope at real and fake."""
    fake = draw(average, n=metric.n_fake)
    raw = metric(draw(G, n=metric.n_fake))
    slopes = {
        f"d_slope_{name}": slope(D, to_float(x[:256])).detach().mean().item()
        for name, x in (("real", data.train), ("fake", fake))
    }
    return metric(fake) | {f"{name}_raw": value for name, value in raw.items()} | slopes


def line(
    images: int, total: int, name: str, scores: dict[str, Any], losses: dict[str, float], speed: float | None
) -> str:
    parts = [f"{images:>9,}/{total:,} images", f"{name} {shown(scores[name])} (raw {shown(scores[name + '_raw'])})"]
    parts += [f"{who} {losses[who]:.3f}" for who in ("d_loss", "g_loss") if who in losses]
    return "  ".join(parts + ([f"{speed:,.0f} images/s"] if speed else []))


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
