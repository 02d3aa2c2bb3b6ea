"""Read run folders."""

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganbench.config.budget import make_budget
from ganbench.config.compose import method_label, resolve
from ganbench.config.schema import INCIDENTAL
from ganbench.runs.settings import at_own_seed, with_seed_zero
from ganbench.runs.status import read_footing

TRIALS = "trials"  # the folder, inside a sweep's, of the runs that only choose settings
BY_DATASET = "by-dataset"  # the folder, inside a sweep's with several data sets, of their pages


@dataclass
class Run:
    """One run folder. A folder that cannot be read keeps its name, the status `unreadable` and the reason."""

    folder: Path
    status: str
    reason: str | None = None
    label: str = ""  # the method's name
    seed: int | None = None  # None only for unreadable runs
    metric: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # status.json
    rows: list[dict[str, Any]] = field(default_factory=list)  # metrics.jsonl
    footing: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: list[dict[str, Any]] = field(default_factory=list)  # probes.jsonl

    @property
    def settings(self) -> dict[str, Any]:
        """Return what makes a method: the configuration without the seed and other incidental settings."""
        return {key: value for key, value in self.config.items() if key not in INCIDENTAL}

    @property
    def dataset(self) -> str | None:
        """Return the name of the dataset; None for an unreadable run."""
        return self.config.get("dataset", {}).get("name")

    @cached_property
    def method(self) -> str:
        """Return the settings as text; runs of one method have the same."""
        return json.dumps(self.settings, sort_keys=True)

    def series(self, name: str) -> dict[int, float]:
        """Return the recorded values of `name` by real images seen."""
        return {row["images"]: row[name] for row in self.rows if row.get(name) is not None}

    def curve(self, name: str, axis: str = "images") -> tuple[list[float], list[float]]:
        """Return (x, y) of `name`; `axis` is images, steps (generator updates) or t_train (seconds)."""
        series = self.series(name)
        return [self.cost(images, axis) for images in series], list(series.values())

    def cost(self, images: int, axis: str) -> float:
        """Convert real images seen to the unit of `axis`."""
        if axis == "steps":
            return float(self.updates(images))
        if axis == "t_train":
            return self.clock.get(images, 0.0)
        return images

    @cached_property
    def clock(self) -> dict[int, float]:
        """Return training seconds by real images seen; where none were recorded, those of the record before."""
        clock = {}
        seconds = 0.0
        for row in self.rows:
            seconds = row.get("t_train") or seconds
            clock[row["images"]] = seconds
        return clock

    def updates(self, images: int) -> int:
        """Return how many updates the generator has had once the critic has seen so many real images."""
        return make_budget(self.config.get("protocol", {})).steps_within(images)

    @property
    def scores(self) -> list[float]:
        return list(self.series(self.metric).values())

    @property
    def final(self) -> float:
        """Return the score at the end of the budget; inf for a run that ended earlier or without a score."""
        score = self.facts.get("score") if self.status == "finished" else None
        return score if score is not None and math.isfinite(score) else math.inf

    @property
    def last_evaluation(self) -> dict[str, Any]:
        return next((row for row in reversed(self.rows) if self.metric in row), {})

    @property
    def best(self) -> float:
        """Return the score of the best checkpoint."""
        return min(self.scores, default=math.inf)

    @property
    def collapsed(self) -> int | None:
        """Return the real images seen when mode collapse was noticed; None if it never was."""
        return self.facts.get("collapsed")

    @property
    def real_reference(self) -> dict[str, Any]:
        """Return the scores of real training data: the level that a perfect generator would reach."""
        # Runs of versions that said "floor" can still be reported.
        return _todays_names(self.facts.get("real_reference") or self.facts.get("floor") or {})

    @property
    def metric_protocol(self) -> str | None:
        """Return how the score is taken, in a sentence; None where that is not declared, as in older runs."""
        return self.footing.get("equal", {}).get("metric_protocol")

    @property
    def seconds(self) -> float:
        return self.facts.get("t_train") or math.nan

    @property
    def speed(self) -> float:
        """Return real images per second of training."""
        return self.facts.get("images", 0) / self.seconds if self.seconds > 0 else math.nan

    @property
    def wandb_url(self) -> str | None:
        """Return the run's page at W&B; None if it was never online."""
        url = self.facts.get("wandb_url")
        return url if str(url).startswith(("https://", "http://")) else None

    @property
    def sample_grids(self) -> dict[int, Path]:
        """Return the image files of samples by real images seen."""
        files = sorted((self.folder / "samples").glob("*.png"))
        return {int(file.stem): file for file in files if file.stem.isdigit()}


def load_runs(folder: Path) -> list[Run]:
    """Load every run in a sweep's folder except trials, or the one run that the folder is."""
    folders = [folder] if _is_run(folder) else _subfolders(folder)
    return sorted(map(_load, folders), key=lambda run: (run.label, run.method, str(run.seed).zfill(9)))


