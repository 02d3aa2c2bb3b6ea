"""`python -m ganbench.conformance` holds every loss, penalty, critic and metric against known answers.

With overrides such as `loss=mine penalty=gp`, one pair and its critic.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.compose import compose_config, register
from ganbench.config.validate import one_line_error, reject_null_option
from ganbench.errors import Refused


def main() -> None:
    arguments = _arguments()
    if arguments.config_dir and not arguments.config_dir.is_dir():
        print(f"--config-dir {arguments.config_dir}: there is no such folder.", file=sys.stderr)
        sys.exit(2)
    register()
    sys.path.append(os.getcwd())  # a loss of one's own lies there
    try:
        reject_null_option(arguments.overrides)
        sys.exit(0 if run(arguments.overrides, arguments.config_dir, arguments.verbose) else 1)
    except Refused as refusal:
        said = str(refusal)
    except (HydraException, OmegaConfBaseException) as error:
        said = one_line_error(error)
    print(said, file=sys.stderr)
    sys.exit(2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ganbench.conformance",
        description="Hold losses, penalties, critics and metrics against known answers. Exit code 1 if one is missed.",
    )
    parser.add_argument("overrides", nargs="*", help="such as loss=mine penalty=gp: this pair only; none: everything")
    parser.add_argument("--config-dir", type=Path, help="a folder of options of one's own, as for ganbench itself")
    parser.add_argument("-v", "--verbose", action="store_true", help="every claim, with what was expected and found")
    return parser.parse_args()


def run(overrides: list[str], config_dir: Path | None, verbose: bool) -> bool:
    """Print the table, and return whether every claim holds."""
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []

    def composed(*typed: str) -> DictConfig:
        return compose_config(*search, *typed, "name=conformance")

    if overrides:
        cfg = composed(*overrides)
        plain = [o for o in overrides if o.partition("=")[0].lstrip("+~").split(".")[0] not in ("loss", "penalty")]
        from ganbench.conformance import suite  # torch only once the command line has been understood

        return show(suite.one(cfg, composed(*plain)), verbose)
    from ganbench.conformance import suite

    return show(suite.everything(composed), verbose)


LINE = "{:2}  {:22} {:22} {:>6} {:>6}  {}"


def show(rows: Iterable, verbose: bool) -> bool:
    """One line for each subject and topic as they come, every missed claim on a line of its own; then the sums."""
    start, done = time.time(), []
    print(LINE.format("", "topic", "subject", "claims", "used", "the claim that comes nearest to its limit"))
    for (topic, subject), group in groupby(_watched(rows, done), key=lambda row: row[:2]):
        group = sorted(group, key=lambda row: -row.off)
        shown = group if verbose else [row for row in group if not row.ok] or group[:1]
        for n, row in enumerate(shown):
            claims = len(group) if n == 0 else ""
            print(LINE.format("ok" if row.ok else "NO", topic, subject, claims, _used(row), _told(row)), flush=True)
    missed = sum(not row.ok for row in done)
    print(f"\n{len(done)} claims, {len(done) - missed} hold, {missed} do not; {time.time() - start:.0f} s")
    return not missed


def _watched(rows: Iterable, seen: list) -> Iterator:
    for row in rows:
        seen.append(row)
        yield row


def _used(row) -> str:
    """How much of the tolerance the claim takes up."""
    return "" if row.expected == "yes" or row.off > 99 else f"{row.off:.0%}"


def _told(row) -> str:
    if row.expected == "yes":
        return row.claim if row.ok else f"{row.claim}: {row.found}"
    return f"{row.claim}: {row.found}" + ("" if row.found == row.expected else f", expected {row.expected}")


if __name__ == "__main__":
    main()
