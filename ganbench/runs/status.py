"""Read and write how a run ended: status.json in its folder. Needs no torch."""

import io
import json
import logging
import signal
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ganbench.config.compose import identifying_settings, resolve
from ganbench.config.schema import LrDecay
from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.runs.identity import code_digest
from ganbench.runs.settings import at_own_seed, with_seed_zero

log = logging.getLogger("ganbench")

MADE_AFTER_SETTINGS = ("metrics.jsonl", "samples", "checkpoints")  # in a run's folder
PLAN = "runs.txt"  # in a sweep's folder: the names of its runs' folders

INTERRUPTED_EXIT_CODES = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # exit codes of processes

# Mode collapse: at so many evaluations in a row, samples have less than this share of the data's standard deviation.
MIN_RELATIVE_STD = 1e-3
CONSECUTIVE = 3

exit_statuses: list[str] = []  # the statuses of the runs that this process was asked for


class RunComplete(Refused):
    """The run in the folder is complete: the same command has nothing to add to it."""


def exit_code(statuses: list[str]) -> int:
    """Return 0 if every run finished, 3 if some diverged, 1 if any failed or was interrupted."""
    if set(statuses) <= {"finished"}:
        return 0
    return 3 if set(statuses) <= {"finished", "diverged"} else 1


def read_status(folder: Path) -> dict[str, Any]:
    """Return a run's status.json; a run without a readable one has failed."""
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        if not (isinstance(status, dict) and isinstance(status.get("status"), str)):
            raise ValueError("it contains no status")
        return status
    except (OSError, ValueError) as error:
        return {"status": "failed", "reason": f"no readable status.json ({error})"}


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace status.json in one move, so that no reader sees half of it."""
    write_atomically(folder / "status.json", (json.dumps(status, indent=2) + "\n").encode())


def read_footing(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a run's footing.json. Raise OSError, ValueError, TypeError or KeyError if it is missing or damaged."""
    footing = json.loads((folder / "footing.json").read_text(encoding="utf-8"))
    parts = {part: dict(footing[part]) for part in ("equal", "setting", "start", "machine")}
    return parts | {"method": dict(footing.get("method", {}))}  # versions before 0.3 did not record it


def plan_runs(sweep: Path, folders: Iterable[str]) -> None:
    """Add to the names of the runs that a sweep is to have; two launchers may do so at once."""
    with (sweep / PLAN).open("a", encoding="utf-8") as file:
        file.write("".join(f"{folder}\n" for folder in folders))


def planned_runs(sweep: Path) -> set[str]:
    """Return the names of the runs that a sweep is to have; none for a folder that no sweep of ours has made."""
    file = sweep / PLAN
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return {line for line in lines if line.strip()}  # whoever takes out a line may leave an empty one


class Wanted(NamedTuple):
    """What a run in a folder is compared with: the one that a command would make."""

    settings: dict[str, Any]  # resolved
    code: str  # its digest

    @classmethod
    def by(cls, cfg: DictConfig) -> "Wanted":
        """Return what a configuration asks for."""
        return cls(resolve(cfg), code_digest(cfg))


def completed_status(folder: Path, cfg: DictConfig, wanted: Wanted | None = None) -> dict[str, Any] | None:
    """Return the status of the run in `folder` if the same command has nothing to add to it, else None.

    That is a run that finished or diverged, or one that failed, unless `retry` is set. Raise like `existing_status`.
    """
    status = existing_status(folder, cfg, wanted)
    return status if is_complete(status, cfg.retry) else None


def is_complete(status: dict[str, Any] | None, retry: bool) -> bool:
    """Return whether nothing is left to do for a run of this status; after a refusal something is."""
    if status is None or status.get("refused"):
        return False
    if "extends" in status and status["status"] == "finished":
        return False
    return status["status"] in (("finished", "diverged") if retry else ("finished", "diverged", "failed"))


def existing_status(folder: Path, cfg: DictConfig, wanted: Wanted | None = None) -> dict[str, Any] | None:
    """Return the status of this configuration's run in `folder`, ended or not; None if there is none.

    A run that was made with a smaller budget, and is to be extended, has that in `extends`. Raise Refused if the folder
    contains another run, one made with other code, or one that cannot be read; not for one that was refused before it
    had recorded anything, which is none. Whoever knows already what `cfg` asks for passes it as `wanted`.
    """
    # Looked for before the settings: a run that another process begins at this moment has its settings first.
    records = [folder / part for part in MADE_AFTER_SETTINGS if (folder / part).exists()]
    if not (folder / "config.yaml").exists():
        return _status_without_config(folder, records)
    status = read_status(folder)
    if _was_refused_before_its_first_record(folder, status):
        return None
    wanted = wanted or Wanted.by(cfg)
    budget = _budget_of_same_run(folder, wanted)
    _raise_if_other_code(folder, wanted.code, status)
    return status if budget == wanted.settings["protocol"]["images"] else status | {"extends": budget}


def _was_refused_before_its_first_record(folder: Path, status: dict[str, Any]) -> bool:
    """Tell whether the folder holds nothing to keep: settings or code are changed then, as the refusal has advised."""
    records = folder / "metrics.jsonl"
    is_empty = not records.exists() or records.stat().st_size == 0
    return bool(status.get("refused")) and is_empty and not any((folder / "checkpoints").glob("*"))


