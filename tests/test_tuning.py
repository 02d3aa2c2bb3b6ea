"""protocol=tuned: the same random trials for every method, chosen on a part of the training data, then fresh seeds."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from conftest import PATIENCE, add_losses, ganbench, report, rows, settings, until
from omegaconf import OmegaConf
from prefork import TORCH_WAS_IMPORTED
from scipy.stats import kstest

from ganbench.datasets import Data, select_evaluation_split
from ganbench.report.load import Run, load_runs
from ganbench.report.tuning import expected_best, expected_best_table, table_of_trials, tables, trials
from ganbench.runs.lock import run_lock
from ganbench.runs.status import read_status
from ganbench.sweeps.tuning import FIRST_TRIAL_SEED, draw_settings

SMALL = ("dataset=ring", "protocol=tuned-2d", "experiment=smoke", "wandb=disabled", "device=cpu")
TYPED = ("-m", *SMALL, "loss=gan,wgan-gp", "seed=3,4", "protocol.trials=2", "hydra.launcher.n_jobs=2")
METHODS = ("gan", "wgan-gp")
TUNED = ("lr", "betas", "n_critic", "penalty_weight")


@pytest.fixture(scope="module")
def space() -> dict:
    return OmegaConf.to_container(settings("protocol=tuned").protocol.space)


def test_a_draw_depends_on_name_and_number_alone(space: dict) -> None:
    first = [draw_settings(space, k) for k in range(40)]
    assert first == [draw_settings(space, k) for k in range(40)]
    assert len({json.dumps(values) for values in first}) == 40
    for key in space:
        assert [values[key] for values in first] == [draw_settings({key: space[key]}, k)[key] for k in range(40)]
    narrower = draw_settings(space | {"lr": {"low": 1e-3, "high": 2e-3}}, 0)
    assert narrower["lr"] != first[0]["lr"] and narrower["penalty_weight"] == first[0]["penalty_weight"]


def test_draws_are_even_where_they_should_be(space: dict) -> None:
    drawn = [draw_settings(space | {"lr": {"low": 1.0, "high": 3.0}}, k) for k in range(2000)]
    weight = np.array([values["penalty_weight"] for values in drawn])
    assert weight.min() >= 0.1 and weight.max() <= 100
    share, plain = np.log(weight / 0.1) / np.log(1000), [(values["lr"] - 1) / 2 for values in drawn]
    assert kstest(share, "uniform").pvalue > 0.01 and kstest(plain, "uniform").pvalue > 0.01
    assert kstest((weight - 0.1) / 99.9, "uniform").pvalue < 1e-9  # what an even draw would look like
    assert abs(np.corrcoef(share, plain)[0, 1]) < 0.06
    for key in ("betas", "n_critic"):
        seen = [json.dumps(values[key]) for values in drawn]
        assert set(seen) == {json.dumps(value) for value in space[key]["of"]}
        assert all(abs(seen.count(value) / 2000 - 1 / 3) < 0.04 for value in set(seen))


def test_draws_have_three_digits_within_their_ends() -> None:
    assert {draw_settings({"lr": {"low": 0.0012345, "high": 0.0012346}}, k)["lr"] for k in range(9)} == {0.0012345}
    assert all(float(f"{(v := draw_settings({'lr': {'low': 1, 'high': 9}}, k)['lr']):.3g}") == v for k in range(99))


def test_the_selection_split_touches_neither_training_nor_test() -> None:
    data = Data(torch.arange(103).view(-1, 1), torch.arange(103, 133).view(-1, 1))
    assert select_evaluation_split(data, "held_out") is data
    split = select_evaluation_split(data, "selection")
    train, chosen = set(split.train.flatten().tolist()), set(split.test.flatten().tolist())
    assert train | chosen == set(range(103)) and len(train) + len(chosen) == 103 and len(chosen) == 20
    assert chosen != set(range(83, 103))  # also where the data are in an order
    assert torch.equal(split.test, select_evaluation_split(data, "selection").test)


def test_the_expected_best_is_that_of_all_choices() -> None:
    scores = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    found = expected_best(scores)
    assert list(found) == [1, 2, 4, 6]
    for n, value in found.items():
        assert value == pytest.approx(fmean(min(some) for some in itertools.combinations(scores, n)), rel=1e-12)
    assert expected_best([2.0, math.inf, 1.0, math.inf]) == {1: None, 2: None, 4: 1.0}
    assert expected_best([math.inf]) == {1: None} and expected_best([]) == {}
    assert list(expected_best(scores[:4])) == [1, 2, 4]


def planted(name: str, trial: int, score: float | None, status: str = "finished") -> Run:
    protocol = {"trial": f"t{trial:03d}", "lr": 0.1 / (trial + 1), "betas": [0.5, 0.9], "n_critic": 1}
    config = {"protocol": protocol | {"penalty_weight": trial}}
    return Run(Path(f"{name}-t{trial:03d}"), status, label=name, config=config, facts={"score": score})


def test_the_table_of_trials() -> None:
    methods = {
        "gan": [planted("gan", 0, 2.0), planted("gan", 1, 1.25)],
        "wgan-gp": [planted("wgan-gp", 0, None, "diverged"), planted("wgan-gp", 1, None)],
    }
    assert table_of_trials(methods) == [
        ["trial", "lr", "penalty_weight", "gan", "wgan-gp"],
        ["t000", "0.1", "0", "2", "diverged"],
        ["t001", "0.05", "1", "**1.25**", "no score"],
    ]
    assert expected_best_table(methods)[1:] == [["gan", "1.62", "1.25"], ["wgan-gp", "–", "–"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("protocol.trials=0", ["protocol.trials=0", "whole number >= 1"]),
        ("protocol.space.lr.low=1", ["protocol.space.lr.low=1", "0.01", "less"]),
        ("protocol.space.lr.low=-1", ["protocol.space.lr.low=-1", "> 0"]),
        ("protocol.space.penalty_weight.low=0", ["penalty_weight.low=0", "logarithm", "> 0"]),
        ("protocol.space.betas.of=[]", ["protocol.space.betas", "[]", "{of: [...]}"]),
        ("protocol.space.betas.of=[[2,3]]", ["protocol.space.betas.of=[2, 3]", "< 1"]),
        ("+protocol.space.images.of=[64]", ["protocol.space.images", "n_critic", "penalty_weight"]),
        ("+protocol.space.n_critic.low=1", ["protocol.space.n_critic.low", "of"]),
        ("protocol.space=null", ["protocol.space", "lr", "betas"]),
        ("protocol.space.n_critic.of=[7]", ["n_critic", "7", "1792"]),
        ("protocol.lr=0.1", ["protocol.lr=0.1", "~protocol.space.lr"]),
        ("protocol.trial=t001", ["protocol.trial=t001", "leave it out"]),
        ("protocol.scored_on=selection", ["protocol.scored_on=selection", "leave it out"]),
        (
            f"seed=0,{FIRST_TRIAL_SEED + 1}",
            [f"seed={FIRST_TRIAL_SEED + 1}", "trial t001", f"{FIRST_TRIAL_SEED} to {FIRST_TRIAL_SEED + 1}"],
        ),
        ("protocol=tuned-2d,equal-2d", ["python -m ganbench -m protocol=tuned-2d"]),
        ("seed=0,0", ["twice"]),
    ],
)
def test_a_bad_search_is_refused_before_anything_is_written(typed: str, named: list[str], tmp_path: Path) -> None:
    small = [part for part in SMALL if not (typed.startswith("protocol=") and part.startswith("protocol="))]
    refusal = ganbench("-m", *small, "protocol.trials=2", typed, cwd=tmp_path, light=True)
    assert refusal.returncode == 2, refusal.stderr
    assert all(word in refusal.stderr for word in named), refusal.stderr
    assert not any(word in refusal.stderr for word in ("Traceback", TORCH_WAS_IMPORTED)), refusal.stderr
    assert list(tmp_path.iterdir()) == []


FAKE_SLURM = {  # a cluster of this machine alone, whose arrays may have four runs
    "sinfo": "echo 'main*|60:00|64|100000|(null)|'$(uname -n | cut -d. -f1)",
    "scontrol": "echo MaxArraySize = 5",
    "sbatch": "true",
    "squeue": "true",
}


def test_final_runs_that_slurm_would_refuse_are_refused_before_the_trials(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for command, script in FAKE_SLURM.items():
        (tmp_path / "bin" / command).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / command).chmod(0o755)
    typed = ("-m", *SMALL, "protocol.trials=1", "loss=gan", "seed=range(6)", "hydra/launcher=slurm")
    refusal = ganbench(*typed, cwd=tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert refusal.returncode == 2, refusal.stderr
    assert refusal.stderr.startswith("6 runs are more than an array of this cluster may have"), refusal.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.slow
def test_a_single_run_is_refused_with_a_command_that_works(tmp_path: Path) -> None:
    refusal = ganbench("protocol=tuned", cwd=tmp_path)
    assert refusal.returncode == 2 and len(refusal.stderr.splitlines()) == 1
    assert "python -m ganbench -m protocol=tuned loss=" in refusal.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was never stopped."""
    top = tmp_path_factory.mktemp("tuned")
    done = ganbench(*TYPED, "name=whole", cwd=top)
    assert done.returncode == 0, done.stderr
    return top / "outputs/sweep/whole"


