"""The scores of a run by other metrics than its own: `evaluations.jsonl` in its folder. Needs no torch."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganbench.config.compose import compose_config, resolve
from ganbench.config.overrides import written_for_hydra
from ganbench.config.validate import validate_metric
from ganbench.runs.identity import shared_code_digest
from ganbench.sweeps.jobs import check_paths
from ganbench.trained.folder import RunFolder

FILE = "evaluations.jsonl"

Evaluation = dict[str, Any]  # a line of the file


def compose_metric(name: str, overrides: list[str], config_dir: Path | None) -> Any:
    """Return the settings of a metric, with its interpolations, as overrides such as `metric.n_fake=500` make them."""
    cfg = compose_config(f"metric={name}", *written_for_hydra(overrides), "name=evaluate", config_dir=config_dir)
    return OmegaConf.to_container(cfg.metric, resolve=False)


def with_metric(run: RunFolder, metric: Any) -> RunFolder:
    """Return the run with another metric than its own. Raise Refused if that does not fit its data."""
    cfg = run.cfg.copy()
    assert isinstance(cfg, DictConfig)
    cfg.metric = metric
    validate_metric(cfg)
    check_paths(cfg)
    return run._replace(cfg=cfg)


def identity(run: RunFolder) -> Evaluation:
    """Return what makes an evaluation: metric, its settings, the checkpoint, and the code."""
    return {
        "metric": run.cfg.metric.name,
        "settings": resolve(run.cfg.metric),
        "checkpoint": run.checkpoint.name,
        "code": shared_code_digest(run.cfg),
    }


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Read a run's evaluations, the oldest first. Half a line, as a kill leaves it, is none."""
    file = folder / FILE
    evaluations = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        with suppress(ValueError):
            evaluations.append(json.loads(line))
    return evaluations


def recorded(run: RunFolder) -> Evaluation | None:
    """Return the last evaluation that is the same as one of this run would be now; None if there is none."""
    wanted = identity(run)
    same = [each for each in read_evaluations(run.folder) if wanted.items() <= each.items()]
    return same[-1] if same else None


def record(folder: Path, evaluation: Evaluation) -> None:
    """Add a line to the run's evaluations."""
    file = folder / FILE
    is_cut = file.exists() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * is_cut + json.dumps(evaluation) + "\n")
