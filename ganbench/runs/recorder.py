"""Record a run in its folder, and mirror the folder to Weights & Biases. outputs/README.md says what the files hold."""

import json
import logging
import math
import os
import platform
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
from ganbench.runs import checkpoint
from ganbench.runs.identity import code_digest, commit, run_id
from ganbench.runs.resume import (
    ResumePoint,
    Stateful,
    check_footing_unchanged,
    find_resume_point,
    load_footing,
    record_sizes,
)
from ganbench.runs.signals import Interrupted
from ganbench.runs.status import RunComplete, existing_status, first_collapse, is_complete, write_status
from ganbench.runs.wandb_mirror import WandbMirror, command_line, recorded_address
from ganbench.runs.wandb_rows import gradient_ratios, histogram_record, numbers, read_jsonl

log = logging.getLogger("ganbench")


class Recorder:
    """A context, entered with the folder locked, that records a run; how its block ends is the run's status.

    If the folder contains this run, interrupted, the recorder continues it: `restore` returns the step to go on from.
    Raise Refused if it contains another run, or this one complete.
    """

    def __init__(self, cfg: DictConfig, out: Path):
        self.out = out
        self.name = cfg.name
        self.run_id = run_id(cfg)
        self.start = time.time()
        self.now = {"step": 0, "critic_step": 0, "images": 0}  # of the last update: its steps from 0, images seen
        self.earlier = existing_status(out, cfg)  # how the run was left; None if it has not begun
        _raise_if_complete(self.earlier, out, cfg.retry)
        self.resumed = find_resume_point(out, self.run_id) if self.earlier is not None else None
        self.saved_images = self.resumed.images if self.resumed is not None else 0  # in the last checkpoint
        self.status = _initial_status(cfg, self.earlier, self.resumed)
        self._prepare_folder(resolve(cfg))
        self.metrics_file = (out / "metrics.jsonl").open("a", encoding="utf-8")
        self.mirror = self._start_mirror(cfg)
        self.note(**self.mirror.facts)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Record how the run ended; every error passes through."""
        status = self._end(error)
        exit_code = 0 if status == "finished" else 1
        self.mirror.finish(exit_code, self.saved_images if status == "interrupted" else None)
        if self.mirror.artifact:
            self.note(**self.mirror.artifact.facts())

    def write_footing(self, footing: dict[str, Any]) -> None:
        """Write footing.json: what must be equal between runs that are compared.

        Raise Refused if a resumed run began with another footing.
        """
        content = json.dumps(footing, indent=2) + "\n"
        if self.resumed is not None:
            before = load_footing(self.out)
            before["equal"]["images"] = footing["equal"]["images"]  # a run may be extended
            check_footing_unchanged(before, json.loads(content))
        write_atomically(self.out / "footing.json", content.encode())

    def restore(self, players: Stateful, meter: Stateful) -> int:
        """Load the last checkpoint, if there is one; return the step to go on from, at first 0."""
        if self.resumed is None:
            return 0
        self.now = self.resumed.restore(players, meter)
        log.info(f"resuming from the checkpoint at {self.resumed.images:,} images")
        if self._is_extended():
            budgets = "from {from:,} to {to:,} images".format(**self.status["extended"][-1])
            log.info(f"this run is extended {budgets}")
        return self.resumed.step

    def save(self, step: int, images: int, players: Stateful, meter: Stateful) -> None:
        """Save the state before this step is logged; a resumed run logs the step again."""
        if self.resumed is not None and step == self.resumed.step:  # that checkpoint is there already
            return
        os.fsync(self.metrics_file.fileno())
        state = players.state_dict() | {
            "run": self.run_id,
            "images": images,
            "now": self.now,
            "meter": meter.state_dict(),
            "records": record_sizes(self.out),
        }
        checkpoint.save(self.out / "checkpoints", step, **state)
        self.saved_images = images

    def note(self, **facts: Any) -> None:
        """Add facts about the whole run to status.json."""
        self.status |= _without_non_finite(facts)
        write_status(self.out, self.status)

    def note_collapse(self) -> None:
        """Note in status.json, and warn once, if three evaluations in a row found samples of hardly any variety."""
        images = first_collapse(self.rows())
        if images is None or "collapsed" in self.status:
            return
        self.note(collapsed=images)
        log.warning(
            f"mode collapse at {images:,} images: sample std below 0.1 % of the data's at three evaluations in a row"
        )

    def log(self, images: int, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and send its numbers to W&B. Numbers that are not finite become null."""
        if not values:
            return
        row = {"images": images} | _without_non_finite(values)
        _append(self.metrics_file, row)
        self.mirror.log(numbers(row))

    def log_samples(self, images: int, picture: Image.Image) -> None:
        """Save a picture of samples, named by the images seen, and send it to W&B."""
        file = self.out / "samples" / f"{images:09d}.png"
        picture.save(file)
        self.mirror.log({"images": images, "samples": file})

    def log_histograms(self, images: int, histograms: dict[str, Any]) -> None:
        """Append one line to histograms.jsonl and send its histograms to W&B."""
        row = {"images": images} | histograms
        with (self.out / "histograms.jsonl").open("a", encoding="utf-8") as file:
            _append(file, row)
        self.mirror.log(histogram_record(row))

    def log_probe(self, images: int, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows to probes.jsonl as they come, and send their gradient ratios to W&B."""
        with (self.out / "probes.jsonl").open("a", encoding="utf-8") as file:
            for record in gradient_ratios(_appended(file, images, rows)):
                self.mirror.log(record)

    @property
    def earlier_budgets(self) -> list[int]:
        """Return the real images that the run was to see before it was extended, once or several times."""
        return [extension["from"] for extension in self.status.get("extended", [])]

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl so far."""
        return read_jsonl(self.out / "metrics.jsonl")

    def _prepare_folder(self, config: dict[str, Any]) -> None:
        """Write the status first and the settings next, so that a folder with settings always has a status."""
        write_status(self.out, self.status)
        if self.earlier is None or not (self.out / "config.yaml").exists() or self._is_extended():
            write_atomically(self.out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())
        for part in ("samples", "checkpoints"):
            (self.out / part).mkdir(exist_ok=True)

    def _is_extended(self) -> bool:
        """Tell whether the run in the folder was made with a smaller budget."""
        return self.earlier is not None and "extends" in self.earlier

    def _start_mirror(self, cfg: DictConfig) -> WandbMirror:
        try:
            return WandbMirror(self.out, cfg, recorded_address(self.earlier or {}, cfg))
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException | None) -> str:
        """Write how the run ended to status.json; return the status."""
        facts = self._describe_end(error)
        if facts["status"] == "interrupted":
            log.warning(f"{facts['reason']}: stopped; rerun the same command with name={self.name} to resume")
        if facts["status"] == "diverged":
            log.warning(f"diverged: {facts['reason']}")
        try:
            self.note(**facts, t_wall=round(time.time() - self.start, 3))
            self.metrics_file.close()
        except OSError as failure:  # on a full disk; what ended the run is to be seen, not this
            if error is None:
                raise
            log.error(f"{self.out / 'status.json'} still says running, since it could not be written: {failure}")
        return facts["status"]

    def _describe_end(self, error: BaseException | None) -> dict[str, Any]:
        """Return what status.json says of a run that ended with this error, or with none."""
        match error:
            case None:
                return {"status": "finished", "reason": None}
            case Diverged():
                return self._describe_divergence(error)
            case Refused():  # an interrupted run stays that: another try may not be refused
                earlier = self.earlier or {}
                reason = earlier.get("reason", str(error))
                return {"status": earlier.get("status", "failed"), "reason": reason, "refused": True}
            case Interrupted():
                return {"status": "interrupted", "reason": error.signal}
            case KeyboardInterrupt():
                return {"status": "interrupted", "reason": "SIGINT"}
        trace = "".join(traceback.format_exception(error))
        return {"status": "failed", "reason": _describe_error(error), "traceback": trace}

    def _describe_divergence(self, error: Diverged) -> dict[str, Any]:
        """Return what was not finite and when, with the last mean losses and the last samples before it."""
        facts = self.now | error.facts
        when = "generator update {step}, critic update {critic_step}, {images:,} real images".format(**facts)
        last_losses = next((row for row in reversed(self.rows()) if "d_loss" in row), None)
        last_samples = max((self.out / "samples").glob("*.png"), default=None)
        return {
            "status": "diverged",
            "reason": f"{error} at {when}",
            "diverged": facts,
            "last_finite": last_losses,
            "last_good": last_samples and str(last_samples.relative_to(self.out)),
        }


