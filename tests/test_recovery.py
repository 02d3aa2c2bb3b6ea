"""Runs and sweeps that are killed, interrupted or started twice end as if nothing had happened.

Nothing here depends on how fast the machine is: a moment is waited for (`until`), never slept for.
"""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE, REPOSITORY, RING, SIX, add_losses, ganbench, rows, until
from PIL import Image

from ganbench.report.load import load_runs
from ganbench.report.tables import csv_of_runs
from ganbench.runs import checkpoint
from ganbench.runs.identity import READ_ONLY_PACKAGES
from ganbench.runs.signals import SIGNALS, GracefulStop, Interrupted
from ganbench.runs.status import read_status

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen]  # the fixture `start`


def test_stopped_at_any_moment_a_run_ends_bit_equal() -> None:
    """Six methods; kills and signals at random moments, and kills at each call that a save consists of."""
    command = [sys.executable, REPOSITORY / "tests/crash_soak.py", "--kills", "12", "--contests", "2"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] >= 12 and counts["inside_a_save"] >= 3 and counts["runs"] >= 6 and counts["differ"] == []
    assert counts["signals"] >= 1 and counts["contests"] == 2


LONG = ("dataset=ring", "loss=wgan-gp", "wandb=offline", "device=cpu", "model.width=16", "protocol.evaluations=2")


