"""Which code a run is made with: a run that was begun with other code is another run. Needs no torch."""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganbench.config.compose import identifying_settings, resolve
from ganbench.config.schema import HERE
from ganbench.config.signature import NoSuchTarget, module_file

# Read, draw and check what runs have made, and change none of it.
READ_ONLY_PACKAGES = ("report", "conformance", "bench", "theory.py", "sweeps")


def code_digest(cfg: DictConfig) -> str:
    """12 hexadecimal digits of ganbench's own sources, those of a user's own classes, and torch's version."""
    found = hashlib.sha256(f"{PACKAGE_DIGEST} torch {version('torch')}".encode())
    for file in sorted({file for target in _targets(cfg) for file in _outside(target)}):
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def run_id(cfg: DictConfig) -> str:
    """16 hexadecimal digits of what is trained, and with which code: what is incidental does not count."""
    settings = json.dumps(identifying_settings(resolve(cfg)), sort_keys=True)
    return hashlib.sha256(f"{code_digest(cfg)} {settings}".encode()).hexdigest()[:16]


def _own() -> str:
    found = hashlib.sha256()
    for file in sorted(HERE.rglob("*.py")):
        if file.relative_to(HERE).parts[0] not in READ_ONLY_PACKAGES:
            found.update(file.relative_to(HERE).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


PACKAGE_DIGEST = (
    _own()
)  # of what is imported now: processes that are forked later run just that, whatever the files say then


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node["_target_"]
        for key in node:
            yield from _targets(node[key])


def _outside(target: str) -> Iterator[Path]:
    """The file of a user's own class; libraries are known by their versions."""
    module = target.rpartition(".")[0]
    try:
        file = module_file(module)
    except NoSuchTarget:
        return
    if not module.startswith(("ganbench.", "torch.")) and "site-packages" not in file.parts:
        yield file
