"""Runs and sweeps that are killed, interrupted or started twice end as if nothing had happened."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, RING, SIX, ganbench, rows
from PIL import Image

from ganbench.runs import checkpoint
from ganbench.runs.signals import SIGNALS, GracefulStop, Interrupted
from ganbench.runs.status import read_status


def begun(*arguments: str, cwd: Path) -> subprocess.Popen:
    """The command line in a process group of its own, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "ganbench", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition, seconds: float = 60) -> None:
    give_up = time.time() + seconds
    while not condition():
        assert time.time() < give_up, "nothing happened"
        time.sleep(0.02)


def test_stopped_at_any_moment_a_run_ends_bit_equal() -> None:
    """Six methods; kills and signals at random moments, and kills at each call that a save consists of."""
    command = [sys.executable, REPOSITORY / "tests/crash_soak.py", "--kills", "60", "--contests", "5"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] >= 60 and told["inside_a_save"] >= 15 and told["runs"] >= 6 and told["differ"] == []
    assert told["signals"] >= 1 and told["contests"] == 5


LONG = ("dataset=ring", "loss=wgan-gp", "wandb=offline", "device=cpu", "model.width=16", "protocol.evaluations=2")


@pytest.mark.parametrize("number", SIGNALS, ids=[n.name for n in SIGNALS])
def test_a_signal_saves_the_step_and_leaves(number: signal.Signals, tmp_path: Path) -> None:
    process, folder = begun(*LONG, "name=cut", "checkpoint_every=100000", cwd=tmp_path), tmp_path / "outputs/run/cut"
    until(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_text().count("\n") > 3)
    sent = time.time()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert time.time() - sent < 20
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
            time.sleep(60)
        return super().d(real, fake)

class Leaves(GAN):
    def d(self, real, fake):
        sys.exit(0)

class Vanishes(GAN):
    def d(self, real, fake):
        os._exit(0)

class Swallows(GAN):
    def d(self, real, fake):
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
        return real.new_zeros(2**31).sum()

class Fails(GAN):
    def d(self, real, fake):
        if os.path.exists("broken"):
            raise RuntimeError("broken")
        return super().d(real, fake)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "own_losses.py").write_text(OWN_LOSSES)
    (tmp_path / "mine/loss").mkdir(parents=True)
    for name in re.findall(r"class (\w+)", OWN_LOSSES):
        (tmp_path / f"mine/loss/{name.lower()}.yaml").write_text(f"name: {name.lower()}\n_target_: own_losses.{name}\n")
    return tmp_path


def test_a_second_signal_leaves_at_once(mine: Path) -> None:
    process = begun("--config-dir", "mine", *LONG, "loss=sleeps", "penalty=none", "name=cut", cwd=mine)
    lines = mine / "outputs/run/cut/metrics.jsonl"
    until(lambda: lines.exists() and lines.read_text())
    (mine / "sleep").touch()
    time.sleep(0.5)
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=20)  # of the 60 seconds that the step takes
    assert process.returncode == 143


