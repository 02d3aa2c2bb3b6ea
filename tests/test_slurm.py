"""Sweeps on a real Slurm, of one node on this machine: run by `make cluster-test`, skipped everywhere else."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_results import assert_same_results, statuses, wait_for
from conftest import DYING_LOSSES, RAISING_LOSS, RING, add_losses, end, ganbench, launch
from loopback_slurm import loopback_slurm

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("slurmd") or os.geteuid() != 0, reason="needs root and slurm-wlm"),
]

# What Slurm does to a run of these losses, it does once, in the middle, and at no other engine.
LOSSES = f"""
{DYING_LOSSES}{RAISING_LOSS}
import subprocess, time


class Meddled(GAN):
    calls = 0

    def d(self, real, fake):
        Meddled.calls += 1
        if Meddled.calls == 90 and "SLURM_ARRAY_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ:
            self.meddle(os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"])
        return super().d(real, fake)

class Requeued(Meddled):
    def meddle(self, task):
        subprocess.run(["scontrol", "requeue", task], check=True)
        time.sleep(2)

class Limited(Meddled):
    def meddle(self, task):
        seen = []
        earlier = signal.getsignal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda number, frame: (seen.append(number), earlier(number, frame)))
        while not seen:
            time.sleep(0.1)

class Canceled(Meddled):
    def meddle(self, task):
        if not os.path.exists("canceled"):
            open("canceled", "w").close()
            subprocess.run(["scancel", task], check=True)
            time.sleep(2)
"""
SMOKE = (*RING, "protocol.images=3840", "--config-dir", "mine")


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with losses of a user's own, and a Slurm around it."""
    with loopback_slurm(tmp_path_factory.mktemp("slurm")):
        yield add_losses(tmp_path_factory.mktemp("work"), LOSSES)


