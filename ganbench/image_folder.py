"""A folder of pictures: how it is split, and its pictures in memory, which are kept on disk for the next run."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import PIL
import torch
from torch import Tensor

from ganbench import image_files, randomness
from ganbench.disk_cache import cached, sha256
from ganbench.errors import Refused, plural
from ganbench.files import check_image_folder
from ganbench.image_files import View, read_picture, reason, to_shape, unreadable_error
from ganbench.prepared.format import MANIFEST
from ganbench.progress import tracked

Damaged = dict[str, str]  # why each file cannot be read, by its path


def split_folder(root: str, test_share: float, held_out: str | None) -> tuple[list[Path], list[Path], Counter[str]]:
    """List the images below `root` to train on, those held out, and what is left out, by reason."""
    place, listing = _list_images(root, "dataset.root")
    left_out = listing.left_out
    if held_out is None:
        parts = image_files.split_by_folder(place, listing.files) or _random_split(listing.files, test_share)
        train_files, test_files = parts
        left_out["outside train and test"] = len(listing.files) - len(train_files) - len(test_files)
    else:
        other, others = _list_images(held_out, "dataset.held_out")
        train_files = [file for file in listing.files if not _is_below(file, other)]
        test_files = others.files
        if not _is_below(other, place):
            left_out += others.left_out
    check_parts(root, len(train_files), len(test_files))
    return train_files, test_files, left_out


def check_parts(root: str, train: int, held_out: int) -> None:
    for part, n in (("to train on", train), ("held out", held_out)):
        if n < 2:
            raise Refused(f"dataset.root={root} leaves {plural(n, 'image')} {part}, and 2 or more are needed.")


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _list_images(root: str, name: str) -> tuple[Path, image_files.Listing]:
    """List the images of a folder that the setting `name` names; raise Refused for one without enough of them."""
    place = check_image_folder(name, root)
    if (place / MANIFEST).exists():
        raise Refused(f"{name}={root} was prepared by ganbench.prepare; use dataset=prepared dataset.root={root}.")
    listing = image_files.list_images(place)
    fewest = image_files.FEWEST if name == "dataset.root" else 2
    if len(listing.files) < fewest:
        left_out = describe_left_out(listing.left_out)
        raise Refused(
            f"{name}={root} must hold at least {fewest} images, in files such as .png or .jpg; found "
            f"{len(listing.files)}{f' ({left_out})' if left_out else ''}."
        )
    return place, listing


def _random_split(files: list[Path], test_share: float) -> tuple[list[Path], list[Path]]:
    order = torch.randperm(len(files), generator=randomness.generator(0, "split")).tolist()
    shuffled = [files[i] for i in order]
    n_test = max(2, round(len(files) * test_share))
    return shuffled[n_test:], shuffled[:n_test]


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Say what was left out of a folder, such as `left out: 3 .heic, 1 run folder`; nothing for nothing."""
    counts = ", ".join(f"{n} {what}" for what, n in sorted(left_out.items()) if n)
    return f"left out: {counts}" if counts else ""


def load_images(files: list[Path], view: View) -> Tensor:
    """Return images as uint8 [N, C, H, W], from the disk if they were read before.

    Raise Refused that names the files that cannot be read, in whatever way they are damaged.
    """

    def read() -> Tensor:
        images, damaged = _read_images(files, view)
        if damaged:
            raise unreadable_error(damaged, len(files), "dataset.on_error=skip")
        return images

    return cached(_key(files, view), "decoded images", read)


def load_readable_images(files: list[Path], view: View) -> tuple[Tensor, Damaged]:
    """Return images likewise, those that cannot be read black, and why they cannot."""
    read = cache(lambda: _read_images(files, view))
    key = _key(files, view)
    names = cached(f"{key}-damaged", "names of damaged images", lambda: _to_tensor(read()[1]))
    images = cached(f"{key}-readable", "decoded images", lambda: read()[0])
    return images, json.loads(bytes(names.tolist()))


def _to_tensor(damaged: Damaged) -> Tensor:
    return torch.tensor(list(json.dumps(damaged).encode()), dtype=torch.uint8)


def _key(files: list[Path], view: View) -> str:
    """Hash what the images depend on: the files as they are now, how they are shown, and what reads them."""
    reader = hashlib.sha256(Path(image_files.__file__).read_bytes()).hexdigest()
    shown = view._replace(shape=to_shape(view.shape))
    digest = hashlib.sha256(f"{reader} {PIL.__version__} {tuple(shown)}".encode())
    for file in files:
        status = file.stat()
        digest.update(os.fsencode(file.resolve()))
        digest.update(f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
    return digest.hexdigest()


def _read_images(files: list[Path], view: View) -> tuple[Tensor, Damaged]:
    images = torch.zeros(len(files), *view.shape, dtype=torch.uint8)
    damaged: Damaged = {}
    for i, file in enumerate(tracked(files, "reading images")):
        try:
            images[i] = torch.from_numpy(read_picture(file, view).copy())
        except Exception as error:  # each decoder fails in its own ways
            damaged[str(file)] = reason(error)
    return images, damaged


def count_copies(held_out: Tensor, train: Tensor) -> int:
    """Return how many held-out images are, pixel by pixel, training images, too."""
    known = {sha256(image) for image in train}
    return sum(sha256(image) in known for image in held_out)
