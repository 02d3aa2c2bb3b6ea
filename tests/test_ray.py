"""Sweeps on a real Ray cluster, of two nodes on this machine: run by `make cluster-test`, skipped everywhere else."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_results import assert_same_results, statuses, wait_for
from conftest import DYING_LOSSES, RAISING_LOSS, RING, add_losses, end, ganbench, launch

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LOSSES = f"""
{DYING_LOSSES}{RAISING_LOSS}
import time


class Slow(GAN):
    def d(self, real, fake):
        if any(name.startswith("RAY_") for name in os.environ):  # not with the launcher that it is compared with
            time.sleep(0.3)
        return super().d(real, fake)
"""
SMOKE = (*RING, "protocol.images=3840", "--config-dir", "mine")
MEMORY = 100_000_000  # of a node's store of objects, in bytes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a core each; the second can be removed."""
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    yield nodes
    nodes.shutdown()


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with losses of a user's own."""
    return add_losses(tmp_path_factory.mktemp("work"), LOSSES)


def test_a_node_is_lost_in_the_middle(cluster: Any, top: Path) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    losses = ("loss=slow,raises,killed,gan", "seed=0,1")
    typed = ("-m", *SMOKE, *losses, "name=x", "hydra/launcher=ray", f"hydra.launcher.address={cluster.address}")
    process = launch(*typed, cwd=top)
    try:
        wait_for(lambda: all(has_trained(top / f"outputs/sweep/x/slow-s{seed}") for seed in (0, 1)))
        cluster.remove_node(second, allow_graceful=False)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        end(process)
    assert process.returncode == 1, stderr
    assert "4 finished, 4 failed" in stdout
    output = stdout + stderr
    assert "raises-s0, raises-s1: failed (RuntimeError: a loss of my own went wrong); rerun with retry=true" in output
    assert "killed-s0, killed-s1: failed (killed by signal 9); rerun with retry=true" in output
    folders = [top / f"outputs/sweep/x/slow-s{seed}" for seed in (0, 1)]
    assert sum("resumed" in json.loads((folder / "status.json").read_text()) for folder in folders) == 1

    again = ganbench(*typed, cwd=top)
    assert again.returncode == 1 and "8 runs (8 already done)" in again.stdout
    assert ganbench("-m", *SMOKE, *losses, "name=default", cwd=top).returncode == 1
    assert_same_results(top / "outputs/sweep/x", top / "outputs/sweep/default")


def test_runs_end_with_their_launcher(cluster: Any, top: Path) -> None:
    """They save, and the same command goes on."""
    typed = ("-m", *SMOKE, "loss=slow", "name=y", "hydra/launcher=ray", f"hydra.launcher.address={cluster.address}")
    process = launch(*typed, cwd=top)
    try:
        wait_for(lambda: has_trained(top / "outputs/sweep/y/slow-s0"))
        process.terminate()
        assert process.wait(timeout=60) == 143
    finally:
        end(process)
    wait_for(lambda: statuses(top / "outputs/sweep/y") == {"slow-s0": "interrupted"})
    done = ganbench(*typed, cwd=top)
    assert done.returncode == 0 and "1 finished" in done.stdout, done.stderr
    assert json.loads((top / "outputs/sweep/y/slow-s0/status.json").read_text())["resumed"][0]["images"] > 0


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("hydra.launcher.num_gpus=4", "hydra.launcher.num_gpus=4 is more than a node of the Ray cluster has: 0."),
        ("hydra.launcher.num_cpus=nan", "hydra.launcher.num_cpus=nan must be 0, or a number >= 0.0001."),
        ("hydra.launcher.num_cpus=-1", "hydra.launcher.num_cpus=-1 must be 0, or a number >= 0.0001."),
        ("hydra.launcher.num_cpus=64", "hydra.launcher.num_cpus=64 is more than a node of the Ray cluster has: 1."),
        ("hydra.launcher.accelerator_type=H100", "hydra.launcher.accelerator_type=H100: the cluster has none."),
        ("hydra.launcher.address=127.0.0.1:1", "hydra.launcher.address=127.0.0.1:1: there is no Ray cluster"),
    ],
)
def test_what_the_cluster_cannot_run_is_refused(typed: str, answer: str, cluster: Any, top: Path) -> None:
    done = refused(f"hydra.launcher.address={cluster.address}", typed, cwd=top)
    assert done.returncode == 2
    assert answer in done.stderr and done.stderr.count("\n") == 1
    assert not (top / "outputs/sweep/refused").exists()


def test_what_no_single_node_has_is_refused(cluster: Any, top: Path) -> None:
    """One node has two cores, another one a GPU: a run that asks for both would wait for ever."""
    nodes = [
        cluster.add_node(num_cpus=2, object_store_memory=MEMORY),
        cluster.add_node(num_cpus=1, num_gpus=2, object_store_memory=MEMORY),
    ]
    address = f"hydra.launcher.address={cluster.address}"
    both = refused(address, "hydra.launcher.num_cpus=2", "hydra.launcher.num_gpus=1", cwd=top)
    parts = refused(address, "hydra.launcher.num_gpus=1.5", cwd=top)
    for node in nodes:
        cluster.remove_node(node)
    assert both.returncode == 2 and both.stderr.count("\n") == 1
    assert "hydra.launcher.num_cpus=2 and hydra.launcher.num_gpus=1; ask for less of one." in both.stderr
    assert parts.returncode == 2 and "hydra.launcher.num_gpus=1.5 must be a whole number" in parts.stderr
    assert not (top / "outputs/sweep/refused").exists()


def refused(*typed: str, cwd: Path) -> subprocess.CompletedProcess:
    return ganbench("-m", *SMOKE, "loss=gan", "name=refused", "hydra/launcher=ray", *typed, cwd=cwd)


def has_trained(run: Path) -> bool:
    """Tell whether the run has trained for more than a few updates."""
    file = run / "metrics.jsonl"
    return file.exists() and '"d_loss"' in file.read_text()
