"""How far runs and sweeps are: estimates, the bar of a terminal, and the page that follows a sweep."""

import fcntl
import json
import logging
import math
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from conftest import PATIENCE, REPOSITORY, RING, ganbench, launch, report, settings, until
from omegaconf import OmegaConf
from playwright.sync_api import Browser

from ganbench.report import live as live_module
from ganbench.report.live import LiveReport, LiveSweep
from ganbench.report.watch import Watched
from ganbench.runs.live import PENALIZED, LiveRun, Plan, remaining_seconds
from ganbench.sweeps import progress as sweep_progress
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.progress import SweepProgress, shown


def write(folder: Path, images: int, *, seconds: float, evaluations: int = 1, **status: object) -> None:
    """Write what a run has recorded after so many images and seconds of training."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"images": 0, "g_spread": 1.0, "fd_lenet": 9.0}] * evaluations
    rows.append({"images": images, "t_train": seconds, "d_loss": 1.0, "g_loss": 1.0})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "status.json").write_text(json.dumps({"status": "running"} | status))


def finished(folder: Path, plan: Plan, *, seconds: float, wall: float) -> LiveRun:
    write(folder, plan.images, seconds=seconds, evaluations=plan.evaluations, status="finished", t_wall=wall)
    return refreshed(folder, plan)


def refreshed(folder: Path, plan: Plan | None = None) -> LiveRun:
    run = LiveRun(folder, plan)
    run.refresh()
    return run


PLAIN = Plan(images=1000, evaluations=4, cost=1.0)


def test_an_estimate_is_of_images_evaluations_and_starts(tmp_path: Path) -> None:
    done = finished(tmp_path / "done", PLAIN, seconds=20, wall=30)  # 0.02 s an image; 2 s an evaluation, 2 s the start
    waiting = LiveRun(tmp_path / "waiting", PLAIN)
    assert remaining_seconds([done, waiting], [waiting], at_once=1) == pytest.approx(30)
    four = [LiveRun(tmp_path / str(i), PLAIN) for i in range(4)]
    assert remaining_seconds([done, *four], four, at_once=2) == pytest.approx(60)
    assert remaining_seconds([done, *four], four, at_once=8) == pytest.approx(30)  # none can be faster than one run
    penalized = LiveRun(tmp_path / "penalized", Plan(1000, 4, PENALIZED))
    assert remaining_seconds([done, penalized], [penalized], at_once=1) == pytest.approx(20 * PENALIZED + 10)
    unknown = LiveRun(tmp_path / "unknown")  # as those that are known
    assert remaining_seconds([done, unknown], [unknown], at_once=1) == pytest.approx(30)


def test_a_run_under_way_counts_what_is_left_of_it(tmp_path: Path) -> None:
    began = datetime.now().astimezone().isoformat()
    write(tmp_path, 250, seconds=10, evaluations=1, t_started=began)
    run = refreshed(tmp_path, PLAIN)
    assert remaining_seconds([run], [run], at_once=2) == pytest.approx(30, abs=0.5)  # its clock says 0 s of evaluations
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images": 500, "t_train": 15, "g_spread": 1.0}\n')
    run.refresh()
    assert (run.images, run.evaluations) == (500, 2)
    assert remaining_seconds([run], [run], at_once=2) == pytest.approx(15, abs=0.5)


def test_nothing_is_estimated_from_the_first_instants(tmp_path: Path) -> None:
    write(tmp_path, 100, seconds=2, t_started=datetime.now().astimezone().isoformat())
    run = refreshed(tmp_path, PLAIN)
    assert remaining_seconds([run, LiveRun(tmp_path / "none", PLAIN)], [run], at_once=1) is None


def test_records_of_a_resumed_run_are_read_anew(tmp_path: Path) -> None:
    write(tmp_path, 800, seconds=8)
    run = refreshed(tmp_path, PLAIN)
    assert run.images == 800
    write(tmp_path, 400, seconds=4, resumed=[{"images": 300}])  # cut back to its checkpoint, and gone on
    run.refresh()
    assert run.images == 400 and [row["images"] for row in run.rows] == [0, 400]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images": 500, "d_lo')  # a line that is being written does not count yet
    run.refresh()
    assert run.images == 400
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('ss": 1}\n')
    run.refresh()
    assert run.images == 500
    (tmp_path / "metrics.jsonl").write_text('{"images": 0}\n' * 30)  # cut back, and grown, before its status says so
    run.refresh()
    run.refresh()
    assert run.images == 0 and len(run.rows) == 30


def plan_file(folder: Path, images: int) -> None:
    """Write the settings of a run on mnist5k."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(settings(f"protocol.images={images}"), folder / "config.yaml")


