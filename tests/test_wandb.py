"""With Weights & Biases unreachable, dying, hanging or out of disk a run is the same, and can be sent later."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import wandb
from conftest import PATIENCE, REPOSITORY, ganbench, rows, settings, until
from omegaconf import OmegaConf
from wandb_server import Server

from ganbench.runs import checkpoint, wandb_rows
from ganbench.runs.status import write_status
from ganbench.runs.wandb_mirror import CONNECT_TIMEOUT, Address, WandbMirror, can_connect
from ganbench.runs.wandb_rows import gradient_ratios

pytestmark = pytest.mark.slow

KEY, SECRET = "f4ce" * 10, "do-not-write-me-down"
RUN = ("experiment=smoke", "dataset=ring", "loss=gan", "device=cpu", "probe=vanishing", "protocol.images=5120")
RUN = (*RUN, "probe.steps=4", "probe.n=64")
NOWHERE = "http://127.0.0.1:9"
SENT_LATER = "python -m ganbench.runs.wandb_mirror sync"


def kill_its_core(cwd: Path, written: Path) -> None:
    """SIGKILL the wandb-core process of a run in `cwd` as soon as the run has written its first lines."""
    until(lambda: written.exists() and written.read_text().count("\n") > 2)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if "wandb-core" in (process / "cmdline").read_text() and (process / "cwd").resolve() == cwd:
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def full_disk(folder: Path) -> bool:
    """Mount 64 KiB there, if we may: less than the pictures of a run need."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


class Case:
    """A run under one fault."""

    def __init__(self, name: str, top: Path, *arguments: str, **environment: str) -> None:
        (top / name).mkdir()
        self.folder = top / name / "outputs/run" / name
        keys = {"WANDB_API_KEY": KEY, "SECRET_TOKEN": SECRET}
        self.mounted = name == "full" and full_disk(self.folder / "wandb")
        if name == "killed":
            watch = (top / name, self.folder / "metrics.jsonl")
            threading.Thread(target=kill_its_core, args=watch, daemon=True).start()
        self.done = ganbench(*RUN, *arguments, f"name={name}", cwd=top / name, **keys, **environment)
        self.warnings = (self.done.stdout + self.done.stderr).count(SENT_LATER)
        if self.mounted:
            subprocess.run(["umount", str(self.folder / "wandb")], check=True)


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """Addresses where nobody answers: at all, after a connection, after a run has begun."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, Server(mute=True) as mute:
        yield {"unreachable": NOWHERE, "deaf": f"http://127.0.0.1:{deaf.getsockname()[1]}", "mute": mute.url}


@pytest.fixture(scope="module")
def cases(urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """One run for each fault, at the same time: most of what they do is to wait."""
    top = tmp_path_factory.mktemp("mirror")
    with ThreadPoolExecutor(4) as pool:
        running = {
            name: pool.submit(Case, name, top, f"wandb={'online' if url else name}", WANDB_BASE_URL=url or NOWHERE)
            for name, url in (urls | {"offline": None, "disabled": None}).items()
        }
        running |= {name: pool.submit(Case, name, top) for name in ("killed", "full")}
        return {name: case.result() for name, case in running.items()}


@pytest.mark.parametrize("name", ["offline", "unreachable", "deaf", "mute", "killed", "full"])
def test_the_run_is_the_same(name: str, cases: dict[str, Case]) -> None:
    case, alone = cases[name], cases["disabled"]
    if name == "full" and not case.mounted:
        pytest.skip("no right to mount")
    assert case.done.returncode == 0, case.done.stderr
    assert rows(case.folder) == rows(alone.folder)
    for player in ("G", "D", "average"):
        there, here = (checkpoint.load(c.folder)[player] for c in (alone, case))
        assert all(torch.equal(there[k], here[k]) for k in there)
    output = case.done.stdout + case.done.stderr
    assert "Traceback" not in output and "Logging error" not in output
    assert case.warnings == (name != "offline"), output
    assert json.loads((case.folder / "status.json").read_text())["status"] == "finished"


MIRROR = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from ganbench.runs.wandb_mirror import WandbMirror
mirror = WandbMirror(Path(sys.argv[2]), OmegaConf.load(sys.argv[1]))
mirror.log({"images": 0, "d_loss": 1.0})
mirror.finish(0)
print(mirror.warned)
"""


