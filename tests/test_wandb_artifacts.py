"""A finished run's generator is an artifact where that is asked for, once; and nothing that is sent names a user."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RING, ganbench
from safetensors.torch import load
from wandb_server import KEY, Server

from ganbench.runs import checkpoint
from ganbench.runs.wandb_privacy import shown_folder, without_names

pytestmark = pytest.mark.slow

SHORT = (*(setting for setting in RING if setting != "wandb=disabled"), "protocol.images=128", "protocol.evaluations=1")
SECRET = "do-not-write-me-down"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of a user, with a repository of theirs and the folder that they work in."""
    home = tmp_path / "home/alice-b"
    work = home / "work"
    work.mkdir(parents=True)
    for command in (["init", "-q"], ["remote", "add", "origin", "https://example.org/alice-b/gans"]):
        subprocess.run(["git", *command], cwd=work, check=True)
    return home


def known(server: Server, home: Path) -> dict[str, str]:
    return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HOME": str(home), "SECRET_TOKEN": SECRET}


def sync(run: Path, server: Server, home: Path) -> None:
    done = ganbench("sync", str(run), cwd=home, module="ganbench.runs.wandb_mirror", **known(server, home))
    assert done.returncode == 0, done.stderr


def aliases(artifact: dict) -> set[str]:
    return {alias["alias"] for alias in artifact["aliases"]}


def status_of(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def test_artifacts_and_what_nothing_names(server: Server, home: Path) -> None:
    arguments = ("-m", "loss=gan", "seed=0,1", *SHORT, "wandb=online", "wandb.artifacts=true", "name=mine")
    done = ganbench(*arguments, cwd=home / "work", **known(server, home))
    assert done.returncode == 0 and "wandb_mirror sync" not in done.stdout, done.stdout
    sweep = home / "work/outputs/sweep/mine"
    best = min(sweep.glob("gan-s*"), key=lambda run: status_of(run)["score"])
    by_run = {artifact["runName"]: artifact for artifact in server.artifacts}
    assert {artifact["artifactCollectionName"] for artifact in server.artifacts} == {"mine-gan-ring"}
    assert len(by_run) == len(server.artifacts) == 2
    assert aliases(by_run[status_of(best)["wandb_id"]]) == {"latest", "best"}
    for run in sweep.glob("gan-s*"):
        artifact = by_run[status_of(run)["wandb_id"]]
        metadata = json.loads(artifact["metadata"])
        assert (artifact["artifactTypeName"], metadata["score"]) == ("model", status_of(run)["score"])
        assert metadata["footing"] == json.loads((run / "footing.json").read_text())["equal"]
        assert all(words in artifact["description"] for words in ("## Settings", "## Footing", "License: MIT"))
        assert status_of(run)["wandb_artifact"]["name"] == "mine-gan-ring"
    uploaded = load(server.files["artifact/generator.safetensors"])
    averages = [checkpoint.load(run)["average"] for run in sweep.glob("gan-s*")]
    assert any(all(bool((uploaded[k] == average[k]).all()) for k in uploaded) for average in averages)
    assert server.files["artifact/README.md"].startswith(b"# gan on ring, seed")
    server.artifacts.clear()
    sync(sweep, server, home)
    assert not server.artifacts

    sent = "\n".join(server.bodies) + "\n".join(file.decode("latin-1") for file in server.files.values())
    assert "outputs/sweep/mine/gan-s0" in sent and "system.cpu" in sent.replace("proc.", "")
    for name in ("alice-b", SECRET, "SECRET_TOKEN", KEY, str(home), sys.executable):
        assert name not in sent, sent[sent.index(name) - 200 :][:300]
    host = status_of(best)["host"]
    assert f'"{host}"' not in sent and f'\\"{host}\\"' not in sent
    assert {asked.get("host") for asked in server.upserted} == {None}
    assert not {asked.get("repo") for asked in server.upserted} - {None, ""}


def test_an_offline_run_uploads_its_artifact_when_it_is_synced(server: Server, home: Path) -> None:
    arguments = ("loss=gan", *SHORT, "wandb=offline", "wandb.artifacts=true", "name=off")
    done = ganbench(*arguments, cwd=home / "work", **known(server, home))
    assert done.returncode == 0, done.stderr
    run = home / "work/outputs/run/off"
    assert status_of(run)["wandb_artifact"]["mode"] == "offline" and not server.artifacts
    written = next(run.glob("wandb/offline-run-*/*.wandb")).read_bytes()
    assert b"off-gan-ring" in written and b"example.org" not in written and SECRET.encode() not in written
    moved = Path(shutil.copytree(run, home / "moved"))
    sync(moved, server, home)
    sync(moved, server, home)
    assert len(server.artifacts) == 1
    assert aliases(server.artifacts[0]) == {"latest", "best"}
    shutil.rmtree(moved / "artifact")
    (moved / "status.json").write_text(json.dumps(status_of(run)))
    for damaged in moved.glob("checkpoints/step-*.pt"):
        damaged.write_bytes(b"")
    failed = ganbench("sync", str(moved), cwd=home, module="ganbench.runs.wandb_mirror", **known(server, home))
    assert failed.returncode == 1 and "cannot be exported" in failed.stderr and "Traceback" not in failed.stderr
    assert server.summaries[status_of(moved)["wandb_id"]]["status"] == "finished"


def test_a_users_home_and_name_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/bob")
    monkeypatch.setenv("LOGNAME", "bob")
    typed = {"root": "/home/bob/photos", "seed": 1, "other": ["/home/bobby/x", "/data/bob/y", "bob"], "none": None}
    sent = {"root": "~/photos", "seed": 1, "other": ["/home/bobby/x", "/data/USER/y", "bob"], "none": None}
    assert without_names(typed) == sent
    monkeypatch.chdir(tmp_path)
    assert shown_folder(tmp_path / "outputs/run/a") == "outputs/run/a"
    assert shown_folder(Path("/elsewhere/run/a")) == "a"
