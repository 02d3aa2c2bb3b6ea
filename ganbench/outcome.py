"""How runs ended, as their folders tell it. Needs no torch."""

import itertools
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from ganbench.config import INCIDENTAL, Refused, resolved

endings: list[str] = []  # the statuses of the runs that this process was asked for


def exit_code(statuses: list[str]) -> int:
    """0 if every run finished, 3 if some diverged, 1 if any failed or was interrupted."""
    if set(statuses) <= {"finished"}:
        return 0
    return 3 if set(statuses) <= {"finished", "diverged"} else 1


def read_status(folder: Path) -> dict[str, Any]:
    """A run's status.json; a run that wrote none has failed."""
    try:
        return json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"status": "failed", "reason": f"no readable status.json ({error})"}


def refuse_used(folder: Path) -> None:
    """Raise Refused for a folder in which something of a run lies already."""
    for part in ("status.json", "config.yaml", "metrics.jsonl", "samples", "checkpoints"):
        if (folder / part).exists():
            raise Refused(f"{folder / part} is there already, and outputs are never overwritten: choose another name=…")


def settled(folder: Path, cfg: DictConfig) -> dict[str, Any] | None:
    """The status of the run of this configuration that finished or diverged in `folder`; None if there is none yet,
    or one that was cut short. Raise Refused if the folder holds a run of another configuration.
    """
    try:
        there = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    except (OSError, YAMLError):
        return None
    here = resolved(cfg)
    passing = [key for key in INCIDENTAL if key != "seed"]
    found = _difference(*({k: v for k, v in _protocol_first(c).items() if k not in passing} for c in (there, here)))
    if found:
        key, before, now = found
        raise Refused(f"{folder} holds a run with {key}={before}, not {now}: choose another name=…, or set it back.")
    status = read_status(folder)
    return status if status["status"] in ("finished", "diverged") else None


def _protocol_first(config: dict[str, Any]) -> dict[str, Any]:
    """What others copy is to be named, not the copy."""
    return {"protocol": None} | config


def _difference(there: Any, here: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first setting that is not the same in both, and both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        below = (_difference(there.get(k), here.get(k), f"{key}.{k}" if key else k) for k in there | here)
        return next(filter(None, below), None)
    return None if there == here else (key, there, here)


def set_aside(folder: Path) -> Path:
    """Move what a run that was cut short has left to a name beside it that no report reads."""
    names = (folder.with_name(f".{folder.name}-{n}") for n in itertools.count(1))
    return folder.rename(next(name for name in names if not name.exists()))


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace status.json in one move, so that no reader sees half of it."""
    aside = folder / ".status.tmp"
    aside.write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")
    aside.replace(folder / "status.json")


def bury(folder: Path, exitcode: int | None, **known: Any) -> dict[str, Any]:
    """The status of a run whose process is gone: one that wrote none, or still claims to be running, has failed."""
    status = known | read_status(folder)
    if status["status"] == "running" or not (folder / "status.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        how = f"killed by signal {-exitcode}" if exitcode and exitcode < 0 else f"process ended with code {exitcode}"
        status |= {"status": "failed", "reason": how}
        write_status(folder, status)
    return status