def timed_mirror(run: Path, out: Path, **environment: str) -> tuple[float, subprocess.CompletedProcess]:
    """Return how long a mirror takes with a run's settings, from before the import of W&B until after its exit."""
    out.mkdir()
    shutil.copy(run / "config.yaml", out)
    command = [sys.executable, "-c", MIRROR, run / "config.yaml", out]
    known = {"PYTHONPATH": str(REPOSITORY), "WANDB_API_KEY": KEY}
    start = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | known | environment, capture_output=True, text=True, timeout=PATIENCE
    )
    return time.monotonic() - start, done


@pytest.mark.parametrize("name", ["unreachable", "deaf", "mute"])
def test_an_outage_costs_20_seconds_at_most(
    name: str, urls: dict[str, str], cases: dict[str, Case], tmp_path: Path
) -> None:
    usual, _ = timed_mirror(cases["offline"].folder, tmp_path / "offline")  # what this machine needs in any case
    seconds, done = timed_mirror(cases[name].folder, tmp_path / name, WANDB_BASE_URL=urls[name])
    assert seconds < 20 + 3 * usual  # CONNECT_TIMEOUT, INIT_TIMEOUT and FINISH_TIMEOUT together are 17
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.count("\n") == done.stderr.count(SENT_LATER) == 1, done.stderr


def test_no_key_and_no_environment_in_any_record(cases: dict[str, Case]) -> None:
    files = [f for name in ("unreachable", "mute") for f in cases[name].folder.rglob("*") if f.is_file()]
    assert {".wandb", ".log", ".yaml", ".jsonl"} <= {f.suffix for f in files}
    for secret in (KEY, SECRET):
        assert not [f for f in files if secret.encode() in f.read_bytes()]


