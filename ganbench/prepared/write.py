"""Decode pictures in parallel into a prepared folder. Killed at any time, the same call goes on after the last chunk.

Chunks are appended in order. A line of `chunks.jsonl` follows each one that is safely on disk; `plan.json` holds what
is being made of which files. Both are gone once the folder is complete.
"""

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from filelock import AcquireReturnProxy, FileLock

from ganbench import image_files
from ganbench.errors import Refused, plural
from ganbench.files import acquire, make_writable_folder, write_atomically
from ganbench.image_files import View, reason, unreadable_error
from ganbench.prepared.format import ARRAY, MANIFEST, Manifest, change, header, read_sources
from ganbench.prepared.sources import Entry, Source, known_again
from ganbench.progress import lines_above_bar, progress_bar, tracked

log = logging.getLogger("ganbench")

Plan = dict[str, Any]
PLAN, JOURNAL = "plan.json", "chunks.jsonl"
VERSION = ("reader", "chunk")  # of a plan: what decodes, and by how many
CHUNK_BYTES = 8 << 20  # of decoded images: what a process works on at a time
AHEAD = 2  # chunks for each process that are decoded, or being decoded, before they are written


class Order(NamedTuple):
    """What is to be made of a source."""

    source: Source
    n_train: int  # of its pictures; the others are held out
    view: View
    skip: bool  # pictures that cannot be read, rather than refuse all
    left_out: dict[str, int]
    fix: str  # what to do where the folder is not what it was
    skip_setting: str  # by which `skip` is chosen
    held_out: str = ""  # another folder, relative to the source's place, whose images are held out


class Chunk(NamedTuple):
    """A piece of the source, decoded."""

    pixels: bytes
    digests: list[str]  # of the files of its pictures; empty texts where one file has them all
    damaged: dict[str, str]  # why pictures cannot be read, by name


