"""The files of public datasets: where they lie, where they come from, and that they are whole.

Each is downloaded once, under another name until its digest is right. What cannot be downloaded is asked for in one
sentence. Where torchvision knows a file, its address and its MD5 are torchvision's.
"""

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from filelock import FileLock

from ganbench.errors import Refused
from ganbench.files import acquire, check_digest, make_writable_folder, read_verified
from ganbench.prepared.format import MANIFEST
from ganbench.prepared.sources import NO_LMDB, open_database

if TYPE_CHECKING:  # torchvision takes long to import, and is imported where a dataset needs it
    from torchvision.datasets import CIFAR10, MNIST

# Training and held-out images; torchvision's list of resources has their MD5.
IDX_FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
# By the MD5 of a file, that of the same file in Debian's package dataset-fashion-mnist: gzip notes another date there.
DEBIANS_MD5 = {
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "cf8536b0aa1a6ac5fa3f23001093305c",
    "bef4ecab320f06d8554ea6380940ec79": "f78720b4224f21cce2f2ccf2d7a94c9a",
}
LSUN_URL = "http://dl.yf.io/lsun/scenes"
CELEBA_FILES = ("img_align_celeba.zip", "list_eval_partition.txt")


def idx_images(source: type["MNIST"], name: str, folder: Path) -> list[np.ndarray]:
    """Read the images [N, 28, 28] to train on, and those held out.

    They are read from the gzipped files only: for the files that torchvision unpacks no digest is known.
    """
    md5 = dict(source.resources)
    return [_read_idx(source, name, folder, file, md5[file]) for file in IDX_FILES]


def _read_idx(source: type["MNIST"], name: str, folder: Path, file: str, md5: str) -> np.ndarray:
    """Read uint8 images [N, 28, 28] from a gzipped IDX file: 16 bytes (magic, count, rows, columns), a byte a pixel."""
    torchvisions = folder / source.__name__ / "raw"  # where torchvision keeps it
    place = next((p for p in (folder, torchvisions) if (p / file).exists()), None)
    if place is None:
        place = torchvisions
        _download(name, folder, place / file, [mirror + file for mirror in source.mirrors], md5)
    hint = _replace_file_hint(name)
    raw = gzip.decompress(read_verified(place / file, "MD5", md5, hint, also=DEBIANS_MD5.get(md5)))
    shape = np.frombuffer(raw, ">u4", 3, 4)
    return np.frombuffer(raw, np.uint8, offset=16).reshape(shape).copy()


def cifar_images(source: type["CIFAR10"], name: str, folder: Path) -> list[np.ndarray]:
    """Read the images [N, 32, 32, 3] to train on, and those held out."""
    known = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    batches = {f"{source.base_folder}/{file}": md5 for file, md5 in known}
    archive = Packed(source.filename, source.tgz_md5, source.url, source.base_folder)
    _unpack(name, folder, archive, batches)
    for file, md5 in batches.items():
        read_verified(folder / file, "MD5", md5, _replace_file_hint(name))  # before anything of it is unpickled
    return [source(folder, train=train).data for train in (True, False)]


def svhn_images(folder: Path) -> list[np.ndarray]:
    """Read the images [N, 32, 32, 3] of SVHN to train on, and those held out."""
    from torchvision.datasets import SVHN

    return [_read_mat(folder, *SVHN.split_list[part]) for part in ("train", "test")]


def _read_mat(folder: Path, url: str, file: str, md5: str) -> np.ndarray:
    from scipy.io import loadmat

    if not (folder / file).exists():
        _download("svhn", folder, folder / file, [url], md5)
    raw = read_verified(folder / file, "MD5", md5, _replace_file_hint("svhn"))
    return loadmat(io.BytesIO(raw), variable_names=["X"])["X"].transpose(3, 0, 1, 2)


def stl10_files(folder: Path) -> tuple[Path, list[str]]:
    """Return the folder of STL-10's raw files and their names, held out last, once they are there and whole."""
    from torchvision.datasets import STL10

    names = ("train_X.bin", "unlabeled_X.bin", "test_X.bin")
    known = {file: md5 for file, md5 in (*STL10.train_list, *STL10.test_list) if file in names}
    files = {f"{STL10.base_folder}/{file}": known[file] for file in names}
    _unpack("stl10", folder, Packed(STL10.filename, STL10.tgz_md5, STL10.url, STL10.base_folder), files)
    for file, md5 in files.items():
        check_digest(folder / file, "MD5", md5, _replace_file_hint("stl10"))
    return folder / STL10.base_folder, list(names)


def celeba_files(folder: Path) -> tuple[Path, dict[str, int]]:
    """Return CelebA's archive of aligned faces, and the part of each image in it: 0 train, 1 validation, 2 test."""
    from torchvision.datasets import CelebA

    known = {file: (key, md5) for key, md5, file in CelebA.file_list}
    place = folder / CelebA.base_folder  # where torchvision keeps it
    for file in CELEBA_FILES:
        key, md5 = known[file]
        if not (place / file).exists():
            _download("celeba", place, place / file, [f"https://drive.google.com/file/d/{key}"], md5, CELEBA_FILES)
    check_digest(place / CELEBA_FILES[0], "MD5", known[CELEBA_FILES[0]][1], _replace_file_hint("celeba"))
    text = read_verified(place / CELEBA_FILES[1], "MD5", known[CELEBA_FILES[1]][1], _replace_file_hint("celeba"))
    rows = (line.split() for line in text.decode().splitlines())
    return place / CELEBA_FILES[0], {row[0]: int(row[1]) for row in rows if row}


