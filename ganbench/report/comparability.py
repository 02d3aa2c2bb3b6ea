"""Whether runs stand on equal footing, by their footing.json."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ganbench.report.load import Run

# By field: how to run again so that it is the same.
FIXES = {
    "dataset": "one dataset=… a table",
    "train_data": "the same files (and dataset.n, dataset.shape, …) for all",
    "held_out_data": "the same files (and dataset.n, dataset.shape, …) for all",
    "generator": "the same model=… and model.width=…",
    "critic": "the same model=…, model.width=… and model.critic_norm=…",
    "z_dim": "the same model.z_dim=…",
    "images": "the same protocol.images=…",
    "batch": "the same protocol.batch=…",
    "reuse_fakes": "the same protocol.reuse_fakes=…",
    "ema": "the same protocol.ema=…",
    "evaluations": "the same protocol.evaluations=…",
    "precision": "the same precision=…",
    "metric": "the same metric=…",
    "metric_network": "the same metric.features.weights=… and version of ganbench",
    "n_fake": "the same metric.n_fake=…",
    "n_real": "the same metric.n_real=…",
    "k_neighbors": "the same metric.k_neighbors=…",
    "streams": "the same version of ganbench",
    "scored_on": "the same protocol.scored_on=…",
    "trials": "the same protocol.trials=…",
    "space": "the same protocol.space",
    "protocol": "the same protocol=…",
    "track": "the same protocol=…",
    "optimizer": "the same optimizer=…",
    "lr": "the same protocol.lr=… (and no optimizer.critic.lr=… of its own)",
    "betas": "the same protocol.betas=…",
    "optimizer_options": "the same optimizer=… and optimizer.….…=…",
    "n_critic": "the same protocol.n_critic=…",
    "penalty_weight": "the same protocol.penalty_weight=…",
    "generator_weights": "the same version of ganbench and torch for all runs of a seed",
    "critic_weights": "the same version of ganbench and torch for all runs of a seed",
}


class NotComparable(Exception):
    """Runs that must not be put into one table; says why."""


class Mismatch(NamedTuple):
    field: str
    values: dict[str, list[str]]  # the folders of the runs that have each value

    def __str__(self) -> str:
        told = ", ".join(f"{value} in {_some(folders)}" for value, folders in self.values.items())
        return f"{self.field} is {told}"


def mismatches(runs: Iterable[Run]) -> list[Mismatch]:
    """Fields that differ where they must not: between all runs, or in what a seed starts from between its runs.

    Settings may differ where the track gives each method its own; the page lists them.
    """
    told = [run for run in runs if run.footing]
    own_settings = any(run.footing["equal"].get("track") in ("paper", "tuned") for run in told)
    parts = ("equal",) if own_settings else ("equal", "setting")
    found = [_of(field, told, part) for part in parts for field in _fields(told, part)]
    for seed in sorted({run.seed for run in told}):
        same = [run for run in told if run.seed == seed]
        found += [_of(field, same, "start") for field in _fields(same, "start")]
    return [mismatch for mismatch in found if len(mismatch.values) > 1]


def check_comparable(runs: list[Run], allowed: Iterable[str]) -> list[Mismatch]:
    """Raise Unlike for mismatches that are not allowed; return those that are."""
    unknown = [field for field in allowed if field not in FIXES]
    if unknown:
        raise NotComparable(
            f"--allow-mismatch {unknown[0]}: there is no such field; allowed are {', '.join(sorted(FIXES))}."
        )
    found = mismatches(runs)
    refused = [mismatch for mismatch in found if mismatch.field not in allowed]
    if refused:
        lines = [
            f"  {m}\n    mend: run again with {FIXES.get(m.field, 'the same version of ganbench')}" for m in refused
        ]
        fields = " ".join(f"--allow-mismatch {field}" for field in dict.fromkeys(m.field for m in refused))
        raise NotComparable(
            "These runs do not stand on equal footing, and one table would compare more than losses:\n"
            + "\n".join(lines)
            + f"\nTo compare them all the same, with a stamp on the page that says so: {fields}"
        )
    return found


def machine_differences(runs: Iterable[Run]) -> list[Mismatch]:
    """Differences that bar no comparison but should be known."""
    told = [run for run in runs if run.footing]
    return [m for field in _fields(told, "machine") if len((m := _of(field, told, "machine")).values) > 1]


def _fields(runs: list[Run], part: str) -> list[str]:
    return list(dict.fromkeys(field for run in runs for field in run.footing[part]))


def _of(field: str, runs: list[Run], part: str) -> Mismatch:
    """By value; a run without a penalty has no weight to differ in."""
    values: dict[str, list[str]] = {}
    for run in runs:
        value: Any = run.footing[part].get(field)
        if not (part == "setting" and value is None):
            values.setdefault(value if isinstance(value, str) else json.dumps(value), []).append(run.folder.name)
    return Mismatch(field, values)


def _some(folders: list[str]) -> str:
    return folders[0] + (f" and {len(folders) - 1} more" if len(folders) > 1 else "")