def cores() -> int:
    """Return how many processes can compute at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(place: Path, order: Order, executor: Callable[[Source], Executor] | None = None) -> Manifest:
    """Make the prepared folder `place`, or go on with it; return its manifest. One process at a time does so.

    Raise Refused, with the folder unfinished, for pictures that cannot be read; and for a folder that is something
    else, or was made of files that have changed. `executor` makes what decodes, by default threads.
    """
    with _lock(place):
        plan = _plan(order)
        if (place / MANIFEST).exists():
            return _checked(place, order, plan)
        _begin(place, order, plan)
        with (executor or (lambda source: ThreadPoolExecutor(cores())))(order.source) as pool:
            try:
                _decode_all(place, order, pool)
            except BrokenProcessPool:
                raise Refused(
                    f"{place}: a process that decodes was ended from outside, for want of memory perhaps; the same "
                    "command goes on."
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)
        return _finish(place, order, plan)


def _lock(place: Path) -> AcquireReturnProxy:
    """Return the lock beside a folder, held. Raise Refused where no file can be written."""
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        make_writable_folder(place.parent)
        return acquire(lock, f"preparing {place}")
    except OSError as error:
        raise Refused(f"{place} cannot be written ({error.strerror}); pass another folder.") from None


def _plan(order: Order) -> Plan:
    """Return what decides which bytes are made, as JSON has it."""
    reader = hashlib.sha256(Path(image_files.__file__).read_bytes()).hexdigest()[:12]
    return {
        "source": str(order.source.place.resolve()),
        "view": order.view._asdict() | {"shape": list(order.view.shape)},
        "train": order.n_train,
        "held_out": order.held_out,
        "reader": f"{reader}, Pillow {PIL.__version__}",
        "chunk": chunk_size(order.view),
        "files": [list(entry) for entry in order.source.entries()],
    }


def _checked(place: Path, order: Order, plan: Plan) -> Manifest:
    """Return the manifest of a complete folder. Raise Refused if this order would make another one."""
    manifest = Manifest.read(place)
    recorded = read_sources(place, manifest)
    before = manifest.plan | {"files": [entry[:3] for entry in recorded]}
    _check_settings(place, order, before, plan)
    plan |= {"files": known_again(order.source.place, recorded, [Entry(*entry) for entry in plan["files"]])}
    if changed := _change(before, plan):
        raise Refused(f"{plan['source']} is not what {place} was made of: {changed}; {order.fix}.")
    if manifest.skipped and not order.skip:
        raise unreadable_error(manifest.skipped, len(order.source), order.skip_setting)
    for name in (PLAN, JOURNAL):  # of a process that was killed as it finished
        (place / name).unlink(missing_ok=True)
    return manifest


def _begin(place: Path, order: Order, plan: Plan) -> None:
    """Make the folder, or prepare to go on with it: chunks after the first file that has changed are dropped."""
    if (place / PLAN).exists():
        try:
            before = json.loads((place / PLAN).read_bytes())
        except (OSError, ValueError):
            raise Refused(f"{place / PLAN} cannot be read; remove {place} and run the command again.") from None
        _check_settings(place, order, before, plan)
        # Another version may decode to other pixels. What is complete stays what it is.
        by_another = [before[key] for key in VERSION] != [plan[key] for key in VERSION]
        if changed := "it was begun by another version" if by_another else _change(before, plan):
            same = 0 if by_another else _equal_at_start(before["files"], plan["files"]) // chunk_size(order.view)
            log.info(f"{place} goes on after {plural(same, 'chunk')} only: {changed}")
            journal = (place / JOURNAL).read_bytes() if (place / JOURNAL).exists() else b""
            write_atomically(place / JOURNAL, b"".join(journal.splitlines(keepends=True)[:same]))
    elif place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise Refused(
            f"{place} is there and was not made by ganbench; move it elsewhere, or prepare into another folder."
        )
    place.mkdir(exist_ok=True)
    write_atomically(place / PLAN, json.dumps(plan).encode())


def _check_settings(place: Path, order: Order, before: Plan, plan: Plan) -> None:
    """Raise Refused if a folder was begun or made with other settings."""
    old = before["view"] | {"source": before["source"]}
    for name, value in (plan["view"] | {"source": plan["source"]}).items():
        if old.get(name) != value:
            raise Refused(f"{place} was made with {name} {old.get(name)}, not {value}; {order.fix}.")


def _change(before: Plan, plan: Plan) -> str:
    """Say what of the source has changed; empty for nothing."""
    changed = change([Entry(*entry) for entry in before["files"]], [Entry(*entry) for entry in plan["files"]])
    return changed or ("" if before["train"] == plan["train"] else "its files are split in another way")


def _equal_at_start(before: list, now: list) -> int:
    """Return how many items are the same before the first that differs."""
    pairs = enumerate(zip(before, now, strict=False))
    return next((i for i, (old, new) in pairs if old != new), min(len(before), len(now)))


def _decode_all(place: Path, order: Order, pool: Executor) -> None:
    """Append all chunks that are not there yet."""
    size = chunk_size(order.view)
    done = _resume(place, order)
    starts = range(len(done) * size, len(order.source), size)
    _check_room(place, len(order.source) - len(done) * size, order.view)
    bar = progress_bar(len(order.source))
    bar.update(min(len(done) * size, len(order.source)))
    if done and len(starts):
        log.info(f"going on after {len(done) * size:,} of {len(order.source):,} images")
    damaged: dict[str, str] = {}
    with lines_above_bar(), (place / ARRAY).open("r+b") as array, (place / JOURNAL).open("ab") as journal, bar:
        array.seek(0, os.SEEK_END)
        chunks = _in_order(pool, order, starts, size)
        for start in tracked(starts, "preparing images"):
            chunk = next(chunks)
            damaged |= chunk.damaged
            if not damaged or order.skip:  # else only to name all that cannot be read
                _append(array, journal, chunk)
            bar.update(min(size, len(order.source) - start))
    if damaged and not order.skip:
        raise unreadable_error(damaged, len(order.source), order.skip_setting)


def _check_room(place: Path, images: int, view: View) -> None:
    """Raise Refused, before hours of decoding, if the disk has no room for so many more images."""
    needed = images * int(np.prod(view.shape))
    free = shutil.disk_usage(place).free
    if free < needed:
        raise Refused(
            f"{place} needs {needed / 1e6:,.0f} MB more, and its disk has {free / 1e6:,.0f} MB free; make room, or "
            "choose a folder on another disk."
        )


def chunk_size(view: View) -> int:
    """Return the number of images in a chunk."""
    return max(1, min(1000, CHUNK_BYTES // int(np.prod(view.shape))))


def _in_order(pool: Executor, order: Order, starts: Sequence[int], size: int) -> Iterator[Chunk]:
    """Yield the chunks in order, some of them decoded ahead."""
    waiting: deque[Future[Chunk]] = deque()
    ahead = AHEAD * cores()
    source = order.source if isinstance(pool, ThreadPoolExecutor) else None  # which processes were given before
    for start in starts:
        waiting.append(pool.submit(decode, source, start, min(start + size, len(order.source)), order.view))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


OWN_SOURCE: list[Source] = []  # of a process that decodes


def decode(source: Source | None, first: int, end: int, view: View) -> Chunk:
    """Decode some pictures of a source, or of this process's own."""
    source = source or OWN_SOURCE[0]
    images: list[bytes] = []
    digests: list[str] = []
    damaged: dict[str, str] = {}
    for i in range(first, end):
        try:
            pixels, digest = source.read(i, view)
        except Exception as error:  # each decoder fails in its own ways
            damaged[source.name(i)] = reason(error)
            digest = ""
        else:
            images.append(pixels.tobytes())
        digests.append(digest)
    return Chunk(b"".join(images), digests, damaged)


