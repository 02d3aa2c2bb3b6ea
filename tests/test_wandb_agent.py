"""The commands `wandb sweep` and `wandb agent` make runs of ours: one W&B run each, even if it is cut short."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import PATIENCE, REPOSITORY, report, until
from wandb_server import KEY, Server

from ganbench.runs import wandb_rows

pytestmark = pytest.mark.slow

ARGUMENTS = {"loss": "gan", "dataset": "ring", "experiment": "smoke", "device": "cpu", "model.width": 16}
ARGUMENTS |= {"protocol.images": 6400, "checkpoint_every": 10}


def command(type: str, run: str, seed: int) -> dict:
    """What W&B tells an agent."""
    arguments = {key: {"value": value} for key, value in (ARGUMENTS | {"seed": seed}).items()}
    return {"type": type, "run_id": run, "program": "ganbench", "args": arguments}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        server.shutdown()


def environment(server: Server, top: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "PATH": path, "HOME": str(top)}
    python = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return os.environ | ours | {"PYTHONPATH": python}


def runs_of(agent: subprocess.Popen) -> list[int]:
    """Return the processes that an agent has started and that have become ganbench."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == agent.pid and b"\0ganbench\0" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has just ended
            continue
    return found


def cut_short(agent: subprocess.Popen, folder: Path, number: int, after: int) -> None:
    """Send a signal to the agent's run once it has a checkpoint beyond so many updates."""

    def trained() -> bool:
        steps = [int(file.stem.split("-")[1]) for file in folder.glob("checkpoints/step-*.pt")]
        return max(steps, default=0) > after

    until(trained)
    [run] = runs_of(agent)
    os.kill(run, number)
    until(lambda: run not in runs_of(agent))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the agent's processes in /proc")
def test_an_agents_run_that_is_cut_short_goes_on_in_the_same_wandb_run(server: Server, tmp_path: Path) -> None:
    known = environment(server, tmp_path)
    made = [sys.executable, "-m", "wandb", "sweep", str(REPOSITORY / "conf/wandb-sweep.yaml")]
    done = subprocess.run(made, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=PATIENCE)
    assert "wandb agent me/ganbench/sweep1" in done.stderr, done.stderr
    assert yaml.safe_load(server.sweep)["metric"] == {"name": "score", "goal": "minimize"}
    server.commands = [command("run", "first", 0), command("resume", "first", 0), command("run", "second", 1)]
    server.commands.append({"type": "exit"})
    agent = subprocess.Popen(
        [sys.executable, "-m", "wandb", "agent", "me/ganbench/sweep1"],
        cwd=tmp_path,
        env=known,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    sweep = tmp_path / "outputs/sweep/sweep1"
    try:
        cut_short(agent, sweep / "first", signal.SIGTERM, after=5)
        assert agent.wait(PATIENCE) == 0
    finally:
        agent.kill()
        for run in runs_of(agent):
            os.kill(run, signal.SIGKILL)
    assert server.preempted == ["first"]  # so W&B starts it again
    began = [asked for asked in server.upserted if asked.get("sweep")]
    assert [(asked["name"], asked["sweep"], asked["groupName"]) for asked in began] == [
        *[("first", "sweep1", "sweep1")] * 2,
        ("second", "sweep1", "sweep1"),
    ]
    for name in ("first", "second"):
        status = json.loads((sweep / name / "status.json").read_text())
        assert (status["status"], status["wandb_id"]) == ("finished", name)
        sent = [json.loads(line)["_step"] for line in server.histories[name]]
        assert sent == [row["images"] for row in wandb_rows.rows(sweep / name)]
        assert server.summaries[name]["score"] == status["score"]
    assert report(sweep).returncode == 0
