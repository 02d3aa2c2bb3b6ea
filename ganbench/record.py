"""The run folder, and Weights & Biases as a mirror of it.

config.yaml       the resolved settings
footing.json      what must be equal between runs that are compared, from what was loaded and built
probes.jsonl      with a probe: what better critics would leave of the generator's gradient
metrics.jsonl     one line per record; `images` is the real images the critic had seen, `t_…` are wall-clock
status.json       finished | diverged | failed | interrupted (running while it runs), the reason, the score; of a run
                  that diverged what, where and when (`diverged`), and the last means (`last_finite`) and sample grid
                  (`last_good`) before it; `collapsed`, the images by which its samples had lost their spread
samples/          the averaged generator's samples of a fixed z, named by images seen
checkpoints/      the last state of both players, the average and both optimisers
"""

import json
import logging
import math
import platform
import subprocess
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import wandb
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from ganbench import __version__
from ganbench.collapse import collapsed
from ganbench.config import Refused, label, resolved
from ganbench.outcome import refuse_used, write_status
from ganbench.steps import Diverged

log = logging.getLogger("ganbench")


class Record:
    """Use as a context: what ends the block decides the status. Divergence ends it quietly, errors pass through."""

    def __init__(self, cfg: DictConfig, out: Path):
        refuse_used(out)
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(parents=True, exist_ok=True)
        self.out, self.start = out, time.time()
        self.now = {"step": 0, "critic_step": 0, "images": 0}  # of the last updates, counted from 0; images seen
        config = resolved(cfg)
        OmegaConf.save(OmegaConf.create(config), out / "config.yaml")
        self.status = {"status": "running", "reason": None, "label": label(cfg), "seed": cfg.seed} | _software()
        write_status(self.out, self.status)
        self.lines = (out / "metrics.jsonl").open("a", encoding="utf-8")
        try:
            self.wandb = _mirror(cfg, out, config)
        except BaseException as error:
            self._end(error)
            raise
        self.note(wandb_id=self.wandb.id)

    def note(self, **facts: Any) -> None:
        """Add facts about the whole run to status.json."""
        self.status |= {k: _plain(v) for k, v in facts.items()}
        write_status(self.out, self.status)

    def footing(self, footing: dict[str, Any]) -> None:
        """Write footing.json: what must be equal between runs that are compared."""
        (self.out / "footing.json").write_text(json.dumps(footing, indent=2) + "\n", encoding="utf-8")

    def log(self, images: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl, and its numbers to W&B. Numbers that are not finite become null."""
        if not values:
            return
        row = {"images": images} | {k: _plain(v) for k, v in values.items()}
        self.lines.write(json.dumps(row) + "\n")
        self.lines.flush()
        self.wandb.log({k: v for k, v in row.items() if isinstance(v, int | float)})

    def rows(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds so far."""
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def flag_collapse(self) -> None:
        """Note in status.json, and warn once, that three evaluations in a row found hardly any spread."""
        at = collapsed(self.rows())
        if at is not None and "collapsed" not in self.status:
            self.note(collapsed=at)
            log.warning(f"collapsed by {at:,} images: at three evaluations G made nearly the same of every z")

    def probe(self, images: int, rows: Iterable[dict[str, Any]]) -> None:
        """Lines of probes.jsonl as they come, and to W&B what is left of the generator's gradient at the last."""
        first: dict[str, float] = {}
        with (self.out / "probes.jsonl").open("a", encoding="utf-8") as lines:
            for row in rows:
                lines.write(json.dumps({"images": images} | {k: _plain(v) for k, v in row.items()}) + "\n")
                lines.flush()
                name = f"probe/{row['loss']}_{row['critic']}_left"
                left = _plain(row["g_norm"] / (first.setdefault(name, row["g_norm"]) or math.nan))
                self.wandb.log({"images": images, name: left} if left is not None else {"images": images})

    def picture(self, images: int, picture: Image.Image) -> None:
        picture.save(self.out / "samples" / f"{images:09d}.png")
        self.wandb.log({"images": images, "samples": wandb.Image(picture)})

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        status = self._end(error)
        self.wandb.summary.update({"status": status})
        self.wandb.finish(exit_code=0 if status == "finished" else 1)
        return status == "diverged"

    def _end(self, error: BaseException | None) -> str:
        status, reason = _ending(error)
        if isinstance(error, Diverged):
            self.note(**self._before(), diverged=error.facts | self.now)
            reason += " at generator step {step}, critic step {critic_step}, {images:,} real images".format(**self.now)
        if status == "failed":
            self.status["traceback"] = "".join(traceback.format_exception(error))
        self.note(status=status, reason=reason, t_wall=round(time.time() - self.start, 3))
        self.lines.close()
        return status

    def _before(self) -> dict[str, Any]:
        """The last recorded means of the losses, and the last sample grid."""
        means = next((row for row in reversed(self.rows()) if "d_loss" in row), None)
        grid = max((self.out / "samples").glob("*.png"), default=None)
        return {"last_finite": means, "last_good": grid and str(grid.relative_to(self.out))}


def _ending(error: BaseException | None) -> tuple[str, str | None]:
    match error:
        case None:
            return "finished", None
        case Diverged():
            return "diverged", str(error)
        case Exception():
            return "failed", f"{type(error).__name__}: {error}"
    return "interrupted", "SIGINT" if isinstance(error, KeyboardInterrupt) else f"exit {error} (143 is SIGTERM)"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _mirror(cfg: DictConfig, out: Path, config: dict[str, Any]):
    try:
        run = _start(cfg, out, config)
    except wandb.errors.Error as error:
        raise Refused(f"wandb={cfg.wandb.mode.value}: {error} Or choose wandb=offline, and upload later.") from None
    run.define_metric("*", step_metric="images")
    return run


def _start(cfg: DictConfig, out: Path, config: dict[str, Any]):
    return wandb.init(
        dir=out,
        mode=cfg.wandb.mode.value,
        project=cfg.wandb.project,
        entity=cfg.wandb.entity,
        group=cfg.wandb.group or cfg.name,
        name=f"{label(cfg)}-s{cfg.seed}",
        tags=[cfg.loss.name, cfg.penalty.name, cfg.dataset.name, cfg.model.name, f"seed-{cfg.seed}"],
        config=config | {"label": label(cfg), "folder": str(out)},
        reinit="create_new",
        settings=wandb.Settings(silent=cfg.wandb.mode.value != "online"),
    )


def _software() -> dict[str, Any]:
    return {
        "ganbench": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "t_started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """The checkout's commit, with + if it has uncommitted changes; None outside a checkout."""
    top = Path(__file__).parent.parent
    call = [
        "git",
        f"--git-dir={top / '.git'}",
        f"--work-tree={top}",
        "describe",
        "--always",
        "--dirty=+",
        "--exclude=*",
    ]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
