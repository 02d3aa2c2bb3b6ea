"""Read what other launchers and users of W&B set in the environment; what is typed, comes first."""

import os
from typing import Any

from omegaconf import DictConfig, ListConfig

from ganbench.config.messages import setting
from ganbench.errors import Refused, did_you_mean

WANDB_MODES = ("offline", "online", "disabled")
OLD_MODES = {"dryrun": "offline", "run": "online"}  # names that W&B still knows

# W&B's variables, and the settings that have their values where nothing else is said.
WANDB_VARIABLES = {
    "WANDB_MODE": "mode",
    "WANDB_DISABLED": "mode",
    "WANDB_PROJECT": "project",
    "WANDB_ENTITY": "entity",
    "WANDB_RUN_GROUP": "group",
    "WANDB_NAME": "name",
    "WANDB_TAGS": "tags",
    "WANDB_NOTES": "notes",
    "WANDB_DIR": "dir",
}
BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def reject_torchrun() -> None:
    """Raise Refused if torchrun has started several processes for what is one run.

    Its own variable decides: Slurm jobs of one task may have RANK and WORLD_SIZE, too.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and processes != "1":
        raise Refused(
            f"torchrun started {processes} processes (WORLD_SIZE={processes}), but a run uses one device and one "
            "process; use python -m ganbench instead, with -m for several runs side by side."
        )


def reject_multirun_under_agent() -> None:
    """Raise Refused for a sweep of ours inside one run of a W&B sweep, whose runs would all have that run's id."""
    if agent_sweep():
        raise Refused(
            "-m makes several runs, but wandb agent has started this command for one of its own "
            f"(WANDB_SWEEP_ID={os.environ['WANDB_SWEEP_ID']}); leave -m out, and give one value to each setting."
        )


def check_wandb_variables() -> None:
    """Raise Refused for a value of WANDB_MODE or WANDB_DISABLED that they cannot have."""
    mode = mode_variable()
    if mode and mode not in WANDB_MODES:
        hint = did_you_mean(mode, WANDB_MODES)
        raise Refused(f"WANDB_MODE={mode} must be one of: {', '.join(WANDB_MODES)}; {hint}set it so, or unset it.")
    disabled = os.environ.get("WANDB_DISABLED")
    if disabled and disabled.lower() not in BOOLEANS:
        raise Refused(f"WANDB_DISABLED={disabled} must be true or false; set it so, or unset it.")


def wandb_mode() -> str:
    """Return the mode where none is typed: that of the environment; under an agent online, and else offline."""
    if BOOLEANS.get(os.environ.get("WANDB_DISABLED", "").lower()):
        return "disabled"
    return mode_variable() or ("online" if agent_sweep() else "offline")


def agent_run(default: str) -> str:
    """Return the id of an agent's run, so that the run goes on in its folder when the agent starts it once more."""
    return os.environ.get("WANDB_RUN_ID", default) if agent_sweep() else default


def runs_folder() -> str:
    """Return the folder of single runs; under an agent that of its sweep, which can be reported like one of ours."""
    sweep = agent_sweep()
    return f"outputs/sweep/{sweep}" if sweep else "outputs/run"


def agent_sweep() -> str | None:
    """Return the id of the W&B sweep whose agent has started this process; None without an agent."""
    return os.environ.get("WANDB_SWEEP_ID") or None


def mode_variable() -> str:
    """Return the mode that WANDB_MODE asks for, by its name of today; empty if it is not set."""
    mode = os.environ.get("WANDB_MODE", "")
    return OLD_MODES.get(mode, mode)


def environment_variable(name: str, default: str | None) -> str | ListConfig | None:
    """Return the value of a variable, of WANDB_TAGS the list; the default if it is not set or empty.

    Under an agent the group is the agent's sweep.
    """
    value = os.environ.get(name) or (agent_sweep() if name == "WANDB_RUN_GROUP" else None) or default
    if name != "WANDB_TAGS":
        return value
    return ListConfig([tag.strip() for tag in (value or "").split(",") if tag.strip()])


def conflicting_variables(wandb: DictConfig) -> list[str]:
    """Say of each of W&B's variables that differs from the composed settings which of the two counts."""
    return [
        _conflict(variable, setting(f"wandb.{key}", wandb[key]))
        for variable, key in WANDB_VARIABLES.items()
        if os.environ.get(variable) and _wanted(variable) not in (None, getattr(wandb[key], "value", wandb[key]))
    ]


def _conflict(variable: str, typed: str) -> str:
    there = f"{variable}={os.environ[variable]}"
    if agent_sweep() and variable in ("WANDB_PROJECT", "WANDB_ENTITY"):
        return f"{there} overrules {typed}, because W&B keeps the runs of its sweep together"
    return f"{typed} overrules {there}"


def _wanted(variable: str) -> Any:
    """Return what a variable asks for; None for nothing."""
    if variable == "WANDB_DISABLED":
        return "disabled" if BOOLEANS[os.environ[variable].lower()] else None
    return mode_variable() if variable == "WANDB_MODE" else environment_variable(variable, None)
