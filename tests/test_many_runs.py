"""Ten thousand runs, in small: sweeps are composed as Hydra composes them, and reports of many runs draw methods."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import many_runs
import numpy as np
import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from test_report import plant

from ganbench.config.compose import hydra_of_ganbench, identifying_settings, load_config, resolve
from ganbench.config.messages import one_line_error
from ganbench.config.validate import validate
from ganbench.errors import Refused
from ganbench.metrics.known_weights import INCEPTION_SHA256
from ganbench.report.figures import scores
from ganbench.report.load import load_runs
from ganbench.report.pages.sweep import page
from ganbench.report.study import METHODS_IN_DETAIL, load_study
from ganbench.report.tables import csv_of_runs, markdown
from ganbench.runs import status
from ganbench.runs.status import Wanted
from ganbench.sweeps import jobs
from ganbench.sweeps.composition import without_hydra
from ganbench.sweeps.jobs import Job, compose_each
from ganbench.sweeps.task import task

pytestmark = pytest.mark.slow

# A loss of a user's own, whose settings copy a seed, and are checked by themselves.
MINE = """
from typing import Literal

class Mine:
    def __init__(self, scale: Literal[1.0, 2.0] = 1.0, shift: float = 0.0, tag: str = ""):
        self.scale, self.shift = scale, shift

    def d(self, real, fake):
        return (fake - real).mean()

    def g(self, fake):
        return -fake.mean()
"""
SMALL = "# @package _global_\nprotocol: {images: 640, lr: 0.01}\nhydra: {sweeper: {params: {seed: '0,1,2'}}}\n"
OPTIONS = {
    "loss/mine.yaml": "name: mine\n_target_: mine.Mine\nscale: 1.0\nshift: 0.0\n",
    "loss/copies.yaml": "name: copies\n_target_: mine.Mine\nscale: 1.0\nshift: ${protocol.lr}\n",
    "loss/relative.yaml": "name: relative\n_target_: mine.Mine\nscale: 1.0\nshift: ${.scale}\n",
    "loss/selects.yaml": "name: selects\n_target_: mine.Mine\nscale: '${oc.select:\"protocol.lr\"}'\n",
    "loss/tagged.yaml": "name: tagged\n_target_: mine.Mine\ntag: of ${seed}\n",
    "experiment/small.yaml": SMALL,
}


class Sweep:
    """A sweep as the sweeper gets it: Hydra's context, the configuration of the sweep, and each run's overrides."""

    def __init__(self, typed: list[str], folder: Path):
        with hydra_of_ganbench(folder / "options") as hydra:
            self.context = HydraContext(config_loader=hydra.config_loader, callbacks=None)  # type: ignore[arg-type]
            typed = [*typed, f"hydra.sweep.dir={folder}/sweep"]
            self.config = hydra.compose_config("config", typed, RunMode.MULTIRUN)
            sweeper: Any = Plugins.instance().instantiate_sweeper(
                config=self.config, hydra_context=self.context, task_function=task
            )
            self.overrides = sweeper._overrides(OmegaConf.to_container(self.config.hydra.overrides.task, resolve=False))

    def jobs(self) -> Iterator[Job]:
        return compose_each(self.context, self.config, self.overrides)

    @cache  # noqa: B019  # for as long as the test runs
    def by_hydra(self, index: int) -> DictConfig:
        """Compose a run by Hydra, and set what a sweep sets."""
        composed = self.context.config_loader.load_sweep_config(self.config, list(self.overrides[index]))
        with open_dict(composed):
            composed.name = self.config.name
            composed.hydra.job.id = str(index)
            composed.hydra.job.num = index
            composed.hydra.sweep.dir = str(Path(composed.hydra.sweep.dir).absolute())
            for _ in range(2):  # a value in it may name another setting
                composed.hydra.sweep.subdir = str(composed.hydra.sweep.subdir)
        return composed


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a sweep of a command line, with a user's own options at hand."""
    (tmp_path / "mine.py").write_text(MINE)
    for name, text in OPTIONS.items():
        file = tmp_path / "options" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda typed: Sweep(typed.split(), tmp_path)


def everything(config: DictConfig) -> Any:
    """Return all that a configuration says: as it is written, as it is resolved, and the types of its nodes."""
    nodes = {key: type(config.protocol._get_node(key)) for key in config.protocol}
    return OmegaConf.to_container(config, resolve=False), resolve(without_hydra(config)), nodes


