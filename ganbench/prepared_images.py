"""Map a prepared folder into memory as tensors, once it is known to hold what it was made with."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganbench.disk_cache import cached, sha256
from ganbench.errors import Refused
from ganbench.image_files import list_images
from ganbench.prepared.format import (
    ARRAY,
    MANIFEST,
    Manifest,
    change,
    check_shape,
    damaged_error,
    map_array,
    read_sources,
)
from ganbench.prepared.sources import Entry, Folder, below, known_again

log = logging.getLogger("ganbench")


class Images(NamedTuple):
    """The images of a prepared folder, uint8 [N, C, H, W], mapped into memory."""

    train: Tensor
    test: Tensor
    facts: dict[str, Any]  # how many there are, and what was left out
    digests: dict[str, str]  # SHA-256 of both parts, as a run's footing has it
    has_changed: Callable[[], bool]  # tells whether the file has been written to since


def is_complete(place: Path) -> bool:
    """Tell whether a folder has been prepared to its end."""
    return (place / MANIFEST).exists()


def check_prepared(place: Path, shape: Sequence[int]) -> None:
    """Raise Refused for a folder that was not prepared, has images of another shape, or is of files that changed."""
    check_source(place, check_shape(place, shape))


def check_source(place: Path, manifest: Manifest) -> None:
    """Raise Refused if the files that the images were made of have changed; without their folder nobody can know."""
    source = Path(manifest.plan["source"])
    if not source.is_dir():
        return
    recorded = read_sources(place, manifest, "dataset.root=")
    before = [Entry(*entry[:3]) for entry in recorded]
    names = [entry.name for entry in before]
    if "outside train and test" not in manifest.left_out:  # else what is new may be more of that
        known = set(names)
        other = manifest.plan.get("held_out", "")
        listed = below(source, list_images(source).files)
        if other and (source / other).is_dir():
            listed += below(source / other, list_images(source / other).files, other)
        names += [name for name in dict.fromkeys(listed) if name not in known]
    if changed := change(before, known_again(source, recorded, Folder(source, names).entries_left())):
        raise _changed_error(f"dataset.root={place}", changed, manifest)


def check_files_left(place: Path, setting: str) -> None:
    """Raise Refused if a file that a complete folder was made of has changed; one that was removed is not missed."""
    manifest = Manifest.read(place, setting)
    source = Path(manifest.plan["source"])
    recorded = read_sources(place, manifest, setting)
    left = Folder(source, [name for name, *_ in recorded]).entries_left()
    names = {entry.name for entry in left}
    before = [Entry(*entry[:3]) for entry in recorded if entry[0] in names]
    if changed := change(before, known_again(source, recorded, left)):
        raise _changed_error(f"{setting}{place}", changed, manifest)


def _changed_error(name: str, changed: str, manifest: Manifest) -> Refused:
    source = manifest.plan["source"]
    return Refused(f"{name}: {changed} in {source} since it was prepared; undo that, or {manifest.fix}.")


def map_prepared(place: Path, setting: str) -> Images:
    """Map a complete prepared folder into memory, and verify it."""
    manifest = Manifest.read(place, setting)
    images = torch.from_numpy(map_array(place, manifest, setting))
    identity = _identity(place / ARRAY)
    train = images[: manifest.train]
    test = images[manifest.train :]
    if _verified_digests(place, train, test) != manifest.digests:
        raise damaged_error(place, manifest, setting)
    left_out = manifest.left_out | ({"unreadable": len(manifest.skipped)} if manifest.skipped else {})
    facts = {"train": len(train), "held_out": len(test), "copies": manifest.copies, "left_out": left_out}
    facts |= {"unreadable": sorted(manifest.skipped)} if manifest.skipped else {}
    digests = {"train": manifest.digests["train"], "test": manifest.digests["held_out"]}
    return Images(train, test, facts, digests, lambda: _identity(place / ARRAY) != identity)


def _verified_digests(place: Path, train: Tensor, test: Tensor) -> dict[str, str]:
    """Hash the parts of an array; a file that has not changed since then only once."""
    file = place / ARRAY
    key = hashlib.sha256(os.fsencode(f"{_identity(file)} {len(train)}")).hexdigest()

    def digests() -> Tensor:
        log.info(f"verifying {file}")
        return torch.tensor([list(bytes.fromhex(sha256(part))) for part in (train, test)], dtype=torch.uint8)

    found = cached(f"{key}-digests", f"the digests of {file}", digests)
    return {name: bytes(part.tolist()).hex() for name, part in zip(("train", "held_out"), found, strict=True)}


def _identity(file: Path) -> str:
    """Say which file lies there, and when it was written; empty if there is none."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{file.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
