"""Datasets and batches."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganbench import data
from ganbench.config import Refused


def test_mnist5k_is_whole_shuffled_and_held_out_evenly() -> None:
    found = data.mnist5k()
    (images, train), (_, test) = data.mnist5k_labelled()
    assert found.train.shape == (4000, 1, 32, 32) and found.test.shape == (1000, 1, 32, 32)
    assert found.train.dtype == torch.uint8
    assert torch.equal(found.train[:, :, 2:30, 2:30], images)
    assert train.bincount().tolist() == [400] * 10 and test.bincount().tolist() == [100] * 10
    assert train[:500].bincount().min() > 25  # the first few are not all of one digit
    assert (found.train[:, :, :2] == 0).all() and found.train.max() == 255


def test_batches_are_endless_shuffled_epochs() -> None:
    x = torch.arange(10.0)[:, None]
    drawn = torch.cat([data.batch(x, seed=3, step=k, size=4) for k in range(10)]).flatten()
    for epoch in drawn.split(10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(drawn[:10], drawn[10:20])
    assert torch.equal(data.batch(x, seed=3, step=7, size=4).flatten(), drawn[28:32])
    assert not torch.equal(data.batch(x, seed=4, step=7, size=4).flatten(), drawn[28:32])


def test_a_batch_may_be_larger_than_the_dataset() -> None:
    drawn = data.batch(torch.arange(5.0)[:, None], seed=0, step=1, size=12).flatten()
    counts = torch.bincount(drawn.long(), minlength=5)
    assert counts.sum() == 12 and counts.min() >= 1


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = data.to_float(x)
    assert floats.min() == -1 and floats.max() == 1
    assert torch.equal(data.to_stored(floats), x)


@pytest.mark.parametrize(("make", "modes", "std"), [(data.ring, 8, 0.05), (data.grid, 25, 0.025)])
def test_mixtures(make, modes: int, std: float) -> None:
    found = make(n=20_000)
    centres = found.modes.centres
    assert centres.shape == (modes, 2) and found.modes.std == std
    far, which = torch.cdist(found.train, centres).min(1)
    assert torch.bincount(which).min() > 0.8 * 20_000 / modes
    assert far.square().mean().sqrt().item() == pytest.approx(std * 2**0.5, rel=0.02)
    assert torch.equal(make(n=20_000).train, found.train)


def save_images(folder: Path, n: int, size: tuple[int, int] = (48, 40)) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", size, (i, 0, 255 - i)).save(folder / f"{i:03d}.png")


def test_a_folder_of_images(tmp_path: Path) -> None:
    save_images(tmp_path / "a" / "b", 20)
    colour = data.folder(str(tmp_path))
    assert colour.train.shape == (16, 3, 32, 32) and colour.test.shape == (4, 3, 32, 32)
    seen = torch.cat([colour.train, colour.test])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(20))
    assert data.folder(str(tmp_path), shape=(1, 32, 32)).train.shape == (16, 1, 32, 32)


def test_a_folder_with_a_broken_or_no_image(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"dataset\.root=.*found 0 images"):
        data.folder(str(tmp_path))
    save_images(tmp_path / "x", 12)
    (tmp_path / "x" / "005.png").write_bytes(b"not an image")
    with pytest.raises(Refused, match=r"005\.png cannot be read"):
        data.folder(str(tmp_path))


def write_idx(file: Path, images: np.ndarray) -> None:
    header = np.array([0x803, *images.shape], ">u4").tobytes()
    file.write_bytes(gzip.compress(header + images.tobytes()))


def test_gzipped_idx_files_are_read_where_they_lie(tmp_path: Path) -> None:
    train = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", train)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", train[:3])
    found = data.fashion_mnist(str(tmp_path))
    assert torch.equal(found.train[:, 0, 2:30, 2:30], torch.from_numpy(train))
    assert found.test.shape == (3, 1, 32, 32)
    whole = gzip.decompress((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole[:-5]))
    with pytest.raises(Refused, match="not a complete IDX file"):
        data.fashion_mnist(str(tmp_path))
    for damage in (b"not gzip", b"", gzip.compress(whole)[:-9]):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(damage)
        with pytest.raises(Refused, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
            data.fashion_mnist(str(tmp_path))
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(Refused, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        data.fashion_mnist(str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_torchvision_files_are_found_or_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: every connection is refused at once, as on a machine without one."""
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(
        Refused, match=rf"dataset={name} is not in .*could not be downloaded.*put .*dataset\.root="
    ) as told:
        getattr(data, name)(str(tmp_path))
    assert "\n" not in str(told.value)


def test_cifar10_as_torchvision_lays_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real files in the real layout, small; torchvision's check of their hashes is told theirs."""
    import hashlib
    import pickle

    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    pixels = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels[name] = random.integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels[name], "labels": [0, 1, 2, 3]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcd")}))

    def md5(name):
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", md5(f"data_batch_{i}")] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5("test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5("batches.meta")})
    found = data.cifar10(str(tmp_path))
    assert found.train.shape == (20, 3, 32, 32)
    assert torch.equal(found.test.flatten(1), torch.from_numpy(pixels["test_batch"]))
