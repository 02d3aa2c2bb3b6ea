"""protocol=tuned: compare the methods with the best settings of a random search over each, on fresh seeds.

Plain random search, so that no method is served better than another: trial k has the same settings and the same seed
for all of them. Trials are scored on a part of the training data, so the held-out data play no part in the choice. The
run folders are the only memory, so the same command again resumes the search. Nothing here imports torch.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganbench.config.messages import quoted, setting
from ganbench.config.ranges import check_value
from ganbench.config.schema import Track
from ganbench.errors import Refused, plural, unknown_key_message
from ganbench.runs.status import exit_statuses, read_status
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import compose_jobs, count_statuses, save_plan
from ganbench.sweeps.outcomes import Status, ranked_score

log = logging.getLogger("ganbench")

FIRST_TRIAL_SEED = 1000  # trial k trains with seed 1000 + k, which no final run may have

# What may be searched: the settings in which methods of one table may differ. With each, the overrides that set it.
SEARCHABLE = {
    "lr": ("protocol.lr", "optimizer.lr", "optimizer.generator.lr", "optimizer.critic.lr"),
    "betas": ("protocol.betas", "optimizer.betas", "optimizer.generator.betas", "optimizer.critic.betas"),
    "n_critic": ("protocol.n_critic",),
    "penalty_weight": ("protocol.penalty_weight", "penalty.weight"),
}
CONTINUOUS = ("lr", "penalty_weight")  # may be drawn from a range; the others only from a list


UNCHOSEN = ["protocol.trial=none"]  # what a run has in place of a trial until one is chosen


@dataclass
class Method:
    """A combination of what is swept apart from the seed, with its final runs before their settings are chosen."""

    overrides: tuple[str, ...]
    finals: list[Job]

    @property
    def protocol(self) -> DictConfig:
        return self.finals[0].shared.protocol

    @property
    def name(self) -> str:
        """Return the name of its runs' folders, without the seed."""
        first = self.finals[0]
        return first.subdir.removesuffix(f"-s{first.seed}")

    def settings_of(self, trial: int) -> dict[str, Any]:
        """Draw the settings of a trial from the method's search space."""
        space = OmegaConf.to_container(self.protocol.space, resolve=True)
        assert isinstance(space, dict)
        return draw_settings({str(key): entry for key, entry in space.items()}, trial)


@dataclass
class Search:
    """A method, and how its trials ended."""

    method: Method
    statuses: list[Status]

    @property
    def incomplete(self) -> list[str]:
        """Return the names of trials that have not ended with or without a score: they failed, or were interrupted."""
        ended = ("finished", "diverged")
        return [trial_name(trial) for trial, status in enumerate(self.statuses) if status["status"] not in ended]

    @property
    def best(self) -> int | None:
        """Return the trial with the lowest score, the first of equals; None without one or if trials are missing."""
        if self.incomplete:
            return None
        scores = [ranked_score(status) for status in self.statuses]
        lowest = min(scores)
        return scores.index(lowest) if math.isfinite(lowest) else None


def draw_settings(space: Mapping[str, Any], trial: int) -> dict[str, Any]:
    """Draw the settings of a trial. Each depends on its name and the number of the trial alone."""
    return {key: _value_at_quantile(entry, _uniform_hash(key, trial)) for key, entry in space.items()}