def _append(array: Any, journal: Any, chunk: Chunk) -> None:
    """Write a chunk, and the line that says so once it is safely on disk."""
    array.write(chunk.pixels)
    _flush(array)
    digest = hashlib.sha256(chunk.pixels).hexdigest()
    line = {"bytes": len(chunk.pixels), "sha256": digest, "digests": chunk.digests, "skipped": chunk.damaged}
    journal.write(json.dumps(line).encode() + b"\n")
    _flush(journal)


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _resume(place: Path, order: Order) -> list[Plan]:
    """Return the chunks that are whole on disk, and cut what comes after them off."""
    head = len(header((0, *order.view.shape)))
    array, journal = place / ARRAY, place / JOURNAL
    array.touch()
    journal.touch()
    whole: list[Plan] = []
    length = 0  # of the lines that are kept
    with array.open("r+b") as stream:
        stream.seek(head)
        for text in journal.read_bytes().splitlines(keepends=True):
            line = _line(text)
            if line is None or (line["skipped"] and not order.skip):
                break
            if hashlib.sha256(stream.read(line["bytes"])).hexdigest() != line["sha256"]:
                break
            whole.append(line)
            length += len(text)
        stream.truncate(head + sum(line["bytes"] for line in whole))
    os.truncate(journal, length)
    return whole


def _line(text: bytes) -> Plan | None:
    """Read a line of the journal; None for one that was cut short."""
    with suppress(ValueError):
        line = json.loads(text)
        return line if text.endswith(b"\n") else None
    return None


def _finish(place: Path, order: Order, plan: Plan) -> Manifest:
    """Write the head of the array and the manifest, and remove what only an unfinished folder has."""
    lines = _resume(place, order)
    skipped = {name: why for line in lines for name, why in line["skipped"].items()}
    total = sum(line["bytes"] for line in lines) // int(np.prod(order.view.shape))
    train = order.n_train - sum(order.source.name(i) in skipped for i in range(order.n_train) if skipped)
    if min(train, total - train) < 2:
        raise Refused(
            f"{order.source.place} leaves {plural(train, 'image')} to train on and {total - train} held out, and 2 or "
            "more of each are needed."
        )
    with (place / ARRAY).open("r+b") as array:
        array.write(header((total, *order.view.shape)))
        _flush(array)
    made = _digests(place, order.view, train, total - train)
    manifest = Manifest(
        plan={key: value for key, value in plan.items() if key != "files"},
        train=train,
        held_out=total - train,
        left_out=order.left_out,
        skipped=skipped,
        chunk=chunk_size(order.view),
        fix=order.fix,
        **made._asdict(),
    )
    manifest.write(place, _with_digests(plan["files"], [digest for line in lines for digest in line["digests"]]))
    for name in (PLAN, JOURNAL):
        (place / name).unlink()
    return Manifest.read(place)


def _with_digests(files: list[list], digests: list[str]) -> list[list]:
    """Add to each file its own digest; an empty text where one file has many pictures."""
    if len(digests) != len(files):
        digests = [""] * len(files)
    return [[*file, digest] for file, digest in zip(files, digests, strict=True)]


class Digests(NamedTuple):
    """What the finished array says of itself."""

    chunks: list[str]
    digests: dict[str, str]
    copies: int


def _digests(place: Path, view: View, train: int, held_out: int) -> Digests:
    """Read the array once, a chunk at a time: mapped into memory it would count as memory of this process."""
    parts = {"train": _part_digest(train, view), "held_out": _part_digest(held_out, view)}
    one = int(np.prod(view.shape))
    chunks: list[str] = []
    images: list[bytes] = []  # eight bytes of the digest of each, by which copies are found
    with (place / ARRAY).open("rb") as array:
        array.seek(len(header((0, *view.shape))))
        while piece := array.read(chunk_size(view) * one):
            left = max(0, train - len(images)) * one
            parts["train"].update(piece[:left])
            parts["held_out"].update(piece[left:])
            chunks.append(hashlib.sha256(piece).hexdigest())
            images += [hashlib.sha256(piece[i : i + one]).digest()[:8] for i in range(0, len(piece), one)]
    known = set(images[:train])
    copies = sum(image in known for image in images[train:])
    return Digests(chunks, {name: digest.hexdigest() for name, digest in parts.items()}, copies)


def _part_digest(n: int, view: View) -> Any:
    """Begin the SHA-256 of a part as a run's footing has it, by which one is recognized wherever it came from."""
    return hashlib.sha256(f"torch.uint8{(n, *view.shape)}".encode())
