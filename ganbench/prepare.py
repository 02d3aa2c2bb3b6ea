"""`python -m ganbench.prepare ROOT --size 64` decodes a large folder of images once, for many runs.

The prepared folder, by default `ROOT-64` beside the other, is what `dataset=prepared dataset.root=ROOT-64` trains on.
"""

import argparse
import multiprocessing
import os
import re
import threading
from concurrent.futures import Executor, ProcessPoolExecutor
from os.path import expanduser
from pathlib import Path

from PIL import ImageColor

from ganbench.config.ranges import FILTERS
from ganbench.errors import Refused
from ganbench.files import check_image_folder
from ganbench.image_files import View
from ganbench.prepared import write
from ganbench.prepared.format import Manifest, command
from ganbench.prepared.sources import Folder, Source, below
from ganbench.trained.command_line import Arguments, answered, count


def main() -> None:
    """Run the command line; exit with 2 if it is refused."""
    with answered("what is done is kept, and the same command goes on"):
        options = _options()
        root = check_image_folder("", options.root)
        place = _place(options, root)
        print(_summary(place, write.prepare(place, _order(options, root, place), _processes)))


def _options() -> argparse.Namespace:
    parser = Arguments(
        prog="python -m ganbench.prepare",
        description="Decode, crop and scale all images of a folder into one array, which runs map into memory. "
        "Stopped at any time, the same command goes on.",
    )
    parser.add_argument("root", metavar="ROOT", help="folder of images, with or without train/ and test/")
    parser.add_argument("--size", type=_side, required=True, metavar="N", help="side of the images in pixels")
    parser.add_argument("--filter", choices=FILTERS, default="lanczos", help="by which they are scaled (%(default)s)")
    parser.add_argument("--crop", type=_side, metavar="N", help="first keep N x N pixels in the middle (default: all)")
    parser.add_argument("--gray", action="store_true", help="one channel instead of three")
    parser.add_argument("--background", type=_color, default="white", help="what transparent pixels show (%(default)s)")
    parser.add_argument("--on-error", choices=("refuse", "skip"), default="refuse", help="of images that are damaged")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--test-share", type=_share, default=0.2, help="share that is held out (%(default)s)")
    held_out.add_argument("--held-out", type=expanduser, metavar="FOLDER", help="another folder, which is held out")
    parser.add_argument("--out", type=expanduser, metavar="FOLDER", help="where to (default: ROOT-N beside ROOT)")
    return parser.parse_args()


def _side(text: str) -> int:
    if not 1 <= (side := count(text)) <= 4096:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 1 to 4,096")
    return side


def _color(text: str) -> str:
    try:
        ImageColor.getrgb(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} must be a color, such as white or #808080") from None
    return text


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.\d*[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text} must be a number > 0 and < 1")
    return float(text)


def _place(options: argparse.Namespace, root: Path) -> Path:
    """Return where to. Raise Refused for a place among the images themselves."""
    really = root.resolve()
    place = Path(options.out) if options.out else really.parent / f"{really.name}-{options.size}"
    if place.resolve().is_relative_to(really):
        raise Refused(f"--out {place} lies in {root}, among the images that it is made of; pass another folder.")
    return place


def _order(options: argparse.Namespace, root: Path, place: Path) -> write.Order:
    """List the images and split them as `dataset=folder` does."""
    from ganbench.image_folder import split_folder  # only now, since it imports torch

    try:
        train, held_out, left_out = split_folder(str(root), options.test_share, options.held_out)
    except Refused as error:  # in the words of this command line
        message = str(error).removeprefix("dataset.root=").replace("dataset.held_out=", "--held-out ")
        raise Refused(message) from None
    other = options.held_out and _seen_from(root, options.held_out)
    names = below(root, train) + below(options.held_out or root, held_out, other or "")
    channels = 1 if options.gray else 3
    view = View((channels, options.size, options.size), options.background, options.filter, options.crop)
    return write.Order(
        source=Folder(root, names),
        held_out=other or "",
        n_train=len(train),
        view=view,
        skip=options.on_error == "skip",
        left_out=dict(+left_out),
        fix=_fix(options, root, place),
        skip_setting="--on-error skip",
    )


def _seen_from(root: Path, other: str) -> str:
    """Name another folder as seen from `root`, and if it lies elsewhere from where `root` really is.

    For `..` leads out of a folder, never out of a link to it.
    """
    place = Path(other)
    is_below = ".." not in place.parts and place.absolute().is_relative_to(root.absolute())
    return os.path.relpath(place, root) if is_below else os.path.relpath(place.resolve(), root.resolve())


def _fix(options: argparse.Namespace, root: Path, place: Path) -> str:
    """Say how the folder is made again, from wherever that is read."""
    place = place.absolute()
    words: list[object] = ["python", "-m", "ganbench.prepare", root.resolve(), "--size", options.size]
    words += ["--filter", options.filter, "--background", options.background, "--on-error", options.on_error]
    words += ["--crop", options.crop] if options.crop else []
    words += ["--gray"] if options.gray else []
    other = options.held_out and Path(options.held_out).absolute()
    words += ["--held-out", other] if other else ["--test-share", options.test_share]
    return f"remove {place} and prepare it again, or into another folder: `{command(*words, '--out', place)}`"


def _processes(source: Source) -> Executor:
    """Start a process for each core, given the source."""
    context = multiprocessing.get_context("spawn")  # a fresh one, without the torch of this process
    return ProcessPoolExecutor(write.cores(), context, _begin_process, (source,))


def _begin_process(source: Source) -> None:
    write.OWN_SOURCE.append(source)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once the one that started it has been killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _summary(place: Path, manifest: Manifest) -> str:
    shape = ",".join(map(str, manifest.view.shape))
    skipped = f", {len(manifest.skipped):,} skipped" if manifest.skipped else ""
    return (
        f"{place} is complete: {manifest.train:,} images to train on, {manifest.held_out:,} held out{skipped}.\n"
        f"Train on it with: python -m ganbench {command('dataset=prepared', f'dataset.root={place}')} "
        f"'dataset.shape=[{shape}]'"
    )


if __name__ == "__main__":
    main()
