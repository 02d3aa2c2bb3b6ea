"""protocol=tuned: each method with the best of random trials, chosen without a look at the held-out data.

Plain random search, so that no method is served better than another: trial k has the same settings and the same seed
for all of them. The run folders are all there is to remember, so the same command again goes on where it was stopped.
Nothing here imports torch.
"""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganbench.config.schema import Track
from ganbench.config.validate import check_value
from ganbench.errors import Refused, unknown_key_message
from ganbench.runs.status import exit_statuses, read_status
from ganbench.sweeps.jobs import Job, compose_jobs
from ganbench.sweeps.task import ranked_score

log = logging.getLogger("ganbench")

FIRST_TRIAL_SEED = 1000  # trial k trains with seed 1000 + k, which no final run may have

# What may be searched: the settings in which methods of one table may differ. With each, what sets it in its place.
SEARCHED = {
    "lr": ("protocol.lr", "optimizer.lr", "optimizer.generator.lr", "optimizer.critic.lr"),
    "betas": ("protocol.betas", "optimizer.betas", "optimizer.generator.betas", "optimizer.critic.betas"),
    "n_critic": ("protocol.n_critic",),
    "penalty_weight": ("protocol.penalty_weight", "penalty.weight"),
}
RANGED = ("lr", "penalty_weight")  # the others have no values between two


class Method(NamedTuple):
    """A combination of what is swept beside the seed, with its final runs (whose settings are still to be chosen)."""

    overrides: tuple[str, ...]
    finals: list[Job]

    @property
    def name(self) -> str:
        """Of its folders, up to the seed."""
        first = self.finals[0].config
        return first.hydra.sweep.subdir.removesuffix(f"-s{first.seed}")

    @property
    def trials(self) -> int:
        return self.finals[0].config.protocol.trials

    def drawn(self, trial: int) -> dict[str, Any]:
        return draw_settings(OmegaConf.to_container(self.finals[0].config.protocol.space, resolve=True), trial)


def draw_settings(space: Mapping[str, Any], trial: int) -> dict[str, Any]:
    """The settings of a trial: of each, by its name and the trial's number alone."""
    return {key: _value_at_quantile(of, _uniform_hash(key, trial)) for key, of in space.items()}


def _uniform_hash(key: str, trial: int) -> float:
    """From 0 to below 1."""
    return (int.from_bytes(hashlib.sha256(f"{key}/{trial}".encode()).digest()[:8], "big") >> 11) / 2**53


def _value_at_quantile(of: Mapping[str, Any], share: float) -> Any:
    """That far along a range or a list; of a range three digits, within its ends."""
    if of.get("of") is not None:
        return of["of"][int(share * len(of["of"]))]
    low, high = of["low"], of["high"]
    value = low * (high / low) ** share if of.get("log") else low + (high - low) * share
    return min(max(float(f"{value:.3g}"), low), high)


def trial_name(trial: int) -> str:
    return f"t{trial:03d}"


