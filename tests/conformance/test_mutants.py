"""Every wrong version is caught, and by the check that is on record.

`PYTHONPATH=.:tests python tests/conformance/test_mutants.py` records it again.
"""

import json
from collections.abc import Iterable

import pytest
from conftest import REPOSITORY, settings
from mutants import ALL, CAUGHT_BY, Mutant, markdown_table

from ganbench.config.compose import resolve
from ganbench.conformance import critics, losses, metrics, penalties, steps, suite
from ganbench.conformance.checks import NO_ERROR, Check, run_checks

MUTANTS = [(kind, mutant) for kind, mutants in ALL.items() for mutant in mutants]


def checks(kind: str, mutant: Mutant) -> Iterable[Check]:
    """Run the suite on a wrong version under the name and with the settings of the option that it is shown as."""
    name = mutant.shown_as
    match kind:
        case "loss" | "penalty":
            option = resolve(settings(f"{kind}={name}")[kind])
            module = losses if kind == "loss" else penalties
            return module.check(name, mutant.make(option), option)
        case "metric":
            return run_checks("metrics", name, [lambda: getattr(metrics, name)(mutant.make({}))])
        case "critic":
            real = suite.make_game(settings()).real
            return critics.check(name, mutant.make({}), real, spectral=name.endswith("spectral"))
        case "step":
            cfg = settings(f"loss={name}")
            game = suite.make_game(cfg)
            return steps.check(name, suite.make_objective(cfg), game, critic_update=mutant.make({}))
        case "footing":
            return suite.footing_check(settings(*mutant.make({})), settings())
        case _:
            raise ValueError(kind)


def first_failed(kind: str, mutant: Mutant) -> str | None:
    """Name the first check that fails, or give the error that a wrong version raises."""
    for check in checks(kind, mutant):
        if not check.passed:
            error = check.actual.rpartition("Error: ")[2]  # without the place that it comes from
            return error if check.description == NO_ERROR else f"{check.topic}: {check.description}"
    return None


@pytest.mark.parametrize(("kind", "mutant"), MUTANTS, ids=[mutant.id for _, mutant in MUTANTS])
def test_every_wrong_version_is_caught(kind: str, mutant: Mutant) -> None:
    caught_by = first_failed(kind, mutant)
    assert caught_by is not None, "the suite misses it"
    assert json.loads(CAUGHT_BY.read_text(encoding="utf-8"))[mutant.id] == caught_by


def test_readme_lists_all_wrong_versions() -> None:
    readme = (REPOSITORY / "ganbench/conformance/README.md").read_text(encoding="utf-8")
    assert markdown_table() in readme and f"{len(MUTANTS)} wrong versions" in readme
    assert len({mutant.id for _, mutant in MUTANTS}) == len(MUTANTS) >= 73


def record() -> None:
    caught_by = {mutant.id: first_failed(kind, mutant) for kind, mutant in MUTANTS}
    CAUGHT_BY.write_text(json.dumps(caught_by, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
