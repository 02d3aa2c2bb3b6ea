"""Open the folder of a run that was trained. Needs no torch, so that refusals are quick."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ganbench.config.compose import load_config
from ganbench.config.signature import NoSuchTarget, signature
from ganbench.config.validate import check_device
from ganbench.errors import Refused
from ganbench.files import is_run_folder
from ganbench.runs.status import read_status

log = logging.getLogger("ganbench")

NAMED = 6  # runs of a sweep that a refusal names


class RunFolder(NamedTuple):
    """The folder of a run: its settings, its newest checkpoint, and what status.json says of it."""

    folder: Path
    cfg: DictConfig
    checkpoint: Path
    status: dict[str, Any]

    @property
    def is_of_images(self) -> bool:
        return len(self.cfg.dataset.shape) == 3


def open_run(folder: str | Path, device: str | None = None) -> RunFolder:
    """Open a run's folder, to be used on its own device or on another. Raise Refused for a folder that is no run."""
    folder = Path(folder)
    check_is_run(folder)
    cfg = load_settings(folder)
    if device is not None:
        check_device(device)
        cfg.device = device
    _check_generator(folder, cfg)
    checkpoints = sorted((folder / "checkpoints").glob("step-[0-9]*.pt"))
    if not checkpoints:
        raise Refused(f"{folder} has no checkpoint, so there is no generator to load; pass a run that has one.")
    return RunFolder(folder, cfg, checkpoints[-1], read_status(folder))


def open_runs(folders: list[Path], device: str | None = None) -> list[RunFolder]:
    """Open several runs; the folder of a sweep stands for all of its runs."""
    runs: list[Path] = []
    for folder in folders:
        runs += [folder] if is_run_folder(folder) else _runs_in(folder) or [folder]
    return [open_run(run, device) for run in dict.fromkeys(runs)]


def tell_if_unfinished(run: RunFolder) -> None:
    """Log how a run ended, if it did not finish: its generator is that of its last checkpoint."""
    status = run.status["status"]
    if status != "finished":
        log.info(f"{run.folder} has not finished (status: {status}); this is the generator of its last checkpoint.")


def check_is_run(folder: Path) -> None:
    """Raise Refused for a folder that is no run's, with what to pass instead."""
    if is_run_folder(folder):
        return
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder; pass the folder of a run, such as outputs/run/mine.")
    runs = [str(run) for run in _runs_in(folder)]
    if not runs:
        raise Refused(
            f"{folder} is not the folder of a run, which holds config.yaml and status.json; pass one, such as "
            "outputs/run/mine."
        )
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    raise Refused(f"{folder} is the folder of several runs; pass one of them: {', '.join(runs[:NAMED])}{more}.")


def _runs_in(folder: Path) -> list[Path]:
    """List the runs of a sweep, or of several sweeps."""
    for pattern in ("*/status.json", "*/*/status.json"):
        runs = sorted(file.parent for file in folder.glob(pattern) if is_run_folder(file.parent))
        if runs:
            return runs
    return []


def load_settings(folder: Path) -> DictConfig:
    """Return the settings of a run. Raise Refused if they cannot be read."""
    try:
        return load_config(folder / "config.yaml")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise Refused(
            f"{folder / 'config.yaml'} cannot be read ({reason}); pass a run that this version of ganbench has made."
        ) from None


def _check_generator(folder: Path, cfg: DictConfig) -> None:
    """Refuse a run whose generator is of a class that is not here."""
    target = cfg.model.generator["_target_"]
    try:
        signature(target)
    except NoSuchTarget as missing:
        raise Refused(
            f"{folder} has the generator {target}, which cannot be found: {missing}; start the command in the folder "
            "that holds it."
        ) from None
