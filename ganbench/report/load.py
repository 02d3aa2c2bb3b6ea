"""Run folders, as the report sees them."""

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ganbench.config.schema import INCIDENTAL
from ganbench.runs.status import read_footing

TRIALS = "trials"  # the folder, within a sweep's, of the runs that only choose settings


@dataclass
class Run:
    """One run folder. A folder that cannot be read keeps its name, the status `unreadable` and the reason."""

    folder: Path
    status: str
    reason: str | None = None
    label: str = ""
    seed: int | None = None
    metric: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    footing: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def arm(self) -> str:
        """What is compared: the whole configuration but the seed and what is incidental."""
        return json.dumps({k: v for k, v in self.config.items() if k not in INCIDENTAL}, sort_keys=True)

    def curve(self, name: str, along: str = "images") -> tuple[list[float], list[float]]:
        """(x, y) of the records that have both; `along` is images, steps (the generator's) or t_train."""
        at = {row["images"]: row[name] for row in self.rows if row.get(name) is not None}
        return [self.cost(images, along) for images in at], list(at.values())

    def cost(self, images: int, along: str) -> float:
        """What so many real images came to, in images, generator steps or training seconds."""
        return {"images": images, "steps": images / self.images_a_step, "t_train": self.clock.get(images, 0.0)}[along]

    @cached_property
    def clock(self) -> dict[int, float]:
        """Training seconds by images seen, so far as they were told."""
        seconds, seen = 0.0, {}
        for row in self.rows:
            seconds = row.get("t_train") or seconds
            seen[row["images"]] = seconds
        return seen

    @property
    def images_a_step(self) -> int:
        """Real images that the critic sees for one step of the generator."""
        protocol = self.config.get("protocol", {})
        return protocol.get("batch", 1) * protocol.get("n_critic", 1)

    @property
    def scores(self) -> list[float]:
        return self.curve(self.metric)[1]

    @property
    def final(self) -> float:
        """The score at the end of the budget; infinite for a run that did not get there with one."""
        score = self.facts.get("score") if self.status == "finished" else None
        return score if score is not None and math.isfinite(score) else math.inf

    @property
    def last(self) -> dict[str, Any]:
        """The record of the last evaluation."""
        return next((row for row in reversed(self.rows) if self.metric in row), {})

    @property
    def best(self) -> float:
        return min(self.scores, default=math.inf)

    @property
    def collapsed(self) -> int | None:
        """The images at which three evaluations in a row had found hardly any spread between samples; None if never."""
        return self.facts.get("collapsed")

    @property
    def seconds(self) -> float:
        return self.facts.get("t_train") or math.nan

    @property
    def speed(self) -> float:
        """Real images per second of training."""
        return self.facts.get("images", 0) / self.seconds if self.seconds > 0 else math.nan

    @property
    def pictures(self) -> dict[int, Path]:
        """Sample grids by images seen."""
        return {int(p.stem): p for p in sorted((self.folder / "samples").glob("*.png")) if p.stem.isdigit()}


def load_runs(folder: Path) -> list[Run]:
    """Every run in a sweep's folder but trials, or the one run that the folder is."""
    runs = [_read(p) for p in ([folder] if (folder / "status.json").exists() else _below(folder))]
    return sorted(runs, key=lambda run: (run.label, run.arm, str(run.seed).zfill(9)))


def sweep_folders(folder: Path) -> list[Path]:
    """The sweeps that a folder of sweeps holds; none if it is a sweep, or a run, itself."""
    if (folder / "status.json").exists() or any((p / "status.json").exists() for p in _below(folder)):
        return []
    return [p for p in _below(folder) if any((run / "status.json").exists() for run in _below(p))]


def _below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != TRIALS)


def _read(folder: Path) -> Run:
    facts: dict[str, Any] = {}
    try:
        facts = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        rows = _rows((folder / "metrics.jsonl").read_text(encoding="utf-8"))
        label = f"{config['loss']['name']}-{config['penalty']['name']}"
        status, reason, seed = facts["status"], facts.get("reason"), config["seed"]
        footing = _footing(folder, needed=status in ("finished", "diverged"))
        name, probes = config["metric"]["name"], _probes(folder / "probes.jsonl")
        _refuse_garbled(seed, facts, config)
        return Run(folder, status, reason, label, seed, name, config, facts, rows, footing, probes)
    except Exception as error:  # a damaged folder can fail in any way, and must become a row, not a crash
        known = facts if isinstance(facts, dict) else {}
        reason = f"{type(error).__name__}: {error}"
        return Run(folder, "unreadable", reason, str(known.get("label", "")), known.get("seed"))


def _refuse_garbled(seed: Any, facts: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise ValueError for what a page would stumble over."""
    told = {key: facts.get(key) for key in ("score", "t_train", "images", "collapsed")} | (
        facts.get("real_reference") or {}
    )
    _refuse_no_numbers(told | {"seed": seed} | {k: config["protocol"][k] for k in ("images", "batch", "n_critic")})
    if not isinstance(seed, int):
        raise ValueError(f"seed is {seed!r}, no whole number")


def _refuse_no_numbers(values: dict[str, Any]) -> None:
    """Numbers, lists of them, or nothing; but for reasons, which are text."""
    for key, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            if not (one is None or isinstance(one, int | float) or key.endswith(("_why", "_why_raw"))):
                raise ValueError(f"{key} is {one!r}, no number")


def _footing(folder: Path, needed: bool) -> dict[str, dict[str, Any]]:
    """Of a run that got as far as writing it."""
    if not needed and not (folder / "footing.json").exists():
        return {}
    return read_footing(folder)


def _probes(file: Path) -> list[dict[str, Any]]:
    """What the critic left of the generator's gradient, of a run that was asked to measure it."""
    words = ("critic", "loss")
    return _rows(file.read_text(encoding="utf-8"), ("images", "steps"), words) if file.exists() else []


def _rows(text: str, needed: tuple[str, ...] = ("images",), words: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The records; a last line without its end is what a kill leaves, and is not one."""
    whole, _, _ = text.rpartition("\n")
    rows = [json.loads(line) for line in whole.splitlines()]
    lacking = [key for row in rows for key in (*needed, *words) if row.get(key) is None]
    if lacking:
        raise ValueError(f"a record without {lacking[0]}")
    for row in rows:
        _refuse_no_numbers({key: value for key, value in row.items() if key not in words})
    return rows
