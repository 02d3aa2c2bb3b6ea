"""Features of real data, kept on disk from run to run, under the digest of all that they follow from."""

import hashlib
import logging
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ganbench.datasets import sha256
from ganbench.metrics import features as networks
from ganbench.metrics.features import Inception, LeNet, embed

log = logging.getLogger("ganbench")


def cached_features(net: nn.Module, x: Tensor) -> Tensor:
    """What `embed(net, x)` returns, from the disk if this machine has computed it before.

    Only for networks of ganbench's own: what another's features follow from cannot be known.
    """
    folder = cache_dir()
    if folder is None or type(net) not in (LeNet, Inception):
        return embed(net, x)
    file = folder / f"{_key(net, x)}.safetensors"
    found = _read(file)
    if found is None:
        found = embed(net, x)
        _write(file, found.float().cpu())  # which they were when the network made them
    return found.to(x.device)


def cache_dir() -> Path | None:
    """The folder that GANBENCH_CACHE names, `~/.cache/ganbench` without it, none if it is set to nothing."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = os.environ.get("GANBENCH_CACHE", f"{caches}/ganbench")
    try:
        return Path(named).expanduser() if named else None
    except RuntimeError as error:  # a user without a home, as in containers
        log.warning(f"features of real data cannot be kept in {named} ({error}): name a folder with GANBENCH_CACHE=…")
        return None


def _key(net: nn.Module, x: Tensor) -> str:
    """Of the images, the network and the code, and of what decides how sums are rounded: the same to the last bit."""
    given = [torch.__version__, version("torch-fidelity"), torch.get_num_threads(), *_machine(x.device), net]
    told = f"{given} {sha256(x, *net.state_dict().values())}".encode()
    return hashlib.sha256(told + Path(networks.__file__).read_bytes()).hexdigest()


def _machine(device: torch.device) -> list[object]:
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        return [torch.cuda.get_device_name(device), cudnn.version(), cudnn.allow_tf32, cudnn.deterministic]
    info = Path("/proc/cpuinfo")
    models = {line for line in info.read_text().splitlines() if line.startswith("model name")} if info.exists() else ()
    chosen = sorted((k, v) for k, v in os.environ.items() if k.startswith(("ONEDNN_", "DNNL_", "MKL_", "ATEN_CPU_")))
    return [platform.machine(), *sorted(models), torch.backends.cpu.get_cpu_capability(), chosen]


def _digest(features: Tensor) -> Tensor:
    return torch.tensor(list(bytes.fromhex(sha256(features))), dtype=torch.uint8)


def _read(file: Path) -> Tensor | None:
    try:
        found = load(file.read_bytes())
        if not torch.equal(found["sha256"], _digest(found["features"])):
            raise ValueError("its digest does not fit")
        return found["features"].double()
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.warning(f"{file} cannot be used ({error!r}): features of real data are computed again")
        return None


def _write(file: Path, features: Tensor) -> None:
    """Many runs may find at once that it is not there: each writes aside, and the last one's stays."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as aside:
            made = Path(aside, file.name)
            made.write_bytes(save({"features": features.contiguous(), "sha256": _digest(features)}))
            made.replace(file)
    except OSError as error:
        log.warning(f"features of real data cannot be kept in {file.parent} ({error}): each run computes them")
