"""The run folder, with Weights & Biases as a mirror of it. `python -m ganbench.runs.wandb_mirror sync RUN` mirrors it again.

config.yaml       the resolved settings
footing.json      what must be equal between runs that are compared, from what was loaded and built
probes.jsonl      with a probe: what better critics would leave of the generator's gradient
metrics.jsonl     one line per record; `images` is the real images the critic had seen, `t_…` are wall-clock
status.json       finished | diverged | failed | interrupted (running while it runs), the reason, the score; of a run
                  that diverged what, where and when (`diverged`), and the last means (`last_finite`) and sample grid
                  (`last_good`) before it; `collapsed`, the images by which its samples had lost their spread
samples/          the averaged generator's samples of a fixed z, named by images seen
checkpoints/      the two last states of both players, the average and both optimisers
.lock             who is at work here
"""

import json
import logging
import math
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from ganbench import __version__
from ganbench.config.compose import method_label, resolve
from ganbench.errors import Diverged, Refused
from ganbench.files import write_atomically
from ganbench.runs import checkpoint, resume, wandb_mirror
from ganbench.runs.identity import code_digest, run_id
from ganbench.runs.signals import Interrupted
from ganbench.runs.status import existing_status, first_collapse, is_complete, write_status
from ganbench.training.players import restore_players

log = logging.getLogger("ganbench")