def check_lsun(root: str, category: str) -> None:
    """Raise Refused for a category that no run can load: neither prepared images of it nor its database are there."""
    folder = Path(os.path.expanduser(root))
    try:
        if any(folder.glob(f"lsun-{category}-*/{MANIFEST}")):
            return
        lsun_place(folder, category)
    except PermissionError as error:
        raise Refused(f"dataset.root={root} cannot be read ({error.strerror}); pass another folder.") from None
    if find_spec("lmdb") is None:
        raise Refused(NO_LMDB)


def lsun_place(folder: Path, category: str) -> Path:
    """Return the place of a category's database. Raise Refused where there is none: LSUN is not downloaded."""
    place = folder / f"{category}_train_lmdb"
    if not (place / "data.mdb").exists():
        archive = f"{category}_train_lmdb.zip"
        raise Refused(
            f"dataset=lsun: {place / 'data.mdb'} does not exist; download {LSUN_URL}/{archive} and unpack it into "
            f"{folder}, or pass another folder with dataset.root=..."
        )
    return place


def lsun_database(folder: Path, category: str) -> tuple[Path, Any, list[bytes]]:
    """Return the place of a category of LSUN, its open database, and the keys of its images in order.

    No digest of it is published. torchvision's reader is not used: it unpickles a list of keys from the current folder.
    """
    place = lsun_place(folder, category)
    opened = open_database(place)
    with opened.begin() as transaction:
        return place, opened, list(transaction.cursor().iternext(keys=True, values=False))


class Packed(NamedTuple):
    """An archive of a dataset, as torchvision names it."""

    file: str
    md5: str
    url: str
    base_folder: str  # what it unpacks


def _unpack(name: str, folder: Path, archive: Packed, files: Mapping[str, str]) -> None:
    """Have `files` below a folder, unpacked from its archive, which is downloaded if need be, where one is missing."""
    if all((folder / file).exists() for file in files):
        return
    packed = folder / archive.file
    if not packed.exists():
        wanted = f"{archive.file} (or its unpacked folder {archive.base_folder})"
        _download(name, folder, packed, [archive.url], archive.md5, [wanted])
    check_digest(packed, "MD5", archive.md5, _replace_file_hint(name))
    try:
        with _one_at_a_time(packed, "unpacking"), tarfile.open(packed) as members:
            for file in files:
                if not (folder / file).exists():
                    _extract(members, file, folder / file)
    except OSError as error:
        raise Refused(
            f"dataset={name}: {packed} could not be unpacked into {folder / archive.base_folder} "
            f"({error.strerror or error}); unpack it there, or pass another folder with dataset.root=..."
        ) from None


def _extract(members: tarfile.TarFile, member: str, file: Path) -> None:
    """Write one member under another name first, so that no file is ever there in part."""
    content = members.extractfile(member)
    assert content is not None  # the archive's digest is right
    file.parent.mkdir(parents=True, exist_ok=True)
    part = _part(file)
    with part.open("wb") as out:
        shutil.copyfileobj(content, out)
    part.replace(file)


def _download(
    name: str, folder: Path, file: Path, urls: Iterable[str], md5: str, wanted: Iterable[str] | None = None
) -> None:
    """Download a file from the first address that has it undamaged; one process at a time.

    Raise Refused where none has, which asks for the `wanted` files, by default this one, in `folder`.
    """
    from torchvision.datasets.utils import download_url

    part = _part(file)
    errors = []
    try:
        with _one_at_a_time(file, "downloading"):
            for url in [] if file.exists() else urls:  # another process may have downloaded it meanwhile
                try:
                    download_url(url, str(part.parent), part.name, md5)
                    part.replace(file)
                    return
                except (OSError, RuntimeError) as error:
                    errors.append(" ".join(str(error).split()))
            with suppress(FileNotFoundError):
                part.unlink()  # cut short, or another file
            if file.exists():
                return
    except OSError as error:
        errors.append(" ".join(str(error).split()))
    raise Refused(
        f"dataset={name} is not in {folder} and could not be downloaded ({'; '.join(errors)}); "
        f"put {' and '.join(wanted or [file.name])} into {folder}, or pass another folder with dataset.root=..."
    )


def _part(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


@contextmanager
def _one_at_a_time(file: Path, doing: str) -> Iterator[None]:
    """Make the folder of a file, and hold a lock beside it. New folders that are empty at the end are removed again.

    `doing` says what is done to the file, such as `downloading`.
    """
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    new = _hold_in_folder(lock, file.parent, f"{doing} {file.name}")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes it with its release
            Path(lock.lock_file).unlink()
        lock.release()
        with suppress(OSError):  # not empty
            for folder in new:
                folder.rmdir()


def _hold_in_folder(lock: FileLock, folder: Path, doing: str) -> list[Path]:
    """Make a folder, and acquire a lock in it; return the folders that were not there before, innermost first."""
    while True:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        make_writable_folder(folder)
        with suppress(FileNotFoundError):  # another process has had no success, and removed the folder that it made
            acquire(lock, doing)
            return new


def _replace_file_hint(name: str) -> str:
    return f"remove it, so that dataset={name} downloads it again, or put the right file there"
