"""What Hydra finds: it takes plugins from the namespace `hydra_plugins` only. The work is in ganbench.sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ganbench.config.compose import typed_search_path
from ganbench.config.ranges import check_value
from ganbench.config.schema import Track
from ganbench.errors import Refused
from ganbench.sweeps import ray_cluster, slurm
from ganbench.sweeps.elsewhere import run_elsewhere
from ganbench.sweeps.jobs import CLUSTER_LAUNCHER, PROCESS_LAUNCHER, Job, short_folder_names, show_runs
from ganbench.sweeps.launcher import compose_jobs, log_report, run_jobs, save_plan
from ganbench.sweeps.tuning import UNCHOSEN, tune

MAX_BATCH_SIZE = "hydra.sweeper.max_batch_size"
ENGINES: dict[str, Any] = {"slurm": slurm, "ray": ray_cluster}


@dataclass
class CheckedConf:
    """The settings of hydra/sweeper=checked: those of Hydra's own sweeper, and which part to show instead of a run."""

    _target_: str = "hydra_plugins.ganbench_sweep.CheckedSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None
    show: str | None = None


def _reject_several_names(typed: Sequence[Override]) -> None:
    for override in typed:
        if override.key_or_group == "name" and override.is_sweep_override():
            raise Refused(
                f"{override.input_line} has several values, and all runs of a sweep lie in the folder of one name; "
                "start a sweep for each."
            )


class CheckedSweeper(BasicSweeper):
    """Hydra's own sweeper, but every run is composed and checked, once, before anything is written."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None, show: str | None = None):
        super().__init__(max_batch_size, params)
        self.show = show  # job, hydra or all: what -m --cfg prints

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run a search if the protocol is one, and else every combination of the values given."""
        assert self.hydra_context is not None and self.config is not None
        check_value(MAX_BATCH_SIZE, MAX_BATCH_SIZE, self.max_batch_size)
        job_overrides = self._overrides(arguments)
        if not job_overrides:
            raise Refused("The sweep has no runs: a glob matches no option, or a range is empty; see --help.")
        is_search = OmegaConf.select(self.config, "protocol.track") is Track.tuned
        if self.show:
            unchosen = UNCHOSEN if is_search else []
            show_runs(self.hydra_context, self.config, [[*each, *unchosen] for each in job_overrides], self.show)
            return []
        if is_search:
            tune(self._launch, self._check_launcher, self.hydra_context, self.config, job_overrides)
            log_report(Path(self.config.hydra.sweep.dir))
            return []
        jobs = compose_jobs(self.hydra_context, self.config, job_overrides)
        self._check_launcher(jobs)
        save_plan(self.config, jobs)
        results = self._launch(jobs)
        log_report(jobs[0].folder.parent)
        return results

    def _overrides(self, arguments: list[str]) -> list[list[str]]:
        """Return the overrides of each run."""
        assert self.hydra_context is not None and self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parameters = [f"{key}={value}" for key, value in (self.params or {}).items()]
        typed = parser.parse_overrides(parameters + arguments)
        _reject_several_names(typed)
        names = short_folder_names(self.config, typed)
        (runs,) = self.split_arguments(typed, max_batch_size=None)
        return [[*overrides, names] for overrides in runs]

    def _check_launcher(self, jobs: list[Job]) -> None:
        """Raise Refused for runs that cannot be made where they are to be made."""
        if isinstance(self.launcher, ClusterLauncher):
            self.launcher.check(self._batches(jobs))

    def _batches(self, jobs: list[Job]) -> list[list[Job]]:
        """Return the runs that are handed over at a time."""
        size = self.max_batch_size or len(jobs)
        return [jobs[first : first + size] for first in range(0, len(jobs), size)]

    def _launch(self, jobs: list[Job]) -> list[Sequence[JobReturn]]:
        """Run the composed runs, one batch after another."""
        return [self._launch_batch(batch) for batch in self._batches(jobs)]

    def _launch_batch(self, jobs: list[Job]) -> Sequence[JobReturn]:
        """Hand the runs to our launcher; other launchers take overrides, and compose them again."""
        assert self.launcher is not None
        if isinstance(self.launcher, ProcessLauncher | ClusterLauncher):
            return self.launcher.run(jobs)
        return run_elsewhere(self.launcher, jobs)