def runs(folder: Path) -> dict[str, dict]:
    """The configuration of each run, by its folder's path; not of those set aside."""
    found = [p.parent for p in folder.rglob("config.yaml") if not p.parent.name.startswith(".")]
    return {str(p.relative_to(folder)): OmegaConf.to_container(OmegaConf.load(p / "config.yaml")) for p in found}


def picked(config: dict) -> dict:
    return {key: config["protocol"][key] for key in TUNED}


def bytes_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Of every file of a run."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent != folder]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.mark.slow
def test_every_method_has_the_same_trials(whole: Path) -> None:
    found = runs(whole)
    trials = {f"trials/{method}-t00{k}" for method in METHODS for k in (0, 1)}
    assert set(found) == trials | {f"{method}-s{seed}" for method in METHODS for seed in (3, 4)}
    space = OmegaConf.to_container(settings("protocol=tuned-2d").protocol.space)
    for name in trials:
        k, config = int(name[-3:]), found[name]
        assert picked(config) == draw_settings(space, k) and config["seed"] == FIRST_TRIAL_SEED + k
        assert config["protocol"]["scored_on"] == "selection" and config["protocol"]["trial"] == f"t00{k}"
        assert config["wandb"]["group"] == "whole-trials"


@pytest.mark.slow
def test_the_best_of_each_is_run_again_on_the_held_out_data(whole: Path) -> None:
    found = runs(whole)
    for method in METHODS:
        scores = [read_status(whole / f"trials/{method}-t00{k}")["score"] for k in (0, 1)]
        assert scores[0] != scores[1]
        best = scores.index(min(scores))
        for seed in (3, 4):
            final = found[f"{method}-s{seed}"]
            assert picked(final) == picked(found[f"trials/{method}-t00{best}"])
            reported = {key: final["protocol"][key] for key in ("track", "trials", "trial", "scored_on")}
            assert reported == {"track": "tuned", "trials": 2, "trial": f"t00{best}", "scored_on": "held_out"}
            assert final["seed"] == seed and final["wandb"]["group"] is None


