"""What clusters and containers make of TMPDIR, HOME and a process's surroundings."""

import os
import re
import socket
from pathlib import Path

import pytest
from conftest import RING, TINY, ganbench, launch

from ganbench.files import ensure_home

SHORT = (*RING, "protocol.images=64", "protocol.evaluations=1")
FROM_SCRATCH = ("-B",)  # a flag for Python, so that TMPDIR is read anew


@pytest.mark.slow
def test_a_sweep_needs_no_short_tmpdir(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(long / "pymp-12345678/listener-12345678"))
    done = ganbench("-m", *SHORT, "seed=0,1", "name=long", cwd=tmp_path, flags=FROM_SCRATCH, TMPDIR=str(long))
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/dev/null", None], ids=["no folder", "unset"])
def test_a_run_without_a_home_is_quiet_and_keeps_its_features(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B, its own process and the features of real data all write into the home."""
    for name in ("GANBENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/caches")
    if home:
        monkeypatch.setenv("HOME", home)
    done = ganbench(*TINY, "wandb=offline", "name=homeless", cwd=tmp_path, TMPDIR=str(tmp_path), flags=FROM_SCRATCH)
    assert done.returncode == 0
    lines = (done.stdout + done.stderr).splitlines()
    assert lines and all(re.match(r"\d\d:\d\d:\d\d gan-s0 \| ", line) for line in lines), lines
    assert "cannot" not in done.stdout and "Weights" not in done.stdout
    assert list(tmp_path.glob("ganbench-*/ganbench/*.safetensors"))
    assert list(tmp_path.glob("outputs/run/homeless/wandb/offline-run-*"))


def test_caches_stay_where_they_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    ensure_home()
    assert "XDG_CACHE_HOME" not in os.environ and os.environ["HOME"] == str(tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    ensure_home()
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "other")
    assert not list(tmp_path.glob("ganbench-*"))


def test_another_users_folder_of_that_name_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"ganbench-{os.getuid()}").symlink_to(tmp_path / "theirs")
    ensure_home()
    chosen = Path(os.environ["XDG_CACHE_HOME"])
    assert chosen.parent == tmp_path and not chosen.is_symlink() and chosen.name not in ("theirs", "null")


@pytest.mark.slow
def test_torchrun_is_refused_and_its_variables_elsewhere_are_not(tmp_path: Path) -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1"}
    refusal = ganbench(*SHORT, "name=ranks", cwd=tmp_path, WORLD_SIZE="4", **torchrun)
    assert (refusal.returncode, refusal.stdout) == (2, "") and not (tmp_path / "outputs").exists()
    assert refusal.stderr.startswith("torchrun started 4 processes (WORLD_SIZE=4)") and refusal.stderr.count("\n") == 1
    assert ganbench(*SHORT, "name=alone", cwd=tmp_path, WORLD_SIZE="1", **torchrun).returncode == 0
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}
    assert ganbench(*SHORT, "name=slurm", cwd=tmp_path, **slurm).returncode == 0


@pytest.mark.parametrize(
    ("module", "arguments", "unbuffered", "code"),
    [
        ("ganbench", ["--help"], "1", 141),
        ("ganbench", ["--help"], "", 0),  # all of it is written at the end
        pytest.param("ganbench", [*SHORT, "name=unread"], "", 0, marks=pytest.mark.slow),
        pytest.param("ganbench.conformance", [*RING, "loss=gan"], "1", 141, marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_left_costs_no_traceback(
    module: str, arguments: list[str], unbuffered: str, code: int, tmp_path: Path
) -> None:
    process = launch(*arguments, cwd=tmp_path, module=module, flags=FROM_SCRATCH, PYTHONUNBUFFERED=unbuffered)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == code
