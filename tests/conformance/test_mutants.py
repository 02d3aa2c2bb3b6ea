"""Every wrong version is caught, and README's table says by what."""

from collections.abc import Iterable

import pytest
from conftest import REPOSITORY, settings
from mutants import CRITICS, LOSSES, METRICS, PENALTIES, STEPS, Mutant
from omegaconf import OmegaConf

from ganbench.config.compose import build
from ganbench.conformance import critics, losses, metrics, penalties, steps, suite
from ganbench.conformance.checks import Check, run_checks

KINDS = {"loss": LOSSES, "penalty": PENALTIES, "critic": CRITICS, "step": STEPS, "metric": METRICS}
ALL = [(kind, mutant) for kind, mutants in KINDS.items() for mutant in mutants]


def rows(kind: str, mutant: Mutant) -> Iterable[Check]:
    """What the suite says of a mutant that goes by an option's name, with that option's settings."""
    if kind in ("loss", "penalty"):
        option = OmegaConf.to_container(settings(f"{kind}={mutant.name}")[kind], resolve=True)
        return {"loss": losses, "penalty": penalties}[kind].check(mutant.name, mutant.make(option), option)
    if kind == "metric":
        return run_checks("metrics", mutant.name, [lambda: getattr(metrics, mutant.name)(mutant.make({}))])
    if kind == "critic":
        _, _, x, _ = suite.players(settings())
        return critics.check(mutant.name, mutant.make({}), x, spectral=mutant.name.endswith("spectral"))
    cfg = settings(f"loss={mutant.name}")
    players = suite.players(cfg)
    return steps.check(
        mutant.name,
        build(cfg.loss),
        build(cfg.penalty),
        *players,
        critic_step=mutant.make({}),
    )


def caught(kind: str, mutant: Mutant) -> Check | None:
    return next((row for row in rows(kind, mutant) if not row.ok), None)


@pytest.mark.parametrize(("kind", "mutant"), ALL, ids=[f"{m.name}: {m.defect}" for _, m in ALL])
def test_every_wrong_version_is_caught(kind: str, mutant: Mutant) -> None:
    row = caught(kind, mutant)
    assert row is not None, "the suite misses it"
    line = in_readme(mutant, row)
    assert line in (REPOSITORY / "README.md").read_text(), f"README's table should have the line\n{line}"


def in_readme(mutant: Mutant, row: Check) -> str:
    by = row.found if row.claim == "can be asked" else f"{row.topic}: {row.claim}"
    return f"| {mutant.defect} | {mutant.name} | {by} |"
