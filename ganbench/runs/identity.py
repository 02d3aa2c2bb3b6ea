"""Tell runs apart by their settings and by the code that makes them. Needs no torch."""

import hashlib
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from ganbench.config.compose import identity_text
from ganbench.config.schema import HERE
from ganbench.config.signature import NoSuchTarget, imported_modules, module_file

# These start, read, draw, check and use runs: a change there changes no result.
READ_ONLY_PACKAGES = (
    *("__main__.py", "sweeps", "report", "dashboard", "conformance", "bench", "theory.py"),
    *("trained", "sample.py", "export.py", "evaluate.py", "api", "prepare.py"),
)

STDLIB = Path(sysconfig.get_path("stdlib"))


def run_id(cfg: DictConfig) -> str:
    """Return 16 hexadecimal digits of what is trained, and with which code; incidental settings do not count."""
    return hashlib.sha256(f"{code_digest(cfg)} {identity_text(cfg)}".encode()).hexdigest()[:16]


def code_digest(cfg: DictConfig) -> str:
    """Return 12 hexadecimal digits of ganbench's sources, a user's own, and torch's version."""
    digest = hashlib.sha256(f"{PACKAGE_DIGEST} torch {version('torch')}".encode())
    digest.update(_users_sources(cfg))
    return digest.hexdigest()[:12]


def shared_code_digest(cfg: DictConfig) -> str:
    """Return 12 hexadecimal digits of what all methods run on: ganbench, a user's own data, nets, metric, optimizer."""
    digest = hashlib.sha256(PACKAGE_DIGEST.encode())
    for group in ("dataset", "augment", "model", "metric", "optimizer"):
        digest.update(_users_sources(cfg[group]))
    return digest.hexdigest()[:12]


def method_code_digest(cfg: DictConfig) -> str:
    """Return 12 hexadecimal digits of the sources of a user's own loss and penalty; `none` if both are ganbench's."""
    sources = _users_sources(cfg.loss) + _users_sources(cfg.penalty)
    return hashlib.sha256(sources).hexdigest()[:12] if sources else "none"


def commit() -> str | None:
    """Return the checkout's commit, with + if it has uncommitted changes; None outside a checkout."""
    top = HERE.parent
    checkout = [f"--git-dir={top / '.git'}", f"--work-tree={top}"]
    command = ["git", *checkout, "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _package_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(HERE.rglob("*.py")):
        path = file.relative_to(HERE)
        if path.parts[0] not in READ_ONLY_PACKAGES:
            digest.update(path.as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


# Of the code that is imported now: processes forked later run just that, whatever the files say by then.
PACKAGE_DIGEST = _package_digest()


def _users_sources(node: DictConfig) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(_users_files(node)))


def _users_files(node: DictConfig) -> set[Path]:
    return set(users_modules(node).values())


def users_modules(node: DictConfig) -> dict[str, Path]:
    """Return the modules of a user's own classes, and of all that these import of the user's, with their files."""
    targets = {target.rpartition(".")[0] for target in _targets(node)}
    files: dict[str, Path | None] = {}
    modules = sorted(targets)
    while modules:
        module = modules.pop()
        if module in files:
            continue
        # A class that the configuration names is looked at wherever it is installed.
        files[module] = file = _source_file(module) if module in targets else _users_file(module)
        if file is not None:
            modules += imported_modules(module, file)
            modules += _packages_above(module)
    return {module: file for module, file in files.items() if file is not None}


def _users_file(module: str) -> Path | None:
    """Return the file of a module that a user's file imports; None for libraries."""
    file = _source_file(module)
    return None if file is not None and is_library(file) else file


def is_library(file: Path) -> bool:
    """Tell whether a file is Python's own, or installed."""
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or STDLIB in file.parents


def _source_file(module: str) -> Path | None:
    """Return a module's file; None for ganbench's and torch's own, and where there is no source."""
    if module.partition(".")[0] in ("ganbench", "torch"):
        return None
    try:
        return module_file(module)
    except NoSuchTarget:
        return None


def _packages_above(module: str) -> list[str]:
    """List the packages that Python imports before the module: `a` and `a.b` of `a.b.c`."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _targets(node: Any) -> Iterator[str]:
    """Yield every `_target_` in the configuration."""
    if isinstance(node, ListConfig):
        for part in node:
            yield from _targets(part)
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node["_target_"]
        for key in node:
            yield from _targets(node[key])
