"""Where pictures come from: files of a folder, members of an archive, records of a database, rows of a raw file.

All are read by several threads at once, and a folder by several processes.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ganbench.errors import Refused
from ganbench.image_files import View, fitted, read_picture

NO_LMDB = "dataset=lsun needs the library lmdb; install it with `pip install lmdb`."


class Entry(NamedTuple):
    """One file that pictures come from, as it was when they were read."""

    name: str  # relative to the source's place
    size: int  # in bytes
    mtime_ns: int


class Source(Protocol):
    """Pictures in a fixed order: those to train on first, then those held out."""

    place: Path  # folder or file

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Name a picture in messages."""
        ...

    def entries(self) -> list[Entry]:
        """List the files that the pictures come from as they are now."""
        ...

    def read(self, i: int, view: View) -> tuple[np.ndarray, str]:
        """Return a picture as uint8 [C, H, W], and the SHA-256 of its file. May raise anything."""
        ...


@dataclass
class Folder:
    """Image files below a folder; `files` are relative to it, but for those that are held out in another folder."""

    place: Path
    files: Sequence[str]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, i: int) -> str:
        return str(self.place / self.files[i])

    def entries(self) -> list[Entry]:
        return [_entry(self.place, file) for file in self.files]

    def entries_left(self) -> list[Entry]:
        """List the files that are still there."""
        found = []
        for file in self.files:
            with suppress(FileNotFoundError, NotADirectoryError):
                found.append(_entry(self.place, file))
        return found

    def read(self, i: int, view: View) -> tuple[np.ndarray, str]:
        content = (self.place / self.files[i]).read_bytes()
        return read_picture(io.BytesIO(content), view), hashlib.sha256(content).hexdigest()


@dataclass
class Archive:
    """Members of a zip file, whose digest is known."""

    place: Path
    members: Sequence[str]

    def __len__(self) -> int:
        return len(self.members)

    def name(self, i: int) -> str:
        return f"{self.place}: {self.members[i]}"

    def entries(self) -> list[Entry]:
        return [_entry(self.place.parent, self.place.name)]

    @cached_property
    def open_file(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.place)

    def read(self, i: int, view: View) -> tuple[np.ndarray, str]:
        return read_picture(io.BytesIO(self.open_file.read(self.members[i])), view), ""


@dataclass
class RawFiles:
    """Uncompressed pictures of one shape, one after the other in some files, column by column as STL-10 has them."""

    place: Path
    files: Sequence[str]
    shape: tuple[int, int, int]  # channels, width and height
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = int(np.prod(self.shape))
        self.counts = [(self.place / file).stat().st_size // size for file in self.files]

    def __len__(self) -> int:
        return sum(self.counts)

    def name(self, i: int) -> str:
        return f"image {i} of {self.place}"

    def entries(self) -> list[Entry]:
        return [_entry(self.place, file) for file in self.files]

    def read(self, i: int, view: View) -> tuple[np.ndarray, str]:
        number = 0  # of the file
        while i >= self.counts[number]:
            i -= self.counts[number]
            number += 1
        size = int(np.prod(self.shape))
        pixels = np.fromfile(self.place / self.files[number], np.uint8, size, offset=i * size).reshape(self.shape)
        return fitted(Image.fromarray(pixels.transpose(2, 1, 0)), view), ""


@dataclass
class Database:
    """Records of an open LMDB database, each of which is an image file, as LSUN has them. For threads only."""

    place: Path  # a folder with data.mdb
    opened: Any
    keys: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, i: int) -> str:
        return f"{self.place}: {self.keys[i].decode(errors='replace')}"

    def entries(self) -> list[Entry]:
        return [_entry(self.place, "data.mdb")]

    def read(self, i: int, view: View) -> tuple[np.ndarray, str]:
        with self.opened.begin() as transaction:
            return read_picture(io.BytesIO(transaction.get(self.keys[i])), view), ""


def open_database(place: Path) -> Any:
    """Open an LMDB database for reading. Raise Refused where its library is not installed, or for a damaged file."""
    try:
        import lmdb
    except ImportError:
        raise Refused(NO_LMDB) from None
    try:
        return lmdb.open(str(place), readonly=True, lock=False, readahead=False, max_readers=512)
    except lmdb.Error as error:
        raise Refused(f"dataset=lsun: {place} is no whole LMDB database ({error}); unpack its archive again.") from None


def below(folder: str | Path, files: Iterable[Path], seen: str = "") -> list[str]:
    """Name files of a folder relative to it, or to where it is `seen` from."""
    return [os.path.join(seen, file.relative_to(folder)) for file in files]


def known_again(place: Path, before: Sequence[list], now: Sequence[Entry]) -> list[Entry]:
    """Return `now`, with the old time for files that were only copied or touched: size and SHA-256 are the same.

    `before` has name, size, time and SHA-256 of each; without a SHA-256 a file is not known again.
    """
    old = {name: (Entry(name, size, time), digest) for name, size, time, digest in before}
    return [_as_it_was(place, entry, *old[entry.name]) if entry.name in old else entry for entry in now]


def _as_it_was(place: Path, now: Entry, before: Entry, digest: str) -> Entry:
    if now == before or now.size != before.size or not digest:
        return now
    path = os.path.join(place, now.name)
    try:
        with open(path, "rb") as file:
            return before if hashlib.file_digest(file, "sha256").hexdigest() == digest else now
    except OSError as error:
        raise _unreadable_file_error(path, error) from None


def _entry(place: Path, name: str) -> Entry:
    """Describe a file as it is now. Raise FileNotFoundError or NotADirectoryError for one that is gone."""
    path = os.path.join(place, name)
    try:
        status = os.stat(path)  # in a third of the time that a Path takes
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise _unreadable_file_error(path, error) from None
    return Entry(name, status.st_size, status.st_mtime_ns)


def _unreadable_file_error(path: str, error: OSError) -> Refused:
    return Refused(f"{path} cannot be read ({error.strerror}); make it readable, or put it back from a copy.")
