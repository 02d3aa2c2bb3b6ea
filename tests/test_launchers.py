"""Launchers of others make the runs of a sweep, and it ends as with our own: in words, in status.json, by exit code."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import DYING_LOSSES, RAISING_LOSS, RING, add_losses, ganbench

pytestmark = pytest.mark.slow

SHORT = (*RING, "protocol.images=160", "protocol.evaluations=1", "name=x")
OWN_LOSSES = f"""
{DYING_LOSSES}{RAISING_LOSS}
"""
LAUNCHERS = [
    "basic",
    pytest.param(
        "joblib",
        marks=pytest.mark.skipif(
            not find_spec("hydra_plugins.hydra_joblib_launcher"), reason="no hydra-joblib-launcher"
        ),
    ),
]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder with losses of a user's own, as options in `mine`."""
    return add_losses(tmp_path, OWN_LOSSES)


def statuses(top: Path) -> dict[str, str]:
    files = (top / "outputs/sweep/x").glob("*/status.json")
    return {file.parent.name: json.loads(file.read_text())["status"] for file in files}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_of_another_launcher_ends_as_ours(launcher: str, top: Path) -> None:
    command = ("-m", *SHORT, f"hydra/launcher={launcher}", "--config-dir", "mine")
    done = ganbench(*command, "loss=explodes,gan", cwd=top)
    assert done.returncode == 3, done.stderr
    assert "1 finished, 1 diverged" in done.stdout
    done = ganbench(*command, "loss=raises,hinge", "hydra.sweeper.max_batch_size=1", cwd=top)
    assert done.returncode == 1, done.stderr
    output = done.stdout + done.stderr
    assert "raises-s0: failed (RuntimeError: a loss of my own went wrong); rerun with retry=true" in output
    assert "own_losses.py" in (top / "outputs/sweep/x/raises-s0/status.json").read_text()  # the traceback
    expected = {"explodes-s0": "diverged", "gan-s0": "finished", "raises-s0": "failed", "hinge-s0": "finished"}
    assert statuses(top) == expected
    again = ganbench(*command, "loss=explodes,gan,raises,hinge", cwd=top)
    assert again.returncode == 1 and "2 finished, 1 diverged, 1 failed" in again.stdout
    assert "images/s" not in again.stdout  # nothing was made again


@pytest.mark.parametrize("launcher", LAUNCHERS[1:])
def test_a_killed_worker_leaves_no_run_that_says_it_is_running(launcher: str, top: Path) -> None:
    command = ("-m", *SHORT, f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=2", "--config-dir", "mine")
    done = ganbench(*command, "loss=killed,gan,hinge,lsgan", cwd=top)
    assert done.returncode == 1, done.stderr
    assert statuses(top)["killed-s0"] == "failed" and "running" not in statuses(top).values()
    again = ganbench(*command, "loss=gan,hinge,lsgan", "retry=true", cwd=top)
    assert again.returncode == 0 and "3 finished" in again.stdout, again.stderr


def test_an_engine_that_is_not_installed_is_named(top: Path) -> None:
    done = ganbench("-m", *SHORT, "hydra/launcher=slurm", cwd=top, PATH="/nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "hydra/launcher=slurm needs Slurm's sbatch, which is not on the PATH; start the sweep"
    )
    if not find_spec("ray"):
        done = ganbench("-m", *SHORT, "hydra/launcher=ray", cwd=top)
        assert done.returncode == 2
        assert done.stderr == 'hydra/launcher=ray needs Ray, which is not installed; pip install "ray>=2.40"\n'
    assert not (top / "outputs").exists()


def test_a_search_with_another_launcher(top: Path) -> None:
    search = ("protocol=tuned-2d", "protocol.trials=1", "loss=gan,explodes", "seed=0", "--config-dir", "mine")
    done = ganbench("-m", *RING, "name=x", *search, "hydra/launcher=basic", cwd=top)
    assert done.returncode == 1, done.stderr  # explodes has no final runs
    assert statuses(top) == {"gan-s0": "finished"}
    assert "explodes: no final runs, because no trial of 1 has a score" in done.stdout + done.stderr


def refused(cwd: Path, *typed: str, **variables: str) -> str:
    """Return the line by which a sweep is refused, before anything is written."""
    done = ganbench("-m", *SHORT, *typed, cwd=cwd, **variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stdout + done.stderr
    assert not (cwd / "outputs").exists()
    return done.stderr


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_a_folder_of_the_name_of_an_engine_is_not_the_engine(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    assert "needs Ray, which is not installed" in refused(tmp_path, "hydra/launcher=ray")


def test_a_slurm_without_nodes(tmp_path: Path) -> None:
    """As one answers in which all partitions are for others."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "squeue", "sinfo", "scontrol"):
        (commands / name).write_text("#!/bin/sh\n")
        (commands / name).chmod(0o755)
    answer = refused(tmp_path, "hydra/launcher=slurm", PATH=f"{commands}:{os.environ['PATH']}")
    assert answer.startswith("Slurm answers, but shows no nodes")


def test_a_link_to_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "scratch").symlink_to(tmp_path / "gone")
    assert "scratch is a link to a folder that is not there" in refused(tmp_path, "hydra.sweep.dir=scratch/x")
