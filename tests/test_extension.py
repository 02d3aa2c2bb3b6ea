"""A run goes on for longer under its name, as if it had been asked for all of it at once."""

import json
from pathlib import Path

import pytest
import torch
from conftest import RING, ganbench, report, rows

from ganbench.report.load import load_runs
from ganbench.runs import checkpoint
from ganbench.runs.status import read_status

pytestmark = pytest.mark.slow

N = 640  # real images of a run of the smoke test


def run(name: str, images: int, cwd: Path, *overrides: str) -> tuple[int, str]:
    done = ganbench(*RING, "loss=wgan-gp", f"protocol.images={images}", f"name={name}", *overrides, cwd=cwd)
    return done.returncode, done.stdout + done.stderr


def training(folder: Path) -> list[dict]:
    """What was logged of training, without evaluations."""
    return [row for row in rows(folder) if "d_loss" in row]


def assert_same_end(longer: Path, whole: Path) -> None:
    assert training(longer) == training(whole)
    assert read_status(longer)["score"] == read_status(whole)["score"]
    ours, theirs = (checkpoint.load(folder)["average"] for folder in (longer, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert json.loads((longer / "footing.json").read_text()) == json.loads((whole / "footing.json").read_text())


def test_it_ends_as_one_that_was_that_long_from_the_start(tmp_path: Path) -> None:
    runs = tmp_path / "outputs/run"
    assert run("longer", N, tmp_path)[0] == 0
    score = read_status(runs / "longer")["score"]
    first = rows(runs / "longer")
    for images in (2 * N, 3 * N):
        code, errors = run("longer", images, tmp_path)
        assert code == 0 and f"to {images:,} images" in errors, errors
    assert run("whole", 3 * N, tmp_path)[0] == 0
    assert_same_end(runs / "longer", runs / "whole")
    status = read_status(runs / "longer")
    assert [(e["from"], e["to"]) for e in status["extended"]] == [(N, 2 * N), (2 * N, 3 * N)]
    assert status["extended"][0]["score"] == score and status["images"] == 3 * N
    # What was recorded is kept, and so is the score that it ended with.
    again = rows(runs / "longer")
    assert again[: len(first) - 1] == first[:-1]
    at_first_end = [row["energy_distance"] for row in again if row["images"] == N and "energy_distance" in row]
    assert at_first_end == [score]
    (loaded,) = load_runs(runs / "longer")
    assert loaded.status == "finished" and loaded.final == status["score"]


def test_the_same_command_again_has_nothing_to_add_and_a_shorter_one_is_refused(tmp_path: Path) -> None:
    for images in (N, 2 * N):
        assert run("a", images, tmp_path)[0] == 0
    before = (tmp_path / "outputs/run/a/metrics.jsonl").read_bytes()
    code, errors = run("a", 2 * N, tmp_path)
    assert code == 0 and "already contains this run: finished" in errors
    code, errors = run("a", N, tmp_path)
    assert code == 2 and f"protocol.images={2 * N}, not {N}" in errors
    assert (tmp_path / "outputs/run/a/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("other", ["protocol.evaluations=1", "optimizer.lr=0.01", "model.width=24", "loss=wgan-lp"])
def test_with_another_setting_it_is_another_run(other: str, tmp_path: Path) -> None:
    assert run("a", N, tmp_path)[0] == 0
    code, errors = run("a", 2 * N, tmp_path, other)
    assert code == 2 and "contains a run with" in errors
    assert "protocol.images" not in errors.split("contains a run with")[1]


def test_an_interrupted_run_is_extended_too_and_the_extension_resumed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import os, pathlib, signal\nfrom ganbench.losses import WGAN\n"
        "class Loss(WGAN):\n    calls = 0\n    def d(self, real, fake):\n        self.calls += 1\n"
        "        file = pathlib.Path('stop')\n"
        "        if file.exists() and self.calls == int(file.read_text()):\n"
        "            file.unlink()\n            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().d(real, fake)\n"
    )
    own = ("loss._target_=mine.Loss", "checkpoint_every=3")
    for images, calls in ((N, 5), (2 * N, 8), (2 * N, 8)):
        (tmp_path / "stop").write_text(str(calls))
        assert run("cut", images, tmp_path, *own)[0] != 0
        assert not (tmp_path / "stop").exists()
    for name in ("cut", "whole"):
        assert run(name, 2 * N, tmp_path, *own)[0] == 0
    runs = tmp_path / "outputs/run"
    assert_same_end(runs / "cut", runs / "whole")
    assert [e["from"] for e in read_status(runs / "cut")["extended"]] == [N]


def test_a_sweep_with_a_run_that_diverged_has_its_report_when_extended(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ganbench.losses import WGAN\nclass Boom(WGAN):\n    def g(self, fake):\n"
        "        return -fake.mean() * (float('inf') if len(fake) > 4 else 1)\n"
    )
    (tmp_path / "conf/loss").mkdir(parents=True)
    (tmp_path / "conf/loss/boom.yaml").write_text("name: boom\n_target_: mine.Boom\n")
    for images in (N, 2 * N):
        typed = ("--config-dir", "conf", "-m", *RING, "loss=gan,boom", f"protocol.images={images}", "name=s")
        done = ganbench(*typed, cwd=tmp_path)
        assert done.returncode == 3, done.stderr
    sweep = tmp_path / "outputs/sweep/s"
    budgets = {
        run.name: json.loads((run / "footing.json").read_text())["equal"]["images"] for run in sweep.glob("*-s0")
    }
    assert budgets == {"gan-s0": 2 * N, "boom-s0": N}
    written = report(sweep)
    assert written.returncode == 0, written.stderr
    assert "1 run was extended" in written.stdout


def test_a_sweep_is_extended_run_by_run(tmp_path: Path) -> None:
    sweep = ("-m", *RING, "loss=gan,hinge", "name=s")
    for images in (N, 2 * N):
        done = ganbench(*sweep, f"protocol.images={images}", "hydra.sweep.subdir=${loss.name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    statuses = [read_status(tmp_path / "outputs/sweep/s" / name) for name in ("gan", "hinge")]
    assert [(s["status"], s["images"], len(s["extended"])) for s in statuses] == [("finished", 2 * N, 1)] * 2
