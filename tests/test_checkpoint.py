"""Checkpoints survive kills, full disks and flipped bits, and run no code."""

import errno
import json
import logging
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, RING, ganbench, rows, settings
from prefork import TORCH_WAS_IMPORTED

from ganbench.config.compose import build
from ganbench.errors import Refused
from ganbench.runs import checkpoint
from ganbench.training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(settings("loss=hinge", *RING), folder)
    return folder


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """The same run as if killed right before its end: two checkpoints, and all records."""
    folder = tmp_path / "cut"
    shutil.copytree(whole, folder)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"status": "running"}))
    return folder


def files(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.pt"))


def equal(one: dict, other: dict) -> bool:
    nets = ("G", "D", "average")
    return all(torch.equal(value, other[net][name]) for net in nets for name, value in one[net].items())


def test_a_checkpoint_is_synced_before_its_rename_and_renamed_before_an_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def watched(name: str, original):
        def call(*arguments, **named):
            target = arguments[0]
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
            done.append((name, Path(path).name))
            return original(*arguments, **named)

        return call

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    for step in range(3):
        last = checkpoint.save(tmp_path, step, x=torch.zeros(1))
    aside = f".{last.name}.tmp"
    assert done[-4:-1] == [("fsync", aside), ("replace", aside), ("fsync", tmp_path.name)]
    assert done[-1][0] == "unlink" and done[-1][1].startswith("step-00000000-")
    assert len(done) == 3 * 3 + 1


def test_every_damaged_file_is_noticed(whole: Path, tmp_path: Path) -> None:
    """1,000 of them: cut at 200 lengths, or with one bit flipped anywhere."""
    file = files(whole)[-1]
    content, rng = file.read_bytes(), random.Random(0)
    damaged = tmp_path / file.name
    for k in range(1000):
        if k < 200:
            wrong = content[: len(content) * k // 200]
        else:
            at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
            wrong = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        damaged.write_bytes(wrong)
        with pytest.raises(checkpoint.Damaged, match=f"{file.name} is damaged"):
            checkpoint.read(damaged)
    damaged.write_bytes(content)
    assert checkpoint.read(damaged)["step"] == 60


def test_the_newest_undamaged_checkpoint_is_used_and_the_damaged_one_set_aside(
    cut: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = files(cut)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(cut)["step"] == 30
    assert newest.name in caplog.text and "is damaged" in caplog.text
    train(settings("loss=hinge", *RING), cut)
    assert newest.with_name(f"{newest.name}.corrupt").exists()
    assert rows(cut) == rows(whole) and equal(checkpoint.load(cut), checkpoint.load(whole))
    status = json.loads((cut / "status.json").read_text())
    assert status["status"] == "finished" and [r["images"] for r in status["resumed"]] == [960]


@pytest.mark.parametrize(
    ("fault", "message"), [("damage", "all checkpoints are damaged"), ("delete", "records but no checkpoint")]
)
def test_a_run_never_silently_starts_from_zero(fault: str, message: str, cut: Path) -> None:
    before = (cut / "metrics.jsonl").read_bytes()
    for file in files(cut):
        file.write_bytes(b"") if fault == "damage" else file.unlink()
    with pytest.raises(Refused, match=message):
        train(settings("loss=hinge", *RING), cut)
    assert (cut / "metrics.jsonl").read_bytes() == before
    assert json.loads((cut / "status.json").read_text())["status"] == "running"


def garble(file: Path) -> None:
    file.write_bytes(b"{]" + file.read_bytes()[2:])


FAULTS = {
    "deleted": Path.unlink,
    "emptied": lambda file: file.write_bytes(b""),
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "garbled": garble,
    "a list": lambda file: file.write_bytes(b"[]"),
}
NEEDED = {"metrics.jsonl": "does not contain what", "footing.json": "cannot be read", "config.yaml": "config"}


def lasting_files(run: Path) -> dict[Path, bytes]:
    """All files but the lock and the status."""
    files = (p for p in run.rglob("*") if p.is_file() and p.name not in (".lock", "status.json"))
    return {file: file.read_bytes() for file in files}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", NEEDED)
def test_a_damaged_run_folder_is_refused_and_not_changed(part: str, fault: str, cut: Path) -> None:
    FAULTS[fault](cut / part)
    before = lasting_files(cut)
    with pytest.raises(Refused, match=NEEDED[part]) as refusal:
        train(settings("loss=hinge", *RING), cut)
    assert part in str(refusal.value) and "ass another name=" in str(refusal.value)
    assert lasting_files(cut) == before


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", "3", '{"status"'])
def test_a_run_with_an_unreadable_status_has_failed(content: str, cut: Path, whole: Path) -> None:
    (cut / "status.json").write_text(content)
    with pytest.raises(Refused, match=r"\(failed\). Pass retry=true to resume from its last checkpoint"):
        train(settings("loss=hinge", *RING), cut)
    train(settings("loss=hinge", *RING, "retry=true"), cut)
    assert rows(cut) == rows(whole) and equal(checkpoint.load(cut), checkpoint.load(whole))


def test_a_checkpoint_of_another_run_is_refused(cut: Path, tmp_path: Path) -> None:
    train(settings("loss=hinge", *RING, "seed=1"), tmp_path / "other")
    shutil.rmtree(cut / "checkpoints")
    shutil.copytree(tmp_path / "other/checkpoints", cut / "checkpoints")
    before = (cut / "metrics.jsonl").read_bytes()
    with pytest.raises(Refused, match="contains a checkpoint of another run"):
        train(settings("loss=hinge", *RING), cut)
    assert (cut / "metrics.jsonl").read_bytes() == before


def test_format_1_cannot_be_resumed(cut: Path) -> None:
    shutil.rmtree(cut / "checkpoints")
    shutil.copytree(REPOSITORY / "tests/data/format-1/checkpoints", cut / "checkpoints")
    with pytest.raises(Refused, match=r"contains a checkpoint of another run .*format 1"):
        train(settings("loss=hinge", *RING), cut)


def test_what_a_kill_left_of_a_save_is_deleted(cut: Path) -> None:
    orphan = cut / "checkpoints/.step-00000030-0123456789abcdef.pt.tmp"
    orphan.write_bytes(b"half")
    train(settings("loss=hinge", *RING), cut)
    assert not orphan.exists()


def test_resuming_on_other_data_is_refused(cut: Path) -> None:
    footing = json.loads((cut / "footing.json").read_text())
    footing["equal"]["train_data"] = "0" * 12
    (cut / "footing.json").write_text(json.dumps(footing))
    with pytest.raises(Refused, match="train_data was 000000000000 when this run began"):
        train(settings("loss=hinge", *RING), cut)
    assert json.loads((cut / "status.json").read_text())["status"] == "running"


def test_no_more_is_lost_than_since_the_last_checkpoint(tmp_path: Path) -> None:
    """Of a run that dies in the middle of its 37th step."""
    cfg = settings("loss=gan", *RING, "checkpoint_every=8", "protocol.log_every=1")

    class Dies(Exception):
        pass

    steps = iter(range(10**6))
    from ganbench.training import iteration as module

    original = module.generator_update
    try:
        module.generator_update = lambda *a: original(*a) if next(steps) < 36 else (_ for _ in ()).throw(Dies)
        with pytest.raises(Dies):
            train(cfg, tmp_path)
    finally:
        module.generator_update = original
    assert rows(tmp_path)[-1]["images"] == 36 * 32
    assert checkpoint.load(tmp_path)["step"] == 32
    assert [checkpoint.read(file)["step"] for file in files(tmp_path)] == [30, 32]


def leave(folder: Path, free: int) -> None:
    """Fill the disk up to so many bytes (in whole blocks)."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    size = shutil.disk_usage(folder).free - free
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)


@pytest.mark.parametrize("checked", [True, False])
def test_a_full_disk_never_costs_the_old_checkpoint(
    checked: bool, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 amounts of room from one block to more than enough, with and without a check before the writing."""
    if not checked:
        monkeypatch.setattr(checkpoint, "_check_free_space", lambda folder, size: None)
    folder, outcomes = small_disk / "checkpoints", []
    folder.mkdir()
    for k in range(20):
        shutil.rmtree(folder)
        folder.mkdir()
        (small_disk / "filler").unlink(missing_ok=True)
        for step in (1, 2):
            checkpoint.save(folder, step, x=torch.full((100_000,), float(step)))
        leave(small_disk, 4096 + 32768 * k)
        try:
            checkpoint.save(folder, 3, x=torch.full((100_000,), 3.0))
            outcomes.append(3)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            assert ("need 40" in str(error)) == checked
            outcomes.append(2)
        state = checkpoint.load(folder.parent)
        assert state["step"] == outcomes[-1] and torch.equal(state["x"], torch.full((100_000,), float(state["step"])))
        assert not list(folder.glob(".*"))
    assert outcomes == sorted(outcomes) and set(outcomes) == {2, 3}


def test_a_run_on_a_full_disk_says_so_and_goes_on_with_more_room(small_disk: Path, tmp_path: Path) -> None:
    arguments = ("loss=gan", *RING, "model.width=600", "protocol.images=640", "name=full")
    leave(small_disk, 33_000_000)
    sweep = ganbench("-m", *arguments, "seed=0,1", cwd=small_disk)
    assert sweep.returncode == 1 and "2 failed" in sweep.stdout and "Traceback" not in sweep.stdout + sweep.stderr
    shutil.rmtree(small_disk / "outputs")
    leave(small_disk, 33_000_000)
    refusal = ganbench(*arguments, cwd=small_disk)
    assert refusal.returncode == 1
    status = json.loads((small_disk / "outputs/run/full/status.json").read_text())
    assert status["status"] == "failed"
    assert "more bytes in" in status["reason"] and status["reason"].endswith("are free")
    assert refusal.stderr.startswith("A disk is full (checkpoints need ")
    assert "; make room, then rerun the same command with retry=true" in refusal.stderr
    assert refusal.stderr.count("\n") == 1
    again = ganbench(*arguments, cwd=small_disk)
    assert again.returncode == 1 and "retry=true" in again.stderr
    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    (small_disk / "filler").unlink()
    done = ganbench(*arguments, "retry=true", cwd=small_disk)
    assert done.returncode == 0, done.stderr
    leave(small_disk, 20_000_000)
    other = ganbench(*arguments[:-1], "name=other", cwd=small_disk)
    assert other.returncode == 2 and "is on a full disk" in other.stderr and "20.0 MB free" in other.stderr
    assert not (small_disk / "outputs/run/other").exists()


def test_a_read_only_disk_is_refused_at_once(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refusal = ganbench("loss=gan", *RING, "name=read", cwd=small_disk, light=True)
    assert refusal.returncode == 2 and TORCH_WAS_IMPORTED not in refusal.stderr
    assert "outputs/run/read cannot be written" in refusal.stderr and "is read-only" in refusal.stderr


def test_format_1_still_loads() -> None:
    """Written before files had digests; what its generator draws was noted then."""
    folder = REPOSITORY / "tests/data/format-1"
    state = checkpoint.load(folder)
    assert (state["format"], state["step"], state["images"]) == (1, 4, 128)
    model = settings("dataset=ring", "model.width=4").model
    G = build(model.generator)
    G.load_state_dict(state["average"])
    drawn = G(torch.linspace(-1, 1, model.z_dim)[None])
    assert drawn.flatten().tolist() == pytest.approx([0.0424155742, -0.1379807144], abs=1e-6)


def test_a_later_format_is_refused_by_name_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    file = checkpoint.save(tmp_path / "checkpoints", 7)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has checkpoint format 3; this version of ganbench reads 1 and 2") as refusal:
        checkpoint.load(tmp_path, set_aside=True)
    assert not isinstance(refusal.value, checkpoint.Damaged) and file.exists()


class Hostile:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("named_by_digest", [True, False])
def test_a_hostile_checkpoint_executes_nothing(named_by_digest: bool, tmp_path: Path) -> None:
    folder, marker = tmp_path / "checkpoints", tmp_path / "marker"
    folder.mkdir()
    file = folder / "step-00000001.pt"
    torch.save({"format": 1, "step": 1, "G": Hostile(marker)}, file)
    if named_by_digest:
        file = file.rename(folder / f"step-00000001-{checkpoint._digest(file.read_bytes())}.pt")
    with pytest.raises(checkpoint.Damaged, match="all checkpoints are damaged"):
        checkpoint.load(tmp_path)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()  # it is hostile indeed
