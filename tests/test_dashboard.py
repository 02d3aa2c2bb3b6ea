"""A sweep's workspace and report at W&B are built from its folder, saved once, and replaced the next time."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from conftest import RING, ganbench
from wandb_server import KEY, Server

pytestmark = pytest.mark.slow

FILE = "dashboard.json"
NOWHERE = "http://127.0.0.1:9"
SETTINGS = (
    "protocol=tuned-2d",
    "protocol.trials=2",
    "protocol.images=128",
    "protocol.evaluations=1",
    "probe=vanishing",
)
TINY_PROBE = ("probe.steps=2", "probe.n=32", "protocol.log_every=1")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two methods at two seeds, and the trials that chose their settings."""
    top = tmp_path_factory.mktemp("dashboard")
    arguments = ("loss=gan,wgan-gp", "seed=4,5", *RING, *SETTINGS, *TINY_PROBE, "name=mine")
    done = ganbench("-m", *arguments, cwd=top)
    assert done.returncode == 0, done.stderr
    return top / "outputs/sweep/mine"


@pytest.fixture(scope="module")
def dry_run(tuned: Path) -> CompletedProcess:
    """The command that builds the views without any server."""
    return dashboard(tuned, "--dry-run", WANDB_API_KEY="")


@pytest.fixture
def sweep(tuned: Path, tmp_path: Path) -> Path:
    """The sweep without a dashboard."""
    return Path(shutil.copytree(tuned, tmp_path / "mine", ignore=shutil.ignore_patterns(FILE)))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        server.shutdown()


def dashboard(*arguments: str | Path, server: Server | None = None, **environment: str) -> CompletedProcess:
    known = {"WANDB_BASE_URL": server.url if server else NOWHERE, "WANDB_API_KEY": KEY} | environment
    return ganbench(*map(str, arguments), cwd=Path("/"), module="ganbench.dashboard", **known)


def views(sweep: Path) -> dict[tuple[str, str], dict]:
    content = json.loads((sweep / FILE).read_text())
    return {(view["kind"], view["name"]): view["spec"] for view in content["views"]}


def panels_of(workspace: dict) -> dict[str, list[dict]]:
    """Return the panels of a workspace's sections."""
    return {s["name"]: s["panels"] for s in workspace["section"]["panelBankConfig"]["sections"]}


def ids_shown(runset: dict) -> set[str]:
    [condition] = runset["filters"]["filters"]
    assert (condition["key"], condition["op"]) == ({"section": "run", "name": "name"}, "IN")
    return set(condition["value"])


def ids_in(folder: Path) -> set[str]:
    return {json.loads(file.read_text())["wandb_id"] for file in folder.glob("*/status.json")}


def test_the_specification_has_what_the_report_has(tuned: Path, dry_run: CompletedProcess) -> None:
    assert (dry_run.returncode, dry_run.stderr) == (0, ""), dry_run.stderr
    assert dry_run.stdout == f"Wrote {tuned / FILE}; nothing was sent.\n"
    built = views(tuned)
    assert list(built) == [
        ("workspace", "ganbench mine"),
        ("workspace", "ganbench mine trials"),
        ("report", "ganbench mine"),
    ]
    workspace, trials, _ = built.values()
    assert ids_shown(workspace["section"]["runSets"][0]) == ids_in(tuned)
    assert ids_shown(trials["section"]["runSets"][0]) == ids_in(tuned / "trials")
    panels = panels_of(workspace)
    curves = [p["config"] for p in panels["Scores"] + panels["Losses and gradients"] if "Line" in p["viewType"]]
    drawn = {(curve["xAxis"], *curve["metrics"]) for curve in curves}
    assert drawn >= {
        ("images", "score"),
        ("time/t_train", "score"),
        ("images", "loss/d_loss"),
        ("images", "loss/g_loss"),
    }
    assert drawn >= {("images", "critic/d_grad_norm"), ("images", "probe/gan_onward_left")}
    bands = {(curve["groupBy"], curve["groupAgg"], curve["groupArea"]) for curve in curves}
    assert bands == {("method.value", "mean", "minmax")}
    bars = [p["config"] for p in panels["Scores"] if p["viewType"] == "Bar Chart"]
    assert [(bar["metrics"], bar.get("groupBy")) for bar in bars] == [(["score"], "method.value"), (["score"], None)]
    [samples] = panels["Samples of the same latents"]
    assert samples["config"]["mediaKeys"] == ["samples"]
    assert samples["config"]["gridSettings"] == {"xAxis": "step", "yAxis": "run"}
    parallel = panels_of(trials)["Trials"][0]["config"]["columns"]
    accessors = [column["accessor"] for column in parallel]
    assert (accessors[0], accessors[-1]) == ("config:method.value", "summary:score")
    assert "config:protocol.value.lr" in accessors
    assert panels["Compare runs"][0]["viewType"] == "Run Comparer"


