"""Features of real data, cached on disk between runs, under the digest of everything they depend on."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from ganbench import gpu
from ganbench.disk_cache import cached, sha256
from ganbench.metrics import features as networks
from ganbench.metrics.features import DinoV2, Inception, LeNet, embed


def cached_features(net: nn.Module, x: Tensor) -> Tensor:
    """Return what `embed(net, x)` returns, from the disk if this machine has computed it before.

    Caches only ganbench's own networks: what the features of another network depend on is not known.
    """
    if type(net) not in (LeNet, Inception, DinoV2):
        return embed(net, x)
    # In float32, which loses nothing: the networks compute in it.
    features = cached(_key(net, x), "features of real data", lambda: embed(net, x).float().cpu())
    return features.double().to(x.device)


def _key(net: nn.Module, x: Tensor) -> str:
    """Hash the images, the network, its code, and what decides how sums are rounded: equal keys, equal bits."""
    libraries = [torch.__version__, version("torch-fidelity"), getattr(net, "provenance", None)]
    rounding = [*libraries, torch.get_num_threads(), *_machine(x.device), net]
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
