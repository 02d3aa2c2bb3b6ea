"""One run, as Hydra calls it."""

import sys
import threading
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ganbench.config.validate import validate
from ganbench.runs.lock import raise_if_locked
from ganbench.runs.signals import Interrupted
from ganbench.runs.status import completed_status, exit_code, exit_statuses, read_status
from ganbench.sweeps.jobs import check_run, without_hydra


def task(cfg: DictConfig) -> float:
    """What Hydra calls for each run."""
    validate(cfg)  # again, for launchers and sweepers that are not ours
    out = Path(HydraConfig.get().runtime.output_dir)
    done = completed_status(out, cfg)
    if done:
        exit_statuses.append(done["status"])
        return ranked_score(done)

    from ganbench.runs.wandb_mirror import prestart

    # W&B has a process of its own, and to wait until it is up costs a fifth of a second. Meanwhile torch is imported.
    threading.Thread(target=prestart, args=[cfg.wandb.mode.value], daemon=True).start()
    from ganbench.training.train import train

    try:
        return train(cfg, out)
    except SystemExit as left:
        if isinstance(left, Interrupted):
            raise
        raise RuntimeError(f"the run's own code left with {left!r}") from left
    finally:
        exit_statuses.append(read_status(out)["status"])


class CheckBeforeRun(Callback):
    """Stops a single run before Hydra makes its folder, or writes into one whose run has ended."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            config.name = config.name  # `now` in it must not tick again
            cfg, folder = without_hydra(config), Path(config.hydra.run.dir)
            done = check_run(cfg, folder)
            raise_if_locked(folder)
        except Exception as error:
            # Hydra turns ordinary errors of a callback into warnings; only an exit gets through.
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
        if done:
            cure = next_step_hint(done) or "; nothing is left to do"
            print(f"{folder}, from before: {describe_status(done)}{cure}.", file=sys.stderr)
            raise SystemExit(exit_code([done["status"]]))


def ranked_score(status: dict[str, Any]) -> float:
    """What a run is ranked by; infinite for one that did not get there with a number."""
    found = status.get("score") if status["status"] == "finished" else None
    return float("inf") if found is None else found


def next_step_hint(status: dict[str, Any]) -> str:
    cures = {
        "failed": "; the same command with retry=true tries it again, from its last checkpoint",
        "interrupted": "; the same command goes on with it",
    }
    return cures.get(status["status"], "")


def describe_status(status: dict[str, Any]) -> str:
    if status.get("reason"):
        return f"{status['status']} ({status['reason']})"
    score = status.get("score")
    return f"{status['status']}, score {'none' if score is None else f'{score:.4g}'}"
