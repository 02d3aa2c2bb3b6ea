"""Features of real data, cached on disk between runs, under the digest of everything they depend on."""

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

from ganbench import gpu
from ganbench.datasets import sha256
from ganbench.metrics import features as networks
from ganbench.metrics.features import Inception, LeNet, embed

log = logging.getLogger("ganbench")


def cached_features(net: nn.Module, x: Tensor) -> Tensor:
    """Return what `embed(net, x)` returns, from the disk if this machine has computed it before.

    Caches only ganbench's own networks: what the features of another network depend on is not known.
    """
    folder = cache_dir()
    if folder is None or type(net) not in (LeNet, Inception):
        return embed(net, x)
    file = folder / f"{_key(net, x)}.safetensors"
    features = _read(file)
    if features is None:
        features = embed(net, x)
        _write(file, features.float().cpu())  # loses nothing: the networks compute in float32
    return features.to(x.device)


def cache_dir() -> Path | None:
    """Return the folder that GANBENCH_CACHE names, by default `~/.cache/ganbench`; None if it is empty: no cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = os.environ.get("GANBENCH_CACHE", f"{caches}/ganbench")
    try:
        return Path(name).expanduser() if name else None
    except RuntimeError as error:  # a user without a home folder, as in containers
        log.warning(f"cannot cache features of real data in {name} ({error}); choose a folder with GANBENCH_CACHE=...")
        return None


def _key(net: nn.Module, x: Tensor) -> str:
    """Hash the images, the network, its code, and what decides how sums are rounded: equal keys, equal bits."""
    rounding = [torch.__version__, version("torch-fidelity"), torch.get_num_threads(), *_machine(x.device), net]
    description = f"{rounding} {sha256(x, *net.state_dict().values())}".encode()
    return hashlib.sha256(description + Path(networks.__file__).read_bytes()).hexdigest()


def _machine(device: torch.device) -> list[object]:
    """Describe the hardware and the library settings that sums depend on."""
    if device.type == "cuda":
        return list(gpu.facts(device).values())
    return [platform.machine(), *_cpu_models(), torch.backends.cpu.get_cpu_capability(), _library_settings()]


def _cpu_models() -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return sorted({line for line in lines if line.startswith("model name")})


def _library_settings() -> list[tuple[str, str]]:
    """Return the environment variables that choose kernels."""
    prefixes = ("ONEDNN_", "DNNL_", "MKL_", "ATEN_CPU_")
    return sorted((name, value) for name, value in os.environ.items() if name.startswith(prefixes))


def _digest(features: Tensor) -> Tensor:
    """Return the SHA-256 of the features as a tensor of 32 bytes, which a safetensors file can hold."""
    return torch.tensor(list(bytes.fromhex(sha256(features))), dtype=torch.uint8)


def _read(file: Path) -> Tensor | None:
    """Return the cached features in float64; None, with a warning if the file is damaged, where there are none."""
    try:
        content = load(file.read_bytes())
        if not torch.equal(content["sha256"], _digest(content["features"])):
            raise ValueError("its digest does not match")
        return content["features"].double()
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.warning(f"cannot use {file} ({error!r}); features of real data are computed again")
        return None


def _write(file: Path, features: Tensor) -> None:
    """Write to a temporary file first and move it in place: several runs may write the same features at once."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            temporary = Path(folder, file.name)
            temporary.write_bytes(save({"features": features.contiguous(), "sha256": _digest(features)}))
            temporary.replace(file)
    except OSError as error:
        log.warning(f"cannot cache features of real data in {file.parent} ({error}); each run computes them")
