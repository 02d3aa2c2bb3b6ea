"""How a GPU rounds: which kernels may run, and what they depend on."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ganbench.errors import Refused

DRIVER = Path("/proc/driver/nvidia/version")


def choose_kernels(tf32: bool, deterministic: bool, benchmark: bool) -> None:
    """Set which kernels cuDNN, cuBLAS and torch may use. Must be called before any of them has run.

    `tf32`: convolutions and products may round their factors to ten bits, as torch's convolutions do by default;
    `deterministic`: only kernels whose sums have an order; `benchmark`: cuDNN tries its algorithms out.
    """
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks of whoever wants equal products
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads what it has not written


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute in fp32 inside, even in a run whose precision is tf32."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


@contextmanager
def refuse_random_kernels() -> Iterator[None]:
    """Raise Refused for an operation inside that has no kernel with equal results."""
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if found is None:
            raise
        raise Refused(
            f"speed.deterministic=true: torch has no kernel of {found[1]} that gives the same bits at every run; "
            "replace it, or use speed.deterministic=false and expect runs that differ."
        ) from None


def facts(device: torch.device) -> dict[str, str | int | bool | None]:
    """Return what the bits of a result on this GPU depend on, beside torch's version."""
    return {
        "gpu": torch.cuda.get_device_name(device),
        "driver": _driver_version(),
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def _driver_version() -> str | None:
    """Return NVIDIA's version of the driver; None where the system does not tell."""
    found = DRIVER.exists() and re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text())
    return found[0] if found else None