@pytest.mark.slow
def test_a_trial_sees_other_data_than_a_final_run(whole: Path) -> None:
    trial, final = (
        json.loads((whole / name / "footing.json").read_text())["equal"]
        for name in (f"trials/{METHODS[0]}-t000", f"{METHODS[0]}-s3")
    )
    assert {trial["scored_on"], final["scored_on"]} == {"selection", "held_out"}
    assert trial["held_out_data"] != final["held_out_data"] and trial["train_data"] != final["train_data"]
    plain = settings(*SMALL[:2])
    assert final["trials"] == 2 and final["space"] == OmegaConf.to_container(plain.protocol.space)


@pytest.mark.slow
def test_the_report_names_the_track_and_what_differs(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "whole")
    done = report(folder)
    assert done.returncode == 0, done.stderr
    assert "4 runs" in done.stdout and "each method with the best of 2 random trials" in done.stdout
    assert "trials: unreadable" not in done.stdout
    lists = tables(trials(folder))
    assert [rows[0][:2] for _, rows in lists] == [["method", "trial"], ["trial", "lr"], ["method", "1 trial"]]
    text = (folder / "results.md").read_text()
    for method, final in (("gan", METHODS[0]), ("wgan-gp", METHODS[1])):
        config = runs(folder)[f"{final}-s3"]["protocol"]
        assert f"| {method} | {config['trial']} | {config['lr']} |" in text
    assert text.count("**") == 4 and "| method | 1 trial | 2 trials |" in text
    page = (folder / "report.html").read_text()
    assert "each method with the best of 2 random trials" in page and "protocol.trial" in page
    assert 'id="tuning"' in page and 'aria-label="Expected best score by number of trials.' in page
    assert load_runs(folder)[0].footing["equal"]["scored_on"] == "held_out"


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(whole: Path) -> None:
    before = bytes_of(whole)
    again = ganbench(*TYPED, "name=whole", cwd=whole.parents[2])
    assert again.returncode == 0, again.stderr
    printed = again.stdout + again.stderr
    assert "trials: 4 (4 already done)" in printed and "final runs: 4 (4 already done)" in printed
    assert bytes_of(whole) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("protocol.trials=3", "protocol.trials=2, not 3"),
        ("protocol.space.lr.high=0.1", "protocol.lr=0.000736, not"),
        ("protocol.ema=0.5", "protocol.ema=0.99, not 0.5"),
    ],
)
def test_another_search_of_the_same_name_is_refused(typed: str, named: str, whole: Path) -> None:
    """Though folders' names would not tell: they do not hold overrides that come by way of an experiment."""
    before = bytes_of(whole)
    top = whole.parents[2]
    (top / "mine/experiment").mkdir(parents=True, exist_ok=True)
    key, _, value = typed.removeprefix("protocol.").partition("=")
    nested = "{" + ": {".join(key.split(".")) + f": {value}" + "}" * (key.count(".") + 1)
    text = f"# @package _global_\ndefaults: [smoke, _self_]\nprotocol: {nested}\n"
    (top / "mine/experiment/other.yaml").write_text(text)
    other = ["experiment=other" if part.startswith("experiment=") else part for part in TYPED]
    if "trials" in typed:
        other.remove("protocol.trials=2")
    refusal = ganbench("--config-dir", "mine", *other, "name=whole", cwd=top)
    assert refusal.returncode == 2 and "Traceback" not in refusal.stderr, refusal.stderr
    assert named in refusal.stderr and "ass another name=" in refusal.stderr
    assert bytes_of(whole) == before


