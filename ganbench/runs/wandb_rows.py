"""What Weights & Biases is sent of a run: a row for each number of real images, and a summary. Needs no W&B."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganbench.config.budget import make_budget
from ganbench.runs.status import read_status
from ganbench.runs.wandb_privacy import without_names

# The section of its page in which W&B draws a value of metrics.jsonl; all others are scores.
SECTIONS = {
    "loss": ("d_loss", "g_loss", "d_penalty"),
    "rate": ("d_lr", "g_lr"),
    "critic": ("d_real", "d_fake", "d_grad_norm", "d_slope_real", "d_slope_fake"),
    "generator": ("g_grad_norm", "g_saturated"),
    "diversity": (
        *("g_spread", "precision", "recall", "density", "coverage", "memorization"),
        *("classes", "classes_kl", "modes", "modes_kl", "high_quality"),
    ),
    "time": ("t_train", "t_images_per_second"),
}

Row = dict[str, Any]


def name_at_wandb(key: str) -> str:
    """Return the name of a value of metrics.jsonl at W&B, with its section: `loss/d_loss`, `score/fid`."""
    measured = key.removesuffix("_raw")  # of the generator that is not averaged
    section = next((section for section, keys in SECTIONS.items() if measured in keys), "score")
    return f"{section}/{key}"


class Rows:
    """Names and completes what a run records, so that the rows of all runs have the same keys.

    Whatever the data, `score` is the score that ranks. It comes with the generator's updates and seconds of training.
    """

    def __init__(self, cfg: DictConfig):
        self.metric = cfg.metric.name
        self.budget = make_budget(cfg.protocol)

    def part(self, record: Row) -> Row:
        """Return the part of a row that a record makes: of metrics.jsonl, a probe's, histograms or a path."""
        images = record["images"]
        row: Row = {"images": images, "generator/updates": self.budget.steps_within(images)}
        if images == 0:
            row["time/t_train"] = 0.0
        for key, value in record.items():
            if key == "images":
                continue
            row[key if key == "samples" or "/" in key else name_at_wandb(key)] = value
        if record.get(self.metric) is not None:
            row["score"] = record[self.metric]
        return row


def rows(out: Path) -> list[Row]:
    """Return all rows of a run from its folder, by real images."""
    naming = Rows(OmegaConf.load(out / "config.yaml"))  # type: ignore[arg-type]
    merged: dict[int, Row] = {}
    for record in _records(out):
        row = merged.setdefault(record["images"], {})
        row |= naming.part(record)
    return [merged[images] for images in sorted(merged)]


def _records(out: Path) -> Iterator[Row]:
    """Yield all that a run has recorded, read from its folder."""
    yield from map(numbers, read_jsonl(out / "metrics.jsonl"))
    yield from gradient_ratios(read_jsonl(out / "probes.jsonl"))
    yield from map(histogram_record, read_jsonl(out / "histograms.jsonl"))
    for png in sorted(out.glob("samples/*.png")):
        yield {"images": int(png.stem), "samples": png}


def numbers(row: Row) -> Row:
    """Return the part of a row of metrics.jsonl that W&B can plot."""
    return {k: v for k, v in row.items() if isinstance(v, int | float)}


def histogram_record(row: Row) -> Row:
    """Return a row of histograms.jsonl with its histograms, but for those that are missing, in the critic's section."""
    named = {f"critic/{key}": value for key, value in row.items() if isinstance(value, dict)}
    return {"images": row["images"]} | named


def gradient_ratios(probes: Iterable[Row]) -> Iterator[Row]:
    """For each row of probes.jsonl yield the norm of the generator's gradient as a multiple of the probe's first.

    Of the rows of one probe the last one stays: what is left of the gradient after all updates.
    """
    first: dict[tuple[int, str], float] = {}
    for row in probes:
        name = f"probe/{row['loss']}_{row['critic']}_left"
        norm = row["g_norm"]
        norm_at_first = first.setdefault((row["images"], name), norm)
        ratio = norm / norm_at_first if norm is not None and norm_at_first else math.nan
        yield {"images": row["images"]} | ({name: ratio} if math.isfinite(ratio) else {})


def read_jsonl(file: Path) -> list[Row]:
    """Return the rows of a .jsonl file, none if there is no file. An incomplete last line does not count."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def summary(out: Path) -> Row:
    """Return what W&B's table shows of a run: its score, how it ended, what it cost and what made it.

    A run that diverged has no score there, whatever it scored before.
    """
    status = read_status(out)
    metric = OmegaConf.select(OmegaConf.load(out / "config.yaml"), "metric.name")
    scores = [row[metric] for row in read_jsonl(out / "metrics.jsonl") if row.get(metric) is not None]
    seconds = status.get("t_train")
    reference = status.get("real_reference") or {}
    return {
        "score": None if status["status"] == "diverged" else status.get("score"),
        "score_best": min(scores, default=None),
        "metric": metric,
        "metric_protocol": (status.get("metric_protocol") or {}).get("sentence"),
        **{
            key: without_names(status.get(key)) for key in ("status", "reason", "collapsed", "commit", "code", "device")
        },
        "seconds": seconds,
        "images_per_second": status["images"] / seconds if seconds and "images" in status else None,
        **{f"reference/{name}": value for name, value in reference.items() if isinstance(value, int | float)},
    }
