"""Signals, as people and schedulers send them: answered at once, the state saved, the run resumable."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
import torch
from conftest import PATIENCE, RING, ganbench, rows, settings, until
from torch import Tensor

from ganbench.losses import GAN
from ganbench.metrics.frechet import root
from ganbench.runs import checkpoint
from ganbench.runs.signals import GracefulStop, Interrupted
from ganbench.runs.status import read_status
from ganbench.training.train import train

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen]  # the fixture `start`

MINE = """
import os, time
from pathlib import Path
from ganbench import datasets
from ganbench.losses import GAN
from ganbench.metrics.modes import ModesMetric
from ganbench.models import mlp

def nap(where):
    # For ten minutes, if a file asks for it.
    if os.path.exists(f"nap-{where}"):
        Path("asleep").touch()
        for _ in range(6000):
            time.sleep(0.1)
        Path("awake").touch()

def data(shape, n, modes, radius, std):
    nap("data")
    return datasets.ring(shape, n, modes, radius, std)

class Metric(ModesMetric):
    def __init__(self, *args, **options):
        nap("metric")
        super().__init__(*args, **options)
    def __call__(self, fake):
        nap("evaluation")
        return super().__call__(fake)

class Generator(mlp.Generator):
    def forward(self, z):
        nap("start" if self.training else "samples")
        return super().forward(z)

class Slow(GAN):  # steps of half a second, once training has begun
    def d(self, real, fake):
        if len(real) > 4 and os.path.exists("slowly"):
            Path(f"stepping-{os.getpid()}").touch()
            time.sleep(0.5)
        return super().d(real, fake)
