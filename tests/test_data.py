"""Datasets and batches."""

import gzip
import io
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    celeba_dataset,
    cifar100_dataset,
    cifar_dataset,
    idx_dataset,
    md5,
    settings,
    stl10_dataset,
    svhn_dataset,
)
from filelock import FileLock
from PIL import Image

from ganbench import dataset_files, datasets, disk_cache, files
from ganbench.config.validate import validate
from ganbench.errors import Refused
from ganbench.files import check_image_folder
from ganbench.host_samples import HostSamples
from ganbench.image_files import View
from ganbench.prepared import write
from ganbench.prepared.sources import RawFiles


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


def test_batches_of_samples_that_stay_on_the_host_are_the_same() -> None:
    x = torch.arange(11 * 3 * 4 * 4, dtype=torch.int64).remainder(256).to(torch.uint8).view(11, 3, 4, 4)
    host = HostSamples(x, torch.device("cpu"))
    for step in range(8):
        assert torch.equal(datasets.real_batch(host, 3, step, 4), datasets.real_batch(x, 3, step, 4))
    assert torch.equal(host[:5], x[:5]) and (len(host), host.shape, host.dim()) == (11, x.shape, 4)
    innermost = host.to(memory_format=torch.channels_last)
    assert innermost[:5].is_contiguous(memory_format=torch.channels_last) and torch.equal(innermost[:5], x[:5])
    assert disk_cache.sha256(host) == disk_cache.sha256(x)


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


