"""Copy a run's folder as many runs of other methods and seeds: `python tests/many_runs.py RUN FOLDER METHODS SEEDS`.

Their scores are drawn, so that a page has something to show; their settings, records and footing have the form of the
run's own. Checkpoints and the mirror for W&B, which no report reads, are left out.
"""

import json
import random
import re
import sys
from pathlib import Path

SIX = {"gan": "gan", "lsgan": "lsgan", "hinge": "hinge", "wgan-gp": "wgan", "wgan-lp": "wgan", "gan-dragan": "gan"}
PICTURES = 3  # seeds of a method that have samples


def simulate(run: Path, folder: Path, methods: int, seeds: int) -> None:
    """Make folders of the runs of so many methods at so many seeds, the method's quality first in its scores."""
    for number in range(methods):
        label = list(SIX)[number % len(SIX)]
        for seed in range(seeds):
            _simulate_run(run, folder, label, number, seed)


def _simulate_run(run: Path, folder: Path, label: str, number: int, seed: int) -> None:
    rng = random.Random(f"{number}/{seed}")
    out = folder / f"{label}-{number}-s{seed}"
    out.mkdir(parents=True)
    factor = (1 + 0.1 * number) * rng.lognormvariate(0, 0.2)
    (out / "config.yaml").write_text(_config((run / "config.yaml").read_text(), label, number, seed))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "fd_lenet" in row:
            row["fd_lenet"] *= factor if row["images"] else 1.0
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = json.loads((run / "status.json").read_text())
    status |= {"label": label, "seed": seed, "score": rows[-1].get("fd_lenet") or status["score"] * factor}
    if rng.random() < 0.01:
        status |= {"status": "diverged", "reason": "d_loss was nan", "score": None}
    (out / "status.json").write_text(json.dumps(status))
    footing = json.loads((run / "footing.json").read_text())
    footing["start"] = {"generator_weights": f"g{seed}"}
    footing["equal"]["track"] = "tuned"  # on which methods may have settings of their own
    (out / "footing.json").write_text(json.dumps(footing))
    if seed < PICTURES and (run / "samples").is_dir():
        (out / "samples").mkdir()
        for file in (run / "samples").iterdir():
            (out / "samples" / file.name).write_bytes(file.read_bytes())


def _config(text: str, label: str, number: int, seed: int) -> str:
    """Write the settings of a run of this method: beyond six of them they differ in the learning rate."""
    loss, penalty = SIX[label], label.partition("-")[2] or "none"
    text = re.sub(r"^((?:  )?seed:) \d+$", rf"\1 {seed}", text, flags=re.MULTILINE)
    text = re.sub(r"^loss:\n  name: .*", f"loss:\n  name: {loss}", text, flags=re.MULTILINE)
    text = re.sub(r"^penalty:\n  name: .*", f"penalty:\n  name: {penalty}", text, flags=re.MULTILINE)
    return re.sub(r"^  lr: .*", f"  lr: {0.002 * (1 + number // len(SIX))}", text, flags=re.MULTILINE)


if __name__ == "__main__":
    simulate(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
