"""Compose and check the runs of a sweep, before the first of them starts."""

import copy
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ganbench.config.compose import identifying_settings, resolve
from ganbench.config.messages import one_line_error, setting
from ganbench.config.ranges import check_value, original_key
from ganbench.config.schema import Precision, Track, WandbMode
from ganbench.config.validate import reject_lists_of_options, validate
from ganbench.errors import Refused
from ganbench.files import can_be_made, check_free_space, check_image_folder, is_run_folder
from ganbench.metrics.known_weights import KNOWN, PUBLISHED, check_weights
from ganbench.runs.settings import with_seed_zero
from ganbench.runs.status import completed_status, load_settings
from ganbench.sweeps.composition import Composer, Family, become, without_hydra
from ganbench.sweeps.outcomes import Status

PROCESS_LAUNCHER = "hydra_plugins.ganbench_sweep.ProcessLauncher"
CLUSTER_LAUNCHER = "hydra_plugins.ganbench_sweep.ClusterLauncher"
OUR_LAUNCHERS = (PROCESS_LAUNCHER, CLUSTER_LAUNCHER)


@dataclass
class Job:
    """A run of a sweep, composed and checked."""

    overrides: Sequence[str]
    shared: DictConfig  # the configuration of a run that differs from this one in numbers alone, or of this one
    folder: Path
    completed: Status | None  # its status, if nothing was left to do when it was composed
    index: int = 0
    seed: int = 0
    sweep_dir: str = ""
    subdir: str = ""  # the path of its folder in the sweep's

    @property
    def config(self) -> DictConfig:
        """Return the run's own configuration, a new copy each time: what numbers do not change, `shared` says, too."""
        config = copy.deepcopy(self.shared)
        become(config, self.overrides, self.index)
        with open_dict(config):
            config.hydra.sweep.dir = self.sweep_dir
            config.hydra.sweep.subdir = self.subdir  # resolved, as the report and the user will see it
        return config

    def completed_status(self) -> Status | None:
        """Return the status if nothing is left to do by now: another launcher may have made the run meanwhile."""
        if self.completed or not self.folder.exists():
            return self.completed
        return completed_status(self.folder, without_hydra(self.config))

    def retried(self) -> "Job":
        """Return the same run, to be made again though it has failed."""
        shared = copy.deepcopy(self.shared)
        shared.retry = True
        return replace(self, shared=shared)


def has_process_launcher(config: DictConfig) -> bool:
    """Tell whether the sweep uses our launcher, rather than one of Hydra's or a user's."""
    return config.hydra.launcher._target_ == PROCESS_LAUNCHER


def check_run(cfg: DictConfig, folder: Path, check_existing: bool = True, here: bool = True) -> Status | None:
    """Raise Refused for a run that cannot be made. Return the status of one that has nothing left to do.

    Without `check_existing`, `folder` is not looked into, and may hold a run of other settings. A run that will not be
    made `here` needs no GPU here.
    """
    validate(cfg)
    _reject_lone_search(cfg)
    status = completed_status(folder, cfg) if check_existing else None
    if status is None:
        check_free_space(folder)
        _check_means(cfg, here)
    return status


def _check_means(cfg: DictConfig, here: bool) -> None:
    """Raise Refused for a run that needs a file, a folder or a GPU which is not there."""
    _check_wandb_folder(cfg)
    check_paths(cfg)
    if here:
        _check_device(cfg)


def _reject_lone_search(cfg: DictConfig) -> None:
    """Raise Refused for a run of the tuned track that no search has chosen the settings of."""
    if cfg.protocol.track is Track.tuned and cfg.protocol.trial is None:
        raise Refused(
            f"protocol={cfg.protocol.name} is a search, which needs -m and no other protocol beside it: "
            f"python -m ganbench -m protocol={cfg.protocol.name} loss=gan,hinge seed=0,1,2 name=mine"
        )


