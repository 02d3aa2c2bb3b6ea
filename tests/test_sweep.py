"""A real sweep on the command line: one run fails, one is killed, one diverges, the others do not notice."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest
import torch
from conftest import DYING_LOSSES, PATIENCE, REPOSITORY, RING, add_losses, ganbench, report, rows, settings, until

from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import concurrent_runs
from ganbench.sweeps.processes import Failure, _receive_failure

pytestmark = pytest.mark.slow

OWN_LOSSES = f"""
{DYING_LOSSES}
class Raises(GAN):
    def d(self, real, fake):
        if len(real) <= 4:  # asked before the first step
            return super().d(real, fake)
        raise RuntimeError("a <b>loss</b> of my own went wrong")
"""


def test_a_sweep_does_not_wait_for_what_a_run_leaves_behind() -> None:
    """A process that a run has forked holds the other end of the pipe for as long as it lives."""
    receiver, sender = Pipe(duplex=False)
    assert _receive_failure(receiver) is None
    sender.send(Failure(refused=False, message="why"))
    assert _receive_failure(receiver) == Failure(refused=False, message="why")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    top = tmp_path_factory.mktemp("sweep")
    add_losses(top, OWN_LOSSES)
    small = ("experiment=smoke", "device=cpu", "model.width=8", "protocol.images=640")
    arguments = ("loss=raises,killed,explodes,gan,hinge", "seed=0", *small, "name=mixed")
    done = ganbench("--config-dir", "mine", "-m", *arguments, cwd=top)
    return top / "outputs/sweep/mixed", done


def statuses(folder: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/status.json")}


def test_each_run_ends_in_its_own_way(sweep: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, _ = sweep
    found = statuses(folder)
    assert {name: s["status"] for name, s in found.items()} == {
        "raises-s0": "failed",
        "killed-s0": "failed",
        "explodes-s0": "diverged",
        "gan-s0": "finished",
        "hinge-s0": "finished",
    }
    assert found["raises-s0"]["reason"] == "RuntimeError: a <b>loss</b> of my own went wrong"
    assert "own_losses.py" in found["raises-s0"]["traceback"]
    assert found["killed-s0"]["reason"] == "killed by signal 9"
    when = "at generator update 0, critic update 0, 32 real images"
    assert found["explodes-s0"]["reason"] == f"g_loss was nan {when}"


def test_the_exit_code_and_the_summary_name_them(sweep: tuple[Path, subprocess.CompletedProcess]) -> None:
    _, done = sweep
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert "2 finished, 1 diverged, 2 failed" in output
    assert done.stdout.endswith("Report: python -m ganbench.report outputs/sweep/mixed\n")
    tail = output[output.rindex("2 finished, 1 diverged, 2 failed") :]
    assert all(name in tail for name in ("raises-s0", "killed-s0: failed (killed by signal 9)", "explodes"))
    assert tail.count("retry=true") == 2  # the two that failed


def test_a_lone_divergence_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    arguments = (*RING, "loss=wgan", "penalty=none", "optimizer.lr=1e30", "name=d")
    assert ganbench(*arguments, cwd=tmp_path).returncode == 3
    done = ganbench("-m", *arguments, "seed=0,1", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout.count("wgan-s0, wgan-s1: diverged (") == 1  # for the same reason, in one line


# Two of four runs at a time, of hours each.
ENDLESS = ("-m", *RING, "seed=0,1,2,3", "sweep.parallel=2", "protocol.images=64000000", "checkpoint_every=1000000")


def training(folder: Path) -> bool:
    """Whether a run of this sweep has updated its players."""
    return any("d_loss" in file.read_text() for file in folder.glob("*/metrics.jsonl"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_sweep_takes_its_runs_with_it(
    number: signal.Signals, code: int, start: Callable[..., subprocess.Popen], tmp_path: Path
) -> None:
    process, folder = start(*ENDLESS, "name=cut", cwd=tmp_path), tmp_path / "outputs/sweep/cut"
    until(lambda: training(folder), process)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    found = statuses(folder)
    assert 1 <= len(found) <= 2
    assert {s["status"] for s in found.values()} == {"interrupted"}


def test_a_killed_sweep_leaves_nothing_running(start: Callable[..., subprocess.Popen], tmp_path: Path) -> None:
    process, folder = start(*ENDLESS, "name=cut", cwd=tmp_path), tmp_path / "outputs/sweep/cut"
    until(lambda: training(folder), process)
    process.kill()
    process.communicate(timeout=PATIENCE)  # until the last process that has its standard error open has ended
    assert {s["status"] for s in statuses(folder).values()} == {"running"}


STUCK = """
import pathlib, time

