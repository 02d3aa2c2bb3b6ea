"""Features of real data are computed once on a machine, and never other than they would be."""

import logging
import resource
import signal
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from ganbench import datasets
from ganbench import disk_cache as module
from ganbench.metrics.feature_cache import cached_features
from ganbench.metrics.features import LeNet, embed

IMAGES = datasets.mnist5k().test[:30]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_second_time_they_come_from_the_disk(folder: Path) -> None:
    net = LeNet()
    assert torch.equal(cached_features(net, IMAGES), embed(net, IMAGES))
    assert torch.equal(cached_features(LeNet(), IMAGES.clone()), embed(net, IMAGES))
    (file,) = folder.glob("*.safetensors")
    other = torch.arange(30.0 * 64).view(30, 64)
    save_file({"tensor": other, "sha256": module._digest(other)}, file)
    assert torch.equal(cached_features(net, IMAGES), other.double())


def test_whatever_they_follow_from_has_a_file_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, moved = LeNet(), LeNet()
    moved.body[4].bias[3] += 1e-6
    threads = torch.get_num_threads()
    for n, (other, images) in enumerate([(net, IMAGES), (net, IMAGES[:29]), (net, IMAGES ^ 1), (moved, IMAGES)], 1):
        assert torch.equal(cached_features(other, images), embed(other, images))
        assert len(list(folder.glob("*.safetensors"))) == n
    torch.set_num_threads(threads + 1)
    try:
        cached_features(net, IMAGES)
    finally:
        torch.set_num_threads(threads)
    assert len(list(folder.glob("*.safetensors"))) == 5
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cached_features(net, IMAGES)
    assert len(list(folder.glob("*.safetensors"))) == 6


def test_a_network_of_ones_own_is_always_asked(folder: Path) -> None:
    class Own(LeNet):
        pass

    assert torch.equal(cached_features(Own(), IMAGES), embed(LeNet(), IMAGES)) and not folder.exists()


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other keys"])
def test_a_damaged_file_is_made_again(damage: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = cached_features(LeNet(), IMAGES)
    (file,) = folder.glob("*.safetensors")
    raw = file.read_bytes()
    if damage == "other keys":
        save_file({"other": torch.ones(3)}, file)
    else:
        wrong = {"cut": raw[:-9], "bit": raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:], "empty": b""}
        file.write_bytes(wrong[damage])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached_features(LeNet(), IMAGES), expected)
    assert "cannot use" in caplog.text
    assert torch.equal(load_file(file)["tensor"].double(), expected)


def test_without_a_folder_each_run_computes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANBENCH_CACHE", str(tmp_path / "file"))
    assert torch.equal(cached_features(LeNet(), IMAGES), embed(LeNet(), IMAGES))
    assert "cannot cache" in caplog.text
    monkeypatch.setenv("GANBENCH_CACHE", "")
    assert module.cache_dir() is None and torch.equal(cached_features(LeNet(), IMAGES), embed(LeNet(), IMAGES))
    monkeypatch.delenv("GANBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_dir() == tmp_path / "ganbench"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_where_no_file_can_be_made_no_lock_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for root, whom /proc does not refuse for want of permission."""
    monkeypatch.setenv("GANBENCH_CACHE", "/proc")
    found: list[torch.Tensor] = []
    asking = Thread(target=lambda: found.append(module.cached("key", "numbers", lambda: torch.ones(2))), daemon=True)
    asking.start()
    asking.join(30)
    assert [x.tolist() for x in found] == [[1, 1]] and "cannot cache numbers in /proc" in caplog.text


def test_a_disk_without_room_is_reported_and_left_as_it_was(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert torch.equal(cached_features(LeNet(), IMAGES), embed(LeNet(), IMAGES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "cannot cache" in caplog.text and list(folder.glob("*.safetensors")) == []


def test_a_user_without_a_home_has_no_folder(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("GANBENCH_CACHE", "~nobody-of-that-name/cache")
    assert module.cache_dir() is None and "GANBENCH_CACHE=..." in caplog.text
