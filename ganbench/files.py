"""Files from elsewhere are used only if their digest is the one that is known."""

import hashlib
import os
import shutil
from pathlib import Path

from ganbench.errors import Refused

MIN_FREE_BYTES = 32e6  # bytes; whether the checkpoints fit is seen once their size is known


def read_verified(file: Path, kind: str, expected: str, cure: str, setting: str = "") -> bytes:
    """The bytes of a file, whose digest of this kind (MD5, SHA-256) must be `expected`; raises Refused.

    Read once: what was checked is what is used, whatever becomes of the file. `cure` says what to do, `setting`
    what has named the file.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Refused(f"{setting}{file} cannot be read ({error.strerror}): {cure}.") from None
    found = hashlib.new(kind.replace("-", ""), raw, usedforsecurity=False).hexdigest()
    if found != expected.lower():
        raise Refused(f"{setting}{file} has {kind} {found}, expected {expected}: {cure}.")
    return raw


def write_atomically(file: Path, content: bytes) -> None:
    """Put `content` in place of the file in one move, safe against a kill and a loss of power; on an error the file
    that was there stays.
    """
    aside = file.with_name(f".{file.name}.tmp")
    try:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    if os.name != "posix":  # Windows opens no folders
        return
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_free_space(folder: Path) -> None:
    """Raise Refused where nothing can be written, or next to nothing."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise Refused(f"{folder} cannot be made: {there} is a file; choose another name=… or hydra.run.dir=….")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"{folder} cannot be written: {there} is read-only here; choose another hydra.run.dir=… or disk.")
    free = shutil.disk_usage(there).free
    if free < MIN_FREE_BYTES:
        raise Refused(
            f"{folder} lies on a full disk: {free / 1e6:.1f} MB are free in {there}, and a run needs at least "
            f"{MIN_FREE_BYTES / 1e6:.0f} MB; make room, or run elsewhere."
        )
