"""Read a folder of pictures: which files are images, what each of them shows, and which are held out."""

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from ganbench.disk_cache import cached, sha256
from ganbench.errors import Refused
from ganbench.files import is_run_folder
from ganbench.progress import tracked

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for negatives
FEWEST = 10  # images of a folder
SHOWN = 3  # files that a message names
TRAIN = ("train",)
HELD_OUT = ("test", "val", "valid", "validation", "held_out")
# Formats of Pillow's that it opens, but decodes only with another program or not at all.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass
class Listing:
    """The image files of a folder in order of their paths, and what was left out, by reason."""

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def list_images(root: Path) -> Listing:
    """List the images below a folder. Links are followed, each folder once; names that begin with a dot are left out.

    So are folders of runs, whose pictures are made by what is trained here. Raise Refused for a folder that cannot be
    read.
    """
    place = root.resolve()
    if any(map(_is_made_by_runs, (place, *place.parents))):
        raise Refused(f"{root} lies in the folder of a run, whose pictures are made by what is trained; pass another.")
    listing = Listing()
    suffixes = _decoded_suffixes()
    for folder, names in _walk(root, listing.left_out):
        for name in names:
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                listing.left_out["hidden"] += 1
            elif not (folder / name).is_file():  # a link to nowhere, or a device
                listing.left_out["broken link or no file"] += 1
            elif suffix in suffixes:
                listing.files.append(folder / name)
            else:
                listing.left_out[f"{suffix or 'without a suffix'}"] += 1
    return Listing(sorted(listing.files), +listing.left_out)


def _decoded_suffixes() -> set[str]:
    suffixes = Image.registered_extensions()  # loads all of Pillow's plugins
    decoded = set(Image.OPEN) - NOT_DECODED | {"MPO"}  # which its JPEG plugin opens
    return {suffix for suffix, kind in suffixes.items() if kind in decoded}


def _walk(root: Path, left_out: Counter[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files."""

    def refuse(error: OSError) -> None:
        raise Refused(f"{error.filename} cannot be read ({error.strerror}); make it readable, or move it elsewhere.")

    seen: set[tuple[int, int]] = set()
    for path, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folder = Path(path)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if _is_made_by_runs(folder):
            left_out["run folder"] += 1
            folders.clear()
            continue
        left_out["hidden"] += sum(name.startswith(".") for name in folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, names


def _is_made_by_runs(folder: Path) -> bool:
    """Tell whether a run, or its mirror at Weights & Biases, writes its pictures into the folder."""
    return is_run_folder(folder) or re.match(r"(offline-)?run-\d{8}_\d{6}-", folder.name) is not None


def split_by_folder(root: Path, files: Iterable[Path]) -> tuple[list[Path], list[Path]] | None:
    """Return the files below train/ and those below test/ (or val/, …); None for a folder without such a pair."""
    parts: dict[bool, list[Path]] = {True: [], False: []}
    for file in files:
        top, *below = file.relative_to(root).parts
        first = top.lower()
        if below and first in TRAIN + HELD_OUT:
            parts[first in TRAIN].append(file)
    return (parts[True], parts[False]) if parts[True] and parts[False] else None


def load_images(files: list[Path], shape: tuple[int, int, int], background: str) -> Tensor:
    """Return images as uint8 [N, C, H, W], cropped to the middle and scaled; from the disk if they were read before.

    Raise Refused that names the files that cannot be read, in whatever way they are damaged.
    """
    return cached(_key(files, shape, background), "decoded images", lambda: _read_images(files, shape, background))


def _key(files: list[Path], shape: tuple[int, int, int], background: str) -> str:
    """Hash what the images depend on: the files as they are now, how they are shown, and what reads them."""
    reader = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    digest = hashlib.sha256(f"{reader} {PIL.__version__} {tuple(shape)} {background}".encode())
    for file in files:
        status = file.stat()
        digest.update(os.fsencode(file.resolve()))
        digest.update(f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
    return digest.hexdigest()


def _read_images(files: list[Path], shape: tuple[int, int, int], background: str) -> Tensor:
    images = torch.empty(len(files), *shape, dtype=torch.uint8)
    damaged: dict[Path, str] = {}
    for i, file in enumerate(tracked(files, "reading images")):
        try:
            images[i] = _load_image(file, shape, background)
        except UnidentifiedImageError:
            damaged[file] = "not an image of a known format"
        except Exception as error:  # each decoder fails in its own ways
            damaged[file] = " ".join(str(error).split()) or type(error).__name__
    if damaged:
        named = "; ".join(f"{file} ({damaged[file]})" for file in sorted(damaged)[:SHOWN])
        more = f"; and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise Refused(f"{len(damaged)} of {len(files)} images cannot be read: {named}{more}; repair or remove them.")
    return images


def _load_image(file: Path, shape: tuple[int, int, int], background: str) -> Tensor:
    channels, height, width = shape
    with warnings.catch_warnings(action="ignore"), Image.open(file) as image:  # of what is read all the same
        ImageOps.exif_transpose(image, in_place=True)  # a copy would not know its format and tags
        shown = as_shown(image, background)
        fitted = ImageOps.fit(shown.convert("L" if channels == 1 else "RGB"), (width, height))
    return torch.from_numpy(np.array(fitted)).view(height, width, channels).permute(2, 0, 1)


def as_shown(image: Image.Image, background: str) -> Image.Image:
    """Return an image in L or RGB as a viewer shows it: the first frame of several, over one color where transparent.

    Raise ValueError for pixels of which no one can know what is black and what is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # of which PPM is scaled already
        return _of_16_bits(image, background)
    if image.mode in ("I", "F"):
        raise ValueError(f"{image.mode}: its numbers have no known range; save it with 8 or 16 bits a pixel")
    if image.has_transparency_data:
        color = ImageColor.getrgb(background)
        below = Image.new("RGBA", image.size, color)
        return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _of_16_bits(image: Image.Image, background: str) -> Image.Image:
    """Return a gray image of 16 bits in 8, with the background where it is transparent, and not as a negative."""
    values = np.asarray(image)
    shown = Image.fromarray((values.astype(np.float64) / 257).round().astype(np.uint8), "L")
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        shown = ImageOps.invert(shown)
    if "transparency" not in image.info:
        return shown
    color = Image.new("RGB", image.size, ImageColor.getrgb(background))
    return Image.composite(color, shown.convert("RGB"), Image.fromarray(values == image.info["transparency"]))


def count_copies(held_out: Tensor, train: Tensor) -> int:
    """Return how many held-out images are, pixel by pixel, training images, too."""
    known = {sha256(image) for image in train}
    return sum(sha256(image) in known for image in held_out)