def _uniform_hash(key: str, trial: int) -> float:
    """Return a number from 0 to below 1, evenly distributed over keys and trials."""
    digest = hashlib.sha256(f"{key}/{trial}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # the 53 bits that a float holds


def _value_at_quantile(entry: Mapping[str, Any], share: float) -> Any:
    """Return the value at quantile `share` of a list, or of a range: rounded to three digits, within its ends."""
    if entry.get("of") is not None:
        return entry["of"][int(share * len(entry["of"]))]
    low, high = entry["low"], entry["high"]
    value = low * (high / low) ** share if entry.get("log") else low + (high - low) * share
    return min(max(float(f"{value:.3g}"), low), high)


def trial_name(trial: int) -> str:
    """Name a trial by its number, such as `t007`."""
    return f"t{trial:03d}"


def tune(
    launch: Callable[[list[Job]], object],
    check: Callable[[list[Job]], None],
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
) -> None:
    """Run every method's trials, then each method with its best trial's settings and the seeds asked for.

    Runs that are complete are kept. `check` refuses what `launch` could not make, before anything is written.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    methods = _methods(context, config, job_overrides)
    trials = _compose_trials(context, config, methods)
    _check_existing_finals(context, config, methods)
    unchosen = [job for method in methods for job in method.finals]
    for stage in (trials, unchosen):  # there may be more final runs than trials
        check(stage)
    save_plan(config, unchosen)
    searches = _searches(methods, _complete(launch, trials, "trials"))
    finals = _compose_finals(context, config, searches)
    final_statuses = _complete(launch, finals, "final runs")
    for search in searches:
        _log_choice(search)
    _set_exit_statuses(searches, final_statuses)


def _methods(context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[Method]:
    """Group the final runs by method, each checked with the settings it has before any is chosen."""
    for overrides in job_overrides:
        _reject_overrides(overrides, ("protocol.trial", "protocol.scored_on"), "the tuned track sets it; leave it out.")
    jobs = compose_jobs(context, config, [[*o, *UNCHOSEN] for o in job_overrides], check_existing=False)
    finals: dict[tuple[str, ...], list[Job]] = {}
    for job, overrides in zip(jobs, job_overrides, strict=True):
        check_search(job)
        method = tuple(override for override in overrides if _key(override) != "seed")
        finals.setdefault(method, []).append(job)
    return [Method(overrides, jobs) for overrides, jobs in finals.items()]


def check_search(job: Job) -> None:
    """Raise Refused for a search that cannot be made, or that would not search what it says."""
    protocol = job.shared.protocol
    if protocol.track is not Track.tuned:
        raise Refused(f"protocol={protocol.name} is no search: in a sweep with protocol=tuned every run must be tuned.")
    check_space(protocol)
    for key in protocol.space:
        fix = f"protocol.space searches it; leave it out, or out of the search with '~protocol.space.{key}'."
        _reject_overrides(job.overrides, SEARCHABLE[key], fix)
    _check_seed(job.seed, protocol.trials)


def _check_seed(seed: int, trials: int) -> None:
    last = FIRST_TRIAL_SEED + trials - 1
    if FIRST_TRIAL_SEED <= seed <= last:
        raise Refused(
            f"seed={seed} is the seed of trial {trial_name(seed - FIRST_TRIAL_SEED)}, and final runs need fresh ones: "
            f"use any but {FIRST_TRIAL_SEED} to {last}."
        )


def check_space(protocol: DictConfig) -> None:
    """Raise Refused for a number of trials or a space that nothing can be drawn from."""
    if protocol.trials is None or protocol.trials < 1:
        raise Refused(f"{setting('protocol.trials', protocol.trials)} must be a whole number >= 1.")
    if not isinstance(protocol.space, DictConfig) or not protocol.space:
        raise Refused(f"{setting('protocol.space', protocol.space)} must name one or more of {', '.join(SEARCHABLE)}.")
    for key, entry in protocol.space.items():
        if key not in SEARCHABLE:
            raise Refused(unknown_key_message(f"protocol.space.{key!s}", list(SEARCHABLE)))
        _check_entry(f"protocol.space.{key!s}", str(key), entry)


def _check_entry(where: str, key: str, entry: Any) -> None:
    """Raise Refused unless `entry` is a list of values, or a range if the setting is continuous."""
    known = ["low", "high", "log", "of"] if key in CONTINUOUS else ["of"]
    if isinstance(entry, DictConfig):
        for unknown in sorted(set(entry) - set(known)):
            raise Refused(unknown_key_message(f"{where}.{unknown}", known))
        if isinstance(entry.get("of"), ListConfig) and entry.of:
            return _check_list(where, key, entry.of)
        if entry.get("of") is None and {"low", "high"} <= set(entry):
            return _check_range(where, key, entry)
    ranges = "{low: ..., high: ..., log: true or false} or " if key in CONTINUOUS else ""
    raise Refused(f"{setting(where, entry)} cannot be drawn from; use {ranges}{{of: [...]}} with one value or more.")


def _check_list(where: str, key: str, values: ListConfig) -> None:
    for value in values:
        check_value(f"{where}.of", f"protocol.{key}", value)


def _check_range(where: str, key: str, entry: DictConfig) -> None:
    for end in ("low", "high"):
        check_value(f"{where}.{end}", f"protocol.{key}", entry[end])
    if entry.get("log", False) not in (True, False):
        raise Refused(f"{where}.log={entry.log} must be true or false.")
    if entry.low >= entry.high:
        raise Refused(f"{where}.low={entry.low} must be less than high={entry.high}.")
    if entry.get("log") and entry.low <= 0:
        raise Refused(f"{where}.low={entry.low} must be > 0 with log=true, as it has no logarithm.")


def _reject_overrides(overrides: Sequence[str], keys: Sequence[str], fix: str) -> None:
    """Raise Refused if one of the overrides sets one of the keys."""
    for override in overrides:
        if _key(override) in keys:
            raise Refused(f"{override}: {fix}")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _compose_trials(context: HydraContext, config: DictConfig, methods: list[Method]) -> list[Job]:
    """Compose and check all trials, method by method."""
    overrides = []
    for method in methods:
        for trial in range(method.protocol.trials):
            overrides.append(_trial_overrides(config, method, trial))
    return compose_jobs(context, config, overrides)


def _trial_overrides(config: DictConfig, method: Method, trial: int) -> list[str]:
    """Return what makes a trial. Neither the number of trials nor the space is in it, so that more can follow."""
    return [
        *method.overrides,
        f"seed={FIRST_TRIAL_SEED + trial}",
        *_choice(method, trial),
        "protocol.scored_on=selection",
        "protocol.trials=null",
        "protocol.space=null",
        f"wandb.group={quoted(f'{config.wandb.group or config.name}-trials')}",
        f"hydra.sweep.subdir={quoted(f'trials/{method.name}-{trial_name(trial)}')}",
    ]


def _choice(method: Method, trial: int) -> list[str]:
    """Return the overrides that set what is searched to the values of a trial."""
    settings = [f"protocol.{key}={json.dumps(value)}" for key, value in method.settings_of(trial).items()]
    return [*settings, f"protocol.trial={trial_name(trial)}"]


def _check_existing_finals(context: HydraContext, config: DictConfig, methods: list[Method]) -> None:
    """Raise Refused for final runs of another search, whatever trial they say was the best; before any trial runs."""
    overrides = []
    for method in methods:
        for final in method.finals:
            if (final.folder / "config.yaml").exists():
                overrides.append(_final_overrides(method, final, _recorded_choice(method, final.folder)))
    compose_jobs(context, config, overrides)


def _recorded_choice(method: Method, folder: Path) -> list[str]:
    try:
        trial = int(str(OmegaConf.load(folder / "config.yaml").protocol.trial).removeprefix("t"))
    except Exception:  # damaged, or no final run at all: the comparison that follows says in what it differs
        return ["protocol.trial=none"]
    return _choice(method, trial)


def _searches(methods: list[Method], statuses: list[Status]) -> list[Search]:
    """Give each method its trials' statuses, which come method by method."""
    remaining = iter(statuses)
    return [Search(method, list(islice(remaining, method.protocol.trials))) for method in methods]


def _compose_finals(context: HydraContext, config: DictConfig, searches: list[Search]) -> list[Job]:
    """Compose and check the final runs of every method that has a best trial, with its settings."""
    overrides = []
    for search in searches:
        if search.best is not None:
            choice = _choice(search.method, search.best)
            overrides += [_final_overrides(search.method, final, choice) for final in search.method.finals]
    return compose_jobs(context, config, overrides)


def _final_overrides(method: Method, final: Job, choice: list[str]) -> list[str]:
    subdir = f"hydra.sweep.subdir={quoted(final.subdir)}"
    return [*method.overrides, f"seed={final.seed}", *choice, subdir]


def _complete(launch: Callable[[list[Job]], object], jobs: list[Job], what: str) -> list[Status]:
    """Run the jobs that are not complete yet, and return how each job has ended."""
    remaining = [job for job in jobs if job.completed_status() is None]
    log.info(f"{what}: {len(jobs)} ({len(jobs) - len(remaining)} already done)")
    if remaining:
        launch(remaining)
    statuses = [read_status(job.folder) for job in jobs]
    log.info(f"{what}: {count_statuses(statuses) or 'none'}")
    return statuses


def _log_choice(search: Search) -> None:
    """Log which settings a method was given, or why it has none and what to do about it."""
    method = search.method
    n_trials = len(search.statuses)
    if search.best is not None:
        settings = ", ".join(f"{key}={value}" for key, value in method.settings_of(search.best).items())
        score = f"{ranked_score(search.statuses[search.best]):.4g}"
        log.info(
            f"{method.name}: best of {plural(n_trials, 'trial')} is {trial_name(search.best)}, score {score} with "
            f"{settings}"
        )
    elif search.incomplete:
        log.error(
            f"{method.name}: no final runs, because {', '.join(search.incomplete)} did not complete and every method "
            "gets as many trials. Rerun the same command to complete them, with retry=true to retry failed ones."
        )
    else:
        log.error(
            f"{method.name}: no final runs, because no trial of {n_trials} has a score. Widen protocol.space or "
            "raise protocol.trials, under another name=..."
        )


def _set_exit_statuses(searches: list[Search], final_statuses: list[Status]) -> None:
    """Count a method without final runs as failed, but no trial that diverged: to learn that is what trials are for."""
    trials = [status["status"] for search in searches for status in search.statuses]
    exit_statuses[:] = [status for status in trials if status != "diverged"]
    exit_statuses.extend(status["status"] for status in final_statuses)
    exit_statuses.extend("failed" for search in searches if search.best is None)
