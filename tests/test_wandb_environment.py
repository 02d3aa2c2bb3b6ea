"""W&B's environment variables count where nothing is typed, and none of its settings makes another run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, RING, ganbench, settings
from omegaconf import OmegaConf

from ganbench.config.validate import validate
from ganbench.runs import wandb_rows
from ganbench.runs.wandb_mirror import LONGEST_NAME, display_name

pytestmark = pytest.mark.slow

SHORT = (*RING, "protocol.images=64", "protocol.evaluations=1")
SHORT = tuple(setting for setting in SHORT if setting != "wandb=disabled")
VARIABLES = {
    "WANDB_MODE": "disabled",
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "team",
    "WANDB_RUN_GROUP": "group",
    "WANDB_NAME": "shown",
    "WANDB_TAGS": "night, second",
    "WANDB_NOTES": "a try",
    "WANDB_DIR": "elsewhere",
}
SETTINGS = {
    "mode": "disabled",
    "project": "theirs",
    "entity": "team",
    "group": "group",
    "name": "shown",
    "tags": ["night", "second"],
    "notes": "a try",
    "dir": "elsewhere",
    "artifacts": False,
}
DEFAULTS = dict.fromkeys(SETTINGS) | {"mode": "offline", "project": "ganbench", "tags": [], "artifacts": False}
OF_AGENT = DEFAULTS | {"group": "sweep1"}
AGENT = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "agentrun", "WANDB_PROJECT": "agents", "WANDB_ENTITY": "team"}


def composed(cwd: Path, *typed: str, **environment: str) -> dict:
    """Return the settings of W&B that a command line has."""
    shown = ganbench(*typed, "--cfg", "job", "--resolve", "-p", "wandb", cwd=cwd, **environment)
    assert shown.returncode == 0, shown.stderr
    return yaml.safe_load(shown.stdout)


@pytest.mark.parametrize(
    ("typed", "environment", "expected"),
    [
        ((), {}, DEFAULTS),
        ((), VARIABLES, SETTINGS),
        ((), dict.fromkeys(VARIABLES, ""), DEFAULTS),
        (("wandb=offline", "wandb.project=mine", "wandb.tags=[one]"), VARIABLES, None),
        ((), {"WANDB_SWEEP_ID": "sweep1"}, OF_AGENT | {"mode": "online"}),
        ((), {"WANDB_SWEEP_ID": "sweep1", "WANDB_MODE": "offline"}, OF_AGENT),
        ((), {"WANDB_SWEEP_ID": "sweep1", "WANDB_MODE": "dryrun"}, OF_AGENT),
        ((), {"WANDB_MODE": "run"}, DEFAULTS | {"mode": "online"}),
        (("wandb=disabled",), {"WANDB_SWEEP_ID": "sweep1"}, OF_AGENT | {"mode": "disabled"}),
        (("wandb.mode=disabled",), {"WANDB_SWEEP_ID": "sweep1"}, OF_AGENT | {"mode": "disabled"}),
        (("experiment=search",), {"WANDB_MODE": "online"}, DEFAULTS | {"mode": "disabled"}),
        ((), {"WANDB_DISABLED": "True"}, DEFAULTS | {"mode": "disabled"}),
        ((), {"WANDB_DISABLED": "false"}, DEFAULTS),
    ],
)
def test_variables_count_where_nothing_is_typed(
    typed: tuple[str, ...], environment: dict[str, str], expected: dict | None, tmp_path: Path
) -> None:
    expected = expected or SETTINGS | {"mode": "offline", "project": "mine", "tags": ["one"]}
    assert composed(tmp_path, *typed, **environment) == expected


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("WANDB_MODE", "foo", ["WANDB_MODE=foo must be one of: offline, online, disabled", "unset it"]),
        ("WANDB_MODE", "onlin", ["did you mean online?"]),
        ("WANDB_DISABLED", "maybe", ["WANDB_DISABLED=maybe must be true or false"]),
        ("WANDB_PROJECT", "a/b", ["WANDB_PROJECT=a/b must be", "without /"]),
        ("WANDB_ENTITY", "a/b", ["WANDB_ENTITY=a/b must be", "without slashes"]),
        ("WANDB_RUN_GROUP", "g" * 101, ["WANDB_RUN_GROUP=ggg", "up to 100 bytes"]),
        ("WANDB_TAGS", "fine," + "t" * 65, ["WANDB_TAGS=[fine, ttt", "up to 64 bytes"]),
        ("WANDB_NAME", "n" * 129, ["WANDB_NAME=nnn", "up to 128 bytes"]),
        ("WANDB_NOTES", "n" * 1001, ["WANDB_NOTES=nnn", "up to 1000 characters"]),
        ("WANDB_DIR", "file/below", ["WANDB_DIR=file/below cannot be written"]),
    ],
)
@pytest.mark.parametrize("flag", [(), ("-m",)], ids=["run", "sweep"])
def test_a_bad_variable_is_refused_by_name(
    flag: tuple[str, ...], variable: str, value: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    refusal = ganbench(*flag, *SHORT, cwd=tmp_path, **{variable: value})
    assert (refusal.returncode, refusal.stderr.count("\n")) == (2, 1), refusal.stderr
    assert all(word in refusal.stderr for word in words), refusal.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def offline_run(folder: Path) -> dict:
    """Return what W&B's own tool reads of the only offline run in a folder."""
    [file] = folder.glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    entries = [json.loads(line) for line in out.splitlines() if line.startswith('{"num"')]
    return next(entry["run"] for entry in entries if entry["type"] == "run")