def test_a_run_that_was_killed_does_not_seem_to_take_longer_and_longer(tmp_path: Path) -> None:
    write(tmp_path, 250, seconds=10, evaluations=1, t_started="2026-01-01T00:00:00+00:00")
    began = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()
    os.utime(tmp_path / "metrics.jsonl", (began + 12, began + 12))  # its last record; that is long ago
    run = refreshed(tmp_path, PLAIN)
    assert remaining_seconds([run], [run], at_once=1) == pytest.approx(30 + 3 * 1)  # 2 s of a start and an evaluation


def test_a_sweep_is_followed_when_runs_are_deleted_made_again_extended_or_not_wanted(tmp_path: Path) -> None:
    for name in "ab":
        plan_file(tmp_path / name, 1000)
        write(tmp_path / name, 800, seconds=8, t_started="2026-01-01T00:00:00+00:00")
    (tmp_path / "runs.txt").write_text("a\nb\nc\n")
    sweep = LiveSweep(tmp_path)

    def look() -> dict[str, tuple[str, int, int | None]]:
        sweep.refresh()
        return {run["name"]: (run["status"], run["images"], run["budget"]) for run in sweep.progress()["runs"]}

    assert look() == {"a": ("running", 800, 1000), "b": ("running", 800, 1000), "c": ("waiting", 0, None)}
    shutil.rmtree(tmp_path / "a")
    assert look()["a"] == ("waiting", 0, None)
    plan_file(tmp_path / "a", 2000)
    write(tmp_path / "a", 100, seconds=1, t_started="2026-01-01T00:01:00+00:00")
    assert look()["a"] == ("running", 100, 2000)
    shutil.rmtree(tmp_path / "a")
    write(tmp_path / "a", 50, seconds=1, t_started="2026-01-01T00:02:00+00:00")  # made again, not looked at in between
    assert look()["a"][:2] == ("running", 50)
    write(tmp_path / "b", 900, seconds=9, t_started="2026-01-01T00:00:00+00:00", resumed=[{"images": 500}])
    plan_file(tmp_path / "b", 4000)
    assert look()["b"] == ("running", 900, 4000)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "runs.txt").write_text("\nb\n\n")
    assert list(look()) == ["b"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", b"\xff\xfe\x00\x81"),
        ("config.yaml", b"protocol: {images: 5, evaluations: 2}\npenalty:\n"),
        ("config.yaml", b"protocol: {images: five, evaluations: 2}\npenalty: {}\n"),
        ("config.yaml", b"protocol: {images: 5, evaluations: 2}\npenalty: {}\n"),
        ("status.json", b'{"status": "fin'),
        ("status.json", b'{"status": "running"}'),
        ("metrics.jsonl", b"5\n"),
        ("metrics.jsonl", b'{"d_loss": 1}\n'),
    ],
)
def test_a_damaged_run_does_not_end_the_page(tmp_path: Path, file: str, content: bytes) -> None:
    for name in "ab":
        plan_file(tmp_path / name, 1000)
        write(tmp_path / name, 800, seconds=8, t_started="2026-01-01T00:00:00+00:00")
    (tmp_path / "a" / file).write_bytes(content)
    sweep = LiveSweep(tmp_path)
    sweep.refresh()
    progress = sweep.progress()
    assert [run["name"] for run in progress["runs"]] == ["a", "b"] and progress["left"].startswith("about")
    assert (progress["runs"][1]["method"], progress["runs"][1]["images"]) == ("gan", 800)


