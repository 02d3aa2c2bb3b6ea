"""The run folder, with Weights & Biases as a mirror of it. `python -m ganbench.record sync RUN` mirrors it again.

config.yaml       the resolved settings
footing.json      what must be equal between runs that are compared, from what was loaded and built
probes.jsonl      with a probe: what better critics would leave of the generator's gradient
metrics.jsonl     one line per record; `images` is the real images the critic had seen, `t_…` are wall-clock
status.json       finished | diverged | failed | interrupted (running while it runs), the reason, the score
samples/          the averaged generator's samples of a fixed z, named by images seen
checkpoints/      the last state of both players, the average and both optimisers
"""

import json
import math
import platform
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf
from PIL import Image

from ganbench import __version__, mirror
from ganbench.config import label, resolved
from ganbench.outcome import refuse_used, write_status


class Diverged(Exception):
    """Training produced a number that is not finite; says which, and when."""


class Record:
    """Use as a context: what ends the block decides the status. Divergence ends it quietly, errors pass through."""

    def __init__(self, cfg: DictConfig, out: Path):
        refuse_used(out)
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(parents=True, exist_ok=True)
        self.out, self.start = out, time.time()
        config = resolved(cfg)
        OmegaConf.save(OmegaConf.create(config), out / "config.yaml")
        self.status = {"status": "running", "reason": None, "label": label(cfg), "seed": cfg.seed} | _software()
        write_status(self.out, self.status)
        self.lines = (out / "metrics.jsonl").open("a", encoding="utf-8")
        try:
            self.mirror = mirror.Mirror(out, cfg, config)
        except BaseException as error:
            self._end(error)
            raise
        self.note(wandb_id=self.mirror.id)

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
        self.mirror.log(mirror.numbers(row))

    def probe(self, images: int, rows: Iterable[dict[str, Any]]) -> None:
        """Lines of probes.jsonl as they come, and to W&B what is left of the generator's gradient at the last."""
        with (self.out / "probes.jsonl").open("a", encoding="utf-8") as lines:
            for record in mirror.left(_written(lines, images, rows)):
                self.mirror.log(record)

    def picture(self, images: int, picture: Image.Image) -> None:
        file = self.out / "samples" / f"{images:09d}.png"
        picture.save(file)
        self.mirror.log({"images": images, "samples": file})

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        status = self._end(error)
        self.mirror.summary({"status": status})
        self.mirror.finish(exit_code=0 if status == "finished" else 1)
        return status == "diverged"

    def _end(self, error: BaseException | None) -> str:
        status, reason = _ending(error)
        if status == "failed":
            self.status["traceback"] = "".join(traceback.format_exception(error))
        self.note(status=status, reason=reason, t_wall=round(time.time() - self.start, 3))
        self.lines.close()
        return status


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


def _written(file: TextIO, images: int, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, each once it is a line of the file."""
    for row in rows:
        row = {"images": images} | {k: _plain(v) for k, v in row.items()}
        file.write(json.dumps(row) + "\n")
        file.flush()
        yield row


def _software() -> dict[str, Any]:
    import torch  # not above: `sync` needs none of it

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


if __name__ == "__main__":
    mirror.main()
