"""Checkpoints: tensors and plain values only, hashed, and never in a state that a kill could leave useless.

Each is a file of its own, step-00012000-9f86d081884c7d65.pt: the generator step, and the first 16 hexadecimal digits of
the content's SHA-256. So a file that is not what was written is known before it is parsed, and writing one touches no
other. The two last ones are kept. Format 1, of earlier versions, has no digest, and no more than the five parts.
"""

import errno
import hashlib
import io
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from ganbench.files import write_atomically

log = logging.getLogger("ganbench")

FORMAT = 2
KEPT = 2


class Damaged(ValueError):
    """A file that is not what was written, or no checkpoint at all."""


def save(folder: Path, step: int, **state: Any) -> Path:
    """Write the state as the folder's newest checkpoint and prune the oldest; return its path.

    Raise OSError, with all others as they were, where there is no room.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    content = buffer.getvalue()
    _refuse_no_room(folder, len(content))
    file = folder / f"step-{step:08d}-{_digest(content)}.pt"
    write_atomically(file, content)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
    return file


def load(run: Path | str, set_aside: bool = False) -> dict[str, Any]:
    """The state in a run's newest valid checkpoint, on the CPU: format, step, images, a state_dict for each part.

    Runs no code from it. One that is damaged is named in a warning and, if so asked, renamed to ….corrupt. Raise
    FileNotFoundError if there is none, Damaged if there is none but damaged ones.
    """
    folder = Path(run) / "checkpoints"
    files = _newest_first(folder)
    if not files and not list(folder.glob("*.corrupt")):
        raise FileNotFoundError(f"{run} holds no checkpoints/step-….pt; name the folder of a run.")
    for file in files:
        try:
            return read(file)
        except Damaged as damage:
            log.warning(str(damage))
            if set_aside:
                file.rename(file.with_name(f"{file.name}.corrupt"))
    raise Damaged(f"{folder}: none of its checkpoints is whole; begin again under another name=…")


def read(file: Path) -> dict[str, Any]:
    """One checkpoint's state. Raise Damaged, or ValueError for a format that this version does not know."""
    content = file.read_bytes()
    _, _, digest = file.stem.split("-") if file.stem.count("-") == 2 else (None, None, None)
    if digest is not None and digest != _digest(content):
        raise Damaged(f"{file} is damaged: its SHA-256 begins with {_digest(content)}, not with {digest}.")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        found = state["format"]
    except Exception as error:  # what torch raises for a file that is no checkpoint depends on where it stumbles
        raise Damaged(f"{file} is no checkpoint ({str(error).splitlines()[0]}).") from None
    if found not in (1, FORMAT):
        raise ValueError(f"{file} has checkpoint format {found}; this version reads 1 and {FORMAT}.")
    return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*.pt") if re.match(r"step-\d+", p.name)), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _refuse_no_room(folder: Path, size: int) -> None:
    """Raise OSError unless this one fits, and with the first also those that are to stand beside it."""
    needed = size * max(1, KEPT + 1 - len(_newest_first(folder)))
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"checkpoints need {needed:,} more bytes in {folder}, and {free:,} are free; make room"
        raise OSError(errno.ENOSPC, f"{what}, then the same command with retry=true goes on")