def _check_wandb_folder(cfg: DictConfig) -> None:
    folder = cfg.wandb.dir
    if cfg.wandb.mode is WandbMode.disabled or folder is None:
        return
    written = setting(original_key(cfg, "wandb.dir"), folder)
    _check_home(written, folder)
    if not can_be_made(Path(folder).expanduser()):
        raise Refused(f"{written} cannot be written; name another folder, or none for that of the run.")


def _check_home(written: str, path: str) -> None:
    """Raise Refused for a path in the home of a user who has none; `written` is the setting as it was typed."""
    if os.path.expanduser(path).startswith("~") and not os.path.exists(path):
        raise Refused(f"{written} begins with a user who has no home here; write the folder in full.")


def check_paths(cfg: DictConfig) -> None:
    """Raise Refused for images that must be there, or a file of weights, that is not there or not the right one."""
    root = cfg.dataset.get("root") or ""
    _check_home(f"dataset.root={root}", root)
    if cfg.dataset["_target_"] == "ganbench.datasets.prepared":
        from ganbench.prepared.format import check_shape  # only now, since it imports NumPy

        check_shape(check_image_folder("dataset.root", cfg.dataset.root), cfg.dataset.shape)
    if cfg.dataset["_target_"] == "ganbench.datasets.lsun":
        from ganbench.dataset_files import check_lsun  # only now, for the same reason

        check_lsun(cfg.dataset.root, cfg.dataset.category)
    if cfg.dataset["_target_"] == "ganbench.datasets.folder":
        for key in ("root", "held_out"):
            if cfg.dataset.get(key) is not None:
                check_image_folder(f"dataset.{key}", cfg.dataset[key])
    _check_weights(cfg)


def _check_weights(cfg: DictConfig) -> None:
    """Raise Refused for a file of weights that is not there, or is another than it should be."""
    features = cfg.metric.get("features")
    if features is not None:
        weights = features.get("weights") or ""
        _check_home(f"metric.features.weights={weights}", weights)
        check_weights(features["_target_"], features.get("weights"), features.get("sha256"))


def _check_device(cfg: DictConfig) -> None:
    if cfg.device.startswith("cuda") or cfg.speed.graphs or cfg.precision is Precision.tf32:
        from ganbench.training.device import choose_device  # only now, since it imports torch

        choose_device(cfg)


def compose_each(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first_index: int = 0,
    check_existing: bool = True,
) -> Iterator[Job]:
    """Compose and check one run after another. Raise Refused at the first that cannot be made."""
    config.name = config.name  # resolve it once: `now` in it must not tick between runs
    composer = Composer(context, config, job_overrides)
    for index, overrides in enumerate(job_overrides, first_index):
        try:
            job = _compose_one(composer, overrides, index, check_existing)
        except (Refused, ConfigCompositionException, OmegaConfBaseException) as error:
            settings = " ".join(override for override in overrides if not override.startswith("hydra."))
            raise Refused(f"run {index + 1} of the sweep ({settings}): {one_line_error(error)}") from None
        yield job


def show_runs(context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], part: str) -> None:
    """Print the settings of every run of a sweep as YAML documents: those of the job, of hydra, or all."""
    for job in compose_each(context, config, job_overrides, check_existing=False):
        hydra_only = OmegaConf.masked_copy(job.config, ["hydra"])
        shown = {"job": without_hydra(job.config), "hydra": hydra_only, "all": job.config}[part]
        print(f"--- # {job.folder.name}\n{OmegaConf.to_yaml(shown)}", end="")


def short_folder_names(config: DictConfig, typed: Sequence[Override]) -> str:
    """Return the override that keeps what all runs of a sweep have in common out of their folders' names."""
    varying = {override.key_or_group for override in typed if override.is_sweep_override()}
    common = {override.key_or_group for override in typed} - varying
    excluded = [*config.hydra.job.config.override_dirname.exclude_keys, *sorted(common)]
    return f"hydra.job.config.override_dirname.exclude_keys={json.dumps(excluded)}"