def test_a_log_has_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweep_progress, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sweep_progress, "LINE_SECONDS", 0.05)
    monkeypatch.setattr(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115
    caplog.set_level(logging.INFO)
    cfg = settings(*RING, "protocol.images=1280", "protocol.evaluations=4")
    jobs = [Job([], cfg, tmp_path / name, None) for name in "abcd"] + [
        Job([], cfg, tmp_path / "e", {"status": "finished"})
    ]
    progress = SweepProgress(jobs)
    with shown(progress):
        for index in range(3):
            progress.begin(index)
        finished(tmp_path / "a", Plan(1280, 5, 1.0), seconds=1280, wall=1280)
        progress.end(0)
        until(lambda: sum("1 of 4 runs done" in message for message in caplog.messages) > 1)
    # A second an image, no time for evaluations: three runs are left, two at a time.
    assert caplog.messages[0] == "these runs take about 32 min more, by the speed of the first steps"
    assert "1 of 4 runs done, 25% of the images, about 32 min left" in caplog.messages
    assert sum(message.startswith("these runs take") for message in caplog.messages) == 1


def test_a_run_is_read_by_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = SweepProgress([Job([], settings(*RING), tmp_path, None)])
    progress.begin(0)
    begun, go_on = threading.Event(), threading.Event()
    reads: list[str] = []

    def slow_refresh(run: LiveRun) -> None:
        reads.append("begins")
        begun.set()
        go_on.wait(PATIENCE)
        reads.append("ends")

    monkeypatch.setattr(LiveRun, "refresh", slow_refresh)
    looking = threading.Thread(target=progress.look)
    ending = threading.Thread(target=progress.end, args=[0])
    looking.start()
    begun.wait(PATIENCE)
    ending.start()
    ending.join(0.2)
    go_on.set()
    looking.join()
    ending.join()
    assert reads == ["begins", "ends"] * 2


def resize(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


def on_terminal(command: list[str], cwd: Path, narrower_after: bytes) -> str:
    """Return all that a command writes to a terminal of its own, whose 100 columns become 70 in between."""
    ours, theirs = pty.openpty()
    resize(theirs, 100)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the last process has closed its end
            break
        if narrower_after in written:
            resize(ours, 70)
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    return written.decode()


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows in the end, given what was written to it."""
    lines = [""]
    column = 0
    for part in re.findall(r"\r|\n|\x1b\[K|[^\r\n\x1b]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            lines.append("")
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


@pytest.mark.slow
def test_on_a_terminal_a_sweep_has_one_bar_below_the_lines_of_its_runs(tmp_path: Path) -> None:
    typed = ["-m", *RING, "loss=gan,hinge", "sweep.parallel=1", "protocol.images=25600", "name=bar"]
    written = on_terminal([sys.executable, "-m", "ganbench", *typed], tmp_path, narrower_after=b"1 of 2 runs done")
    bars = re.findall(r"\d of 2 runs done \|[^\r\n]*", written)
    assert any(bar.startswith("0 of 2") for bar in bars) and any("1 of 2" in bar and "left" in bar for bar in bars)
    assert len(bars[0]) > 70 >= len(bars[-1])
    shown_lines = [line for line in screen(written) if line]
    assert not any("runs done" in line for line in shown_lines)  # it is gone in the end
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in shown_lines), shown_lines
    assert sum("25,600/25,600 images" in line for line in shown_lines) == 2


SWEEP = ("-m", *RING, "loss=gan,hinge,wgan-gp", "sweep.parallel=1", "protocol.images=32000", "name=live")


@pytest.mark.slow
def test_the_page_follows_a_sweep(tmp_path: Path, start: Callable, browser: Browser) -> None:
    sweep = tmp_path / "outputs/sweep/live"
    training = start(*SWEEP, cwd=tmp_path)
    until(lambda: (sweep / "runs.txt").exists())
    server = launch(str(sweep), "--watch", cwd=tmp_path, module="ganbench.report")
    assert server.stdout is not None
    address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
    assert address is not None
    console: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto(address[0])
    page.locator("#live-runs tbody tr").nth(2).wait_for()
    assert page.locator("#live-runs").get_by_text("waiting").count() >= 1  # a run that has not begun
    curve = page.locator('#live-curves figure:first-child path[data-run="gan-s0"]')
    curve.wait_for()
    first = curve.get_attribute("d")
    page.wait_for_function(
        "first => document.querySelector('#live-curves path[data-run=\"gan-s0\"]').getAttribute('d') !== first",
        arg=first,
    )
    page.get_by_text("3 of 3 runs have ended").wait_for(timeout=PATIENCE * 1000)
    page.get_by_text("Of the 3 of 3 runs").wait_for(timeout=PATIENCE * 1000)
    assert page.frame_locator("#report-page").locator("h1").inner_text() == "3 GAN methods on ring"
    with page.expect_popup() as opened:
        page.frame_locator("#report-page").locator("#runs-table a").first.click()
    assert opened.value.url.endswith("/gan-s0/")
    opened.value.close()
    assert page.frame_locator("#report-page").locator("h1").inner_text() == "3 GAN methods on ring"
    assert page.locator("#live-runs td:nth-child(2)").all_inner_texts() == ["finished"] * 3
    assert training.wait(PATIENCE) == 0
    assert not (sweep / "report.html").exists() and not (sweep / "results.md").exists()  # it only reads
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait(PATIENCE) == 0
    page.get_by_text("The server does not answer").wait_for()
    assert all("ERR_CONNECTION_REFUSED" in line for line in console), console
    page.close()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    assert ganbench("-m", *RING, "loss=gan,hinge", "name=e", cwd=folder).returncode == 0
    return folder / "outputs/sweep/e"


@pytest.mark.slow
def test_only_pages_of_this_machine_get_answers(ended: Path) -> None:
    server = launch(str(ended), "--watch", cwd=ended, module="ganbench.report")
    assert server.stdout is not None
    address = server.stdout.readline().split()[1]
    try:
        assert b"2 GAN methods on ring" in urllib.request.urlopen(f"{address}/report.html").read()
        assert json.loads(urllib.request.urlopen(f"{address}/gan-s0/status.json").read())["status"] == "finished"
        for path, host in (("/", "rebound.example"), ("/../../../../etc/passwd", "localhost"), ("/none", "localhost")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(address + path, headers={"Host": host}))
            assert refused.value.code == (403 if host == "rebound.example" else 404)
        for method, host in (("HEAD", "rebound.example"), ("GET", "["), ("GET", "")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                asked = urllib.request.Request(f"{address}/runs.txt", headers={"Host": host}, method=method)
                urllib.request.urlopen(asked)
            assert refused.value.code == 403
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends as a closed tab's
            leaving.sendall(b"GET /report.html HTTP/1.0\r\nHost: localhost\r\n\r\n")
        taken = report(ended, "--watch", address.rpartition(":")[2])
        assert taken.returncode == 2 and "pass another port" in taken.stderr and len(taken.stderr.splitlines()) == 1
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(PATIENCE)
    assert server.stderr is not None and server.stderr.read() == ""  # also not of the one that left


@pytest.mark.slow
def test_the_report_of_a_live_sweep_is_made_again_only_now_and_then(
    ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = LiveSweep(ended)
    sweep.refresh()
    assert sweep.progress()["ended"] == 2 and sweep.progress()["left"] is None
    live = LiveReport(ended, ())
    assert not live.is_due(1, is_last=False)  # this process has taken more time than that since it began
    monkeypatch.setattr(live_module, "SHARE_OF_TIME", 1e9)
    assert live.is_due(1, is_last=False) and not live.is_due(0, is_last=True)
    live.cost = math.inf  # what it will take counts, too
    assert not live.is_due(1, is_last=False) and live.is_due(1, is_last=True)
    live.make(1)
    assert 0 < live.cost < PATIENCE
    assert list(live.pages) == ["report.html"] and "2 GAN methods on ring" in live.pages["report.html"]
    monkeypatch.undo()
    assert not live.is_due(1, is_last=True) and not live.is_due(2, is_last=False)
    assert live.is_due(2, is_last=True)


@pytest.mark.slow
def test_a_large_sweep_is_looked_at_less_often(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(ended, ())
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    times = iter([10.0, 10.5])
    monkeypatch.setattr(time, "thread_time", lambda: next(times))
    assert watched.progress()["again"] == pytest.approx(12.5)  # of four cores, half a second of one is 1 %
    times = iter([10.0, 10.01])
    assert watched.progress()["again"] == 2.0


def test_a_run_that_has_long_said_nothing(tmp_path: Path) -> None:
    """It may have been killed with its sweep: the page says for how long, and nothing of one that has ended."""
    write(tmp_path / "run", 100, seconds=1)
    sweep = LiveSweep(tmp_path)
    (tmp_path / "runs.txt").write_text("run\n")
    sweep.refresh()
    assert sweep.progress()["runs"][0]["reason"] is None
    for file in (tmp_path / "run").iterdir():
        os.utime(file, (0, time.time() - 300))
    sweep.refresh()
    assert sweep.progress()["runs"][0]["reason"] == "no word for 5 min"
    write(tmp_path / "run", 100, seconds=1, status="finished")
    sweep.refresh()
    assert sweep.progress()["runs"][0]["reason"] is None


@pytest.mark.slow
def test_a_folder_without_runs(tmp_path: Path) -> None:
    done = report(tmp_path, "--watch")
    assert done.returncode == 2 and "has no runs, begun or planned" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none(ended: Path, port: str) -> None:
    done = report(ended, f"--watch={port}")
    assert done.returncode == 2 and f"{port} is no port from 1 to 65535" in done.stderr
