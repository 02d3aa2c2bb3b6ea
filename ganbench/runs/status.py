"""How runs ended, as their folders tell it. Needs no torch."""

import json
import logging
import signal
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from ganbench.config.compose import identifying_settings, resolve
from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.runs.identity import code_digest

log = logging.getLogger("ganbench")

INTERRUPTED_EXIT_CODES = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # exit codes of processes

MIN_RELATIVE_STD = 1e-3
CONSECUTIVE = 3

exit_statuses: list[str] = []  # the statuses of the runs that this process was asked for


def exit_code(statuses: list[str]) -> int:
    """0 if every run finished, 3 if some diverged, 1 if any failed or was interrupted."""
    if set(statuses) <= {"finished"}:
        return 0
    return 3 if set(statuses) <= {"finished", "diverged"} else 1


def read_status(folder: Path) -> dict[str, Any]:
    """A run's status.json; a run that wrote none has failed."""
    try:
        found = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        if not (isinstance(found, dict) and isinstance(found.get("status"), str)):
            raise ValueError("it tells of no status")
        return found
    except (OSError, ValueError) as error:
        return {"status": "failed", "reason": f"no readable status.json ({error})"}


def read_footing(folder: Path) -> dict[str, dict[str, Any]]:
    """A run's footing.json. Raises OSError, ValueError, TypeError or KeyError for one that is not there or garbled."""
    found = json.loads((folder / "footing.json").read_text(encoding="utf-8"))
    return {part: dict(found[part]) for part in ("equal", "setting", "start", "machine")}


def existing_status(folder: Path, cfg: DictConfig) -> dict[str, Any] | None:
    """The status of the run of this configuration that `folder` holds, ended or not; None if it holds none.

    Raise Refused if what it holds is another run, one made with other code, or none that can be read.
    """
    if not (folder / "config.yaml").exists():
        return _never_configured(folder)
    status = read_status(folder)
    _refuse_other(folder, cfg)
    here = code_digest(cfg)
    if status.get("code", here) != here:
        raise Refused(
            f"{folder} holds a run made with other code (ganbench {status.get('ganbench')}, commit "
            f"{status.get('commit')}, torch {status.get('torch')}; sources {status['code']}, here {here}): "
            "go on with that code, or choose another name=…"
        )
    return status


def _never_configured(folder: Path) -> dict[str, Any] | None:
    """A run writes its status first and its settings next: without these it has not begun, but may have failed."""
    for part in ("metrics.jsonl", "samples", "checkpoints"):
        if (folder / part).exists():
            raise Refused(
                f"{folder / part} is there already, but no config.yaml to tell of what: choose another name=…"
            )
    if not (folder / "status.json").exists():
        return None
    status = read_status(folder)
    if "label" not in status:
        raise Refused(f"{folder / 'status.json'} is there already, and is no run's: choose another name=…")
    return status if status["status"] == "failed" else None


def _refuse_other(folder: Path, cfg: DictConfig) -> None:
    try:
        there = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        here = resolve(cfg)
        lacking = set(here) - set(there or ())
        if lacking:
            raise ValueError(f"it has no {min(lacking)}")
        found = _difference(*(_protocol_first(identifying_settings(config)) for config in (there, here)))
    except (OSError, YAMLError, TypeError, ValueError) as error:
        raise Refused(f"{folder / 'config.yaml'} cannot be read ({error}): choose another name=…") from None
    if found:
        key, before, now = found
        told = f"{key}={before!s:.80}, not {now!s:.80}"
        raise Refused(f"{folder} holds a run with {told}: choose another name=…, or set it back.")


def completed_status(folder: Path, cfg: DictConfig) -> dict[str, Any] | None:
    """The status of a run there to which the same command has nothing to add: it finished or diverged, or it failed
    and `retry` is not set. None if there is something to do, as after a refusal. Raises like `begun`.
    """
    status = existing_status(folder, cfg)
    return status if is_complete(status, cfg.retry) else None


def is_complete(status: dict[str, Any] | None, retry: bool) -> bool:
    """Whether nothing is left to do for a run of this status."""
    if status is None or status.get("refused"):
        return False
    return status["status"] in (("finished", "diverged") if retry else ("finished", "diverged", "failed"))


def _protocol_first(config: dict[str, Any]) -> dict[str, Any]:
    """What others copy is to be named, not the copy."""
    return {"protocol": None} | config


def _difference(there: Any, here: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first setting that is not the same in both, and both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        below = (_difference(there.get(k), here.get(k), f"{key}.{k}" if key else k) for k in there | here)
        return next(filter(None, below), None)
    return None if there == here else (key, there, here)


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace status.json in one move, so that no reader sees half of it."""
    write_atomically(folder / "status.json", (json.dumps(status, indent=2) + "\n").encode())


def mark_dead_run(folder: Path, exitcode: int | None, said: str | None, **known: Any) -> dict[str, Any]:
    """The status of a run whose process is gone: one that wrote none, or still claims to be running, has failed, or
    was interrupted if that is how its process ended. `said` is its last word, if it had one.
    """
    status = known | read_status(folder)
    if status["status"] == "running" or not (folder / "status.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        how = f"killed by signal {-exitcode}" if exitcode and exitcode < 0 else f"process ended with code {exitcode}"
        status |= {"status": "interrupted" if exitcode in INTERRUPTED_EXIT_CODES else "failed", "reason": said or how}
        try:
            write_status(folder, status)
        except OSError as error:  # on a full disk; a sweep has others to look after
            log.error(f"{folder / 'status.json'} could not be written: {error}")
    return status


def first_collapse(rows: list[dict[str, Any]]) -> int | None:
    """The real images at the third evaluation in a row with g_spread below 0.001, of a run's records; None if never."""
    told = [row for row in rows if "g_spread" in row]
    flat = [row["g_spread"] is not None and row["g_spread"] < MIN_RELATIVE_STD for row in told]
    third = (i for i in range(CONSECUTIVE - 1, len(told)) if all(flat[i - CONSECUTIVE + 1 : i + 1]))
    return next((told[i]["images"] for i in third), None)