def _compose_one(composer: Composer, overrides: Sequence[str], index: int, check_existing: bool) -> Job:
    """Compose and check a run; of a run that is like one before but for numbers, check these."""
    here = composer.config.hydra.launcher._target_ != CLUSTER_LAUNCHER
    family = composer.family(overrides)
    if family and family.allows(overrides):
        config = family.become(overrides, index)
        job = _job(family.composed, config, overrides, index)
        return replace(job, completed=_check_member(family, job, config, check_existing, here))
    composed = composer.compose(overrides)
    reject_lists_of_options(composed)
    become(composed, overrides, index)
    job = _job(composed, composed, overrides, index)
    status = check_run(without_hydra(composed), job.folder, check_existing, here)
    composer.keep(composed, overrides, has_means=status is None)
    return replace(job, completed=status)


def _job(shared: DictConfig, config: DictConfig, overrides: Sequence[str], index: int) -> Job:
    """Return the run of a configuration, of which only what it `shared` with others is kept."""
    sweep_dir = str(Path(config.hydra.sweep.dir).absolute())
    subdir = str(config.hydra.sweep.subdir)
    if "${" in subdir:  # of a swept value that names another setting: the run will see that setting's
        named = copy.deepcopy(config)
        with open_dict(named):
            named.hydra.sweep.subdir = subdir
        subdir = str(named.hydra.sweep.subdir)
    return Job(overrides, shared, Path(sweep_dir, subdir), None, index, config.seed, sweep_dir, subdir)


def _check_member(family: Family, job: Job, config: DictConfig, check_existing: bool, here: bool) -> Status | None:
    """Check what is left to check of a run whose settings are valid, as `check_run` does."""
    looks = check_existing and job.folder.exists()
    status = completed_status(job.folder, config, family.wanted(config)) if looks else None
    if status is None:
        check_free_space(job.folder)
        if not family.has_means:
            _check_means(without_hydra(family.composed), here)
            family.has_means = True
    return status


def check_sweep(config: DictConfig, jobs: Sequence[Job]) -> None:
    """Raise Refused for runs that are fine one by one, but not together or not with this launcher."""
    _reject_shared_folders(jobs)
    _reject_mixed_protocols(jobs)
    _reject_runs_of_other_names(jobs)
    if config.hydra.launcher._target_ in OUR_LAUNCHERS:
        check_value("hydra.launcher.n_jobs", "sweep.parallel", config.hydra.launcher.n_jobs)
    elif config.sweep.parallel != "auto":
        raise Refused(
            f"sweep.parallel={config.sweep.parallel} has no effect with this hydra/launcher, which decides itself how "
            "many runs go at a time: use sweep.parallel=auto."
        )


def _reject_shared_folders(jobs: Sequence[Job]) -> None:
    """Raise Refused for runs of one folder: the same one, or such as differ in what names no folder."""
    for folder, n in Counter(job.folder for job in jobs).items():
        if n == 1:
            continue
        values: dict[str, set[str]] = {}
        for override in chain.from_iterable(job.overrides for job in jobs if job.folder == folder):
            key, _, value = override.partition("=")
            values.setdefault(key.lstrip("+"), set()).add(value)
        options = ("loss", "penalty")  # several of these may be one method
        differing = ", ".join(key for key in values if len(values[key]) > 1 and key not in options)
        if differing:
            why = f"they differ only in {differing}, by which no folder is named; make them in sweeps of two names."
        else:
            why = "the same run is listed twice. List it once."
        raise Refused(f"{n} runs of the sweep would share {folder}: {why}")


