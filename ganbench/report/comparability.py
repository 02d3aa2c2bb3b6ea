"""Check that runs are on equal footing, by their footing.json, before they are compared."""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ganbench.report.load import Run

# By field: what to give all runs so that they are comparable.
FIXES = {
    "code": "the same version of ganbench, and your own files as they are now",
    "dataset": "the same dataset=...",
    "train_data": "the same files (and dataset.n, dataset.shape, …)",
    "held_out_data": "the same files (and dataset.n, dataset.shape, …)",
    "generator": "the same model=... and model.width=...",
    "critic": "the same model=..., model.width=... and model.critic_norm=...",
    "z_dim": "the same model.z_dim=...",
    "init": "the same model.init=...",
    "images": "the same protocol.images=...",
    "batch": "the same protocol.batch=...",
    "reuse_fakes": "the same protocol.reuse_fakes=...",
    "flip_reals": "the same protocol.flip_reals=...",
    "augment": "the same augment=...",
    "ema": "the same protocol.ema=... or protocol.ema_half_life=...",
    "evaluations": "the same protocol.evaluations=...",
    "precision": "the same precision=...",
    "metric": "the same metric=...",
    "metric_network": "the same metric.features.weights=... and version of ganbench",
    "n_fake": "the same metric.n_fake=...",
    "n_real": "the same metric.n_real=...",
    "reference": "the same metric.reference=...",
    "n_pairs": "the same metric.n_pairs=...",
    "k_neighbors": "the same metric.k_neighbors=...",
    "streams": "the same version of ganbench",
    "scored_on": "the same protocol.scored_on=...",
    "trials": "the same protocol.trials=...",
    "space": "the same protocol.space",
    "protocol": "the same protocol=...",
    "track": "the same protocol=...",
    "optimizer": "the same optimizer=...",
    "lr": "the same protocol.lr=... (and no optimizer.critic.lr=...)",
    "lr_schedule": "the same protocol.lr_decay=... and protocol.lr_warmup=...",
    "betas": "the same protocol.betas=...",
    "optimizer_options": "the same optimizer=... and optimizer.….…=...",
    "n_critic": "the same protocol.n_critic=...",
    "critic_start": "the same protocol.critic_start=..., critic_start_steps=... and critic_start_every=...",
    "generator_batch": "the same protocol.generator_batch=...",
    "penalty_weight": "the same protocol.penalty_weight=...",
    "generator_weights": "the same version of ganbench and torch for all runs of a seed",
    "critic_weights": "the same version of ganbench and torch for all runs of a seed",
}
METRIC_PROTOCOL = (
    "metric_protocol"  # the one field that is never allowed to differ; only scores that papers report have it
)
OTHER_VERSION = "the same version of ganbench"  # the fix for a field that this version does not know


class NotComparable(Exception):
    """Runs that must not be put into one table; says why, and what to do."""


class Mismatch(NamedTuple):
    """A field of the footing that differs between runs."""

    field: str
    values: dict[str, list[str]]  # by value, the folders of the runs that have it

    def __str__(self) -> str:
        parts = [f"{value} in {_first_and_count(folders)}" for value, folders in self.values.items()]
        return f"{self.field} is {', '.join(parts)}"


def _first_and_count(folders: list[str]) -> str:
    return folders[0] + (f" and {len(folders) - 1} more" if len(folders) > 1 else "")


def mismatches(runs: Iterable[Run]) -> list[Mismatch]:
    """Find the fields that differ but must not: between all runs, those of a method, or, for first weights, of a seed.

    Settings may differ on a track that gives each method its own; the page lists them.
    """
    runs = [run for run in runs if run.footing]
    own_settings = any(run.footing["equal"].get("track") in ("paper", "tuned") for run in runs)
    differing = _mismatches_in("equal", runs)
    if not own_settings:
        differing += _mismatches_in("setting", runs)
    for of_method in _grouped(runs, lambda run: run.method).values():
        differing += _mismatches_in("method", of_method)
        differing += _mismatch_of_older_versions(of_method)
    by_seed = _grouped((run for run in runs if run.seed is not None), lambda run: run.seed)
    for seed in sorted(by_seed):
        differing += _mismatches_in("start", by_seed[seed])
    return differing


