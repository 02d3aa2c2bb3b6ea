"""Write files atomically, find where they can be written, and read files whose content is known by its digest."""

import codecs
import errno
import hashlib
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeGuard

from filelock import AcquireReturnProxy, FileLock

from ganbench.errors import Refused

log = logging.getLogger("ganbench")

MIN_FREE_BYTES = 32e6  # before a run; whether its checkpoints fit is checked once their size is known


def read_verified(
    file: Path, algorithm: str, digest: str, fix: str, setting: str = "", also: str | None = None
) -> bytes:
    """Return the bytes of `file`, whose MD5 or SHA-256 must be `digest` or `also`; raise Refused otherwise.

    The file is read once, so what was checked is what is used, even if the file changes meanwhile. `fix` is the end
    of the message: what to do. `setting` is its beginning: the setting that names the file, as in `dataset.root=`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Refused(f"{setting}{file} cannot be read ({error.strerror}): {fix}.") from None
    actual = hashlib.new(algorithm.replace("-", ""), content, usedforsecurity=False).hexdigest()
    if actual not in (digest.lower(), also):
        raise Refused(f"{setting}{file} has {algorithm} {actual}, expected {digest}: {fix}.")
    return content


def check_digest(file: Path, algorithm: str, digest: str, fix: str) -> None:
    """Raise Refused unless the MD5 or SHA-256 of a file that is too large to be read at once is `digest`."""
    try:
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, lambda: hashlib.new(algorithm.replace("-", ""), usedforsecurity=False))
    except OSError as error:
        raise Refused(f"{file} cannot be read ({error.strerror}): {fix}.") from None
    if actual.hexdigest() != digest.lower():
        raise Refused(f"{file} has {algorithm} {actual.hexdigest()}, expected {digest}: {fix}.")


def check_image_folder(setting: str, typed: str) -> Path:
    """Return the folder that a setting names, with `~` as one's home; raise Refused unless it is one."""
    folder = Path(os.path.expanduser(typed))
    name = f"{setting}={typed}" if setting else typed
    try:
        is_there = folder.exists()
    except PermissionError as error:
        raise Refused(f"{name} cannot be read ({error.strerror}); pass the folder of your images.") from None
    if not is_there:
        raise Refused(f"{name} does not exist; pass the folder of your images.")
    if not folder.is_dir():
        raise Refused(f"{name} is a file; pass the folder of your images.")
    return folder


def allow_any_name_in_print() -> None:
    """Have `print` write file names that are no valid UTF-8 as the bytes that they are, rather than raise an error.

    A terminal of another encoding shows `?` for what it lacks, such as a dash.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")


def is_run_folder(folder: Path) -> bool:
    """Tell whether a run has made the folder."""
    return (folder / "status.json").is_file() and (folder / "config.yaml").is_file()


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content` in one step, safe against a kill and a power loss; an error leaves the old file."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        _write_to_disk(temporary, content)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Windows cannot open folders
        _flush_folder(file.parent)


def make_writable_folder(folder: Path) -> None:
    """Make the folder, if there is none. Raise OSError unless files can be made in it.

    A lock in it may only be waited for once that is known: where no file can be made, as in /proc, filelock takes a
    lock for one that is held by another process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def acquire(lock: FileLock, doing: str) -> AcquireReturnProxy:
    """Acquire a lock in a writable folder. If another process has it, which is `doing` something, log that and wait.

    Raise FileNotFoundError if the folder is removed meanwhile.
    """

    @cache
    def keep_waiting() -> bool:
        log.info(f"waiting for another process, which is {doing}")
        return False

    return lock.acquire(cancel_check=keep_waiting)


@contextmanager
def written_whole(place: Path) -> Iterator[Path]:
    """Yield where to write a new file or folder, which is moved to its place at the end. An error leaves nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ganbench-", dir=place.parent) as temporary:
        unfinished = Path(temporary, place.name)
        yield unfinished
        unfinished.rename(place)


def _write_to_disk(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Write the folder's entries to disk: without this a power loss could undo the replacement."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_free_space(folder: Path) -> None:
    """Raise Refused if `folder` cannot be made or written, or if its disk is nearly full."""
    parent = _nearest_existing(folder)
    if not parent.is_dir():
        kind = "a file" if parent.exists() else "a link to a folder that is not there"
        raise Refused(
            f"{folder} cannot be made, because {parent} is {kind}; pass another name=... or another folder, "
            "with hydra.run.dir=... or for a sweep hydra.sweep.dir=..."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Refused(
            f"{folder} cannot be written, because {parent} is read-only; pass another folder, with hydra.run.dir=... "
            "or for a sweep hydra.sweep.dir=..."
        )
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        raise Refused(
            f"{folder} is on a full disk: a run needs at least {MIN_FREE_BYTES / 1e6:.0f} MB, and {parent} has "
            f"{free / 1e6:.1f} MB free; free some space, or pass a folder on another disk, with "
            "hydra.run.dir=... or for a sweep hydra.sweep.dir=..."
        )


def is_out_of_space(error: object) -> TypeGuard[OSError]:
    """Tell whether an error says that a disk, or a user's share of one, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def out_of_space_message(error: OSError) -> str:
    """Say that a disk is full, and what to do about the run or sweep that it ended."""
    what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"A disk is full ({what}); make room, then rerun the same command with retry=true to resume."


def can_be_made(folder: Path) -> bool:
    """Tell whether the folder can be made, or is there and can be written."""
    parent = _nearest_existing(folder)
    return parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)


def _nearest_existing(folder: Path) -> Path:
    """Return the folder, or the lowest above it that is there: if that is a link, perhaps to nowhere."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))


def ensure_home() -> None:
    """Have HOME and XDG_CACHE_HOME name folders that W&B, torch and our own cache can use.

    In containers and on clusters there may be no home, or one that cannot be written; caches then lie in a folder of
    this user's in the temporary one. Without that W&B does not begin, or writes its log to the terminal.
    """
    if os.name != "posix":
        return
    home = os.path.expanduser("~")
    if home == "~":  # neither HOME nor the list of users knows one
        home = str(_own_temporary_folder())
    os.environ["HOME"] = home
    caches = Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache")
    if not _can_be_written(caches):
        os.environ["XDG_CACHE_HOME"] = str(_own_temporary_folder())


def _can_be_written(folder: Path) -> bool:
    """Make the folder, if there is none, and tell whether files can be written into it."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK | os.X_OK)
    return False


def _own_temporary_folder() -> Path:
    """Return a folder that is the same for all runs of this user, and that nobody else can have prepared."""
    folder = Path(tempfile.gettempdir(), f"ganbench-{os.getuid()}")
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="ganbench-"))