def test_what_is_typed_overrules_a_variable_and_one_line_says_so(tmp_path: Path) -> None:
    typed = ("wandb=offline", "wandb.project=mine", "wandb.tags=[one,gan]", "wandb.notes=why not", "wandb.entity=team")
    done = ganbench(*SHORT, *typed, "name=typed", cwd=tmp_path, **VARIABLES | {"WANDB_NAME": "", "WANDB_DIR": ""})
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if "WANDB_" in line]
    assert re.search(r"wandb.mode=offline overrules WANDB_MODE=disabled; .*project=mine overrules WANDB_PROJECT", line)
    assert "WANDB_NOTES=a try" in line and "WANDB_TAGS=night, second" in line and "WANDB_ENTITY" not in line
    run = offline_run(tmp_path / "outputs/run/typed/wandb")
    assert (run["project"], run["entity"], run["run_group"]) == ("mine", "team", "group")
    assert (run["display_name"], run["job_type"]) == ("typed", "final")
    assert run["tags"] == ["gan", "ring", "energy_distance", "equal-2d", "one"]
    assert run["notes"].startswith("python -m ganbench dataset=ring") and run["notes"].endswith("\n\nwhy not")
    status = json.loads((tmp_path / "outputs/run/typed/status.json").read_text())
    assert (status["wandb_id"], status["wandb_project"]) == (run["run_id"], "mine")


def test_no_setting_of_wandb_makes_another_run(tmp_path: Path) -> None:
    typed = ("-m", *SHORT, "model.critic_norm=layer", "name=swept")
    assert ganbench(*typed, "wandb.project=first", cwd=tmp_path, WANDB_DIR=str(tmp_path / "mirrors")).returncode == 0
    [folder] = (path for path in (tmp_path / "outputs/sweep/swept").iterdir() if path.is_dir())
    assert "wandb" not in folder.name and not (folder / "wandb").exists()
    run = offline_run(tmp_path / "mirrors/wandb")
    assert run["display_name"] == folder.name == "gan-s0"
    other = ("wandb=online", "wandb.project=second", "wandb.tags=[a,b]", "wandb.notes=x", "wandb.name=y", "wandb.dir=z")
    again = ganbench(*typed, *other, cwd=tmp_path, WANDB_ENTITY="team", WANDB_PROJECT="third")
    assert again.returncode == 0 and "(1 already done)" in again.stdout, again.stderr


def test_a_name_that_is_too_long_for_wandb_keeps_its_end() -> None:
    assert display_name("gan-s0") == "gan-s0"
    shown = display_name(f"gan-{'x' * 200}-s17")
    assert len(shown) == LONGEST_NAME and shown.startswith("gan-x") and shown.endswith("x-s17")


def test_trials_and_final_runs_have_job_types(tmp_path: Path) -> None:
    tuned = ("-m", "dataset=ring", "protocol=tuned-2d", "protocol.trials=1", "seed=4", "name=tuned", *SHORT[1:])
    done = ganbench(*tuned, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mirrors = list((tmp_path / "outputs/sweep").glob("**/wandb"))
    assert sorted(offline_run(mirror)["job_type"] for mirror in mirrors) == ["final", "trial"]


def test_an_agents_run_has_the_id_that_wandb_gave_it(tmp_path: Path) -> None:
    done = ganbench(*SHORT, "wandb=offline", "wandb.project=mine", "name=agent", cwd=tmp_path, **AGENT)
    assert done.returncode == 0, done.stderr
    status = json.loads((tmp_path / "outputs/sweep/sweep1/agent/status.json").read_text())
    assert [status[f"wandb_{part}"] for part in ("id", "project", "entity")] == ["agentrun", "agents", "team"]
    assert "wandb_url" not in status
    assert "WANDB_PROJECT=agents overrules wandb.project=mine" in done.stdout


@pytest.mark.parametrize("flag", [("-m",), ("--multirun",), ("hydra.mode=MULTIRUN",)])
def test_a_sweep_in_an_agents_run_is_refused(flag: tuple[str, ...], tmp_path: Path) -> None:
    refusal = ganbench(*flag, *SHORT, "seed=0,1", cwd=tmp_path, **AGENT)
    assert (refusal.returncode, refusal.stderr.count("\n")) == (2, 1), refusal.stderr
    assert "WANDB_SWEEP_ID=sweep1" in refusal.stderr and "leave -m out" in refusal.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_sweep_to_begin_with_asks_for_runs_that_there_are() -> None:
    sweep = yaml.safe_load((REPOSITORY / "conf/wandb-sweep.yaml").read_text())
    for key, parameter in sweep["parameters"].items():
        for value in parameter["values"]:
            cfg = settings(f"{key}={value}", "wandb=disabled")
            validate(cfg)
            assert key == "loss" or OmegaConf.select(cfg, key) == value
    assert sweep["metric"] == {"name": "score", "goal": "minimize"} and sweep["program"] == "ganbench"
    assert wandb_rows.Rows(cfg).part({"images": 0, cfg.metric.name: 1.0})["score"] == 1
    assert sweep["command"][-1] == "${args_no_hyphens}"  # loss=gan, as Hydra reads it
