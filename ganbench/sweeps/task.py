"""One run, as Hydra calls it; and the check of a single run before Hydra makes its folder."""

import logging
import sys
import threading
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ganbench.config.compose import register
from ganbench.config.environment import conflicting_variables, reject_multirun_under_agent
from ganbench.config.validate import reject_lists_of_options, validate
from ganbench.errors import Refused
from ganbench.files import ensure_home, is_out_of_space
from ganbench.runs.lock import raise_if_locked
from ganbench.runs.signals import GracefulStop, Interrupted
from ganbench.runs.status import RunComplete, completed_status, exit_code, exit_statuses, read_status
from ganbench.sweeps.composition import without_hydra
from ganbench.sweeps.jobs import check_run
from ganbench.sweeps.outcomes import (
    NEXT_STEPS,
    Status,
    describe_status,
    from_here,
    ranked_score,
    report_command,
)

log = logging.getLogger("ganbench")

register()  # here, since the workers of other launchers import this module, and unpickle our plugins next


def task(cfg: DictConfig, stop: GracefulStop | None = None) -> float:
    """Make one run, which `stop` may end, and return the score that it is ranked by. Hydra calls this for each run."""
    validate(cfg)  # again, in the run's own process, and for launchers and sweepers that are not ours
    folder = Path(HydraConfig.get().runtime.output_dir)
    status = completed_status(folder, cfg)
    if status:
        exit_statuses.append(status["status"])
        return ranked_score(status)
    try:
        return _train(cfg, folder, stop)
    except RunComplete as complete:  # by another process, while this one waited for the lock
        log.info(complete)
        return ranked_score(read_status(folder))
    finally:
        exit_statuses.append(read_status(folder)["status"])


def _train(cfg: DictConfig, folder: Path, stop: GracefulStop | None) -> float:
    ensure_home()
    from ganbench.runs.wandb_mirror import prestart

    # W&B has a process of its own, which takes a fifth of a second to start. Import torch meanwhile.
    threading.Thread(target=prestart, args=[cfg.wandb.mode.value], daemon=True).start()
    from ganbench.training.train import train

    try:
        return train(cfg, folder, stop)
    except Interrupted:
        raise
    except SystemExit as error:  # from a loss of the user's, say: the run has failed, whatever its exit code
        raise RuntimeError(f"the run's own code left with {error!r}") from error


def check_single(config: DictConfig) -> Status | None:
    """Raise Refused for a single run that cannot be made. Return the status of one that has nothing left to do."""
    reject_lists_of_options(config)
    config.name = config.name  # resolve it once: `now` in it must not tick again
    folder = Path(config.hydra.run.dir)
    status = check_run(without_hydra(config), folder)
    raise_if_locked(folder)
    return status


class RunEnded(SystemExit):
    """Carries an error from a callback past Hydra, which turns ordinary ones into warnings.

    That of a run itself, too: Hydra would print all overrides, and a traceback, before it.
    """

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


class AroundRun(Callback):
    """Ends a single run that cannot be made, or has nothing left to do, before Hydra writes into its folder.

    Of sweeps it ends those that an agent of W&B has started, whichever sweeper they have. Says where the folder of a
    single run is, once that has ended.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Raise RunEnded under an agent."""
        try:
            reject_multirun_under_agent()
            _log_conflicts(config)
        except Exception as error:
            raise RunEnded(error) from None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Raise RunEnded if the run is refused. Exit with the code of its status if nothing is left to do."""
        try:
            status = check_single(config)
            _log_conflicts(config)
        except Exception as error:
            raise RunEnded(error) from None
        if status:
            print(already_there(config, status), file=sys.stderr)
            raise SystemExit(exit_code([status["status"]]))

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Log where the folder is, and how to make its report if there can be one.

        Raise RunEnded if the run is refused or its disk is full: one sentence says why.
        """
        folder = Path(config.hydra.runtime.output_dir)
        has_report = read_status(folder)["status"] in ("finished", "diverged")
        log.info(f"Folder: {from_here(folder)}{f'; report: {report_command(folder)}' if has_report else ''}")
        outcome = kwargs["job_return"]._return_value  # `return_value` would raise it
        if isinstance(outcome, Refused) or is_out_of_space(outcome):
            raise RunEnded(outcome)


def _log_conflicts(config: DictConfig) -> None:
    """Log in one line where W&B's variables and the settings differ, and which of the two counts."""
    conflicts = conflicting_variables(config.wandb)
    if conflicts:
        log.info(f"Weights & Biases: {'; '.join(conflicts)}")


def already_there(config: DictConfig, status: Status) -> str:
    """Say that nothing is left to do for a single run, and what to do to make it again."""
    step = NEXT_STEPS.get(status["status"], "pass another name=... to run it again")
    return f"{Path(config.hydra.run.dir)} already contains this run: {describe_status(status)}; {step}."
