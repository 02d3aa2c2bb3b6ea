"""Read the settings of many runs: those that differ in their seed alone are parsed once. Needs no torch."""

import re
from typing import Any

SEED = re.compile(r"^((?:  )?seed: )(0|[1-9][0-9]*)$", re.MULTILINE)  # in config.yaml: that of the run, and its probe's


def with_seed_zero(text: str) -> str:
    """Return the text of a config.yaml as it would be of the same run at seed 0."""
    return SEED.sub(r"\g<1>0", text)


def at_own_seed(text: str, at_zero: dict[str, Any]) -> dict[str, Any] | None:
    """Return the settings of a config.yaml, given those of `with_seed_zero`; None if it has more than one seed."""
    seeds = [int(seed) for _, seed in SEED.findall(text)]
    groups = [key for key, node in at_zero.items() if isinstance(node, dict) and node.get("seed") == 0]
    if len(set(seeds)) != 1 or len(seeds) != len(groups) + 1 or at_zero["seed"] != 0:
        return None
    own = {"seed": seeds[0]}
    return at_zero | own | {key: at_zero[key] | own for key in groups}
