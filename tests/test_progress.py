"""What long work says of itself: how much is done, and how long the rest will take."""

import io
import itertools
import logging
import sys
from pathlib import Path

import pytest
from conftest import RING, settings

from ganbench import progress
from ganbench.progress import duration, tracked
from ganbench.training import run
from ganbench.training.train import train


def test_a_line_every_ten_seconds_with_an_estimate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = itertools.count(0, 4.0)  # four seconds an item
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO)
    assert list(tracked(range(10), "reading")) == list(range(10))
    # The third item is asked for after 12 seconds, with two done: the other eight take 48 at that rate.
    assert caplog.messages == ["reading: 20%, 48 s left", "reading: 50%, 24 s left", "reading: 80%, 9 s left"]


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(tracked([], "nothing")) == [] and list(tracked("abc", "letters")) == list("abc")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("seconds", "written"), [(9.4, "9 s"), (99, "99 s"), (101, "2 min"), (5990, "100 min"), (6010, "1.7 h")]
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written


class BelowACell(io.StringIO):
    """Standard error as a notebook's process has it."""

    __module__ = "ipykernel.iostream"


def test_a_bar_is_shown_in_notebooks_and_not_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, is_shown in ((BelowACell(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.progress_bar(10) as bar:
            bar.update(10)
        assert ("10/10" in stream.getvalue() or "10.0/10.0" in stream.getvalue()) == is_shown


@pytest.mark.slow
def test_a_run_says_what_its_evaluations_cost_before_its_first_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    clock = itertools.count(0, 40.0)  # forty seconds between any two questions
    monkeypatch.setattr(run.time, "perf_counter", lambda: next(clock))
    caplog.set_level(logging.INFO)
    cfg = settings(*RING, "protocol.evaluations=3")
    train(cfg, tmp_path)
    said = [message for message in caplog.messages if "an evaluation takes" in message]
    assert len(said) == 1 and said[0].startswith("an evaluation takes ") and " 3 more will follow: " in said[0]
    updates = [i for i, message in enumerate(caplog.messages) if "images/s" in message]
    assert caplog.messages.index(said[0]) < updates[0]