"""
OWN = (
    *RING,
    "dataset._target_=mine.data",
    "metric._target_=mine.Metric",
    "model.generator._target_=mine.Generator",
    "loss._target_=mine.Slow",
)


@pytest.mark.parametrize("phase", ["data", "metric", "start", "evaluation", "samples"])
def test_long_work_ends_at_once(phase: str, here: Path, start: Start) -> None:
    (here / f"nap-{phase}").touch()
    process = start(*OWN, "name=cut", cwd=here)
    until((here / "asleep").exists, process)
    process.terminate()
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 143 and "SIGTERM: stopping; send it again to leave at once." in errors
    assert not (here / "awake").exists()
    folder = here / "outputs/run/cut"
    assert (read_status(folder)["status"], read_status(folder)["reason"]) == ("interrupted", "SIGTERM")
    (here / f"nap-{phase}").unlink()
    for name in ("cut", "whole"):
        assert ganbench(*OWN, f"name={name}", cwd=here).returncode == 0
    assert rows(folder) == rows(here / "outputs/run/whole")


class AskedTooEarly(GracefulStop):
    """A signal comes between the question of the fourth step, answered with no, and what follows it."""

    questions = 0

    @property
    def requested(self) -> bool:
        answer = super().requested
        self.questions += 1
        if self.questions == 4:
            signal.raise_signal(signal.SIGTERM)
        return answer


def test_a_signal_just_after_the_question_for_one_is_saved_for(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(settings("loss=gan", *RING, "checkpoint_every=100000"), tmp_path, AskedTooEarly())
    assert checkpoint.load(tmp_path)["step"] == 5  # the first is asked at step 1, since 0 is a checkpoint anyway


def test_so_does_a_probe_and_what_it_has_measured_is_measured_again(here: Path, start: Start) -> None:
    probing = (*RING, "probe=vanishing", "probe.moments=[0.5]")
    process = start(*probing, "probe.steps=1000000000", "name=cut", cwd=here)
    probes = here / "outputs/run/cut/probes.jsonl"
    until(lambda: probes.exists() and probes.read_text().count("\n") > 8, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    status = read_status(probes.parent)
    assert (process.returncode, status["status"], status["reason"]) == (130, "interrupted", "SIGINT")
    state = checkpoint.load(probes.parent)
    assert state["step"] > 0 and state["records"].get("probes.jsonl", 0) == 0


def send(process: subprocess.Popen, *numbers: int) -> None:
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.05)


PAIRS = [(signal.SIGUSR1, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGHUP)]


@pytest.mark.parametrize("pair", PAIRS, ids=["USR1 TERM", "TERM TERM", "INT HUP"])
def test_two_signals_within_a_moment_are_one(pair: tuple[int, int], here: Path, start: Start) -> None:
    (here / "slowly").touch()
    process = start(*OWN, "name=cut", "checkpoint_every=100000", cwd=here)
    until(lambda: list(here.glob("stepping-*")), process)
    send(process, *pair)
    process.communicate(timeout=PATIENCE)
    folder = here / "outputs/run/cut"
    status = read_status(folder)
    assert (status["status"], status["reason"]) == ("interrupted", signal.Signals(pair[0]).name)
    assert process.returncode == (130 if pair[0] == signal.SIGINT else 143)
    assert checkpoint.load(folder)["step"] > 0


def test_a_scheduler_signals_every_process_of_a_sweep(here: Path, start: Start) -> None:
    """Its runs get each signal from the scheduler and again from their launcher, as long as a step takes."""
    (here / "slowly").touch()
    process = start("-m", *OWN, "seed=0,1", "sweep.parallel=2", "name=all", "checkpoint_every=100000", cwd=here)
    folder = here / "outputs/sweep/all"
    until(lambda: len(list(here.glob("stepping-*"))) == 2, process)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        for member in members(process.pid):
            os.kill(member, number)
        time.sleep(0.1)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 143 and "Traceback" not in errors and "unexpectedly" not in errors, errors
    runs = list(folder.glob("*-s?"))
    assert [read_status(run)["status"] for run in runs] == ["interrupted"] * 2
    assert all(checkpoint.load(run)["step"] > 0 for run in runs)


def members(session: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(process.name))
    return found


class Signalling(GAN):
    """Gets two signals at once at its fifth step, as from a scheduler."""

    calls = 0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 5:
            for number in (signal.SIGTERM, signal.SIGUSR2):
                os.kill(os.getpid(), number)
        return super().d(real, fake)


def test_a_signal_that_comes_while_the_process_ends_changes_nothing(here: Path, start: Start) -> None:
    """Python resets all handlers at its exit, which takes a while after a run with W&B."""
    with (here / "mine.py").open("a") as file:
        file.write("\nimport atexit\natexit.register(lambda: (Path('ending').touch(), time.sleep(5)))\n")
    process = start(*OWN, "name=late", cwd=here)
    until((here / "ending").exists, process)
    send(process, signal.SIGUSR1, signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and read_status(here / "outputs/run/late")["status"] == "finished"


def test_a_handler_that_was_there_before_is_called_once_the_run_is_saved(tmp_path: Path) -> None:
    """As submitit's, which queues the job again; it gets every signal that came."""
    found: list[tuple[int, str, int]] = []

    def requeue(number: int, frame: FrameType | None) -> None:
        found.append((number, read_status(tmp_path)["status"], checkpoint.load(tmp_path)["step"]))

    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = {number: signal.signal(number, requeue) for number in numbers}
    try:
        with pytest.raises(Interrupted):
            train(settings(*RING, "checkpoint_every=100000", "loss._target_=test_signals.Signalling"), tmp_path)
        assert found == [(number, "interrupted", 5) for number in numbers]
        assert all(signal.getsignal(number) is requeue for number in numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_so_does_a_call_of_a_library_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eigenvectors of Inception's 2,048 features, in one call."""
    monkeypatch.setattr(torch.linalg, "eigh", lambda cov: time.sleep(PATIENCE))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with pytest.raises(Interrupted), GracefulStop() as stop, stop.at_once():
        root(torch.eye(2048))
    assert time.monotonic() - began < PATIENCE / 2


def test_its_result_is_the_same_and_so_are_its_errors() -> None:
    x = torch.randn(1200, 1100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cov = x.T @ x
    values, vectors = torch.linalg.eigh(cov)
    assert torch.equal(root(cov), (vectors * values.clamp(min=0).sqrt()) @ vectors.T)
    with pytest.raises(RuntimeError, match="square"):
        root(torch.ones(1100, 3))


def test_an_exception_that_a_library_loses_counts_at_the_end_of_the_block() -> None:
    with pytest.raises(Interrupted), GracefulStop() as stop, stop.at_once(), suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


def test_so_does_one_that_a_library_replaces() -> None:
    """OmegaConf and Hydra raise errors of their own for whatever is raised inside them; one without a signal stays."""
    with pytest.raises(Interrupted), GracefulStop() as stop, stop.at_once():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            raise ValueError("betas cannot be resolved") from None
    with pytest.raises(ValueError, match="betas"), GracefulStop() as stop, stop.at_once():
        raise ValueError("betas cannot be resolved")