@pytest.mark.parametrize(
    ("typed", "by_hydra"),
    [
        ("loss=gan,wgan-gp seed=0,1 name=a", 2),
        ("loss=gan,hinge protocol.lr=0.1,0.01 seed=3,4", 2),
        ("protocol.lr=1,0.1,2 seed=3", 2),  # a whole number is another kind
        ("loss=wgan-gp penalty.weight=0.5,1.5 protocol.penalty_weight=3.5,4.5 seed=0,1", 1),
        ("loss=wgan-gp penalty.weight=0.5,1.5 +penalty.scale=0.5,1.5", 1),  # refused
        ("model.width=8,16 seed=0,1 probe=vanishing", 2),
        ("dataset=cifar10 model=r3gan model.width=32,30 seed=0,1", 2),  # a width of r3gan is checked against its groups
        ("dataset=ring,grid seed=0,1 model.width=16", 2),
        ("protocol=paper loss=gan,wgan-lp seed=0,1", 2),
        ("protocol=paper protocol.ema=0.9,0.8", 1),
        ("experiment=small", 1),
        ("experiment=small seed=5,6 protocol.lr=0.5,0.25", 1),
        ("experiment=smoke seed=0,1 metric.n_fake=64,128", 2),
        ("loss=mine loss.scale=1.0,2.0 loss.shift=0.5,0.25 seed=0,1", 2),
        ("loss=copies,mine protocol.lr=0.1,0.01 seed=0,1", 4),  # a copy that nothing is known of
        ("loss=relative loss.scale=1.0,2.0 seed=0,1", 4),  # what a relative path names is left to Hydra
        ("loss=selects protocol.lr=1.0,2.0 seed=0,1", 3),
        ("loss=selects protocol.lr=1.0,3.0", 2),  # refused
        ("loss=tagged seed=0,1,2", 3),
        ("seed=0,1 wandb.notes='run-${seed}'", 2),
        ("seed=0,1 hydra.sweep.subdir='${hydra.job.num}/${seed}-${hydra.job.override_dirname}' protocol.lr=0.1,0.2", 1),
        (
            "seed=0,1 optimizer.lr=0.1,0.2 optimizer.critic.lr=0.3 optimizer.generator.lr='${optimizer.critic.lr}'",
            1,
        ),
        ("seed=0,1,1e3", 2),
        ("protocol.lr=${optimizer.eps},0.1 seed=0,1", 2),  # folders are named by the value
        ("protocol.lr=0.1,0.2 protocol={lr:0.5} seed=0,1", 2),  # the last one counts
        ("loss=dragan penalty.weight=0.5,1.5 penalty.alpha=[0.0,${penalty.weight}] seed=0,1", 3),  # a copy in a list
        ("loss=wgan-gp protocol={lr:0.5} protocol.lr=0.1,0.2 penalty={weight:3.5} penalty.weight=0.5,1.5", 4),
        ("~probe.seed seed=0,1,2", 1),
        ("checkpoint_every=10,20 protocol.log_every=5,6 name=b", 1),
    ],
)
def test_each_run_is_what_hydra_composes(typed: str, by_hydra: int, sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sweep(typed)
    composed = []
    load = type(made.context.config_loader).load_sweep_config
    monkeypatch.setattr(
        type(made.context.config_loader),
        "load_sweep_config",
        lambda *arguments: composed.append(arguments) or load(*arguments),
    )
    try:
        planned = list(made.jobs())
        refused = None
    except Refused as error:
        planned, refused = [], str(error)
    assert len(composed) == by_hydra
    assert refused == refusal(made), typed
    assert planned or refused
    for index, job in enumerate(planned):
        expected = made.by_hydra(index)
        assert everything(job.config) == everything(expected)
        assert (job.index, job.seed) == (index, expected.seed)
        assert job.folder == Path(expected.hydra.sweep.dir, expected.hydra.sweep.subdir)


def refusal(made: Sweep) -> str | None:
    """Return the sentence that refuses the first run that is not valid, each composed by Hydra and checked."""
    for index, overrides in enumerate(made.overrides):
        try:
            validate(without_hydra(made.by_hydra(index)))
        except Exception as error:
            settings = " ".join(override for override in overrides if not override.startswith("hydra."))
            return f"run {index + 1} of the sweep ({settings}): {one_line_error(error)}"
    return None


@pytest.mark.parametrize("n", [2, 100])
def test_hydra_composes_no_more_runs_for_more_seeds(n: int, sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sweep(f"loss=gan,hinge protocol.lr=0.1,0.01 seed=range(0,{n})")
    calls: list[str] = []
    for owner, name in ((type(made.context.config_loader), "load_sweep_config"), (jobs, "validate")):
        monkeypatch.setattr(owner, name, counted(calls, name, getattr(owner, name)))
    planned = list(made.jobs())
    assert Counter(calls) == {"load_sweep_config": 2, "validate": 2}
    assert len({job.folder for job in planned}) == len(planned) == 4 * n
    assert len({id(job.shared) for job in planned}) == 2  # all that takes memory


def test_the_checks_of_a_whole_sweep_make_no_configuration(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run's own is a copy of everything, which takes longer than planning the run."""
    made = sweep("loss=gan,hinge seed=range(0,20)")
    planned = list(made.jobs())
    calls: list[Job] = []
    monkeypatch.setattr(Job, "config", property(calls.append))
    jobs.check_sweep(made.config, planned)
    assert len(planned) == 40 and calls == []


BESIDE = [("null", ""), (INCEPTION_SHA256, ""), (INCEPTION_SHA256.upper(), "")]
BESIDE += [("null", damage) for damage in ("dataset: 3", "dataset: {root: x}", "metric: 3", "metric.name: ${nope}")]


@pytest.mark.parametrize(("sha256", "damage"), BESIDE)
def test_runs_beside_a_sweep_may_write_a_hash_otherwise_or_be_damaged(sha256: str, damage: str, sweep) -> None:
    (there,) = sweep(f"dataset=cifar10 loss=gan metric.features.sha256={sha256}").jobs()
    config = OmegaConf.create(resolve(without_hydra(there.config)))
    if damage:
        key, _, value = damage.partition(": ")
        OmegaConf.update(config, key, yaml.load(value, yaml.BaseLoader), merge=False)
    there.folder.mkdir(parents=True)
    (there.folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (there.folder / "status.json").write_text('{"status": "finished"}')
    made = sweep("dataset=cifar10 loss=hinge")
    jobs.check_sweep(made.config, list(made.jobs()))
    if not damage:
        mixed = sweep("dataset=cifar10 loss=hinge metric.features.sha256=" + "0" * 64)
        with pytest.raises(Refused, match="gan-s0 would have scores of two protocols"):
            jobs.check_sweep(mixed.config, list(mixed.jobs()))


@pytest.mark.parametrize(
    "typed",
    [
        "loss=gan,hinge protocol.lr=0.1,1 seed=0,1",
        "loss=wgan-gp penalty.weight=0.5,1.5 protocol.penalty_weight=3.5,4.5 seed=3,4",
        "protocol=paper loss=wgan-lp seed=0,1 optimizer.critic.lr=0.5,0.25",
    ],
)
def test_a_folder_is_compared_with_the_run_that_hydra_composes(
    typed: str, sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sweep(typed)
    compared: dict[Path, Wanted | None] = {}
    monkeypatch.setattr(jobs, "completed_status", lambda folder, _, wanted=None: compared.update({folder: wanted}))
    for job in made.jobs():
        job.folder.mkdir(parents=True)
    planned = list(made.jobs())
    expected = {job.folder: Wanted.by(without_hydra(made.by_hydra(index))) for index, job in enumerate(planned)}
    of_families = {folder: wanted for folder, wanted in compared.items() if wanted is not None}
    assert len(of_families) >= len(planned) / 2
    for folder, wanted in of_families.items():
        assert identifying_settings(wanted.settings) == identifying_settings(expected[folder].settings)
        assert (wanted.code, wanted.settings["retry"]) == (expected[folder].code, False)


def test_a_sweep_that_is_done_is_not_resolved_run_by_run(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sweep("loss=gan,hinge protocol.lr=0.1,0.01 seed=range(0,4)")
    for job in made.jobs():
        leave(job)
    calls: list[str] = []
    monkeypatch.setattr(status, "resolve", counted(calls, "resolve", status.resolve))
    monkeypatch.setattr(status, "_parse", lru_cache(counted(calls, "parse", status._parse.__wrapped__)))
    planned = list(made.jobs())
    assert [job.completed and job.completed["seed"] for job in planned] == [job.seed for job in planned]
    assert Counter(calls) == {"resolve": 4, "parse": 4}  # of a method: its first run by itself, and for all others

    for damage in ("lr: 0.02", "seed: 9", "seed: x", "seed: ["):
        leave(planned[-1], damage)
        with pytest.raises(Refused, match=r"run 16 of the sweep \(.*\): .*hinge-protocol.lr=0.01-s3") as refused:
            list(made.jobs())
        assert "\n" not in str(refused.value)


def leave(job: Job, damage: str = "") -> None:
    """Write what a finished run leaves, but for a line of `damage` in its settings."""
    text = OmegaConf.to_yaml(OmegaConf.create(resolve(without_hydra(job.config))))
    key = damage.partition(":")[0]
    if damage:
        text = re.sub(rf"^((?:  )?){key}: .*$", rf"\1{damage}", text, count=1, flags=re.MULTILINE)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "config.yaml").write_text(text)
    (job.folder / "status.json").write_text(json.dumps({"status": "finished", "label": "gan", "seed": job.seed}))


def counted(calls: list[str], name: str, function: Callable) -> Callable:
    def call(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    return call


def test_a_run_between_valid_ones_is_refused_as_ever(sweep) -> None:
    for typed in ("seed=0,1,-2,3", "protocol.lr=0.1,0.2,-0.3", "seed=0,1000000000000000000", "protocol.ema=0.5,1.5"):
        made = sweep(typed)
        with pytest.raises(Refused) as refused:
            list(made.jobs())
        assert str(refused.value) == refusal(made)


def test_what_cannot_be_read_is_named(sweep) -> None:
    made = sweep('wandb.notes=${oc.select:"seed"} seed=0,1')
    with pytest.raises(HydraException) as refused:
        list(made.jobs())
    assert one_line_error(refused.value).startswith(r'wandb.notes=$\{oc.select\:"seed"\} cannot be read;')


def test_a_run_that_is_there_with_other_settings_is_refused(sweep) -> None:
    made = sweep("seed=0,1,2 name=there")
    *_, last = made.jobs()
    other = without_hydra(last.config)
    other.threads = 7
    last.folder.mkdir(parents=True)
    (last.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(resolve(other))))
    (last.folder / "status.json").write_text('{"status": "finished"}')
    with pytest.raises(Refused, match=r"run 3 of the sweep \(.*\): .* contains a run with threads=7, not 1"):
        list(made.jobs())


def test_a_report_of_many_runs_shows_methods(tmp_path: Path) -> None:
    """Plant 20 methods at 15 seeds, and look for what would grow with the number of runs."""
    first = plant(tmp_path / "first", "gan", 0, 4.0)
    many_runs.simulate(first, tmp_path / "many", methods=20, seeds=15)
    study = load_study(tmp_path / "many")
    assert (len(study.runs), len(study.methods), len(study.seeds)) == (300, 20, 15)
    text = page(study)
    assert "300 runs: results.csv, beside this page, has a row for each" in text
    assert text.count('class="history"') == METHODS_IN_DETAIL
    assert "a band for the middle 80 % of the seeds" in text
    unfinished = [run for run in study.runs if run.status != "finished"]
    assert 0 < len(unfinished) < 20
    table = text[text.index('<table id="runs-table"') :]
    assert table.count("<tr>") == 1 + len(unfinished)
    low, high = scores.middle_of_seeds(study.methods[0], study.metric, [6400])
    finals = [run.series(study.metric)[6400] for run in study.methods[0].runs]
    assert (low[0], high[0]) == tuple(np.quantile(finals, (0.1, 0.9)))
    assert csv_of_runs(study.runs).count("\n") == 301
    assert "final score per seed" not in markdown(study)


def test_one_of_many_methods_may_have_no_score_at_all(tmp_path: Path) -> None:
    first = plant(tmp_path / "first", "gan", 0, 4.0)
    many_runs.simulate(first, tmp_path / "many", methods=9, seeds=8)
    for run in (tmp_path / "many").glob("hinge-2-s*"):
        (run / "metrics.jsonl").write_text("")
        status = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(json.dumps(status | {"status": "diverged", "score": None}))
    study = load_study(tmp_path / "many")
    assert [method.label for method in study.methods if not method.finite_scores] == ["hinge (protocol.lr=0.002)"]
    assert "hinge-2-s0" in page(study)


def test_settings_that_runs_share_are_read_as_ever(tmp_path: Path) -> None:
    first = plant(tmp_path / "first", "wgan-gp", 0, 4.0)
    many_runs.simulate(first, tmp_path / "many", methods=2, seeds=3)
    odd = tmp_path / "many/gan-0-s2/config.yaml"
    odd.write_text(odd.read_text().replace("  seed: 2", "  seed: 9"))
    for run in load_runs(tmp_path / "many"):
        assert run.config == resolve(load_config(run.folder / "config.yaml"))
        assert run.config["probe"]["seed"] == (9 if run.folder == odd.parent else run.seed)