def tune(launcher: Launcher, context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> None:
    """Run every method's trials, then each method's best again with the seeds asked for. What is done already stays."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    methods = _methods(context, config, job_overrides)
    trials = _trials(context, config, methods)
    _refuse_other_finals(context, config, methods)
    _keep_command(Path(config.hydra.sweep.dir), config)
    ended = _complete(launcher, [job for jobs in trials for job in jobs], "trials")
    by_method = [[ended.pop(0) for _ in jobs] for jobs in trials]
    chosen = [_winner(statuses) for statuses in by_method]
    finals = [
        job
        for method, best in zip(methods, chosen, strict=True)
        for job in (_finals(context, config, method, best) if best is not None else [])
    ]
    final_statuses = _complete(launcher, finals, "final runs")
    _log_choices(methods, by_method, chosen)
    tried = [status["status"] for statuses in by_method for status in statuses]
    # A trial that diverged is what a search is there to find out, and no trouble; one that failed is.
    exit_statuses[:] = [status for status in tried if status != "diverged"]
    exit_statuses.extend([status["status"] for status in final_statuses] + ["failed"] * chosen.count(None))


def _methods(context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[Method]:
    """What is to be compared, checked with the settings it has before any is chosen."""
    for overrides in job_overrides:
        _reject_reserved(overrides, ("protocol.trial", "protocol.scored_on"), "the tuned track sets it; leave it out.")
    plain = [*_short_folder_names(config), "protocol.trial=none"]
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in compose_jobs(context, config, [[*o, *plain] for o in job_overrides], look=False):
        check_search(job)
        given = [o for o in job.overrides[: -len(plain)] if _key(o) != "seed"]
        groups.setdefault(tuple(given), []).append(job)
    return [Method(overrides, jobs) for overrides, jobs in groups.items()]


def check_search(job: Job) -> None:
    """Raise Refused for a search that cannot be made, or that would not search what it says."""
    p, seed = job.config.protocol, job.config.seed
    if p.track is not Track.tuned:
        raise Refused(f"protocol={p.name} is no search: a sweep with protocol=tuned has runs of that track only.")
    check_space(p)
    for key in p.space:
        cure = f"protocol.space searches it; leave it out, or take it out of the search with '~protocol.space.{key}'."
        _reject_reserved(job.overrides, SEARCHED[key], cure)
    if FIRST_TRIAL_SEED <= seed < FIRST_TRIAL_SEED + p.trials:
        raise Refused(
            f"seed={seed} is the seed of trial {trial_name(seed - FIRST_TRIAL_SEED)}, and final runs need fresh ones: "
            f"allowed are all but {FIRST_TRIAL_SEED} to {FIRST_TRIAL_SEED + p.trials - 1}."
        )


def check_space(protocol: DictConfig) -> None:
    """Raise Refused for a number of trials or a space that nothing can be drawn from."""
    if protocol.trials is None or protocol.trials < 1:
        raise Refused(f"protocol.trials={protocol.trials} is out of range: allowed is 1 or more.")
    if not isinstance(protocol.space, DictConfig) or not protocol.space:
        raise Refused(f"protocol.space={protocol.space} holds nothing to search: name one or more of {_names()}.")
    for key, of in protocol.space.items():
        if key not in SEARCHED:
            raise Refused(unknown_key_message(f"protocol.space.{key}", list(SEARCHED)))
        _refuse_entry(f"protocol.space.{key}", key, of)


def _refuse_entry(where: str, key: str, of: Any) -> None:
    known = ["low", "high", "log", "of"] if key in RANGED else ["of"]
    unknown = set(of) - set(known) if isinstance(of, DictConfig) else ()
    if unknown:
        raise Refused(unknown_key_message(f"{where}.{min(unknown)}", known))
    if isinstance(of, DictConfig) and isinstance(of.get("of"), ListConfig) and of.of:
        for value in of.of:
            check_value(f"{where}.of", f"protocol.{key}", value)
    elif isinstance(of, DictConfig) and of.get("of") is None and {"low", "high"} <= set(of):
        _refuse_range(where, key, of)
    else:
        ranges = "{low: …, high: …, log: true or false} or " if key in RANGED else ""
        raise Refused(f"{where}={of} cannot be drawn from: allowed is {ranges}{{of: […]}} with one value or more.")


def _refuse_range(where: str, key: str, of: DictConfig) -> None:
    for end in ("low", "high"):
        check_value(f"{where}.{end}", f"protocol.{key}", of[end])
    if of.get("log", False) not in (True, False):
        raise Refused(f"{where}.log={of.log}: allowed is true or false.")
    if of.low >= of.high:
        raise Refused(f"{where}.low={of.low} is not below high={of.high}: allowed is less than that.")
    if of.get("log") and of.low <= 0:
        raise Refused(f"{where}.low={of.low} has no logarithm: allowed with log is above 0.")


def _reject_reserved(overrides: Sequence[str], keys: Sequence[str], cure: str) -> None:
    for override in overrides:
        if _key(override) in keys:
            raise Refused(f"{override}: {cure}")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _names() -> str:
    return ", ".join(SEARCHED)


def _trials(context: HydraContext, config: DictConfig, methods: list[Method]) -> list[list[Job]]:
    """Every method's, in their order."""
    overrides = [_trial_overrides(config, method, trial) for method in methods for trial in range(method.trials)]
    jobs = compose_jobs(context, config, overrides)
    return [[jobs.pop(0) for _ in range(method.trials)] for method in methods]


def _trial_overrides(config: DictConfig, method: Method, trial: int) -> list[str]:
    """A trial knows nothing of how many others there are, so that more can follow."""
    return [
        *method.overrides,
        f"seed={FIRST_TRIAL_SEED + trial}",
        *_choice(method.drawn(trial), trial_name(trial)),
        "protocol.scored_on=selection",
        "protocol.trials=null",
        "protocol.space=null",
        f"wandb.group={_quoted(f'{config.wandb.group or config.name}-trials')}",
        f"hydra.sweep.subdir={_quoted(f'trials/{method.name}-{trial_name(trial)}')}",
    ]


def _choice(values: Mapping[str, Any], trial: str) -> list[str]:
    return [*(f"protocol.{key}={json.dumps(value)}" for key, value in values.items()), f"protocol.trial={trial}"]


def _short_folder_names(config: DictConfig) -> list[str]:
    """Folders of one search all have the same track, and trials any number of others: no need to name these."""
    known = config.hydra.job.config.override_dirname.exclude_keys
    keys = ",".join([*known, "protocol", "protocol.trials", "protocol.trial"])
    return [f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def _finals(context: HydraContext, config: DictConfig, method: Method, trial: int) -> list[Job]:
    """The final runs of a method, with the settings of that trial."""
    choice = _choice(method.drawn(trial), trial_name(trial))
    return compose_jobs(context, config, [_final_overrides(method, job, choice) for job in method.finals])


def _final_overrides(method: Method, final: Job, choice: list[str]) -> list[str]:
    subdir = f"hydra.sweep.subdir={_quoted(final.config.hydra.sweep.subdir)}"
    return [*method.overrides, f"seed={final.config.seed}", *choice, subdir]


def _refuse_other_finals(context: HydraContext, config: DictConfig, methods: list[Method]) -> None:
    """Before any trial: final runs that are there already must be ours, whatever trial they say was the best."""
    there = [(m, job) for m in methods for job in m.finals if (job.folder / "config.yaml").exists()]
    told = [_final_overrides(method, job, _recorded_choice(method, job.folder)) for method, job in there]
    compose_jobs(context, config, told)


def _recorded_choice(method: Method, folder: Path) -> list[str]:
    try:
        trial = int(str(OmegaConf.load(folder / "config.yaml").protocol.trial).removeprefix("t"))
    except Exception:  # damaged, or no final run at all: then the comparison that follows says in what it differs
        return ["protocol.trial=none"]
    return _choice(method.drawn(trial), trial_name(trial))


def _keep_command(folder: Path, config: DictConfig) -> None:
    """As Hydra's own sweeper does."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "multirun.yaml").exists():
        OmegaConf.save(config, folder / "multirun.yaml")


def _complete(launcher: Launcher, jobs: list[Job], what: str) -> list[dict[str, Any]]:
    """Run those that are not done yet, and return how each has ended."""
    rest = [job for job in jobs if job.settled() is None]
    log.info(f"{what}: {len(jobs)}, of which {len(jobs) - len(rest)} are done already")
    if rest:
        launcher.launch([job.overrides for job in rest], initial_job_idx=0)
    statuses = [read_status(job.folder) for job in jobs]
    counted = ", ".join(f"{n} {status}" for status, n in Counter(s["status"] for s in statuses).items())
    log.info(f"{what}: {counted or 'none'}")
    return statuses


def _winner(statuses: list[dict[str, Any]]) -> int | None:
    """The trial with the lowest score, the first of equals; None if none has one, or some are still missing."""
    if any(status["status"] not in ("finished", "diverged") for status in statuses):
        return None
    scores = [ranked_score(status) for status in statuses]
    return scores.index(min(scores)) if math.isfinite(min(scores)) else None


def _log_choices(methods: list[Method], by_method: list[list[dict[str, Any]]], chosen: list[int | None]) -> None:
    """Which settings each method was given, or why it has none."""
    for method, statuses, best in zip(methods, by_method, chosen, strict=True):
        missing = [trial_name(k) for k, s in enumerate(statuses) if s["status"] not in ("finished", "diverged")]
        if best is not None:
            told = ", ".join(f"{key}={value}" for key, value in method.drawn(best).items())
            score = f"{ranked_score(statuses[best]):.4g}"
            log.info(f"{method.name}: {trial_name(best)} is the best of {len(statuses)} trials, {score} with {told}")
        elif missing:
            log.error(
                f"{method.name}: no final runs, since {', '.join(missing)} did not end, and every method gets as many "
                "trials; the same command again makes what is missing, with retry=true what failed, too"
            )
        else:
            log.error(
                f"{method.name}: no final runs, since none of its {len(statuses)} trials has a score; give it a larger "
                "protocol.space or more protocol.trials, under another name=…"
            )
