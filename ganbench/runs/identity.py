"""Tell runs apart by their settings and by the code that makes them. Needs no torch."""

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

# These start, read, draw and check runs, but a run imports none of them: a change there changes no result.
READ_ONLY_PACKAGES = ("__main__.py", "sweeps", "report", "conformance", "bench", "theory.py")


def run_id(cfg: DictConfig) -> str:
    """Return 16 hexadecimal digits of what is trained, and with which code; incidental settings do not count."""
    settings = json.dumps(identifying_settings(resolve(cfg)), sort_keys=True)
    return hashlib.sha256(f"{code_digest(cfg)} {settings}".encode()).hexdigest()[:16]


def code_digest(cfg: DictConfig) -> str:
    """Return 12 hexadecimal digits of ganbench's sources, those of a user's own classes, and torch's version."""
    digest = hashlib.sha256(f"{PACKAGE_DIGEST} torch {version('torch')}".encode())
    for file in sorted(_users_files(cfg)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _package_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(HERE.rglob("*.py")):
        path = file.relative_to(HERE)
        if path.parts[0] not in READ_ONLY_PACKAGES:
            digest.update(path.as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


# Of the code that is imported now: processes forked later run just that, whatever the files say by then.
PACKAGE_DIGEST = _package_digest()


def _users_files(cfg: DictConfig) -> set[Path]:
    """Return the files of a user's own classes; libraries are known by their versions."""
    modules = {target.rpartition(".")[0] for target in _targets(cfg)}
    files = {_source_file(module) for module in modules if not module.startswith(("ganbench.", "torch."))}
    return {file for file in files if file is not None and "site-packages" not in file.parts}


def _source_file(module: str) -> Path | None:
    try:
        return module_file(module)
    except NoSuchTarget:
        return None


def _targets(node: Any) -> Iterator[str]:
    """Yield every `_target_` in the configuration."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node["_target_"]
        for key in node:
            yield from _targets(node[key])