@pytest.mark.slow
def test_two_at_once_share_the_work(whole: Path, start: Callable[..., subprocess.Popen], tmp_path: Path) -> None:
    both = [start(*TYPED, "name=two", cwd=tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    folder = tmp_path / "outputs/sweep/two"
    assert set(runs(folder)) == set(runs(whole))
    for name in runs(whole):
        assert rows(folder / name) == rows(whole / name)
        assert (folder / name / "ganbench.log").read_text().count("real-data reference: ") == 1


@pytest.mark.slow
def test_more_trials_go_on_from_fewer(whole: Path) -> None:
    top = whole.parents[2]
    shutil.copytree(whole / "trials", top / "outputs/sweep/more/trials")
    before = bytes_of(top / "outputs/sweep/more")
    more = ("-m", *SMALL, "loss=gan", "seed=3", "protocol.trials=3", "name=more")
    done = ganbench(*more, cwd=top)
    assert done.returncode == 0, done.stderr
    assert "trials: 3 (2 already done)" in done.stdout + done.stderr
    after = bytes_of(top / "outputs/sweep/more")
    assert {name: after[name] for name in before} == before
    assert f"trials/{METHODS[0]}-t002/status.json" in after and f"{METHODS[0]}-s3/status.json" in after


def ended(folder: Path) -> dict[str, str]:
    found = [p for p in folder.glob("*/status.json") if not p.parent.name.startswith(".")]
    return {p.parent.name: read_status(p.parent)["status"] for p in found}


def exit_code_of_stopped(
    start: Callable[..., subprocess.Popen], folder: Path, locked: str, number: signal.Signals
) -> int:
    """Stop the search by this signal once runs beside the locked one have begun. Because of that one it cannot end."""
    with run_lock(folder / locked):
        process = start(*TYPED, "name=cut", cwd=folder.parents[2])
        until(lambda: ended((folder / locked).parent), process)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    return process.returncode


@pytest.mark.slow
def test_stopped_twice_and_continued_it_ends_the_same(
    whole: Path, start: Callable[..., subprocess.Popen], tmp_path: Path
) -> None:
    folder = tmp_path / "outputs/sweep/cut"
    assert exit_code_of_stopped(start, folder, f"trials/{METHODS[0]}-t000", signal.SIGKILL) == -signal.SIGKILL
    assert not ended(folder)
    assert exit_code_of_stopped(start, folder, f"{METHODS[1]}-s4", signal.SIGTERM) == 143
    assert set(ended(folder / "trials").values()) == {"finished"}
    done = ganbench(*TYPED, "name=cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trials: 4 (4 already done)" in done.stdout + done.stderr
    assert set(runs(folder)) == set(runs(whole))
    for name in runs(whole):
        assert rows(folder / name) == rows(whole / name)
    assert [run.status for run in load_runs(folder)] == ["finished"] * 4


OWN_LOSS = """
from ganbench.losses import GAN

class Explodes(GAN):
    def g(self, fake, real=None):
        return fake.mean() * float("nan")

class Raises(GAN):
    def d(self, real, fake):
        raise RuntimeError("went wrong")
"""


@pytest.mark.slow
def test_a_method_without_a_score_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    add_losses(tmp_path, OWN_LOSS)
    typed = (*SMALL, "loss=explodes,raises,gan", "protocol.trials=1", "seed=0", "name=own")
    done = ganbench("--config-dir", "mine", "-m", *typed, cwd=tmp_path)
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert "explodes: no final runs, because no trial of 1 has a score" in printed
    assert "raises: no final runs, because t000 did not complete" in printed
    folder = tmp_path / "outputs/sweep/own"
    assert ended(folder) == {"gan-s0": "finished"}
    assert ended(folder / "trials")["explodes-t000"] == "diverged"
