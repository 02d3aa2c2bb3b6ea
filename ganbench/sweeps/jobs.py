"""Compose and check every run of a sweep before the first begins."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.schema import Track
from ganbench.config.validate import check_value, one_line_error, validate
from ganbench.errors import Refused
from ganbench.files import check_free_space
from ganbench.runs.status import completed_status


def without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def check_run(cfg: DictConfig, out: Path, look: bool = True) -> dict[str, Any] | None:
    """Raise Refused for a run that cannot be made, or (if to `look`) not there. Return the status of one that needs
    no more.
    """
    validate(cfg)
    if cfg.protocol.track is Track.tuned and cfg.protocol.trial is None:
        raise Refused(
            f"protocol={cfg.protocol.name} searches before it compares, which takes -m and no other protocol: "
            f"python -m ganbench -m protocol={cfg.protocol.name} loss=gan,hinge seed=0,1,2 name=mine"
        )
    done = completed_status(out, cfg) if look else None
    if done:
        return done
    check_free_space(out)
    if cfg.device.value == "cuda" or cfg.speed.graphs:
        from ganbench.training.device import choose_device  # which imports torch

        choose_device(cfg)
    return None


@dataclass
class Job:
    overrides: Sequence[str]
    config: DictConfig
    folder: Path
    done: dict[str, Any] | None  # the status that it had when it was composed, if nothing was left to do

    def settled(self) -> dict[str, Any] | None:
        return completed_status(self.folder, without_hydra(self.config))


def compose_jobs(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int = 0,
    look: bool = True,
) -> list[Job]:
    """The configuration and folder of each run, all checked; raises before any of them has started.

    Unless to `look`, their folders may hold runs of other settings.
    """
    config.name = config.name  # `now` in it must not tick between runs
    jobs = []
    for index, overrides in enumerate(job_overrides, first):
        try:
            jobs.append(_compose_one(context, config, overrides, index, look))
            if len(jobs) == 1:  # not before one is known to be well: a refusal need not wait for it
                from ganbench.sweeps.processes import start_fork_server

                start_fork_server(config)
        except (Refused, ConfigCompositionException, OmegaConfBaseException) as error:
            raise Refused(f"run {index + 1} of the sweep ({' '.join(overrides)}): {one_line_error(error)}") from None
    for folder, n in Counter(job.folder for job in jobs).items():
        if n > 1:
            raise Refused(f"{n} runs of the sweep would share the folder {folder}: they are the same run twice.")
    check_value("hydra.launcher.n_jobs", "sweep.parallel", config.hydra.launcher.get("n_jobs", "auto"))
    if "n_jobs" not in config.hydra.launcher and config.sweep.parallel != "auto":
        raise Refused(f"sweep.parallel={config.sweep.parallel}: this hydra/launcher starts runs as it likes; use auto.")
    return jobs


def _compose_one(context: HydraContext, config: DictConfig, overrides: Sequence[str], index: int, look: bool) -> Job:
    job = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.name = config.name
        job.hydra.job.id, job.hydra.job.num = str(index), index
        job.hydra.sweep.dir = str(Path(job.hydra.sweep.dir).absolute())
        job.hydra.sweep.subdir = str(job.hydra.sweep.subdir)
    folder = Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir
    return Job(overrides, job, folder, check_run(without_hydra(job), folder, look))
