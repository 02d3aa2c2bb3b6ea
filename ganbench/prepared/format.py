"""A prepared folder on disk: `images.npy`, uint8 [N, C, H, W], what it was made of, and what its bytes must be.

`manifest.json` is written last, so a folder that has one is complete; `sources.json` lists the files it was made of.
"""

import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.image_files import View, to_shape
from ganbench.prepared.sources import Entry

FORMAT = 1
ARRAY, MANIFEST, SOURCES = "images.npy", "manifest.json", "sources.json"


@dataclass
class Manifest:
    """What a prepared folder holds. Digests are SHA-256, of a part with its type and shape, as in a run's footing."""

    plan: dict[str, Any]  # the source's absolute path, and what else decides which bytes are made
    train: int  # images to train on, which come first
    held_out: int
    copies: int  # held-out images that are, pixel by pixel, training images, too
    left_out: dict[str, int]  # of the source, by reason
    skipped: dict[str, str]  # pictures that could not be read, and why
    chunk: int  # images in a chunk
    chunks: list[str]  # the digest of each
    digests: dict[str, str]  # of the parts `train` and `held_out`
    fix: str  # what to do where the folder is not what it was
    sources_sha256: str = ""  # of sources.json
    format: int = FORMAT

    def write(self, place: Path, sources: list[list]) -> None:
        """Write both files; the folder is complete with the second."""
        content = json.dumps(sources, separators=(",", ":")).encode()
        self.sources_sha256 = hashlib.sha256(content).hexdigest()
        write_atomically(place / SOURCES, content)
        write_atomically(place / MANIFEST, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, place: Path, setting: str = "") -> Self:
        """Read the manifest of a folder. Raise Refused for one that is not there, or that is of another format."""
        name = f"{setting}{place}"
        try:
            found = cls(**json.loads((place / MANIFEST).read_bytes()))
            assert found.view
        except FileNotFoundError:
            raise Refused(
                f"{name} is no prepared folder, since it has no {MANIFEST}; run `python -m ganbench.prepare` to its "
                "end, and pass the folder that it names."
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"{name} has a damaged {MANIFEST} ({' '.join(str(error).split())}); {_FIX}.") from None
        if found.format != FORMAT:
            raise Refused(f"{name} has format {found.format}, and this version of ganbench reads {FORMAT}; {_FIX}.")
        return found

    @property
    def view(self) -> View:
        """Return how the pictures are shown."""
        fields = self.plan["view"]
        return View(**fields | {"shape": to_shape(fields["shape"])})

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return that of the array."""
        return (self.train + self.held_out, *self.view.shape)


_FIX = "remove the folder and prepare it again"  # where no manifest can say it


def check_shape(place: Path, shape: Sequence[int]) -> Manifest:
    """Return the manifest of a prepared folder. Raise Refused if its images are of another shape, or for no such."""
    manifest = Manifest.read(place, "dataset.root=")
    if tuple(shape) != manifest.view.shape:
        fix = f"dataset.shape=[{','.join(map(str, manifest.view.shape))}]"
        raise Refused(f"dataset.shape={list(shape)} is not the shape of the images in {place}; pass {fix}.")
    return manifest


def header(shape: Sequence[int]) -> bytes:
    """Return the head of a .npy file; NumPy makes it equally long whatever the number of images."""
    out = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(out, fields)
    return out.getvalue()


def map_array(place: Path, manifest: Manifest, setting: str = "") -> np.ndarray:
    """Map the array into memory: what writes to it changes a copy. Raise Refused where its size or head is wrong."""
    file = place / ARRAY
    head = header(manifest.shape)
    expected = len(head) + int(np.prod(manifest.shape))
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            found = stream.read(len(head))
        if size != expected:
            raise Refused(f"{setting}{file} has {size:,} bytes, expected {expected:,}; {manifest.fix}.")
        if found != head:
            raise Refused(f"{setting}{file} does not hold what {MANIFEST} says; {manifest.fix}.")
        return np.memmap(file, np.uint8, "c", len(head), manifest.shape)
    except OSError as error:
        raise Refused(f"{setting}{file} cannot be read ({error.strerror}); {manifest.fix}.") from None


def damaged_error(place: Path, manifest: Manifest, setting: str = "") -> Refused:
    """Return the refusal of an array whose digest is wrong, with the images among which the first damage is."""
    images = map_array(place, manifest)
    chunks = (images[i : i + manifest.chunk] for i in range(0, len(images), manifest.chunk))
    pairs = enumerate(zip(chunks, manifest.chunks, strict=False))
    first = next((i for i, (chunk, digest) in pairs if hashlib.sha256(chunk.data).hexdigest() != digest), 0)
    where = f"images {first * manifest.chunk:,} to {min((first + 1) * manifest.chunk, len(images)) - 1:,}"
    return Refused(f"{setting}{place / ARRAY} is damaged: {where} are not what was prepared; {manifest.fix}.")


def read_sources(place: Path, manifest: Manifest, setting: str = "") -> list[list]:
    """Return name, size, time and SHA-256 of each file that a prepared folder was made of."""
    try:
        content = (place / SOURCES).read_bytes()
    except OSError as error:
        raise Refused(f"{setting}{place / SOURCES} cannot be read ({error.strerror}); {manifest.fix}.") from None
    if hashlib.sha256(content).hexdigest() != manifest.sources_sha256:
        raise Refused(f"{setting}{place / SOURCES} is not what was written; {manifest.fix}.")
    return json.loads(content)


def change(before: Sequence[Entry], now: Sequence[Entry]) -> str:
    """Say which file differs first between two listings, and how; empty if none does."""
    old = {entry.name: entry for entry in before}
    new = {entry.name: entry for entry in now}
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            return f"{name} is gone"
        if name not in old:
            return f"{name} is new"
        if old[name] != new[name]:
            return f"{name} has changed"
    return "" if list(before) == list(now) else "its files are split in another way"


def command(*words: object) -> str:
    """Write a command as a shell reads it."""
    return shlex.join(map(str, words))