def _raise_if_complete(status: dict[str, Any] | None, out: Path, retry: bool) -> None:
    if status is None or not is_complete(status, retry):
        return
    resume = "retry=true to resume from its last checkpoint, or " if status["status"] == "failed" else ""
    raise RunComplete(
        f"{out} already contains this run ({status['status']}). Pass {resume}another name=... to run it again."
    )


def _initial_status(cfg: DictConfig, earlier: dict[str, Any] | None, resumed: ResumePoint | None) -> dict[str, Any]:
    """Return the status of a run that begins; of one that resumes, with what it had noted before."""
    status = {"status": "running", "reason": None, "label": method_label(cfg), "seed": cfg.seed} | _provenance(cfg)
    now = {"t_started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if earlier is None or resumed is None:
        return status | now
    noted = {key: value for key, value in earlier.items() if key not in ("traceback", "refused", "extends")}
    resumes = [*noted.get("resumed", []), {"images": resumed.images, "t": now["t_started"]}]
    status |= {"resumed": resumes}
    if "extends" in earlier:
        extension = {"from": earlier["extends"], "to": cfg.protocol.images, "score": noted.get("score")}
        # Without this one, which is there already if it was cut short right after.
        before = [each for each in noted.get("extended", []) if each["to"] != extension["to"]]
        status |= {"extended": [*before, extension]}
    return noted | status


def _provenance(cfg: DictConfig) -> dict[str, Any]:
    return {
        "ganbench": __version__,
        "commit": commit(),
        "code": code_digest(cfg),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "command": command_line(),
    }


def _describe_error(error: BaseException) -> str:
    if isinstance(error, Exception):
        return f"{type(error).__name__}: {error}"
    return f"the run's own code left with {error!r}"  # SystemExit and the like


def _without_non_finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for NaN and infinity, which JSON has not."""
    return {key: None if _is_non_finite(value) else value for key, value in values.items()}


def _is_non_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _append(file: TextIO, row: dict[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()


def _appended(file: TextIO, images: int, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each row once it is a line of the file."""
    for row in rows:
        row = {"images": images} | _without_non_finite(row)
        _append(file, row)
        yield row