def sync(*runs: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ganbench.runs.wandb_mirror", "sync", *map(str, runs)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "WANDB_API_KEY": KEY} | environment,
        cwd=runs[0].parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def history(run: Path) -> list[dict]:
    """The history of the only offline W&B run in a run's folder, as W&B's own tool reads it, in its order."""
    [segment] = run.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(segment)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    entries = [json.loads(line) for line in out.splitlines() if line.startswith('{"num"')]
    return [entry["history"]["item"] for entry in entries if entry["type"] == "history"]


def assert_mirrored(run: Path, sent: list[dict]) -> None:
    """Every record of the folder was sent once, in the row of its images, in order and with its values."""
    expected = wandb_rows.rows(run)
    assert [item["_step"] for item in sent] == [row["images"] for row in expected] == sorted(images_of(run))
    assert sum("samples" in r for r in expected) == 3 and any("probe/" in k for r in expected for k in r)
    for row, item in zip(expected, sent, strict=True):
        assert {k: v for k, v in row.items() if k != "samples" and not isinstance(v, dict)}.items() <= item.items()
        for key, value in row.items():
            if isinstance(value, dict):
                drawn = item[key] if key in item else {part: item[f"{key}.{part}"] for part in ("_type", "values")}
                assert drawn["_type"] == "histogram" and drawn["values"] == value["counts"]
        assert ("samples" in row) == any(k.startswith("samples") for k in item)
        assert ("score" in row) == ("samples" in row) == ("critic/logits_real" in row)
        if "score" in row:  # what a curve of scores is drawn against
            assert row["score"] == row["score/energy_distance"] and row["generator/updates"] == row["images"] / 32
            assert (row["time/t_train"] > 0) == (row["images"] > 0)


def images_of(run: Path) -> set[int]:
    lines = [line for name in ("metrics", "probes") for line in (run / f"{name}.jsonl").read_text().splitlines()]
    return {json.loads(line)["images"] for line in lines}


def test_live_and_synced_runs_are_the_same(cases: dict[str, Case], tmp_path: Path) -> None:
    """Offline: read back from the run itself, from one that died, and from one that never had a mirror."""
    assert_mirrored(cases["offline"].folder, history(cases["offline"].folder))
    runs = [Path(shutil.copytree(cases[name].folder, tmp_path / name)) for name in ("killed", "disabled")]
    done = sync(*runs, WANDB_MODE="dryrun")  # W&B's former word for offline
    assert done.returncode == 0 and done.stdout.count("written for `wandb sync`") == 2, done.stderr
    for run in runs:
        status = json.loads((run / "status.json").read_text())
        [segment] = run.glob(f"wandb/offline-run-*-{status['wandb_id']}")
        assert_mirrored(run, history(run))
        for word in ("score_best", "images_per_second", "finished", "reference/", "method", "gan", "ring", "equal-2d"):
            assert word.encode() in next(segment.glob("*.wandb")).read_bytes()


def test_sync_sends_only_what_the_server_does_not_have(cases: dict[str, Case]) -> None:
    server, run = Server(), cases["mute"].folder
    for known in (0, 2):
        del server.history[known:]
        server.received = 0
        done = sync(run, WANDB_BASE_URL=server.url)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert_mirrored(run, [json.loads(line) for line in server.history])
        assert server.received == len(wandb_rows.rows(run)) - known
    server.shutdown()


def places(server: Server) -> set[tuple[str, str, str]]:
    """Return the id, project and entity of all that runs asked the server for."""
    return {(asked["name"], asked["project"], asked["entity"]) for asked in server.upserted}


def test_an_agents_run_is_online_and_is_synced_to_where_wandb_put_it(tmp_path: Path) -> None:
    server, run = Server(), tmp_path / "outputs/sweep/sweep1/agent"
    agent = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "agentrun", "WANDB_PROJECT": "ganbench", "WANDB_ENTITY": "me"}
    known = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    done = ganbench(*RUN[:4], "protocol.images=640", "name=agent", cwd=tmp_path, **agent, **known)
    assert done.returncode == 0, done.stderr
    assert places(server) == {("agentrun", "ganbench", "me")}
    status = json.loads((run / "status.json").read_text())
    assert [status[f"wandb_{part}"] for part in ("id", "project", "entity")] == ["agentrun", "ganbench", "me"]
    assert status["wandb_url"] == f"{server.url}/me/ganbench/runs/agentrun"
    write_status(run, {key: value for key, value in status.items() if key != "wandb_url"})
    server.upserted.clear()
    assert sync(run, WANDB_BASE_URL=server.url, WANDB_PROJECT="other", WANDB_ENTITY="another").returncode == 0
    assert places(server) == {("agentrun", "ganbench", "me")}
    assert json.loads((run / "status.json").read_text()) == status
    server.shutdown()


def test_a_resumed_run_is_mirrored_without_gap_or_repetition(cases: dict[str, Case], tmp_path: Path) -> None:
    run = Path(shutil.copytree(cases["offline"].folder, tmp_path / "run"))
    everything, id = wandb_rows.rows(run), json.loads((run / "status.json").read_text())["wandb_id"]
    first = everything[2]["images"]  # that W&B does not have
    files = [*run.glob("*.jsonl"), *run.glob("samples/*.png")]
    whole = {file: file.read_bytes() for file in files}
    for file in files:  # as they are cut back to the checkpoint
        if file.suffix == ".png":
            file.unlink() if int(file.stem) >= first else None
        else:
            lines = whole[file].splitlines(keepends=True)
            file.write_bytes(b"".join(line for line in lines if json.loads(line)["images"] < first))
    mirror = WandbMirror(run, settings(*RUN), Address(id, "ganbench", None))
    for file, content in whole.items():
        file.write_bytes(content)
    for record in sorted(wandb_rows._records(run), key=lambda record: record["images"]):
        if record["images"] >= first:
            mirror.log(record)
    mirror.finish(0)
    assert (mirror.address.id, mirror.warned) == (id, False)
    wandb.teardown()
    assert_mirrored(run, history(run))