def _reject_mixed_protocols(jobs: Sequence[Job]) -> None:
    """Raise Refused if one dataset would have published scores of two protocols, with those of runs made before.

    What decides that is no number of `composition.INDEPENDENT`, so `shared` has it.
    """
    first: dict[str, tuple[Path, dict[str, object]]] = {}
    planned = ((job.folder, *scored) for job in jobs if (scored := _published_scores(job.shared)))
    for folder, dataset, protocol in [*planned, *_scores_beside(jobs)]:
        other_folder, other = first.setdefault(dataset, (folder, protocol))
        differing = [key for key in protocol if protocol[key] != other[key]]
        if differing:
            values = " and ".join(setting(differing[0], each[differing[0]]) for each in (other, protocol))
            raise Refused(
                f"{other_folder.name} and {folder.name} would have scores of two protocols, {values}, which never "
                "share a table: make them in sweeps of different names, or score the runs of one by another metric "
                "with python -m ganbench.evaluate."
            )


def _published_scores(cfg: DictConfig) -> tuple[str, dict[str, object]] | None:
    """Return the dataset, and what decides how its images are scored; None for scores that no paper reports."""
    network = OmegaConf.select(cfg, "metric.features._target_")
    if network not in PUBLISHED:
        return None
    keys = ("n_fake", "n_real", "reference", "n_pairs", "features._target_", "features.sha256")
    settings = {"metric": cfg.metric.name} | {f"metric.{key}": OmegaConf.select(cfg.metric, key) for key in keys}
    settings["metric.reference"] = settings["metric.reference"] or "held_out"  # older runs did not say it
    # A file of weights counts by its hash, however that is written.
    settings["metric.features.sha256"] = str(settings["metric.features.sha256"] or KNOWN.get(network)).lower()
    return str(cfg.dataset.name), settings


def _scores_beside(jobs: Sequence[Job]) -> Iterator[tuple[Path, str, dict[str, object]]]:
    """Yield such scores of what is in the sweep's folder already, if there are new runs for it."""
    planned = {job.folder for job in jobs}
    for sweep in sorted({job.folder.parent for job in jobs if not job.folder.exists()}):
        for folder in sorted(sweep.iterdir()) if sweep.is_dir() else ():
            if folder in planned or not is_run_folder(folder):
                continue
            with suppress(OSError, ValueError):  # whoever resumes or reports it says so
                scored = _recorded_scores(with_seed_zero((folder / "config.yaml").read_text(encoding="utf-8")))
                if scored:
                    yield folder, *scored


@lru_cache(maxsize=1000)
def _recorded_scores(text: str) -> tuple[str, dict[str, object]] | None:
    """Return `_published_scores` of a config.yaml, which its seed does not change; None for one that is damaged."""
    try:
        return _published_scores(OmegaConf.create(text))  # type: ignore[arg-type]
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, YAMLError):
        return None


def _reject_runs_of_other_names(jobs: Sequence[Job]) -> None:
    """Raise Refused if a run that would begin is in the sweep's folder already, under a name that says more or less."""
    planned = {job.folder for job in jobs}
    new = [job for job in jobs if not job.folder.exists()]
    sweeps = {job.folder.parent for job in new if job.folder.parent.is_dir()}
    others = [folder for sweep in sweeps for folder in sweep.iterdir() if folder not in planned]
    known = {_recorded_settings(folder): folder for folder in others if is_run_folder(folder)}
    for job in new if known else ():
        other = known.get(_settings_text(resolve(without_hydra(job.config))))
        if other:
            raise Refused(
                f"{other} is the run that {job.folder.name} would be: folders are named by what a sweep varies, and "
                "this one varies something else; repeat the command line of that run, or pass another name=..."
            )


def _recorded_settings(folder: Path) -> str | None:
    unreadable = (OSError, ValueError, YAMLError, OmegaConfBaseException, KeyError, AttributeError, TypeError)
    with suppress(*unreadable):  # whoever resumes or reports it says so
        return _settings_text(load_settings(folder / "config.yaml"))
    return None


def _settings_text(config: dict[str, Any]) -> str:
    """Write all that identifies a run, its budget, too: a sweep may vary that."""
    return json.dumps(identifying_settings(config), sort_keys=True)
