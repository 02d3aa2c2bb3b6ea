"""Tensors that cost minutes to make, kept on disk between runs under the digest of everything they depend on."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ganbench.files import acquire, make_writable_folder

log = logging.getLogger("ganbench")


def cached(key: str, what: str, make: Callable[[], Tensor]) -> Tensor:
    """Return what `make` returns, from the disk if it has been made under this key before.

    One process at a time makes it, while others wait. `what` says in log lines what it is.
    """
    folder = cache_dir()
    if folder is None:
        return make()
    file = folder / f"{key}.safetensors"
    with _one_at_a_time(file, what):
        tensor = _read(file, what)
        if tensor is None:
            tensor = make()
            _write(file, what, tensor)
    return tensor


def cache_dir() -> Path | None:
    """Return the folder that GANBENCH_CACHE names, by default `~/.cache/ganbench`; None if it is empty: no cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = os.environ.get("GANBENCH_CACHE", f"{caches}/ganbench")
    try:
        return Path(name).expanduser() if name else None
    except RuntimeError as error:  # a user without a home folder, as in containers
        log.warning(f"cannot cache in {name} ({error}); choose a folder with GANBENCH_CACHE=...")
        return None


def sha256(*tensors: Tensor) -> str:
    """Return the SHA-256 of the values, shapes and types of tensors, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(f"{x.dtype}{tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(x: Tensor) -> Tensor:
    """Return the SHA-256 as a tensor of 32 bytes, which a safetensors file can hold."""
    return torch.tensor(list(bytes.fromhex(sha256(x))), dtype=torch.uint8)


@contextmanager
def _one_at_a_time(file: Path, what: str) -> Iterator[None]:
    """Hold a lock beside the file; where there can be none, as in a read-only folder, go on without."""
    lock = FileLock(file.with_name(f".{file.stem}.lock"))
    with suppress(OSError):  # _write will say so
        make_writable_folder(file.parent)
        acquire(lock, f"making {what}")
    try:
        yield
    finally:
        lock.release()


def _read(file: Path, what: str) -> Tensor | None:
    """Return the cached tensor; None, with a warning if the file is damaged, where there is none."""
    try:
        content = load(file.read_bytes())
        if not torch.equal(content["sha256"], _digest(content["tensor"])):
            raise ValueError("its digest does not match")
        return content["tensor"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.warning(f"cannot use {file} ({error!r}); {what} are made again")
        return None


def _write(file: Path, what: str, tensor: Tensor) -> None:
    """Write to a temporary file first and move it in place, so that no reader sees half of it."""
    content = {"tensor": tensor.contiguous(), "sha256": _digest(tensor)}
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            temporary = Path(folder, file.name)
            temporary.write_bytes(save(content))
            temporary.replace(file)
    except OSError as error:
        log.warning(f"cannot cache {what} in {file.parent} ({error}); each run makes them")