def mark_dead_run(folder: Path, exitcode: int | None, last_message: str | None, **known: Any) -> dict[str, Any]:
    """Record and return the status of a run whose process has exited, if it could not do so itself.

    One that wrote no status, or still says it is running, was interrupted or has failed. The reason is the process's
    `last_message`, if it sent one.
    """
    status = known | read_status(folder)
    if status["status"] != "running" and (folder / "status.json").exists():
        return status
    status["status"] = "interrupted" if exitcode in INTERRUPTED_EXIT_CODES else "failed"
    status["reason"] = last_message or _describe_exit(exitcode)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_status(folder, status)
    except OSError as error:  # on a full disk; a sweep has other runs to look after
        log.error(f"{folder / 'status.json'} could not be written: {error}")
    return status


def first_collapse(rows: list[dict[str, Any]]) -> int | None:
    """Return the images at which a run collapsed, from the rows of its metrics.jsonl; None if it never did.

    That is the third evaluation in a row whose `g_spread`, the samples' standard deviation as a share of the data's,
    is below 0.001.
    """
    in_a_row = 0
    for row in rows:
        if "g_spread" not in row:  # no evaluation
            continue
        collapsed = row["g_spread"] is not None and row["g_spread"] < MIN_RELATIVE_STD
        in_a_row = in_a_row + 1 if collapsed else 0
        if in_a_row == CONSECUTIVE:
            return row["images"]
    return None


def _status_without_config(folder: Path, records: list[Path]) -> dict[str, Any] | None:
    """Return the status of a run that failed before it began: a run writes its status first, its settings next."""
    if records:
        raise Refused(
            f"{records[0]} already exists, but there is no config.yaml to say of which run. Pass another name=..."
        )
    if not (folder / "status.json").exists():
        return None
    status = read_status(folder)
    if "label" not in status:
        raise Refused(f"{folder / 'status.json'} already exists, but is not of a run. Pass another name=...")
    return status if status["status"] == "failed" else None


def _budget_of_same_run(folder: Path, wanted: Wanted) -> int:
    """Return the real images that the run in `folder` was to see, which is the one wanted: as many as now, or fewer.

    Raise Refused if anything else differs.
    """
    here = wanted.settings
    try:
        there = _read_config(folder / "config.yaml", set(here))
    except (OSError, YAMLError, TypeError, ValueError) as error:
        _raise_if_other_code(folder, wanted.code, read_status(folder))  # another version may lack a setting of this one
        reason = " ".join(str(error).split())  # YAML's has four lines
        raise Refused(
            f"{folder / 'config.yaml'} cannot be read ({reason}). Pass another name=..., or remove its folder to "
            "make the run again."
        ) from None
    budget = there["protocol"]["images"]
    if budget < here["protocol"]["images"]:
        _raise_if_decaying(folder, there["protocol"], here["protocol"]["images"])
        there["protocol"] = there["protocol"] | {"images": here["protocol"]["images"]}
    difference = _first_difference(_protocol_first(there), _protocol_first(here))
    if difference:
        key, before, now = difference
        raise Refused(
            f"{folder} contains a run with {key}={before!s:.80}, not {now!s:.80}. "
            "Pass another name=..., or set it back."
        )
    return budget


def _raise_if_decaying(folder: Path, protocol: dict[str, Any], images: int) -> None:
    """Refuse to extend a run whose learning rate was laid out for the smaller budget."""
    if protocol.get("lr_decay") == LrDecay.linear.value:
        raise Refused(
            f"{folder} contains a run whose learning rate falls to 0 at protocol.images={protocol['images']}, as "
            f"lr_decay=linear says, so it cannot be extended to {images}. Pass another name=..., or set it back."
        )


def _read_config(file: Path, keys: set[str]) -> dict[str, Any]:
    """Return the settings in config.yaml. Raise an error unless all `keys` are there."""
    config = load_settings(file)
    if not isinstance(config, dict):
        raise TypeError("it contains no settings")
    if not isinstance(config.get("protocol"), dict) or not isinstance(config["protocol"].get("images"), int):
        raise ValueError("it has no protocol.images")
    missing = keys - config.keys()
    if missing:
        raise ValueError(f"it has no {min(missing)}")
    return {str(key): value for key, value in config.items()}


def load_settings(file: Path) -> Any:
    """Return what config.yaml contains; of runs that differ in their seed alone, only the first is parsed."""
    text = file.read_text(encoding="utf-8")
    with suppress(YAMLError, OmegaConfBaseException, AttributeError, KeyError):  # then the file itself is named
        config = at_own_seed(text, _parse(with_seed_zero(text)))
        if config is not None:
            return config
    return OmegaConf.to_container(OmegaConf.load(file))


@lru_cache(maxsize=4000)
def _parse(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))


def _protocol_first(config: dict[str, Any]) -> dict[str, Any]:
    """Return what identifies a run, in an order that names a setting of the protocol before its copies elsewhere."""
    return {"protocol": None} | identifying_settings(config)


def _first_difference(there: Any, here: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return the first setting that is not the same in both, with both values."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return None if there == here else (key, there, here)
    for name in there | here:
        difference = _first_difference(there.get(name), here.get(name), f"{key}.{name}" if key else name)
        if difference:
            return difference
    return None


def _raise_if_other_code(folder: Path, here: str, status: dict[str, Any]) -> None:
    there = status.get("code", here)
    if there != here:
        raise Refused(
            f"{folder} contains a run made with other code (ganbench {status.get('ganbench')}, commit "
            f"{status.get('commit')}, torch {status.get('torch')}; sources {there}, here {here}). "
            "Resume it with that code, or pass another name=..."
        )


def _describe_exit(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by signal {-exitcode}"
    return f"process ended with code {exitcode}"
