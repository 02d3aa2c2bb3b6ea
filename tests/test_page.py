"""The report's page in a real browser, from planted runs: what it shows, and that its controls do what they say."""

import json
import math
from pathlib import Path

from PIL import Image
from test_report import plant

MOMENTS = (0, 1600, 3200, 4800, 6400)
STEPS = (0, *(2**k for k in range(11)))


def enrich(run: Path, start: int = 0, moments: tuple[int, ...] = MOMENTS, recall: float = 0.9) -> None:
    """Give a planted run what a long one has: scores on the way, diversity, classes, probes and other pictures."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    final = next((row["fd_lenet"] for row in rows if row["images"] == 6400 and "fd_lenet" in row), None)
    kept = [row for row in rows if "fd_lenet" not in row]
    for i, images in enumerate(moments):
        share = i / (len(moments) - 1)
        score = 20 * ((final or 10) / 20) ** share
        if final is None and images == 6400:
            continue
        classes = [0.1 + 0.05 * math.sin(k + start) for k in range(10)]
        kept.append({
            "images": images, "fd_lenet": score, "recall": recall * share, "coverage": 0.8 * share, "density": 0.6,
            "memorisation": 0.9, "kid": None, "histogram": classes,
        })  # fmt: skip
    kept.sort(key=lambda row: row["images"])
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    status = json.loads((run / "status.json").read_text())
    status["floor"] |= {"coverage": 0.97, "density": 1.0, "memorisation": 0.85, "histogram": [0.1] * 10}
    (run / "status.json").write_text(json.dumps(status))
    for images in moments:
        paint(start, images).save(run / "samples" / f"{images:09d}.png")


def paint(start: int, images: int) -> Image.Image:
    """One grey a picture, told by its run and its moment."""
    return Image.new("L", (256, 256), grey(start, images))


def grey(start: int, images: int) -> int:
    return 20 + 40 * start + images // 200


def probe(run: Path, rates: dict[str, float], images: tuple[int, ...] = (0, 3200)) -> None:
    """Probes of which each loss's gradient falls by `rate` for each doubling of the critic's steps."""
    lines = []
    for loss, rate in rates.items():
        for moment in images:
            for critic in ("onward", "scratch"):
                for k in STEPS:
                    norm = 3 * rate ** math.log2(k + 1)
                    told = {"g_norm": norm, "snr": 2.0, "saturated": None, "slope": 0.5, "told_apart": 0.9}
                    at = {"images": moment, "critic": critic, "steps": k, "loss": loss, "cosine": 0.7}
                    lines.append(json.dumps(at | told))
    (run / "probes.jsonl").write_text("\n".join(lines) + "\n")


RATES = {"gan": {"gan": 1.1, "minimax": 0.4}, "wgan-gp": {"wgan": 1.0}, "hinge": {"hinge": 0.3}}
FINALS = {"gan": [4.0, 5.0, 6.0], "wgan-gp": [2.0, 2.5, 3.0], "hinge": [3.0, 9.0, None]}


def plant_rich(folder: Path) -> None:
    for number, (loss, finals) in enumerate(FINALS.items()):
        for seed, final in enumerate(finals):
            run = plant(folder, loss, seed, final, speed=50.0 if loss == "wgan-gp" else 100.0)
            enrich(run, number, recall=0.3 if loss == "hinge" else 0.9)
            probe(run, RATES[loss])
