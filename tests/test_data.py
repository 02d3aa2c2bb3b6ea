"""Datasets and batches."""

import gzip
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import cifar_dataset, idx_dataset
from PIL import Image

from ganbench import datasets
from ganbench.errors import Refused


def test_parts_fill_a_whole() -> None:
    x = torch.arange(22, dtype=torch.uint8).view(11, 2)
    for size in (4, 11):
        whole = datasets.concatenate(11, x.split(size))
        assert torch.equal(whole, x) and whole.dtype == torch.uint8


def test_mnist5k_is_whole_shuffled_and_held_out_evenly() -> None:
    found = datasets.mnist5k()
    (images, train), (_, test) = datasets.mnist5k_labeled()
    assert found.train.shape == (4000, 1, 32, 32) and found.test.shape == (1000, 1, 32, 32)
    assert found.train.dtype == torch.uint8
    assert torch.equal(found.train[:, :, 2:30, 2:30], images)
    assert train.bincount().tolist() == [400] * 10 and test.bincount().tolist() == [100] * 10
    assert train[:500].bincount().min() > 25  # the first few are not all of one digit
    assert (found.train[:, :, :2] == 0).all() and found.train.max() == 255


def test_batches_are_endless_shuffled_epochs() -> None:
    x = torch.arange(10.0)[:, None]
    drawn = torch.cat([datasets.real_batch(x, seed=3, step=k, size=4) for k in range(10)]).flatten()
    for epoch in drawn.split(10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(drawn[:10], drawn[10:20])
    assert torch.equal(datasets.real_batch(x, seed=3, step=7, size=4).flatten(), drawn[28:32])
    assert not torch.equal(datasets.real_batch(x, seed=4, step=7, size=4).flatten(), drawn[28:32])


def test_a_batch_may_be_larger_than_the_dataset() -> None:
    drawn = datasets.real_batch(torch.arange(5.0)[:, None], seed=0, step=1, size=12).flatten()
    counts = torch.bincount(drawn.long(), minlength=5)
    assert counts.sum() == 12 and counts.min() >= 1


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = datasets.to_float(x)
    assert floats.min() == -1 and floats.max() == 1
    assert torch.equal(datasets.to_dataset_format(floats), x)


@pytest.mark.parametrize(("make", "modes", "std"), [(datasets.ring, 8, 0.05), (datasets.grid, 25, 0.025)])
def test_mixtures(make, modes: int, std: float) -> None:
    found = make(n=20_000)
    centers = found.modes.centers
    assert centers.shape == (modes, 2) and found.modes.std == std
    far, which = torch.cdist(found.train, centers).min(1)
    assert torch.bincount(which).min() > 0.8 * 20_000 / modes
    assert far.square().mean().sqrt().item() == pytest.approx(std * 2**0.5, rel=0.02)
    assert torch.equal(make(n=20_000).train, found.train)


def save_images(folder: Path, n: int, size: tuple[int, int] = (48, 40)) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", size, (i, 0, 255 - i)).save(folder / f"{i:03d}.png")


def test_a_folder_of_images(tmp_path: Path) -> None:
    save_images(tmp_path / "a" / "b", 20)
    color = datasets.folder(str(tmp_path))
    assert color.train.shape == (16, 3, 32, 32) and color.test.shape == (4, 3, 32, 32)
    seen = torch.cat([color.train, color.test])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(20))
    assert datasets.folder(str(tmp_path), shape=(1, 32, 32)).train.shape == (16, 1, 32, 32)


def test_a_folder_with_a_broken_or_no_image(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"dataset\.root=.*found 0\."):
        datasets.folder(str(tmp_path))
    save_images(tmp_path / "x", 12)
    (tmp_path / "x" / "005.png").write_bytes(b"not an image")
    with pytest.raises(Refused, match=r"^1 of 12 .*005\.png \(not an image of a known format\); repair"):
        datasets.folder(str(tmp_path))


def test_idx_files_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder itself or where torchvision keeps them; what is unpacked beside them is never looked at."""
    from torchvision.datasets import FashionMNIST

    train, _ = idx_dataset(FashionMNIST, tmp_path, monkeypatch)
    found = datasets.fashion_mnist(str(tmp_path))
    assert torch.equal(found.train[:, 0, 2:30, 2:30], torch.from_numpy(train))
    assert found.test.shape == (3, 1, 32, 32)
    kept = tmp_path / "FashionMNIST/raw"
    kept.mkdir(parents=True)
    for file in tmp_path.glob("*.gz"):
        file.rename(kept / file.name)
        (kept / file.stem).write_bytes(b"not what was packed")
    assert torch.equal(datasets.fashion_mnist(str(tmp_path)).train, found.train)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_torchvision_files_are_found_or_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: every connection is refused at once, as on a machine without one."""
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(
        Refused, match=rf"dataset={name} is not in .*could not be downloaded.*put .*dataset\.root="
    ) as reported:
        getattr(datasets, name)(str(tmp_path))
    assert "\n" not in str(reported.value)


def test_unpacked_files_alone_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    idx_dataset(MNIST, tmp_path, monkeypatch)
    kept = tmp_path / "MNIST/raw"
    kept.mkdir(parents=True)
    for file in tmp_path.glob("*.gz"):
        (kept / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(Refused, match=r"could not be downloaded.*put train-images-idx3-ubyte\.gz into"):
        datasets.mnist(str(tmp_path))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_file_is_fetched_from_the_first_mirror_that_has_it_whole(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    folder, address = served
    whole, torn = folder / "whole", folder / "torn"
    whole.mkdir(), torn.mkdir()
    train, _ = idx_dataset(MNIST, whole, monkeypatch)
    for file in whole.iterdir():
        (torn / file.name).write_bytes(file.read_bytes()[:-9])
    monkeypatch.setattr(MNIST, "mirrors", [f"{address}{name}/" for name in ("none", "torn", "whole")])
    found = datasets.mnist(str(tmp_path / "mine"))
    assert torch.equal(found.train[:, 0, 2:30, 2:30], torch.from_numpy(train))
    monkeypatch.setattr(MNIST, "mirrors", [f"{address}torn/"])
    with pytest.raises(Refused, match="could not be downloaded"):
        datasets.mnist(str(tmp_path / "other"))
    assert not list((tmp_path / "other").rglob("*.gz"))


def test_cifar10_as_torchvision_lays_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = cifar_dataset(tmp_path, monkeypatch)
    found = datasets.cifar10(str(tmp_path))
    assert found.train.shape == (20, 3, 32, 32)
    assert torch.equal(found.test.flatten(1), torch.from_numpy(pixels["test_batch"]))