def test_files_that_debian_packed_again_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another date in the header of gzip, and no name: known by a digest of their own."""
    from torchvision.datasets import FashionMNIST

    idx_dataset(FashionMNIST, tmp_path, monkeypatch)
    found = datasets.fashion_mnist(str(tmp_path))
    again = {}
    for name, md5_of_file in FashionMNIST.resources:
        content = gzip.decompress((tmp_path / name).read_bytes())
        (tmp_path / name).write_bytes(gzip.compress(content, mtime=1))
        again[md5_of_file] = md5(tmp_path / name)
    with pytest.raises(Refused, match="has MD5"):
        datasets.fashion_mnist(str(tmp_path))
    monkeypatch.setattr(dataset_files, "DEBIANS_MD5", again)
    assert torch.equal(datasets.fashion_mnist(str(tmp_path)).train, found.train)


@pytest.mark.parametrize(
    "name", ["mnist", "fashion_mnist", "stacked_mnist", "cifar10", "cifar100", "svhn", "stl10", "celeba"]
)
def test_torchvision_files_are_found_or_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: every connection is refused at once, as on a machine without one."""
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(
        Refused,
        match=rf"dataset={name.removeprefix('stacked_')} is not in .*could not be downloaded.*put .*dataset\.root=",
    ) as reported:
        getattr(datasets, name)(str(tmp_path / "new" / "data"))
    assert "\n" not in str(reported.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_download_to_where_no_file_can_be_made_is_refused_at_once() -> None:
    """Its lock is not waited for, as one that another process holds."""
    messages: list[str] = []

    def load() -> None:
        with pytest.raises(Refused) as refused:
            datasets.cifar10("/proc")
        messages.append(str(refused.value))

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    loading.join(30)
    assert len(messages) == 1 and "dataset=cifar10 is not in /proc and could not be downloaded ([Errno " in messages[0]


def test_a_process_that_waited_for_another_to_download_tries_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the other has had no success, and has removed the folder that it made."""
    caplog.set_level(logging.INFO, "ganbench")
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/x")
    folder = tmp_path / "data"
    folder.mkdir()
    others = FileLock(folder / f".{CIFAR10.filename}.lock", thread_local=False)

    def end_the_other(_: logging.LogRecord) -> bool:
        folder.rename(tmp_path / "removed")
        others.release()
        return True

    monkeypatch.setattr(files.log, "filters", [end_the_other])
    with ThreadPoolExecutor(1) as threads, others:  # whose end, also in a failure, lets the thread go on
        loading = threads.submit(datasets.cifar10, str(folder))
        with pytest.raises(Refused, match=r"could not be downloaded .*Connection refused"):
            loading.result(30)
    assert caplog.messages == [f"waiting for another process, which is downloading {CIFAR10.filename}"]
    assert not folder.exists()


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


def test_cifar100_as_torchvision_lays_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = cifar100_dataset(tmp_path, monkeypatch)
    found = datasets.cifar100(str(tmp_path))
    assert torch.equal(found.train.flatten(1), torch.from_numpy(pixels["train"]))
    assert torch.equal(found.test.flatten(1), torch.from_numpy(pixels["test"]))


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = svhn_dataset(tmp_path, monkeypatch)
    found = datasets.svhn(str(tmp_path))
    assert np.array_equal(found.train.permute(0, 2, 3, 1), train)
    assert np.array_equal(found.test.permute(0, 2, 3, 1), test)


def test_stl10_is_scaled_and_its_unlabeled_images_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = stl10_dataset(tmp_path, monkeypatch)
    found = datasets.stl10(str(tmp_path))
    expected = [
        np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
        for name in ("train_X.bin", "unlabeled_X.bin", "test_X.bin")
        for image in pixels[name]
    ]
    assert np.array_equal(torch.cat([found.train, found.test]), np.stack(expected))
    assert (len(found.train), len(found.test)) == (6, 3)
    shutil.rmtree(tmp_path / "stl10_binary")  # prepared once, and not read again
    assert torch.equal(datasets.stl10(str(tmp_path)).train, found.train)
    with pytest.raises(Refused, match="dataset=stl10 is not in"):
        monkeypatch.setattr("torchvision.datasets.STL10.url", "http://127.0.0.1:9/x")
        datasets.stl10(str(tmp_path), filter="box")


def test_celeba_has_the_official_parts_and_the_crop_of_compare_gan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = celeba_dataset(tmp_path, monkeypatch)
    found = datasets.celeba(str(tmp_path), shape=(3, 160, 160))
    expected = [face[29:189, 9:169].transpose(2, 0, 1) for face in faces]
    assert np.array_equal(found.train, np.stack(expected[:3]))
    assert np.array_equal(found.test, np.stack(expected[5:]))
    small = datasets.celeba(str(tmp_path))
    scaled = Image.fromarray(faces[0][29:189, 9:169]).resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(small.train[0], np.asarray(scaled).transpose(2, 0, 1))


def test_a_crop_that_celeba_has_not_is_refused_before_its_faces_are_read() -> None:
    with pytest.raises(Refused, match=r"dataset\.crop=179 must be at most 178 with dataset=celeba"):
        validate(settings("dataset=celeba", "dataset.crop=179"))
    validate(settings("dataset=celeba", "dataset.crop=178"))
    validate(settings("dataset=celeba", "dataset.crop=null"))


def test_a_category_of_lsun(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb", reason="no lmdb: `pip install lmdb`")
    with pytest.raises(Refused, match=r"tower_train_lmdb/data\.mdb does not exist; download .*tower_train_lmdb\.zip"):
        datasets.lsun(str(tmp_path), "tower")
    with lmdb.open(str(tmp_path / "tower_train_lmdb"), map_size=1 << 20) as database, database.begin(write=True) as put:
        for i in range(20):
            out = io.BytesIO()
            Image.new("RGB", (80, 70), (i, 0, 0)).save(out, "WEBP", lossless=True)
            put.put(f"{i:040x}".encode(), out.getvalue())
    found = datasets.lsun(str(tmp_path), "tower", n_test=5)
    assert found.train.shape == (15, 3, 64, 64) and len(found.test) == 5
    assert sorted(torch.cat([found.train, found.test])[:, 0, 0, 0].tolist()) == list(range(20))
    with pytest.raises(Refused, match=r"dataset\.n_test=19 leaves none of the 20 images"):
        datasets.lsun(str(tmp_path), "tower", n_test=19)
    with lmdb.open(str(tmp_path / "tower_train_lmdb")) as database, database.begin(write=True) as put:
        put.put(b"f" * 40, b"no image")
    with pytest.raises(Refused, match=r"^1 of 21 images cannot be read: .*tower_train_lmdb: f{40} .*dataset\.on_error"):
        datasets.lsun(str(tmp_path), "tower", n_test=6)
    skipping = datasets.lsun(str(tmp_path), "tower", n_test=6, on_error="skip")
    assert len(skipping.train) + len(skipping.test) == 20 and skipping.facts["left_out"] == {"unreadable": 1}
    with pytest.raises(Refused, match=r"lacks 1 image that cannot be read, such as .*f{40}; use dataset\.on_err"):
        datasets.lsun(str(tmp_path), "tower", n_test=6)
    (tmp_path / "tower_train_lmdb/data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(Refused, match="is no whole LMDB database"):
        datasets.lsun(str(tmp_path), "tower", n_test=7)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(Refused, match=rf"^dataset\.root={tmp_path} cannot be read \(Permission denied\)"):
        dataset_files.check_lsun(str(tmp_path), "tower")
    with pytest.raises(Refused, match=rf"^dataset\.root={tmp_path} cannot be read \(Permission denied\)"):
        check_image_folder("dataset.root", str(tmp_path))


def test_a_database_of_lsun_without_its_library_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tower_train_lmdb").mkdir()
    (tmp_path / "tower_train_lmdb/data.mdb").write_bytes(b"")
    monkeypatch.setattr(dataset_files, "find_spec", lambda name: None)
    with pytest.raises(Refused, match="needs the library lmdb"):
        dataset_files.check_lsun(str(tmp_path), "tower")


def test_a_database_of_lsun_that_was_exchanged_since_is_noticed(tmp_path: Path) -> None:
    """Without the library of LMDB: what is compared are the size and the time of the file that images were made of."""
    database = tmp_path / "tower_train_lmdb/data.mdb"
    database.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    database.write_bytes(pixels.tobytes())
    source = RawFiles(database.parent, ["data.mdb"], (3, 8, 8))
    view = View((3, 8, 8), filter="lanczos")
    place = tmp_path / "lsun-tower-5-3x8x8-lanczos"
    write.prepare(place, write.Order(source, 15, view, False, {}, "remove it", "dataset.on_error=skip"))
    found = datasets.lsun(str(tmp_path), "tower", (3, 8, 8), n_test=5)
    assert (len(found.train), len(found.test)) == (15, 5)
    dataset_files.check_lsun(str(tmp_path), "tower")
    status = database.stat()
    for content, time_ns in ((pixels[:19], status.st_mtime_ns), (pixels[::-1], status.st_mtime_ns + 10**9)):
        database.write_bytes(content.tobytes())
        os.utime(database, ns=(status.st_atime_ns, time_ns))
        with pytest.raises(Refused, match=rf"^dataset\.root={tmp_path}: {place}: data\.mdb has changed in "):
            datasets.lsun(str(tmp_path), "tower", (3, 8, 8), n_test=5)
    database.unlink()  # prepared once, and not needed any more
    dataset_files.check_lsun(str(tmp_path), "tower")
    with pytest.raises(Refused, match=r"bridge_train_lmdb/data\.mdb does not exist"):
        dataset_files.check_lsun(str(tmp_path), "bridge")
    assert torch.equal(datasets.lsun(str(tmp_path), "tower", (3, 8, 8), n_test=5).train, found.train)


def test_stacked_mnist_stacks_each_part_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    idx_dataset(MNIST, tmp_path, monkeypatch)
    digits = datasets.mnist(str(tmp_path))
    found = datasets.stacked_mnist(str(tmp_path), n=50)
    assert found.train.shape == (50, 3, 32, 32) and found.test.shape == (10, 3, 32, 32)
    for part, of in ((found.train, digits.train), (found.test, digits.test)):
        known = {bytes(digit.flatten().tolist()) for digit in of}
        assert {bytes(channel.flatten().tolist()) for channel in part.flatten(0, 1)} <= known


def test_an_archive_is_downloaded_once_and_unpacked_whole(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process has left of a file, packed or not, is never taken for the file."""
    from torchvision.datasets import CIFAR10

    folder, address = served
    pixels = cifar_dataset(folder, monkeypatch)
    packed = Path(shutil.make_archive(str(folder / "cifar-10-python"), "gztar", folder, CIFAR10.base_folder))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(packed))
    monkeypatch.setattr(CIFAR10, "url", f"{address}{packed.name}")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / f".{packed.name}.part").write_bytes(packed.read_bytes()[:99])
    found = datasets.cifar10(str(mine))
    assert torch.equal(found.test.flatten(1), torch.from_numpy(pixels["test_batch"]))
    packed.unlink()  # so that a second download would fail
    lost = mine / CIFAR10.base_folder / "data_batch_2"
    lost.rename(lost.with_name(".data_batch_2.part"))
    assert torch.equal(datasets.cifar10(str(mine)).train, found.train)
    assert not list(mine.rglob("*.part"))
