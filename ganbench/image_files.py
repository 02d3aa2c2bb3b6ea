"""Read pictures from files: which files of a folder are images, what each of them shows, and which are held out.

Needs no torch, so that processes which only decode start at once.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from ganbench.errors import Refused
from ganbench.files import is_run_folder

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


class View(NamedTuple):
    """How pictures are shown: cropped to the middle, scaled, in color or gray, over a color where transparent."""

    shape: tuple[int, int, int]  # channels, height and width; one channel is gray
    background: str = "white"  # a color, of what transparent pixels show
    filter: str = "bicubic"  # of Pillow, which widens it to antialias, by which they are scaled
    crop: int | None = None  # side in pixels of the square in the middle that is kept; None for the largest that fits


def read_picture(file: Path | IO[bytes], view: View) -> np.ndarray:
    """Return a picture as uint8 [C, H, W]. Raises as `reason` reads it, each decoder in its own way."""
    with warnings.catch_warnings(action="ignore"), Image.open(file) as image:  # of what is read all the same
        ImageOps.exif_transpose(image, in_place=True)  # a copy would not know its format and tags
        return fitted(as_shown(image, view.background), view)


def to_shape(sizes: Iterable[int]) -> tuple[int, int, int]:
    """Return channels, height and width from any list of them, such as a configuration's."""
    channels, height, width = sizes
    return channels, height, width


def fitted(shown: Image.Image, view: View) -> np.ndarray:
    """Return an image in L or RGB as uint8 [C, H, W]. Raise ValueError for one that is smaller than the crop."""
    channels, height, width = view.shape
    if view.crop is not None:
        shown = _cropped(shown, view.crop)
    scaled = ImageOps.fit(shown.convert("L" if channels == 1 else "RGB"), (width, height), filter_of(view))
    return np.array(scaled).reshape(height, width, channels).transpose(2, 0, 1)


def filter_of(view: View) -> Image.Resampling:
    """Return Pillow's filter of that name."""
    return Image.Resampling[view.filter.upper()]


def _cropped(image: Image.Image, side: int) -> Image.Image:
    if min(image.size) < side:
        raise ValueError(f"its {image.width}x{image.height} pixels are fewer than the crop of {side}x{side}")
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def reason(error: Exception) -> str:
    """Say in one line why a picture cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__


def unreadable_error(damaged: Mapping[str, str], total: int, skip: str) -> Refused:
    """Return the refusal of pictures that cannot be read, by name and reason; `skip` is what would leave them out."""
    named = "; ".join(f"{file} ({damaged[file]})" for file in sorted(damaged)[:SHOWN])
    more = f"; and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
    return Refused(
        f"{len(damaged)} of {total} images cannot be read: {named}{more}; repair or remove them, or leave them out "
        f"with {skip}."
    )


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