def test_the_report_says_what_the_page_says(tuned: Path, dry_run: CompletedProcess) -> None:
    [report] = [spec for (kind, _), spec in views(tuned).items() if kind == "report"]
    texts = [block["content"] for block in report["blocks"] if block["type"] == "markdown-block"]
    page = ganbench(str(tuned), cwd=tuned, module="ganbench.report").stdout
    assert all(sentence in page for sentence in texts[0].split("\n\n")[:2])
    footing = json.loads(next(tuned.glob("*/footing.json")).read_text())["equal"]
    assert f"| train_data | {footing['train_data']} |" in texts[-1] and f"| batch | {footing['batch']} |" in texts[-1]
    grids = [block["metadata"] for block in report["blocks"] if block["type"] == "panel-grid"]
    assert [ids_shown(grid["runSets"][0]) for grid in grids[:1] + grids[-1:]] == [
        ids_in(tuned),
        ids_in(tuned / "trials"),
    ]


def without_ids(spec: object) -> object:
    """Return a specification without what is random in it, or known only to a server."""
    if isinstance(spec, dict):
        return {key: without_ids(value) for key, value in spec.items() if key not in ("id", "__id__", "project")}
    return [without_ids(item) for item in spec] if isinstance(spec, list) else spec


def test_saving_twice_replaces(tuned: Path, dry_run: CompletedProcess, sweep: Path, server: Server) -> None:
    built = [without_ids(spec) for spec in views(tuned).values()]
    first, again = dashboard(sweep, server=server), dashboard(sweep, server=server)
    assert (first.returncode, first.stderr) == (0, ""), first.stderr
    assert again.stdout == first.stdout and first.stdout.count(f"{server.url}/me/ganbench") == 3
    assert [view["type"] for view in server.views.values()] == ["project-view", "project-view", "runs"]
    assert [without_ids(json.loads(view["spec"])) for view in server.views.values()] == built
    assert not server.created
    server.views.clear()  # as if they were deleted at W&B
    anew = dashboard(sweep, server=server, WANDB_ENTITY="nobody")
    assert anew.returncode == 0 and len(server.views) == 3, anew.stderr
    assert dashboard(sweep, "--entity", "team", server=server).returncode == 0
    assert {view["entityName"] for view in server.views.values()} == {"me", "team"} and len(server.views) == 6


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("key", 2, "wandb login --relogin"),
        ("rights", 2, "may not save to me/ganbench"),
        ("project", 2, "me/ganbench is no project at W&B"),
        ("old", 2, "is too old for saved workspaces"),
        ("offline", 2, "wandb_mirror sync"),
        ("no key", 2, "No API key configured"),
        ("network", 1, "127.0.0.1:9 cannot be reached"),
    ],
)
def test_what_wandb_refuses_is_one_sentence(fault: str, code: int, words: str, sweep: Path, server: Server) -> None:
    server.fault = fault
    server.known_runs = 0 if fault == "offline" else 100
    environment = {"WANDB_API_KEY": "", "HOME": str(sweep)} if fault == "no key" else {}
    done = dashboard(sweep, server=None if fault == "network" else server, **environment)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not server.views and not server.created and not (sweep / FILE).exists()


def test_what_is_no_sweep_is_refused(sweep: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    unfinished = Path(shutil.copytree(sweep, tmp_path / "unfinished"))
    for file in unfinished.glob("*/status.json"):
        status = json.loads(file.read_text())
        file.write_text(json.dumps(status | {"status": "diverged", "score": None}))
    foreign = Path(shutil.copytree(sweep, tmp_path / "foreign"))
    (foreign / FILE).write_text('{"panels": []}')
    wrong = [
        (dashboard(tmp_path / "nothing"), "is not a folder"),
        (dashboard(empty, "--dry-run"), "has no run to compare"),
        (dashboard(unfinished, "--dry-run"), "has no finished run"),
        (dashboard(tmp_path, "--dry-run"), "is a folder of several sweeps"),
        (dashboard(foreign, "--dry-run"), "is not a dashboard of ganbench"),
        (dashboard(sweep, "--dryrun"), "--help shows"),
    ]
    for done, words in wrong:
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert words in done.stderr and done.stderr.count("\n") == 1
    assert (foreign / FILE).read_text() == '{"panels": []}' and not (unfinished / FILE).exists()


def test_each_dataset_has_its_own(sweep: Path) -> None:
    for run in list(sweep.glob("*-s5")):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["dataset"]["name"] = "grid"
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        footing = json.loads((run / "footing.json").read_text())
        footing["equal"]["dataset"] = "grid"
        (run / "footing.json").write_text(json.dumps(footing))
    (sweep / FILE).write_text(json.dumps({"made_by": "python -m ganbench.dashboard", "urls": {"kept": "there"}}))
    done = dashboard(sweep, "--dry-run")
    assert done.returncode == 0, done.stderr
    shown = {n: ids_shown(s["section"]["runSets"][0]) for (k, n), s in views(sweep).items() if k == "workspace"}
    ids = {run.name: json.loads((run / "status.json").read_text())["wandb_id"] for run in sweep.glob("*-s[45]")}
    assert shown["ganbench mine grid"] == {id for name, id in ids.items() if name.endswith("s5")}
    assert shown["ganbench mine ring"] == {id for name, id in ids.items() if name.endswith("s4")}
    assert json.loads((sweep / FILE).read_text())["urls"] == {"kept": "there"}
