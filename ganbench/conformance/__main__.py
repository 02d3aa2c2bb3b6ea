"""Run the conformance suite: `python -m ganbench.conformance` checks every loss, penalty, critic and metric.

With overrides such as `loss=mine penalty=gp` it checks that method and its critic only.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.compose import compose_config, register
from ganbench.config.messages import one_line_error
from ganbench.config.overrides import reject_senseless_overrides, written_for_hydra
from ganbench.errors import Refused
from ganbench.progress import quiet_when_unread

if TYPE_CHECKING:  # it imports torch
    from ganbench.conformance.checks import Check, Checks


@quiet_when_unread()
def main() -> None:
    arguments = _arguments()
    if arguments.config_dir and not arguments.config_dir.is_dir():
        print(f"--config-dir {arguments.config_dir}: no such folder.", file=sys.stderr)
        sys.exit(2)
    register()
    sys.path.append(os.getcwd())  # so that a loss in the current folder can be imported
    try:
        overrides = written_for_hydra(arguments.overrides)
        reject_senseless_overrides(overrides)
        passed = run(overrides, arguments.config_dir, arguments.verbose)
    except (Refused, HydraException, OmegaConfBaseException) as error:
        print(one_line_error(error), file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if passed else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ganbench.conformance",
        description="Check losses, penalties, critics and metrics against known answers. Exit code 1 if a check fails.",
    )
    parser.add_argument(
        "overrides", nargs="*", help="check this method only, such as loss=mine penalty=gp; default: everything"
    )
    parser.add_argument("--config-dir", type=Path, help="folder with your own options, as for ganbench itself")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every check with its values")
    return parser.parse_args()


def run(overrides: list[str], config_dir: Path | None, verbose: bool) -> bool:
    """Run and print the checks of one method, or of everything without overrides; return whether all passed."""
    compose = _composer(config_dir)
    if not overrides:
        return show(_suite().all_checks(compose), verbose)
    cfg = compose(*overrides)
    without_method = compose(*(override for override in overrides if _group(override) not in ("loss", "penalty")))
    return show(_suite().method_checks(cfg, without_method), verbose)


def _composer(config_dir: Path | None) -> Callable[..., DictConfig]:
    """Return the function that composes a configuration from overrides, with the user's options if there are any."""
    return lambda *overrides: compose_config(*overrides, "name=conformance", config_dir=config_dir)


def _group(override: str) -> str:
    """Return `penalty` for `penalty=gp`, `+penalty.weight=1` and the like."""
    return override.partition("=")[0].lstrip("+~").split(".")[0]


def _suite() -> ModuleType:
    """Import the suite, and torch with it, only after the command line has been accepted."""
    import torch

    from ganbench.conformance import suite

    torch.set_num_threads(1)  # the nets are so small that further threads only wait for each other
    return suite


LINE = "{:4}  {:22} {:22} {:>6} {:>15}  {}"


def show(checks: "Checks", verbose: bool) -> bool:
    """Print one line per topic and target, and one per failed check; then the totals. Return whether all passed."""
    start = time.time()
    count = failed = 0
    print(LINE.format("", "topic", "target", "checks", "error:tolerance", "tightest check"))
    for (topic, target), group in groupby(checks, key=lambda check: check[:2]):
        worst_first = sorted(group, key=lambda check: -check.error_over_tolerance)
        count += len(worst_first)
        failed += sum(not check.passed for check in worst_first)
        for line, check in enumerate(worst_first if verbose else _failed_or_tightest(worst_first)):
            checks_here = len(worst_first) if line == 0 else ""
            mark = "ok" if check.passed else "FAIL"
            print(LINE.format(mark, topic, target, checks_here, _ratio(check), _describe(check)), flush=True)
    print(f"\n{count} checks, {count - failed} passed, {failed} failed; {time.time() - start:.0f} s")
    return not failed


def _failed_or_tightest(worst_first: "list[Check]") -> "Iterable[Check]":
    return [check for check in worst_first if not check.passed] or worst_first[:1]


def _ratio(check: "Check") -> str:
    """Format the error in percent of the tolerance; empty for yes or no, and for errors far beyond."""
    return "" if check.expected == "yes" or check.error_over_tolerance > 99 else f"{check.error_over_tolerance:.0%}"


def _describe(check: "Check") -> str:
    if check.expected == "yes":
        return check.description if check.passed else f"{check.description}: {check.actual}"
    expected = "" if check.actual == check.expected else f", expected {check.expected}"
    return f"{check.description}: {check.actual}{expected}"


if __name__ == "__main__":
    main()