def sweep_folders(folder: Path) -> list[Path]:
    """List the sweeps in a folder of sweeps; none if the folder is a sweep or a run itself."""
    children = _subfolders(folder)
    if _is_run(folder) or any(map(_is_run, children)):
        return []
    return [child for child in children if any(map(_is_run, _subfolders(child)))]


def _is_run(folder: Path) -> bool:
    return (folder / "status.json").exists()


def _subfolders(folder: Path) -> list[Path]:
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name not in (TRIALS, BY_DATASET)]
    return sorted(path for path in folders if not path.name.startswith("."))


def _load(folder: Path) -> Run:
    status: dict[str, Any] = {}
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        return _load_intact(folder, status)
    except Exception as error:  # a damaged folder can fail in any way, and must become a row, not a crash
        known = status if isinstance(status, dict) else {}
        seed = known.get("seed") if isinstance(known.get("seed"), int) else None
        return Run(folder, "unreadable", _describe(error), str(known.get("label", "")), seed)


def _describe(error: Exception) -> str:
    """Say why a folder cannot be read."""
    if isinstance(error, FileNotFoundError):
        return f"it has no {Path(error.filename).name}"
    return f"{type(error).__name__}: {error}"


def _load_intact(folder: Path, status: dict[str, Any]) -> Run:
    config, label = _load_config(folder / "config.yaml")
    run = Run(
        folder,
        status["status"],
        status.get("reason"),
        label=label,
        seed=config["seed"],
        metric=config["metric"]["name"],
        config=config,
        facts=status,
        rows=_load_rows(folder / "metrics.jsonl", required=("images",)),
        footing=_load_footing(folder, required=status["status"] in ("finished", "diverged")),
        probes=_load_probes(folder / "probes.jsonl"),
    )
    _check_types(run)
    return run


def _load_config(file: Path) -> tuple[dict[str, Any], str]:
    """Load a run's settings, and the name of its method.

    Runs of a method differ only in the lines of their seed, so that the rest is read once for all of them.
    """
    text = file.read_text(encoding="utf-8")
    try:
        at_zero, label = _read_text_once(with_seed_zero(text))
    except Exception:
        return _read_config(file)  # which says what is wrong, and where
    config = at_own_seed(text, at_zero)
    return _read_config(file) if config is None else (config, label)


@lru_cache(maxsize=1000)
def _read_text_once(text: str) -> tuple[dict[str, Any], str]:
    return _read_config(io.StringIO(text))


def _read_config(file: Path | io.StringIO) -> tuple[dict[str, Any], str]:
    cfg = OmegaConf.load(file)
    if not isinstance(cfg, DictConfig):
        raise ValueError("config.yaml is not a mapping")
    label = method_label(cfg)
    _ = cfg.seed, cfg.metric.name  # which must be there
    return resolve(cfg), label


def _check_types(run: Run) -> None:
    """Raise ValueError for values that the page could not show."""
    if not isinstance(run.seed, int):
        raise ValueError(f"seed is {run.seed!r}, not an integer")
    _check_numbers({key: run.facts.get(key) for key in ("score", "t_train", "images", "collapsed")})
    _check_numbers(run.real_reference)
    _check_numbers({key: run.config["protocol"][key] for key in ("images", "batch", "n_critic")})


def _check_numbers(values: dict[str, Any], text: Iterable[str] = ()) -> None:
    """Raise ValueError unless values are numbers, lists of numbers or None; keys in `text` and reasons may be text."""
    for key, value in values.items():
        if value is None or isinstance(value, int | float) or key in text:
            continue
        if key.endswith(("_why", "_why_raw", "_protocol")):
            continue
        for item in value if isinstance(value, list) else [value]:
            if not (item is None or isinstance(item, int | float)):
                raise ValueError(f"{key} is {item!r}, not a number")


def _todays_names(values: dict[str, Any]) -> dict[str, Any]:
    """Rename scores that versions before 0.3.0 recorded in British spelling."""
    return {_todays_name(key): value for key, value in values.items()}


@cache  # so that all records have the same texts for keys, which are most of what they take in memory
def _todays_name(key: str) -> str:
    return key.replace("memorisation", "memorization")


def _load_footing(folder: Path, required: bool) -> dict[str, dict[str, Any]]:
    """Load footing.json; empty for a run that ended before it wrote one."""
    if not required and not (folder / "footing.json").exists():
        return {}
    return read_footing(folder)


def _load_probes(file: Path) -> list[dict[str, Any]]:
    """Load what a run's probes measured; empty for a run without probes."""
    if not file.exists():
        return []
    return _load_rows(file, required=("images", "steps", "critic", "loss"), text=("critic", "loss"))


def _load_rows(file: Path, required: tuple[str, ...], text: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Load JSON lines. A last line without its line end is what a kill leaves, and is skipped."""
    complete, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    rows = [_todays_names(json.loads(line)) for line in complete.splitlines()]
    for row in rows:
        for key in required:
            if row.get(key) is None:
                raise ValueError(f"a record in {file.name} has no {key}")
        _check_numbers(row, text)
    return rows