def _grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _mismatch_of_older_versions(runs: list[Run]) -> list[Mismatch]:
    """Compare the code of runs whose version did not yet record it in the footing, but in status.json."""
    by_code: dict[str, list[str]] = {}
    for run in runs:
        if not run.footing.get("method") and run.facts.get("code"):
            by_code.setdefault(str(run.facts["code"]), []).append(run.folder.name)
    return [Mismatch("code", by_code)] if len(by_code) > 1 else []


def machine_differences(runs: Iterable[Run]) -> list[Mismatch]:
    """Find differences that do not forbid a comparison but should be known."""
    return _mismatches_in("machine", [run for run in runs if run.footing])


def _mismatches_in(part: str, runs: list[Run]) -> list[Mismatch]:
    fields = dict.fromkeys(field for run in runs for field in run.footing.get(part, {}))
    compared = [Mismatch(field, _folders_by_value(field, part, runs)) for field in fields]
    return [mismatch for mismatch in compared if len(mismatch.values) > 1]


def _folders_by_value(field: str, part: str, runs: list[Run]) -> dict[str, list[str]]:
    """Group runs by the field's value.

    Left out are runs without a penalty, which have no `penalty_weight`; runs that do not say how the score is taken;
    and the budget of those that did not finish: a run that diverged would do so with a larger one, too, and may have
    been left behind when others were extended.
    """
    folders: dict[str, list[str]] = {}
    for run in runs:
        value = run.footing.get(part, {}).get(field)
        if value is None and (part == "setting" or field == METRIC_PROTOCOL):
            continue
        if field == "images" and run.status != "finished":
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        folders.setdefault(text, []).append(run.folder.name)
    return folders


def check_comparable(runs: list[Run], allowed: Iterable[str]) -> list[Mismatch]:
    """Raise NotComparable for mismatches that are not allowed; return those that are.

    Scores of two protocols are never allowed to share a table.
    """
    differing = mismatches(runs)
    for mismatch in differing:
        if mismatch.field == METRIC_PROTOCOL:
            raise NotComparable(_mixed_protocols(mismatch.values))
    unknown = [field for field in allowed if field not in FIXES]
    if unknown:
        raise NotComparable(
            f"--allow-mismatch {unknown[0]}: there is no footing field {unknown[0]}. "
            f"Allowed: {', '.join(sorted(FIXES))}."
        )
    refused = [mismatch for mismatch in differing if mismatch.field not in allowed]
    if refused:
        raise NotComparable(_refusal(refused))
    return differing


def check_one_protocol(scored: Iterable[tuple[str | None, str | None, str]]) -> None:
    """Raise NotComparable if scores of one dataset were taken by several protocols.

    `scored` says of each score the dataset, the protocol (None: not declared) and the folder.
    """
    folders: dict[str | None, dict[str, list[str]]] = {}
    for dataset, protocol, folder in scored:
        if protocol:
            folders.setdefault(dataset, {}).setdefault(protocol, []).append(folder)
    for dataset, by_protocol in folders.items():
        if len(by_protocol) > 1:
            raise NotComparable(f"{dataset}: {_mixed_protocols(by_protocol)}")


def _mixed_protocols(folders: dict[str, list[str]]) -> str:
    """Say that scores were taken by several protocols: by protocol, the folders that have it."""
    parts = [f"[{protocol}] in {_first_and_count(names)}" for protocol, names in folders.items()]
    return (
        f"Scores of two protocols never share a table: {' and '.join(parts)}; rerun with the same metric=..., "
        "metric.n_fake, metric.n_real, metric.reference, metric.n_pairs and weights, or report them in folders of "
        "their own."
    )


def _refusal(refused: list[Mismatch]) -> str:
    lines = ["These runs are not comparable; they differ in more than the loss:"]
    for mismatch in refused:
        lines.append(f"  {mismatch}")
        lines.append(f"    fix: rerun with {FIXES.get(mismatch.field, OTHER_VERSION)}")
    fields = dict.fromkeys(mismatch.field for mismatch in refused)
    options = " ".join(f"--allow-mismatch {field}" for field in fields)
    lines.append(f"To compare them anyway, with a mark on the page, add {options}")
    return "\n".join(lines)