@pytest.mark.parametrize("number", SIGNALS, ids=[n.name for n in SIGNALS])
def test_a_signal_saves_the_step_and_ends_the_run(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/run/cut"
    process = start(*LONG, "name=cut", "checkpoint_every=100000", cwd=tmp_path)
    until(lambda: lines(folder / "metrics.jsonl") > 3)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    status = read_status(folder)
    assert (status["status"], status["reason"]) == ("interrupted", number.name)
    state = checkpoint.load(folder)
    assert state["step"] > 0 and state["images"] - rows(folder)[-1]["images"] < 25 * 256  # log_every, batch
    assert state["records"]["metrics.jsonl"] == (folder / "metrics.jsonl").stat().st_size


OWN_LOSSES = """
import os, sys, time
from ganbench.losses import GAN

class Sleeps(GAN):
    def d(self, real, fake):
        if os.path.exists("sleep"):
            open("asleep", "w").close()
            time.sleep(10**6)
        return super().d(real, fake)

class Leaves(GAN):
    def d(self, real, fake):
        sys.exit(0)

class Vanishes(GAN):
    def d(self, real, fake):
        os._exit(0)

class Swallows(GAN):
    def d(self, real, fake):
        if len(real) <= 4:  # asked before the first step
            return super().d(real, fake)
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
        return real.new_zeros(2**31).sum()

class Fails(GAN):
    def d(self, real, fake):
        if len(real) > 4 and os.path.exists("broken"):
            raise RuntimeError("broken")
        return super().d(real, fake)
"""


def lines(file: Path) -> int:
    """Return how many lines a file has, that may not be there yet."""
    return file.read_text().count("\n") if file.exists() else 0


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return add_losses(tmp_path, OWN_LOSSES)


def test_a_second_signal_ends_a_run_at_once(start: Start, mine: Path) -> None:
    typed = ("--config-dir", "mine", *LONG, "loss=sleeps", "penalty=none", "name=cut")
    process = start(*typed, cwd=mine)
    until(lambda: lines(mine / "outputs/run/cut/metrics.jsonl"))
    (mine / "sleep").touch()
    until((mine / "asleep").exists)  # in a step that does not end
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None
    # Signals that come before the first one is handled are one, so on a slow machine it may take more than a second.
    until(lambda: process.terminate() or process.poll() is not None)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 143


def statuses(folder: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/status.json")}


def test_a_run_that_ends_in_a_way_of_its_own_costs_only_itself(mine: Path) -> None:
    typed = ("--config-dir", "mine", "-m", *RING, "loss=leaves,vanishes,swallows,fails,gan", "name=mixed")
    (mine / "broken").touch()
    done = ganbench(*typed, cwd=mine)
    assert done.returncode == 1
    folder = mine / "outputs/sweep/mixed"
    ends = {name.split("-")[0]: status for name, status in statuses(folder).items()}
    assert {name: status["status"] for name, status in ends.items()} == {
        "leaves": "failed",
        "vanishes": "failed",
        "swallows": "failed",
        "fails": "failed",
        "gan": "finished",
    }
    assert ends["leaves"]["reason"] == "the run's own code left with SystemExit(0)"
    assert ends["vanishes"]["reason"] == "process ended with code 0"
    assert "memory" in ends["swallows"]["reason"].lower()
    output = done.stdout + done.stderr
    tail = output[output.rindex("1 finished, 4 failed") :]
    for name in ("leaves", "vanishes", "swallows", "fails"):
        assert re.search(rf"{name}-s0: failed \(.*retry=true", tail)

    (mine / "broken").unlink()
    before = {name: (folder / name / "status.json").read_bytes() for name in statuses(folder)}
    again = ganbench(*typed, cwd=mine)
    assert again.returncode == 1 and "5 runs (5 already done)" in again.stdout + again.stderr
    assert "retry=true" in again.stdout + again.stderr
    assert {name: (folder / name / "status.json").read_bytes() for name in statuses(folder)} == before
    retried = ganbench(*typed, "retry=true", cwd=mine)
    assert "5 runs (1 already done)" in retried.stdout + retried.stderr
    now = {name.split("-")[0]: status["status"] for name, status in statuses(folder).items()}
    assert now == {
        "leaves": "failed",
        "vanishes": "failed",
        "swallows": "failed",
        "fails": "finished",
        "gan": "finished",
    }


def test_a_refusal_within_a_sweep_is_shown_at_its_end(tmp_path: Path) -> None:
    typed = ("-m", *RING, "seed=0,1", "name=same")
    assert ganbench(*typed, cwd=tmp_path).returncode == 0
    broken, whole = sorted((tmp_path / "outputs/sweep/same").glob("gan-*"))
    status = read_status(broken) | {"status": "interrupted"}
    (broken / "status.json").write_text(json.dumps(status))
    for file in (broken / "checkpoints").iterdir():
        file.write_bytes(b"")
    again = ganbench(*typed, cwd=tmp_path)
    output = again.stdout + again.stderr
    assert again.returncode == 1 and "Traceback" not in output
    assert "all checkpoints are damaged" in output[output.rindex(f"{broken.name}: refused (") :]
    assert output.count("all checkpoints are damaged") == 2  # when it ends, and in the summary
    assert "2 runs (1 already done)" in output and "1 finished, 1 refused" in output
    assert f"{whole.name}: " not in output  # the first line has counted it
    assert read_status(broken)["status"] == "interrupted"


def test_a_refused_run_can_be_rerun_without_retry(tmp_path: Path) -> None:
    images = ("dataset=folder", "dataset.root=photos", "dataset.shape=[1,32,32]", "metric=fd_lenet", "model.width=8")
    typed = (*images, "experiment=smoke", "wandb=disabled", "device=cpu", "name=later", "protocol.images=128")
    refusal = ganbench(*typed, cwd=tmp_path)
    assert refusal.returncode != 0 and "dataset.root=photos does not exist" in refusal.stderr
    (tmp_path / "photos").mkdir()
    for k in range(20):
        Image.effect_noise((32, 32), 10 * k).save(tmp_path / f"photos/{k}.png")
    done = ganbench(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    status = read_status(tmp_path / "outputs/run/later")
    assert status["status"] == "finished" and "refused" not in status


def test_a_single_run_that_exits_has_failed(mine: Path) -> None:
    done = ganbench("--config-dir", "mine", *RING, "loss=leaves", "name=left", cwd=mine)
    assert done.returncode == 1 and "the run's own code left with SystemExit(0)" in done.stderr


def test_a_signal_in_the_last_evaluation_is_not_lost(tmp_path: Path) -> None:
    """The run has finished, but what comes after it does not begin."""
    with pytest.raises(Interrupted), GracefulStop():
        os.kill(os.getpid(), signal.SIGTERM)


def test_other_code_or_settings_are_another_run(mine: Path) -> None:
    typed = ("--config-dir", "mine", *RING, "loss=fails", "name=kept")
    assert ganbench(*typed, cwd=mine).returncode == 0
    done = ganbench(*typed, cwd=mine)
    assert (
        done.returncode == 0
        and "already contains this run: finished" in done.stderr
        and "to run it again" in done.stderr
    )
    other = ganbench(*typed, "protocol.ema=0.5", cwd=mine)
    assert other.returncode == 2 and "protocol.ema=0.99, not 0.5" in other.stderr.replace("0.990", "0.99")
    probed = ganbench(*typed, "probe=vanishing", cwd=mine)
    assert probed.returncode == 2 and "contains a run with probe." in probed.stderr
    (mine / "own_losses.py").write_text(OWN_LOSSES + "\n# another version\n")
    changed = ganbench(*typed, cwd=mine)
    assert changed.returncode == 2 and "made with other code" in changed.stderr and "another name=" in changed.stderr


def test_the_digest_of_the_code_covers_all_that_a_run_imports() -> None:
    command = [sys.executable, "-c", "import sys, ganbench.training.train; print(*sys.modules)"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    modules = [name for name in names if name.startswith("ganbench.")]
    assert len(modules) > 30
    rooms = {module.split(".")[1] for module in modules}
    assert not rooms & {name.removesuffix(".py") for name in READ_ONLY_PACKAGES}


SWEEP = ("-m", *RING, f"loss={SIX}", "protocol.images=6400", "checkpoint_every=25")


def table(folder: Path) -> list[dict[str, str]]:
    """Return the sweep's results.csv, without wall-clock columns."""
    table = list(csv.DictReader(csv_of_runs(load_runs(folder)).splitlines()))
    return [{k: v for k, v in row.items() if "second" not in k and "t_" not in k} for row in table]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    """The folder of the six runs, and their table."""
    top = tmp_path_factory.mktemp("undisturbed")
    done = ganbench(*SWEEP, "name=same", cwd=top)
    assert done.returncode == 0, done.stderr
    folder = top / "outputs/sweep/same"
    return folder, table(folder)


def records(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*/metrics.jsonl"))


def kill_after_progress(process: subprocess.Popen, folder: Path, delay: float) -> None:
    """Kill a sweep a moment after it has recorded something."""
    before = records(folder)
    until(lambda: records(folder) > before or process.poll() is not None)
    time.sleep(delay)  # any moment will do
    assert process.poll() is None, "the sweep ended before it was killed"
    process.kill()
    process.communicate(timeout=PATIENCE)  # until the last of its runs has ended, which it did not wait for


def test_a_sweep_killed_four_times_ends_with_the_same_table(undisturbed: tuple, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/sweep/same"
    rng = random.Random(0)
    finished: dict[str, dict] = {}
    for _ in range(4):
        kill_after_progress(start(*SWEEP, "name=same", cwd=tmp_path), folder, rng.uniform(0, 0.3))
        now = {n: s for n, s in statuses(folder).items() if s["status"] == "finished"}
        assert {name: now[name] for name in finished} == finished
        finished = now
    done = ganbench(*SWEEP, "name=same", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = statuses(folder)
    assert {name: last[name] for name in finished} == finished
    assert sum("resumed" in status for status in last.values()) >= 1
    whole, expected = undisturbed
    assert table(folder) == expected and len(last) == 6
    for name in last:
        assert rows(folder / name) == rows(whole / name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_sweep_that_has_hardly_begun(
    number: signal.Signals, code: int, start: Start, tmp_path: Path
) -> None:
    # While it composes, in libraries that replace an exception from outside by one of their own, and a little later.
    long = [part for part in SWEEP if not part.startswith("protocol.images")]
    for k in range(3):
        process = start(*long, "protocol.images=640000000", f"name=early{k}", cwd=tmp_path)
        until((tmp_path / f"outputs/sweep/early{k}/multirun.yaml").exists)
        time.sleep(k / 5)  # any moment will do
        for _ in range(1 + k % 2):  # the second, where the first has not ended it, does so at once
            process.send_signal(number)
            time.sleep(0.1)
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == code, errors
        assert k % 2 or errors.count("Interrupted. Rerun with the same name=") == 1, errors


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_whole_sweep_is_passed_on_once(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    """As from a terminal that closes: runs save themselves, and are not lost with the server they are forked from."""
    endless = ("-m", *RING, "seed=0,1", "sweep.parallel=2", "protocol.images=640000000", "checkpoint_every=1000000")
    folder = tmp_path / "outputs/sweep/all"
    process = start(*endless, "name=all", cwd=tmp_path)
    until(lambda: sum("d_loss" in f.read_text() for f in folder.glob("*/metrics.jsonl")) == 2)
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == (130 if number == signal.SIGINT else 143), errors
    assert [status["status"] for status in statuses(folder).values()] == ["interrupted"] * 2
    for run in statuses(folder):
        assert checkpoint.load(folder / run)["step"] > 0


def test_a_signal_ends_a_sweep_whose_output_nobody_reads(start: Start, tmp_path: Path) -> None:
    process = start(*SWEEP, "name=deaf", cwd=tmp_path)
    process.stderr.close()
    until((tmp_path / "outputs/sweep/deaf/multirun.yaml").exists)
    process.terminate()
    assert process.wait(timeout=PATIENCE) == 143


def test_two_launchers_share_a_sweep(undisturbed: tuple, start: Start, tmp_path: Path) -> None:
    both = [start(*SWEEP, "name=same", cwd=tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    folder = tmp_path / "outputs/sweep/same"
    assert table(folder) == undisturbed[1]
    for name in statuses(folder):
        assert (folder / name / "ganbench.log").read_text().count("real-data reference: ") == 1


# Python imports this module in every process. The process of a run stops where it would take its folder's lock, having
# found that the run is not complete, until the file `go` is there.
LATE = """
import os, sys, time

def stop(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_name == "run_lock" and code.co_filename.endswith(os.path.join("runs", "lock.py")):
        sys.setprofile(None)
        open("waiting", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.02)

if sys.orig_argv[1:3] != ["-m", "ganbench"]:
    os.register_at_fork(after_in_child=lambda: sys.setprofile(stop))
elif "-m" not in sys.orig_argv[3:]:
    sys.setprofile(stop)
"""
SHORT = (*RING, "protocol.images=320", "protocol.evaluations=1")
DIVERGES = ("loss=wgan", "penalty=none", "optimizer.lr=1e30")


@pytest.mark.parametrize("typed", [SHORT, ("-m", *SHORT), ("-m", *SHORT, *DIVERGES)], ids=["run", "sweep", "diverges"])
def test_a_run_that_another_makes_while_ours_waits_for_the_lock_is_done(
    typed: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "late/sitecustomize.py").write_text(LATE)
    late = start(*typed, "name=two", cwd=tmp_path, PYTHONPATH=str(tmp_path / "late"))
    until((tmp_path / "waiting").exists, late)
    first = ganbench(*typed, "name=two", cwd=tmp_path)
    (tmp_path / "go").touch()
    errors = late.communicate(timeout=PATIENCE)[1]
    assert [first.returncode, late.returncode] == [3, 3] if DIVERGES[0] in typed else [0, 0], first.stderr + errors
    assert "Traceback" not in errors and "refused" not in errors
    [log] = (tmp_path / "outputs").glob("*/two/**/ganbench.log")
    assert log.read_text().count("real-data reference: ") == 1
    assert "already contains this run" in log.read_text()


@pytest.mark.parametrize(("more", "code"), [((), 0), (DIVERGES, 3)], ids=["finish", "diverge"])
def test_three_launchers_agree_on_how_a_sweep_ended(
    more: tuple[str, ...], code: int, start: Start, tmp_path: Path
) -> None:
    typed = ("-m", *SHORT, *more, "seed=0,1", "sweep.parallel=1", "name=three")
    launchers = [start(*typed, cwd=tmp_path) for _ in range(3)]
    errors = [launcher.communicate(timeout=PATIENCE)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [code] * 3, errors


def test_two_runs_at_once_in_one_folder(start: Start, tmp_path: Path) -> None:
    first = start(*LONG, "name=one", cwd=tmp_path)
    folder = tmp_path / "outputs/run/one"
    until((folder / "metrics.jsonl").exists)
    refusal = ganbench(*LONG, "name=one", cwd=tmp_path)
    assert refusal.returncode == 2
    assert re.search(rf"is locked by process {first.pid} on \S+ since .*; wait, or", refusal.stderr), refusal.stderr
    assert read_status(folder)["status"] == "running"
    overrides = (folder / ".hydra/overrides.yaml").read_bytes()
    assert ganbench(*LONG, "checkpoint_every=7", "name=one", cwd=tmp_path).returncode == 2
    assert (folder / ".hydra/overrides.yaml").read_bytes() == overrides
    first.terminate()
    first.communicate(timeout=PATIENCE)
    assert first.returncode == 143