def test_a_row_that_will_be_recorded_again_is_not_sent_in_part(tmp_path: Path) -> None:
    """A run that was stopped in an evaluation has a checkpoint before the losses that are logged with it."""
    cfg = settings("dataset=ring", "experiment=smoke", "wandb=offline")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    mirror = WandbMirror(tmp_path, cfg)
    for images in (0, 256, 512):
        mirror.log({"images": images, "d_loss": 1.0})
    mirror.finish(1, saved_images=512)
    wandb.teardown()
    assert [item["_step"] for item in history(tmp_path)] == [0, 256]


def test_every_value_has_a_section() -> None:
    named = {key: wandb_rows.name_at_wandb(key) for key in ("d_loss", "g_saturated", "recall", "recall_raw", "fid_inf")}
    assert list(named.values()) == [
        "loss/d_loss",
        "generator/g_saturated",
        "diversity/recall",
        "diversity/recall_raw",
        "score/fid_inf",
    ]


def test_the_summary_ranks_runs(cases: dict[str, Case]) -> None:
    """The table sorted by `score` is the ranking, whatever the data; what diverged has none."""
    run = cases["offline"].folder
    found = wandb_rows.summary(run)
    status = json.loads((run / "status.json").read_text())
    scores = [row["energy_distance"] for row in rows(run) if "energy_distance" in row]
    assert (found["score"], found["score_best"]) == (status["score"], min(scores)) and found["status"] == "finished"
    assert found["seconds"] == status["t_train"] and found["reference/energy_distance"] > 0
    assert json.dumps(found)


def test_sync_says_what_is_wrong(cases: dict[str, Case], tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(cases["disabled"].folder, tmp_path / "damaged"))
    (damaged / "metrics.jsonl").write_text("{]\n")
    no_run = damaged / "samples"
    run, start = cases["disabled"].folder, time.monotonic()
    sync(no_run)
    usual = time.monotonic() - start
    wrong = [
        (sync(run, no_run), 2, f"{no_run}/status.json has no wandb_id"),
        (sync(run, damaged), 2, f"{damaged} cannot be read"),
        (sync(run, WANDB_MODE="disabled"), 2, "WANDB_MODE=disabled"),
        (sync(run, WANDB_API_KEY="short"), 2, "40+ characters"),
        (sync(run, WANDB_BASE_URL=NOWHERE), 1, f"{NOWHERE} cannot be reached"),
    ]
    assert time.monotonic() - start < 60 + 10 * usual
    for done, code, words in wrong:
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr and done.stderr.count("\n") == 1
        assert "later" not in done.stderr
    assert not (run / "wandb").exists()


def test_three_runs_in_one_process_are_three_at_wandb(tmp_path: Path) -> None:
    arguments = ("hydra/launcher=basic", "seed=0,1,2", "protocol.images=640", "probe=none", "name=three")
    done = ganbench("-m", *RUN[:4], *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "outputs/sweep/three").glob("*/status.json"))
    ids = {json.loads(status.read_text())["wandb_id"] for status in runs}
    assert len(ids) == 3
    for status in runs:
        assert history(status.parent)[-1]["_step"] == 640


def test_an_unknown_host_and_a_closed_port_do_not_answer() -> None:
    start = time.monotonic()
    assert not can_connect("no-such-host.invalid", 443) and not can_connect("127.0.0.1", 9)
    assert time.monotonic() - start < 4 * CONNECT_TIMEOUT
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert can_connect("127.0.0.1", server.getsockname()[1])


def test_gradient_ratios_are_relative_to_the_first_row_of_each_probe() -> None:
    row = {"loss": "gan", "critic": "onward"}
    norms = [(0, 2.0), (0, 1.0), (9, 4.0), (9, 2.0), (9, None)]
    ratios = [
        r.get("probe/gan_onward_left") for r in gradient_ratios(row | {"images": i, "g_norm": n} for i, n in norms)
    ]
    assert ratios == [1.0, 0.5, 1.0, 0.5, None]