@dataclass
class ProcessesConf:
    """The settings of hydra/launcher=processes."""

    _target_: str = PROCESS_LAUNCHER
    n_jobs: Any = "${sweep.parallel}"


class ProcessLauncher(Launcher):
    """Runs each job in a process of its own, `n_jobs` at a time."""

    def __init__(self, n_jobs: int | str):
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.task = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Compose, check and run jobs, for sweepers that are not ours."""
        return self.run(compose_jobs(self.context, self.config, job_overrides, initial_job_idx))

    def run(self, jobs: list[Job]) -> list[JobReturn]:
        """Run jobs that have been composed and checked."""
        return run_jobs(self.context, self.task, self.config, jobs, self.n_jobs)


@dataclass
class SlurmConf:
    """The settings of hydra/launcher=slurm, named as in Hydra's submitit launcher."""

    _target_: str = CLUSTER_LAUNCHER
    engine: str = "slurm"
    partition: str | None = None  # null: the cluster's default
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: Any = None  # of a run: 1 or a100:1; null: 1 if the partition has GPUs, unless device=cpu
    cpus_per_task: int | None = None  # null: as many as a run has threads
    mem_gb: float = 8
    timeout_min: int = 60  # the run is queued again then, and goes on
    signal_delay_s: int = 120  # so long before that it is asked to save
    n_jobs: Any = "${sweep.parallel}"  # auto: as many as the cluster has room for
    setup: list[str] = field(default_factory=list)  # lines of the job's script, such as module load cuda
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # of sbatch


@dataclass
class RayConf:
    """The settings of hydra/launcher=ray."""

    _target_: str = CLUSTER_LAUNCHER
    engine: str = "ray"
    address: str = "auto"  # of the cluster: the one that runs here, that of RAY_ADDRESS, or ray://…, or host:6379
    num_cpus: float | None = None  # of a run; null: as many as it has threads
    num_gpus: float | None = None  # of a run; null: 1 if the cluster has GPUs, unless device=cpu
    accelerator_type: str | None = None  # such as A100
    n_jobs: Any = "${sweep.parallel}"  # auto: as many as the cluster has room for


class ClusterLauncher(Launcher):
    """Has an engine make the runs on other machines."""

    def __init__(self, engine: str, **settings: Any):
        self.engine = ENGINES[engine]
        self.settings = self.engine.Settings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Compose, check and run jobs, for sweepers that are not ours."""
        jobs = compose_jobs(self.context, self.config, job_overrides, initial_job_idx)
        self.check([jobs])
        return self.run(jobs)

    def check(self, batches: list[list[Job]]) -> None:
        """Raise Refused for what the engine cannot run, one batch after another."""
        self.engine.check(self.settings, batches)

    def run(self, jobs: list[Job]) -> list[JobReturn]:
        """Run jobs that have been composed and checked."""
        return self.engine.launch(self.settings, self.config, jobs)


class TypedSearchPath(SearchPathPlugin):
    """Shows --help and tab completion the options of hydra.searchpath, which Hydra adds only when it composes."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for place in typed_search_path():
            search_path.append("command line", place)


PLUGINS = (CheckedSweeper, ProcessLauncher, TypedSearchPath)

store = ConfigStore.instance()
store.store(group="hydra/sweeper", name="checked", node=CheckedConf, provider="ganbench")
store.store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="ganbench")
store.store(group="hydra/launcher", name="slurm", node=SlurmConf, provider="ganbench")
store.store(group="hydra/launcher", name="ray", node=RayConf, provider="ganbench")