pathlib.Path("importing").touch()
time.sleep(1e6)
"""


def test_a_sweep_killed_while_its_server_imports_leaves_nothing_running(
    start: Callable[..., subprocess.Popen], tmp_path: Path
) -> None:
    """What the server imports, and the sweep's own process does not, never ends here."""
    (tmp_path / "stuck/tqdm").mkdir(parents=True)
    (tmp_path / "stuck/tqdm/__init__.py").write_text(STUCK)
    process = start(*ENDLESS, "name=cut", cwd=tmp_path, PYTHONPATH=str(tmp_path / "stuck"))
    until((tmp_path / "importing").exists, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL


# Python imports this module in every process. It writes down each composition of a run's settings and each check of
# them: in the process of the command, and in those that are forked from the server; not in the server, which has none.
WATCH = """
import os, sys

COMMAND = sys.orig_argv[1:3] == ["-m", "ganbench"]
WATCHED = {
    "load_sweep_config": os.path.join("_internal", "config_loader_impl.py"),
    "validate": os.path.join("config", "validate.py"),
}

def watch(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_name in WATCHED and code.co_filename.endswith(WATCHED[code.co_name]):
        with open("calls", "a") as file:
            file.write(f"{'command' if COMMAND else 'run'} {code.co_name}\\n")

if COMMAND:
    sys.setprofile(watch)
else:
    os.register_at_fork(after_in_child=lambda: sys.setprofile(watch))
"""
ONE_TRIAL = ("dataset=ring", "protocol=tuned-2d", "protocol.trials=1", "seed=3")


@pytest.mark.parametrize(
    ("typed", "command_composes", "command_checks", "run_checks"),
    [
        (("seed=0,1",), 1, 1, 2),  # the second differs in a number alone
        # This launcher composes each run again, and makes it in the same process.
        (("seed=0,1", "hydra/launcher=basic", "hydra.sweeper.max_batch_size=1"), 1 + 2, 1 + 2, 0),
        # The trial, and the final run before and after its settings are chosen.
        (ONE_TRIAL, 3, 3, 2),
    ],
    ids=["processes", "basic", "tuned"],
)
def test_each_run_is_composed_and_checked_once_and_checked_again_in_its_own_process(
    typed: tuple[str, ...], command_composes: int, command_checks: int, run_checks: int, tmp_path: Path
) -> None:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    short = ("protocol.images=160", "protocol.evaluations=1", "name=once")
    done = ganbench("-m", *RING, *typed, *short, cwd=tmp_path, PYTHONPATH=str(tmp_path / "watch"))
    assert done.returncode == 0, done.stderr
    assert Counter((tmp_path / "calls").read_text().splitlines()) == +Counter(
        {
            "command load_sweep_config": command_composes,
            "command validate": command_checks,
            "run validate": run_checks,
        }
    )


def inspect(run: Path) -> list[dict]:
    """Return the records of an offline W&B run, as W&B's own tool reads them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def test_every_run_is_its_own_run_at_wandb(sweep: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, _ = sweep
    mirrors = {p.parent.parent.name: p for p in folder.glob("*/wandb/offline-run-*")}
    assert len(mirrors) == 5
    ids = {statuses(folder)[name]["wandb_id"] for name in mirrors}
    assert len(ids) == 5
    kinds = Counter()
    for name in ("gan-s0", "hinge-s0", "raises-s0", "explodes-s0"):
        records = inspect(mirrors[name])
        text = json.dumps(records)
        assert statuses(folder)[name]["wandb_id"] in text
        assert '"mixed"' in text  # the group
        for tag in (name.split("-")[0], "mnist5k", "fd_lenet", "equal"):
            assert f'"{tag}"' in text
        kinds[name] = text.count("d_grad_norm")
        if name in ("gan-s0", "hinge-s0"):
            for key in (
                "d_loss",
                "g_loss",
                "d_real",
                "d_fake",
                "g_grad_norm",
                "fd_lenet",
                "t_images_per_second",
                "samples",
            ):
                assert key in text
            lines = (folder / name / "metrics.jsonl").read_text().splitlines()
            assert text.count('"history"') >= len(lines)
    assert kinds["raises-s0"] == 0 < kinds["gan-s0"]


def test_the_report_names_them_too(sweep: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, _ = sweep
    done = report(folder)
    assert "raises-s0: failed (RuntimeError: a <b>loss</b>" in done.stdout
    page = (folder / "report.html").read_text()
    assert "a &lt;b&gt;loss&lt;/b&gt; of my own" in page and "<b>loss</b>" not in page
    table = {row["folder"]: row for row in csv.DictReader((folder / "results.csv").open())}
    assert table["killed-s0"]["status"] == "failed" and table["killed-s0"]["final"] == ""
    assert float(table["gan-s0"]["final"]) == pytest.approx(statuses(folder)["gan-s0"]["score"], rel=1e-9)


def test_what_a_sweep_varies_is_in_the_folders_names(tmp_path: Path) -> None:
    arguments = (*RING, "loss=wgan-gp", "penalty.weight=1,10", "protocol.images=160", "name=w")
    done = ganbench("-m", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "outputs/sweep/w").iterdir() if p.is_dir())
    assert names == [f"wgan-gp-penalty.weight={w}-s0" for w in (1, 10)]


RING_NOW = (*RING, "protocol.images=160", "protocol.evaluations=1", "loss=gan", "name=w")


def test_names_of_folders_are_those_of_the_same_sweep_with_more_seeds(tmp_path: Path) -> None:
    (tmp_path / "it's (1)").mkdir()
    for seeds in ("seed=0", "seed=0,1"):
        done = ganbench("-m", *RING_NOW, seeds, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert folders(tmp_path) == ["gan-s0", "gan-s1"]
    assert "(1 already done)" in done.stdout


def test_a_run_is_not_made_again_under_a_name_that_says_more(tmp_path: Path) -> None:
    assert ganbench("-m", *RING_NOW, cwd=tmp_path).returncode == 0
    refused = ganbench("-m", *RING_NOW, "dataset=ring,grid", cwd=tmp_path)
    assert refused.returncode == 2
    assert "w/gan-s0 is the run that gan-dataset=ring-s0 would be" in refused.stderr
    other = ganbench("-m", *RING_NOW, "protocol.lr=0.1", cwd=tmp_path)
    assert other.returncode == 2 and "w/gan-s0 contains a run with protocol.lr=0.002, not 0.1" in other.stderr
    assert folders(tmp_path) == ["gan-s0"]


def test_a_sweep_of_budgets_may_get_more_of_them(tmp_path: Path) -> None:
    sweep = (*RING, "protocol.evaluations=1", "loss=gan", "name=w")
    for budgets in ("protocol.images=160,320", "protocol.images=320,480"):
        done = ganbench("-m", *sweep, budgets, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "(1 already done)" in done.stdout
    assert folders(tmp_path) == [f"gan-protocol.images={images}-s0" for images in (160, 320, 480)]


def test_a_list_of_one_value_is_in_the_names_and_quotes_are_not(tmp_path: Path) -> None:
    """Names depend on nothing but the command line, so not on how many options a glob matches."""
    for name in ("it's (1)", "b c"):
        (tmp_path / name).mkdir()
    swept = ("dataset=glob(folde*)", "dataset.root=it's (1),b c", "protocol.lr=1e-3,0.1")
    shown = ganbench("-m", "loss=gan", *swept, "name=w", "device=cpu", "--cfg", "job", cwd=tmp_path)
    names = [line.removeprefix("--- # ") for line in shown.stdout.splitlines() if line.startswith("---")]
    rates = (0.001, 0.1)
    expected = [
        f"gan-dataset.root={root},dataset=folder,protocol.lr={lr}-s0" for root in ("its (1)", "b c") for lr in rates
    ]
    assert names == expected, shown.stderr


def folders(top: Path) -> list[str]:
    return sorted(p.name for p in (top / "outputs/sweep/w").iterdir() if p.is_dir())


def test_as_many_side_by_side_as_there_is_room_for_and_each_as_it_would_be_alone(tmp_path: Path) -> None:
    cores, found = len(os.sched_getaffinity(0)), {}
    for name, how in (("auto", "sweep.parallel=auto"), ("one", "sweep.parallel=1")):
        done = ganbench("-m", *RING, "loss=gan,wgan-gp", how, f"name={name}", cwd=tmp_path)
        at_once = min(2, cores) if name == "auto" else 1
        assert f"2 runs, {at_once} at a time" in done.stdout, done.stderr
        found[name] = {p.name: rows(p) for p in (tmp_path / f"outputs/sweep/{name}").iterdir() if p.is_dir()}
    assert found["auto"] == found["one"] and len(found["auto"]) == 2
    assert concurrent_runs([Job((), settings(f"threads={cores}"), tmp_path, None)], None) == 1
    ganbench(*RING, "loss=wgan-gp", "name=alone", cwd=tmp_path)
    assert rows(tmp_path / "outputs/run/alone") == found["auto"]["wgan-gp-s0"]


ROOM = """
import sys
from ganbench.sweeps.processes import torch_finds_gpu

if __name__ == "__main__":
    print(torch_finds_gpu(), "torch" in sys.modules)
"""


def test_a_sweep_looks_for_a_gpu_without_torch(tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text(ROOM)
    found = subprocess.run(
        [sys.executable, "room.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    has_gpu, torch_is_here = found.stdout.split()
    assert torch_is_here == "False" and has_gpu == str(torch.cuda.is_available())


def test_a_sweep_that_is_refused_at_once_waits_for_nothing(tmp_path: Path) -> None:
    """Nor does whoever reads what it says: the server that imports torch for its runs is not there yet."""
    imports = ("-X", "importtime")
    refusal = ganbench("-m", "loss=gan", "seed=0,1", "protocol.lr=-1", "name=no", cwd=tmp_path, flags=imports)
    assert refusal.returncode == 2 and "protocol.lr=-1" in refusal.stderr
    assert "| torch\n" not in refusal.stderr


def test_a_library_that_cannot_be_imported_ends_the_sweep(tmp_path: Path) -> None:
    """With another error than ImportError, after which the server of its runs cannot go on."""
    (tmp_path / "broken/tqdm").mkdir(parents=True)
    (tmp_path / "broken/tqdm/__init__.py").write_text("raise OSError('a broken library')\n")
    done = ganbench("-m", *RING, "seed=0,1", "name=no", cwd=tmp_path, PYTHONPATH=str(tmp_path / "broken"))
    assert done.returncode == 1 and "OSError: a broken library" in done.stderr