class Recorder:
    """Use as a context, with the folder claimed: what ends the block decides the status. Divergence ends it quietly,
    errors pass through.

    Where the folder holds a run of this configuration that was cut short, it goes on: `restore` says from where.
    """

    def __init__(self, cfg: DictConfig, out: Path):
        self.before = existing_status(out, cfg)
        if is_complete(self.before, cfg.retry):
            how = self.before["status"]
            cure = "retry=true goes on from its last checkpoint" if how == "failed" else "nothing is left to do"
            raise Refused(f"{out} holds this run already, {how}: {cure}, or choose another name=…")
        self.out, self.name, self.start = out, cfg.name, time.time()
        self.run = run_id(cfg)
        self.saved, self.saved_at = None if self.before is None else resume.rewind_records(out, self.run), None
        self.now = {"step": 0, "critic_step": 0, "images": 0}  # of the last updates, counted from 0; images seen
        config = resolve(cfg)
        self.status = self._standing(cfg)
        write_status(out, self.status)
        if not (out / "config.yaml").exists():
            write_atomically(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(exist_ok=True)
        self.lines = (out / "metrics.jsonl").open("a", encoding="utf-8")
        try:
            known = (self.status.get("wandb_id"), self.saved["sent"]) if self.saved else ()
            self.mirror = wandb_mirror.WandbMirror(out, cfg, config, *known)
        except BaseException as error:
            self._end(error)
            raise
        self.note(wandb_id=self.mirror.id)

    def _standing(self, cfg: DictConfig) -> dict[str, Any]:
        """The status to begin with: what the run had noted, if it goes on."""
        earlier = {k: v for k, v in (self.before or {}).items() if k not in ("traceback", "refused")}
        now = {
            "status": "running",
            "reason": None,
            "label": method_label(cfg),
            "seed": cfg.seed,
        } | _software(cfg)
        if self.saved is None:
            return now
        resumed = [*earlier.get("resumed", []), {"images": self.saved["images"], "t": now.pop("t_started")}]
        return earlier | now | {"resumed": resumed}

    def restore(self, players: Any, meter: Any) -> int:
        """Set what training changes to what it was at the last checkpoint; return the generator step of that, or 0."""
        if self.saved is None:
            return 0
        saved, self.saved, self.saved_at = self.saved, None, self.saved["step"]
        restore_players(players, saved)
        meter.load_state_dict(saved["meter"])
        self.now = saved["now"]
        log.info(f"goes on from {saved['images']:,} images")
        return saved["step"]

    def save(self, step: int, images: int, players: Any, meter: Any) -> None:
        """A checkpoint of the moment before this step's records, which whoever goes on from it makes again."""
        if step == self.saved_at:  # from where it has just gone on
            return
        os.fsync(self.lines.fileno())
        parts = {name: part.state_dict() for name, part in players._asdict().items()}
        state = parts | {
            "run": self.run,
            "images": images,
            "now": self.now,
            "meter": meter.state_dict(),
            "records": resume.record_sizes(self.out),
            "sent": self.mirror.sent,
        }
        checkpoint.save(self.out / "checkpoints", step, **state)

    def note(self, **facts: Any) -> None:
        """Add facts about the whole run to status.json."""
        self.status |= {k: _plain(v) for k, v in facts.items()}
        write_status(self.out, self.status)

    def footing(self, footing: dict[str, Any]) -> None:
        """Write footing.json: what must be equal between runs that are compared. Raise Refused if it said otherwise
        when this run began.
        """
        content = json.dumps(footing, indent=2) + "\n"
        if self.saved is not None:
            resume.check_footing_unchanged(resume.load_footing(self.out), json.loads(content))
        write_atomically(self.out / "footing.json", content.encode())

    def log(self, images: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl, and its numbers to W&B. Numbers that are not finite become null."""
        if not values:
            return
        row = {"images": images} | {k: _plain(v) for k, v in values.items()}
        self.lines.write(json.dumps(row) + "\n")
        self.lines.flush()
        self.mirror.log(wandb_mirror.numbers(row))

    def rows(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds so far."""
        return wandb_mirror.read_jsonl(self.out / "metrics.jsonl")

    def flag_collapse(self) -> None:
        """Note in status.json, and warn once, that three evaluations in a row found hardly any spread."""
        at = first_collapse(self.rows())
        if at is not None and "collapsed" not in self.status:
            self.note(collapsed=at)
            log.warning(f"collapsed by {at:,} images: at three evaluations G made nearly the same of every z")

    def probe(self, images: int, rows: Iterable[dict[str, Any]]) -> None:
        """Lines of probes.jsonl as they come, and to W&B what is left of the generator's gradient at the last."""
        with (self.out / "probes.jsonl").open("a", encoding="utf-8") as lines:
            for record in wandb_mirror.gradient_ratios(_written(lines, images, rows)):
                self.mirror.log(record)

    def picture(self, images: int, picture: Image.Image) -> None:
        file = self.out / "samples" / f"{images:09d}.png"
        picture.save(file)
        self.mirror.log({"images": images, "samples": file})

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        status = self._end(error)
        self.mirror.summary({"status": status})
        self.mirror.finish(exit_code=0 if status == "finished" else 1)
        return status == "diverged"

    def _end(self, error: BaseException | None) -> str:
        status, reason = _ending(error)
        if isinstance(error, Refused):  # another try may find what this one missed
            before = self.before or {}
            status, reason = before.get("status", status), before.get("reason", reason)
            self.status["refused"] = True
        elif status == "failed":
            self.status["traceback"] = "".join(traceback.format_exception(error))
        try:
            if isinstance(error, Diverged):
                facts = self.now | error.facts
                reason += " at generator step {step}, critic step {critic_step}, {images:,} real images".format(**facts)
                self.note(**self._before(), diverged=facts)
            if status == "interrupted":
                log.warning(f"{reason}: stopped, and saved; the same command with name={self.name} goes on from here")
            self.note(status=status, reason=reason, t_wall=round(time.time() - self.start, 3))
            self.lines.close()
        except OSError as failure:  # on a full disk; what ended the run is to be seen, not this
            if error is None:
                raise
            log.error(f"{self.out / 'status.json'} still says running, since it could not be written: {failure}")
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
        case Interrupted():
            return "interrupted", error.signal
        case KeyboardInterrupt():
            return "interrupted", "SIGINT"
    return "failed", f"the run's own code left with {error!r}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _written(file: TextIO, images: int, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, each once it is a line of the file."""
    for row in rows:
        row = {"images": images} | {k: _plain(v) for k, v in row.items()}
        file.write(json.dumps(row) + "\n")
        file.flush()
        yield row


def _software(cfg: DictConfig) -> dict[str, Any]:
    return {
        "ganbench": __version__,
        "commit": _commit(),
        "code": code_digest(cfg),
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