def statuses(folder: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/status.json")}


def test_what_ends_a_run_in_its_own_way_costs_only_that_run(mine: Path) -> None:
    typed = ("--config-dir", "mine", "-m", *RING, "loss=leaves,vanishes,swallows,fails,gan", "name=mixed")
    (mine / "broken").touch()
    done = ganbench(*typed, cwd=mine, PYTHONPATH=str(mine))
    assert done.returncode == 1
    folder = mine / "outputs/sweep/mixed"
    found = {name.split("-")[0]: status for name, status in statuses(folder).items()}
    assert {name: status["status"] for name, status in found.items()} == {
        "leaves": "failed",
        "vanishes": "failed",
        "swallows": "failed",
        "fails": "failed",
        "gan": "finished",
    }
    assert found["leaves"]["reason"] == "the run's own code left with SystemExit(0)"
    assert found["vanishes"]["reason"] == "process ended with code 0"
    assert "memory" in found["swallows"]["reason"].lower()
    said = done.stdout + done.stderr
    tail = said[said.rindex("4 failed, 1 finished") :]
    for name in ("leaves", "vanishes", "swallows", "fails"):
        assert re.search(rf"{name}-\S+-s0: failed \(.*retry=true", tail)

    (mine / "broken").unlink()
    before = {name: (folder / name / "status.json").read_bytes() for name in statuses(folder)}
    again = ganbench(*typed, cwd=mine, PYTHONPATH=str(mine))
    assert again.returncode == 1 and "5 runs, of which 5 are done already" in again.stdout + again.stderr
    assert "retry=true" in again.stdout + again.stderr
    assert {name: (folder / name / "status.json").read_bytes() for name in statuses(folder)} == before
    retried = ganbench(*typed, "retry=true", cwd=mine, PYTHONPATH=str(mine))
    assert "5 runs, of which 1 are done already" in retried.stdout + retried.stderr
    now = {name.split("-")[0]: status["status"] for name, status in statuses(folder).items()}
    assert now == {
        "leaves": "failed",
        "vanishes": "failed",
        "swallows": "failed",
        "fails": "finished",
        "gan": "finished",
    }


def test_a_refusal_within_a_sweep_is_told_at_its_end(tmp_path: Path) -> None:
    typed = ("-m", *RING, "seed=0,1", "name=same")
    assert ganbench(*typed, cwd=tmp_path).returncode == 0
    broken, whole = sorted((tmp_path / "outputs/sweep/same").glob("gan-*"))
    status = read_status(broken) | {"status": "interrupted"}
    (broken / "status.json").write_text(json.dumps(status))
    for file in (broken / "checkpoints").iterdir():
        file.write_bytes(b"")
    again = ganbench(*typed, cwd=tmp_path)
    said = again.stdout + again.stderr
    assert again.returncode == 1 and "Traceback" not in said
    assert "none of its checkpoints is whole" in said[said.rindex(f"{broken.name}: refused (") :]
    assert f"{whole.name}: finished" in said and read_status(broken)["status"] == "interrupted"


def test_what_was_refused_is_no_failure_to_be_retried(tmp_path: Path) -> None:
    images = ("dataset=folder", "dataset.root=photos", "dataset.shape=[1,32,32]", "metric=fd_lenet", "model.width=8")
    typed = (*images, "experiment=smoke", "wandb=disabled", "device=cpu", "name=later", "protocol.images=128")
    refusal = ganbench(*typed, cwd=tmp_path)
    assert refusal.returncode != 0 and "found 0 images, at least 10 are needed" in refusal.stderr
    (tmp_path / "photos").mkdir()
    for k in range(20):
        Image.effect_noise((32, 32), 10 * k).save(tmp_path / f"photos/{k}.png")
    done = ganbench(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    status = read_status(tmp_path / "outputs/run/later")
    assert status["status"] == "finished" and "refused" not in status


def test_a_lone_run_that_leaves_has_failed(mine: Path) -> None:
    done = ganbench("--config-dir", "mine", *RING, "loss=leaves", "name=left", cwd=mine)
    assert done.returncode == 1 and "the run's own code left with SystemExit(0)" in done.stderr


def test_a_signal_in_the_last_evaluation_is_heard(tmp_path: Path) -> None:
    """The run has finished, but what comes after it does not begin."""
    with pytest.raises(Interrupted), GracefulStop():
        os.kill(os.getpid(), signal.SIGTERM)


def test_other_code_or_settings_are_another_run(mine: Path) -> None:
    typed = ("--config-dir", "mine", *RING, "loss=fails", "name=kept")
    assert ganbench(*typed, cwd=mine).returncode == 0
    done = ganbench(*typed, cwd=mine)
    assert (
        done.returncode == 0
        and "from before: finished, score" in done.stderr
        and "nothing is left to do" in done.stderr
    )
    other = ganbench(*typed, "protocol.ema=0.5", cwd=mine)
    assert other.returncode == 2 and "protocol.ema=0.99, not 0.5" in other.stderr.replace("0.990", "0.99")
    probed = ganbench(*typed, "probe=vanishing", cwd=mine)
    assert probed.returncode == 2 and "holds a run with probe." in probed.stderr
    (mine / "own_losses.py").write_text(OWN_LOSSES + "\n# another version\n")
    changed = ganbench(*typed, cwd=mine)
    assert changed.returncode == 2 and "made with other code" in changed.stderr and "name=…" in changed.stderr


TWELVE = ("-m", *RING, f"loss={SIX}", "seed=0,1", "protocol.images=25600", "checkpoint_every=50")
NOT_TIME = ("folder", "method", "seed", "status", "final")


def table(folder: Path) -> list[dict[str, str]]:
    subprocess.run([sys.executable, "-m", "ganbench.report", folder], cwd=REPOSITORY, capture_output=True, check=True)
    with (folder / "results.csv").open() as stream:
        found = [
            {k: v for k, v in row.items() if "second" not in k and "t_" not in k} for row in csv.DictReader(stream)
        ]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    """The twelve runs' folder, and their table."""
    top = tmp_path_factory.mktemp("undisturbed")
    done = ganbench(*TWELVE, "name=same", cwd=top)
    assert done.returncode == 0, done.stderr
    folder = top / "outputs/sweep/same"
    return folder, table(folder)


def records(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*/metrics.jsonl"))


def kill_once_it_gets_on(folder: Path, later: float) -> None:
    known = records(folder)
    process = begun(*TWELVE, "name=same", cwd=folder.parents[2])
    until(lambda: records(folder) > known or process.poll() is not None)
    time.sleep(later)
    assert process.poll() is None, "the sweep ended before it was killed"
    process.kill()
    process.communicate()  # until the last of its runs has ended, which it did not wait for


def test_a_sweep_killed_ten_times_ends_with_the_same_table(undisturbed: tuple, tmp_path: Path) -> None:
    folder, rng, finished = tmp_path / "outputs/sweep/same", random.Random(0), {}
    for _ in range(10):
        kill_once_it_gets_on(folder, rng.uniform(0, 0.3))
        now = {n: s for n, s in statuses(folder).items() if s["status"] == "finished"}
        assert {name: now[name] for name in finished} == finished
        finished = now
    done = ganbench(*TWELVE, "name=same", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = statuses(folder)
    assert {name: last[name] for name in finished} == finished
    assert sum("resumed" in status for status in last.values()) >= 1
    whole, due = undisturbed
    assert table(folder) == due and len(last) == 12
    for name in last:
        assert rows(folder / name) == rows(whole / name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_sweep_that_has_hardly_begun(number: signal.Signals, code: int, tmp_path: Path) -> None:
    # While it composes, in libraries that replace an exception from without by one of their own, and a little later.
    long = [part for part in TWELVE if not part.startswith("protocol.images")]
    for k in range(6):
        process = begun(*long, "protocol.images=6400000", f"name=early{k}", cwd=tmp_path)
        until(lambda k=k: (tmp_path / f"outputs/sweep/early{k}/multirun.yaml").exists())
        time.sleep(k / 5)
        for _ in range(1 + k % 2):  # the second, where the first has not ended it, does so at once
            process.send_signal(number)
            time.sleep(0.1)
        said = process.communicate(timeout=30)[1]
        assert process.returncode == code, said
        assert k % 2 or said.count("Interrupted. The same command") == 1, said


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_a_sweep_is_passed_on_once(number: signal.Signals, tmp_path: Path) -> None:
    """As from a terminal that closes: runs save themselves, and are not lost with the server they come from."""
    endless = ("-m", *RING, "seed=0,1", "sweep.parallel=2", "protocol.images=64000000", "checkpoint_every=1000000")
    process, folder = begun(*endless, "name=all", cwd=tmp_path), tmp_path / "outputs/sweep/all"
    until(lambda: sum("d_loss" in f.read_text() for f in folder.glob("*/metrics.jsonl")) == 2)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if number == signal.SIGINT else 143), said
    assert [status["status"] for status in statuses(folder).values()] == ["interrupted"] * 2
    for run in statuses(folder):
        assert checkpoint.load(folder / run)["step"] > 0


def test_a_signal_ends_what_nobody_listens_to(tmp_path: Path) -> None:
    process = begun(*TWELVE, "name=deaf", cwd=tmp_path)
    process.stderr.close()
    until(lambda: (tmp_path / "outputs/sweep/deaf/multirun.yaml").exists())
    process.terminate()
    assert process.wait(timeout=10) == 143


def test_two_launchers_share_a_sweep(undisturbed: tuple, tmp_path: Path) -> None:
    both = [begun(*TWELVE, "name=same", cwd=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    folder = tmp_path / "outputs/sweep/same"
    assert table(folder) == undisturbed[1]
    for name in statuses(folder):
        assert (folder / name / "ganbench.log").read_text().count("real against real") == 1


def test_two_at_once_in_one_folder(tmp_path: Path) -> None:
    first = begun(*LONG, "name=one", cwd=tmp_path)
    folder = tmp_path / "outputs/run/one"
    until(lambda: (folder / "metrics.jsonl").exists())
    refusal = ganbench(*LONG, "name=one", cwd=tmp_path)
    assert refusal.returncode == 2
    assert re.search(rf"process {first.pid} on \S+, since .*, is at work there", refusal.stderr), refusal.stderr
    assert read_status(folder)["status"] == "running"
    told = (folder / ".hydra/overrides.yaml").read_bytes()
    assert ganbench(*LONG, "checkpoint_every=7", "name=one", cwd=tmp_path).returncode == 2
    assert (folder / ".hydra/overrides.yaml").read_bytes() == told
    first.terminate()
    first.communicate(timeout=30)
    assert first.returncode == 143