def sweep(top: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    return ganbench("-m", *SMOKE, f"name={name}", *arguments, cwd=top)


def test_eighteen_runs_end_as_with_our_own_launcher(top: Path) -> None:
    """A loss raises, one is killed, one is queued again in the middle; the launcher is ended and started anew."""
    losses = ("loss=gan,hinge,wgan-gp,raises,killed,requeued", "seed=0,1,2")
    slurm = (*losses, "hydra/launcher=slurm", "sweep.parallel=2")
    first = launch("-m", *SMOKE, "name=x", *slurm, cwd=top)
    try:
        wait_for(lambda: list(top.glob("outputs/sweep/x/*/status.json")))
        os.killpg(first.pid, signal.SIGINT)
        stdout, stderr = first.communicate(timeout=60)
    finally:
        end(first)
    assert first.returncode == 130, stderr
    assert "The runs go on in Slurm; to end them, so that they save: scancel " in stdout + stderr

    done = sweep(top, "x", *slurm)
    assert done.returncode == 1, done.stderr
    assert re.search(r"\d+ under way already, in Slurm job \d+", done.stdout)
    assert len(list(top.glob("outputs/sweep/x/.slurm/*/task.sh"))) == 1  # a single array made all of them
    assert "12 finished, 6 failed" in done.stdout
    output = done.stdout + done.stderr
    assert "raises-s0, raises-s1, raises-s2: failed (RuntimeError: a loss of my own went wrong)" in output
    assert "killed-s0, killed-s1, killed-s2: failed (killed by signal 9); rerun with retry=true" in output
    requeued = [json.loads((top / f"outputs/sweep/x/requeued-s{seed}/status.json").read_text()) for seed in range(3)]
    assert all(len(status["resumed"]) == 1 for status in requeued)

    again = sweep(top, "x", *slurm)
    assert again.returncode == 1 and "18 runs (18 already done)" in again.stdout
    default = sweep(top, "default", *losses)
    assert default.returncode == 1
    assert_same_results(top / "outputs/sweep/x", top / "outputs/sweep/default")


def test_a_time_limit_and_a_cancellation(top: Path) -> None:
    """At its time limit a run is queued again without a person; a canceled one goes on by the same command."""
    limits = ("hydra/launcher=slurm", "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=20")
    done = sweep(top, "limit", "loss=limited,canceled", *limits)
    assert done.returncode == 1, done.stderr
    assert statuses(top / "outputs/sweep/limit") == {"limited-s0": "finished", "canceled-s0": "interrupted"}
    assert "canceled-s0: interrupted (SIGTERM); rerun the same command to resume" in done.stdout + done.stderr
    again = sweep(top, "limit", "loss=limited,canceled", *limits)
    assert again.returncode == 0 and "2 finished" in again.stdout, again.stderr
    assert sweep(top, "default-limit", "loss=limited,canceled").returncode == 0
    assert_same_results(top / "outputs/sweep/limit", top / "outputs/sweep/default-limit")


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("hydra.launcher.partition=mian", "is not a partition here; did you mean main? the cluster has: main, short."),
        ("hydra.launcher.gpus_per_node=h100:1", "partition main has no GPU of type h100; it has: a100."),
        ("hydra.launcher.gpus_per_node=4", "is more than partition main has: 1 on a node."),
        ("hydra.launcher.cpus_per_task=64", "is more than partition main has: 2 cores on a node."),
        ("hydra.launcher.constraint=fast", "Invalid feature specification; change hydra.launcher.*"),
        ("hydra.launcher.partition=short", "hydra.launcher.timeout_min=60 is more than partition short has: 10"),
        ("hydra.launcher.timeout_min=2", "hydra.launcher.timeout_min=2 may leave a run no time"),
        ("hydra.launcher.cpus_per_task=0", "hydra.launcher.cpus_per_task=0 must be a number > 0."),
        ("hydra.launcher.signal_delay_s=-5", "hydra.launcher.signal_delay_s=-5 must be a number > 0."),
        ("+hydra.launcher.additional_parameters.job_name=x", "additional_parameters.job_name: the launcher itself"),
        ("hydra.launcher.mem_gb=100", "hydra.launcher.mem_gb=100.0 is more than partition main has: 9.76562 GB"),
    ],
)
def test_what_the_cluster_cannot_run_is_refused(typed: str, answer: str, top: Path) -> None:
    done = sweep(top, "refused", "loss=gan", "hydra/launcher=slurm", typed)
    assert done.returncode == 2
    assert answer in done.stderr and done.stderr.count("\n") == 1
    assert not (top / "outputs/sweep/refused").exists()


def test_more_runs_than_an_array_may_have_go_in_batches(top: Path) -> None:
    many = ("loss=gan", "seed=range(19)", "hydra/launcher=slurm")
    refused = sweep(top, "many", *many)
    assert refused.returncode == 2 and refused.stderr.startswith("19 runs are more than an array of this cluster")
    advised = re.search(r"hydra\.sweeper\.max_batch_size=18", refused.stderr)
    assert advised
    next_mistake = sweep(top, "many", *many, advised[0], "hydra.launcher.constraint=fast")
    assert next_mistake.returncode == 2 and "Invalid feature specification" in next_mistake.stderr
    assert not (top / "outputs/sweep/many").exists()


def test_batches_are_arrays_of_their_own(top: Path) -> None:
    done = sweep(top, "batches", "loss=gan,hinge", "hydra/launcher=slurm", "hydra.sweeper.max_batch_size=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Slurm job ") == 2 and done.stdout.count("1 run;") == 2
    assert len(list(top.glob("outputs/sweep/batches/*/status.json"))) == 2


def test_a_silent_controller_is_named(top: Path, tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=none\nSlurmctldHost=localhost\nSlurmctldPort=1\nMessageTimeout=1\n"
    )
    done = ganbench(
        *("-m", *SMOKE, "loss=gan", "name=silent", "hydra/launcher=slurm"),
        cwd=top,
        SLURM_CONF=str(tmp_path / "slurm.conf"),
    )
    assert done.returncode == 2 and done.stderr.startswith("Slurm does not answer: "), done.stderr
