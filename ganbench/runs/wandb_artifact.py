"""Log a finished run's averaged generator, with its model card, as an artifact of Weights & Biases."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import wandb
from omegaconf import DictConfig, OmegaConf

from ganbench.config.compose import method_label
from ganbench.config.schema import ScoredOn
from ganbench.runs.status import read_footing, read_status
from ganbench.runs.wandb_privacy import seen_from_here, without_names

LONGEST_NAME = 128  # of an artifact at W&B
FOLDER = "artifact"  # in that of the run; W&B reads the files when it uploads them


class Uploaded(NamedTuple):
    """What status.json says of a run's artifact."""

    name: str
    checkpoint: str
    mode: str  # online or offline

    def facts(self) -> dict[str, Any]:
        return {"wandb_artifact": self._asdict()}


def artifact_to_log(out: Path, cfg: DictConfig, mode: str) -> Uploaded | None:
    """Return the artifact that the run in the folder `out` still has to log; None if it has logged it, or has none.

    A run that was extended has another one. Trials have none.
    """
    status = read_status(out)
    is_trial = cfg.protocol.scored_on is ScoredOn.selection
    if not cfg.wandb.get("artifacts") or is_trial or status["status"] != "finished":
        return None
    due = Uploaded(_name(cfg), _checkpoint(out), mode)
    done = status.get("wandb_artifact", {})
    is_done = done.get("checkpoint") == due.checkpoint and done.get("mode") in (mode, "online")
    return None if is_done else due


def log_artifact(run: wandb.Run, out: Path, due: Uploaded) -> None:
    """Export the generator and log it, with the alias `best` if no run beside this one has a lower score."""
    folder = out / FOLDER / due.checkpoint
    if not folder.exists():
        _export(out, folder)
    status = read_status(out)
    artifact = wandb.Artifact(
        due.name,
        type="model",
        description=(folder / "README.md").read_text(encoding="utf-8"),
        metadata={key: status.get(key) for key in ("label", "seed", "score", "images")}
        | {"metric": run.config["metric"]["name"], "footing": read_footing(out)["equal"]},
    )
    artifact.add_dir(str(seen_from_here(folder)), policy="immutable")  # the path of each file is sent, too
    run.log_artifact(artifact, aliases=["latest", *(["best"] if _is_best(out, due.name) else [])])


def _export(out: Path, folder: Path) -> None:
    """Write the generator and its card, in a process of its own: it stands above this room, and loads another net."""
    command = [sys.executable, "-m", "ganbench.export", str(out), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the generator cannot be exported ({done.stderr.strip()})")
    card = folder / "README.md"
    card.write_text(without_names(card.read_text(encoding="utf-8")), encoding="utf-8")


def _name(cfg: DictConfig) -> str:
    """Return the name under which W&B collects the versions of a sweep's method on its data, one for each seed."""
    parts = (cfg.wandb.group or cfg.name, method_label(cfg), cfg.dataset.name)
    return re.sub(r"[^\w.-]", "-", "-".join(parts))[-LONGEST_NAME:]


def _checkpoint(out: Path) -> str:
    return max(out.glob("checkpoints/step-*.pt")).stem


def _is_best(out: Path, name: str) -> bool:
    """Tell whether no run in the sweep's folder whose artifact has the same name has a lower score."""
    score = read_status(out).get("score")
    beside = [file.parent for file in out.resolve().parent.glob("*/config.yaml")]
    scores = [read_status(run).get("score") for run in beside if _name(_settings(run)) == name]
    return score is not None and all(other is None or score <= other for other in scores)


def _settings(run: Path) -> DictConfig:
    return cast(DictConfig, OmegaConf.load(run / "config.yaml"))
