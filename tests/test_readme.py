"""What README.md tells people to type and write works as written."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest
from conftest import REPOSITORY, ganbench
from scipy.stats import ttest_ind
from test_fuzz import cases
from test_refusals import BAD

from ganbench.bench.steps import EVERYWHERE
from ganbench.report.statistics import iqm

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[3:]
    for line in README.splitlines()
    if line.startswith("python -m ganbench ") and " -m " not in line[10:]
]


def block(start: str) -> str:
    """The fenced block whose text starts so."""
    return next(text for text in re.findall(r"```\w*\n(.*?)```", README, re.DOTALL) if text.startswith(start))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_compose(command: list[str], tmp_path: Path) -> None:
    shown = ganbench(*command, "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


SWEEPS = [
    shlex.split(line, comments=True)[3:] for line in README.splitlines() if line.startswith("python -m ganbench -m ")
]


@pytest.mark.parametrize("command", SWEEPS, ids=" ".join)
def test_sweeps_compose(command: list[str], tmp_path: Path) -> None:
    """Every run of a sweep has been composed and checked by the time that a bad launcher is refused."""
    refusal = ganbench(*command, "hydra.launcher.n_jobs=0", cwd=tmp_path)
    assert refusal.stderr.startswith("hydra.launcher.n_jobs=0 is out of range"), refusal.stderr


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) >= 4 and len(SWEEPS) >= 2


@pytest.mark.parametrize(("column", "dataset"), [(1, "ring"), (2, "grid"), (3, "mnist5k")])
def test_the_scores_shown_are_those_of_the_runs(column: int, dataset: str) -> None:
    """The benchmark's table against the interquartile means of what lies in outputs/reference."""
    finals: dict[str, list[float]] = {}
    with (REPOSITORY / f"outputs/reference/{dataset}.csv").open() as file:
        for row in csv.DictReader(file):
            finals.setdefault(row["method"], []).append(float(row["final"]))
    table = README[README.index("| method | ring | grid | mnist5k |") :].split("\n\n")[0].splitlines()[2:8]
    shown = {
        cells[1]: float(cells[1 + column].split()[0].strip("*")) for cells in (re.split(r" ?\| ?", r) for r in table)
    }
    assert shown == {method: float(f"{iqm(scores):.3g}") for method, scores in finals.items()}
    assert all(len(scores) == 10 for scores in finals.values())


def test_a_loss_of_ones_own_and_its_generator_again(tmp_path: Path) -> None:
    (tmp_path / "options/loss").mkdir(parents=True)
    (tmp_path / "options/loss/relaxed.yaml").write_text(block("# options/loss/relaxed.yaml"))
    (tmp_path / "mine.py").write_text(block("# mine.py"))
    own = ("--config-dir", "options", "loss=relaxed")
    done = ganbench(*own, "experiment=smoke", "wandb=disabled", "name=own", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = ganbench(*own, "loss.temperature=hot", cwd=tmp_path)
    assert refused.returncode == 2 and "loss.temperature=hot does not fit: allowed is float" in refused.stderr
    several = ganbench(*own[:2], "-m", own[2], "loss.temperature=1,2", "hydra.launcher.n_jobs=0", cwd=tmp_path)
    assert several.stderr.startswith("hydra.launcher.n_jobs=0 is out of range"), several.stderr
    again = block("from omegaconf import OmegaConf").replace("outputs/sweep/mine/wgan-gp-s0", "outputs/run/own")
    script = again + "import torch\nprint(tuple(G.eval()(torch.zeros(5, 64)).shape))\n"
    command = [sys.executable, "-c", script]
    out = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert out.stdout == "(5, 1, 32, 32)\n", out.stderr


def test_the_refusal_shown_is_the_one_given(tmp_path: Path) -> None:
    shown = block("$ python -m ganbench").splitlines()
    refusal = ganbench(*shlex.split(shown[0])[4:], cwd=tmp_path)
    assert refusal.stderr.splitlines() == shown[1:]


def test_the_last_soak_is_the_one_told() -> None:
    told = json.loads((REPOSITORY / "outputs/reference/soak.json").read_text())
    assert told["differ"] == [] and told["kills"] >= 1000
    words = f"`make soak` at `{told['commit']}`: {told['kills']:,} kills of {told['runs']} runs of the six methods, "
    words += f"{told['inside_a_save']} of them inside a save, and {told['signals']} signals: no bit differs"
    assert words in README and f"{told['contests']} contests for one folder" in README


def test_as_many_wrong_command_lines_as_told() -> None:
    assert f"{len(BAD)} command lines" in README and sum(1 for _ in cases()) > 2000


def reference(name: str) -> dict:
    return json.loads((REPOSITORY / f"outputs/reference/{name}.json").read_text())


def test_the_steps_told_are_those_that_were_timed() -> None:
    told = reference("bench")
    assert f"`{told['commit']}`, one core" in README
    for line in told["steps"]:
        times = [f"{line[way]['times_faster']:.2f}" for way in EVERYWHERE]
        textbook = f"{1000 * line['seconds']['textbook']:.0f} ms"
        assert f"| {' | '.join([line['model'], line['method'], textbook, *times])} |" in README
        for name in [name for name in line["seconds"] if "mimicry" in name]:
            assert f"{name}, on the same residual nets" in README
            assert f"is {line[name]['times_faster']:.2f} times as fast as the textbook" in README


def test_so_is_what_runs_take_beside_their_steps() -> None:
    told = reference("bench")
    for dataset, sweep in told["sweep"].items():
        rates = [str(sweep["runs_per_hour"][way]) for way in ("all", "one", "auto")]
        more = [f"{min(times):.2f} to {max(times):.2f}" for times in (sweep["times_all"], sweep["times_one"])]
        assert f"| {' | '.join([dataset, *rates, *more])} |" in README
    assert f"comes {told['start']['first_step']:.1f} s after the command" in README
    share = told["evaluation"]
    assert f"takes {share['mnist5k']:.3f} of the training time" in README
    assert f"{share['stacked_mnist5k']:.3f} on" in README and max(share.values()) < 0.055
    assert f"{share['ring']:.3f} on ring and {share['grid']:.3f} on grid" in README


def test_bf16_stays_within_the_spread_of_seeds_as_told() -> None:
    told = reference("precision")
    assert f"(`{told['commit']}`; [each seed]" in README
    order, moved, chances = [], [], []
    for precision in ("fp32", "bf16", "bf16_all"):
        means = {method: mean(scores[precision]) for method, scores in told["scores"].items()}
        order.append(sorted(means, key=means.get))
        for method, scores in told["scores"].items():
            assert f"{means[method]:.2f} ± {stdev(scores[precision]):.2f} |" in README.split(f"| {method} |")[-1]
            moved.append(abs(means[method] - mean(scores["fp32"])) / stdev(scores["fp32"]))
            chances.append(ttest_ind(scores[precision], scores["fp32"], equal_var=False).pvalue)
    assert order[0] == order[1] == order[2]
    assert f"the smallest of twelve p is {min(chances):.2f})" in README and min(chances) > 0.1
    assert f"moves by {max(moved):.2f} times the standard deviation of its fp32 runs" in README
