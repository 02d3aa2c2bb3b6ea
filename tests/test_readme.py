"""What the READMEs tell people to type works as written, and what a command writes into them is up to date."""

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tables
from conftest import PATIENCE, REPOSITORY, ganbench

from ganbench.config.compose import option_names
from ganbench.config.schema import CONF

README = REPOSITORY / "README.md"
REFERENCE = REPOSITORY / "outputs/reference"
DOCUMENTS = [
    README,
    *(REPOSITORY / folder / "README.md" for folder in ("conf", "outputs", "outputs/reference")),
    *sorted((REPOSITORY / "ganbench").rglob("README.md")),
]


def blocks(file: Path) -> list[str]:
    """The text of every fenced block."""
    return re.findall(r"^```\w*\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def block(file: Path, start: str) -> str:
    return next(text for text in blocks(file) if text.startswith(start))


def typed(start: str) -> list[list[str]]:
    """The arguments of every command that begins so, in any document, but for those with options of one's own."""
    lines = [line for file in DOCUMENTS for text in blocks(file) for line in text.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith(start)]
    unique = dict.fromkeys(tuple(command[3:]) for command in commands)
    return [list(arguments) for arguments in unique if "--config-dir" not in arguments]


SWEEPS = typed("python -m ganbench -m ")
RUNS = [arguments for arguments in typed("python -m ganbench ") if arguments not in SWEEPS]


def test_there_are_commands_to_test() -> None:
    assert len(RUNS) >= 4 and len(SWEEPS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS, ids=" ".join)
def test_commands_compose(command: list[str], tmp_path: Path) -> None:
    shown = ganbench(*command, "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", SWEEPS, ids=" ".join)
def test_sweeps_compose(command: list[str], tmp_path: Path) -> None:
    """Every run of a sweep has been composed and checked by the time that a bad launcher is refused."""
    refusal = ganbench(*command, "hydra.launcher.n_jobs=0", cwd=tmp_path)
    assert refusal.returncode == 2 and refusal.stderr.startswith("hydra.launcher.n_jobs=0"), refusal.stderr


@pytest.mark.slow
def test_generated_parts_are_up_to_date(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """`make tables` would change nothing. This also holds the tables of results against the recorded runs."""
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 0, capsys.readouterr().out


@pytest.mark.slow
def test_own_loss_and_its_generator(tmp_path: Path) -> None:
    """The loss of README trains, its settings are checked and swept, and outputs/README's lines load its generator."""
    shutil.copytree(REPOSITORY / "tests/examples/loss", tmp_path, dirs_exist_ok=True)
    own = ("--config-dir", "options", "loss=relaxed")
    done = ganbench(*own, "experiment=smoke", "wandb=disabled", "name=own", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = ganbench(*own, "loss.temperature=hot", cwd=tmp_path)
    assert refused.returncode == 2 and refused.stderr == "loss.temperature=hot must be a number.\n"
    several = ganbench(*own[:2], "-m", own[2], "loss.temperature=1,2", "hydra.launcher.n_jobs=0", cwd=tmp_path)
    assert several.returncode == 2 and several.stderr.startswith("hydra.launcher.n_jobs=0"), several.stderr
    again = block(REPOSITORY / "outputs/README.md", "from ganbench.trained.folder")
    again = again.replace("outputs/sweep/mine/wgan-gp-s0", "outputs/run/own")
    # In evaluation mode a sample does not depend on the others of its batch.
    script = again + "import torch\nz = torch.randn(5, 64)\nx = G(z)\n"
    script += "print(tuple(x.shape), torch.allclose(x[:2], G(z[:2]), atol=1e-6))\n"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", script]
    out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert out.stdout == "(5, 1, 32, 32) True\n", out.stderr


@pytest.mark.slow
def test_refusals_shown_are_the_ones_given(tmp_path: Path) -> None:
    """A block that begins with `$ python -m ganbench` shows a command and what it answers."""
    shown = [
        text.splitlines() for file in DOCUMENTS for text in blocks(file) if text.startswith("$ python -m ganbench ")
    ]
    assert shown
    for command, *answer in shown:
        refusal = ganbench(*shlex.split(command)[4:], cwd=tmp_path)
        assert refusal.stderr.splitlines() == answer


def test_readme_stays_short() -> None:
    assert len(README.read_text(encoding="utf-8")) <= 12_000


@pytest.mark.parametrize("group", sorted({file.parent.name for file in CONF.glob("*/*.yaml")}))
def test_every_option_is_listed(group: str) -> None:
    listed = set(re.findall(r"`(?:\w+=)?([\w/-]+)`", (CONF / "README.md").read_text(encoding="utf-8")))
    assert set(option_names(group)) <= listed


def test_recorded_results_show_what_is_claimed() -> None:
    """Ten seeds of six methods, a crash test that lost nothing, and evaluation at about a twentieth of training."""
    for dataset in ("ring", "grid", "mnist5k"):
        with (REFERENCE / f"{dataset}.csv").open(encoding="utf-8") as file:
            counts = Counter(row["method"] for row in csv.DictReader(file))
        assert len(counts) == 6 and set(counts.values()) == {10}
    soak = json.loads((REFERENCE / "soak.json").read_text())
    assert soak["differ"] == [] and soak["kills"] >= 1000
    bench = json.loads((REFERENCE / "bench.json").read_text())
    assert max(bench["evaluation"].values()) < 0.055


MAP = REPOSITORY / "ganbench/README.md"


def test_the_map_names_functions_that_exist() -> None:
    """Each mention of the form `folder/file.py` `name` or `folder/file.py` `Class.name`."""
    mentions = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", MAP.read_text(encoding="utf-8"))
    assert len(mentions) >= 20
    lost = [f"{file} {name}" for file, name in mentions if name not in defined(MAP.parent / file)]
    assert lost == []


def defined(file: Path) -> set[str]:
    """Functions, classes and methods (as Class.method) of a file."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names
