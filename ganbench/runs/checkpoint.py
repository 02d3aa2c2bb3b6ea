"""Save and load checkpoints: tensors and plain values only, with a digest, each whole or not there at all.

Each is a file of its own, step-00012000-9f86d081884c7d65.pt: the step, and the first 16 hexadecimal digits of
the content's SHA-256. So a damaged file is noticed before it is parsed, and writing one touches no other. The two
newest are kept. Format 1, of earlier versions, has no digest, and only the state_dicts of the players.
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
READABLE_FORMATS = (1, FORMAT)
KEPT = 2


class Damaged(ValueError):
    """A file that is not what was written, or not a checkpoint."""


def save(folder: Path, step: int, **state: Any) -> Path:
    """Write the state as the folder's newest checkpoint and delete the oldest; return its path.

    Raise OSError, and leave the others as they are, if there is no room.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    content = buffer.getvalue()
    _check_free_space(folder, len(content))
    file = folder / f"step-{step:08d}-{_digest(content)}.pt"
    write_atomically(file, content)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
    return file


def load(run: Path | str, set_aside: bool = False) -> dict[str, Any]:
    """Return the state in a run's newest undamaged checkpoint, on the CPU: format, step, images, and each part's.

    No code from the file is run. A damaged one is named in a warning and, with `set_aside`, renamed to ....corrupt.
    Raise FileNotFoundError if there is none, Damaged if all are damaged.
    """
    folder = Path(run) / "checkpoints"
    files = _newest_first(folder)
    if not files and not list(folder.glob("*.corrupt")):
        raise FileNotFoundError(f"{run} has no checkpoints/step-....pt; pass the folder of a run.")
    for file in files:
        try:
            return read(file)
        except Damaged as damage:
            log.warning(str(damage))
            if set_aside:
                file.rename(file.with_name(f"{file.name}.corrupt"))
    raise Damaged(f"{folder}: all checkpoints are damaged. Pass another name=... to start again.")


def read(file: Path) -> dict[str, Any]:
    """Return one checkpoint's state. Raise Damaged, or ValueError for a format that this version cannot read."""
    content = file.read_bytes()
    expected = _digest_in_name(file)
    if expected is not None and expected != _digest(content):
        raise Damaged(f"{file} is damaged: its SHA-256 starts with {_digest(content)}, expected {expected}.")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        version = state["format"]
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise Damaged(f"{file} is not a checkpoint ({str(error).splitlines()[0]}).") from None
    if version not in READABLE_FORMATS:
        allowed = " and ".join(map(str, READABLE_FORMATS))
        raise ValueError(f"{file} has checkpoint format {version}; this version of ganbench reads {allowed}.")
    return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*.pt") if re.match(r"step-\d+", p.name)), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_in_name(file: Path) -> str | None:
    """Return the digest in step-<step>-<digest>.pt; None for a file of format 1, step-<step>.pt."""
    parts = file.stem.split("-")
    return parts[2] if len(parts) == 3 else None


def _check_free_space(folder: Path, size: int) -> None:
    """Raise OSError unless this one fits; before the first, unless as many fit as are there at the most."""
    needed = size * max(1, KEPT + 1 - len(_newest_first(folder)))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"checkpoints need {needed:,} more bytes in {folder}, but only {free:,} are free",
        )
