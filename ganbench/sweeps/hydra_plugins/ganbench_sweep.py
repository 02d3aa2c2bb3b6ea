"""What Hydra finds: it takes plugins from the namespace `hydra_plugins` only. The work is in ganbench.sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ganbench.config.schema import Track
from ganbench.sweeps import launcher, tuning
from ganbench.sweeps.jobs import compose_jobs


@dataclass
class CheckedConf:
    _target_: str = "hydra_plugins.ganbench_sweep.CheckedSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


class CheckedSweeper(BasicSweeper):
    """Hydra's own sweeper, once every run of the sweep has been composed and checked."""

    def sweep(self, arguments: list[str]) -> Any:
        params = [f"{k}={v}" for k, v in (self.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides(params + arguments), None)
        jobs = [overrides for batch in batches for overrides in batch]
        if OmegaConf.select(self.config, "protocol.track") is Track.tuned:
            return tuning.tune(self.launcher, self.hydra_context, self.config, jobs)
        compose_jobs(self.hydra_context, self.config, jobs)
        return super().sweep(arguments)


@dataclass
class ProcessesConf:
    _target_: str = "hydra_plugins.ganbench_sweep.ProcessLauncher"
    n_jobs: Any = "${sweep.parallel}"


class ProcessLauncher(Launcher):
    """Each run in a process of its own, `n_jobs` at a time."""

    def __init__(self, n_jobs: int | str):
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return launcher.run_jobs(self.context, self.task, self.config, job_overrides, initial_job_idx, self.n_jobs)


store = ConfigStore.instance()
store.store(group="hydra/sweeper", name="checked", node=CheckedConf, provider="ganbench")
store.store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="ganbench")
