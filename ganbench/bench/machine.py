"""Name the machine that costs are measured on."""

import platform

import torch


def machine(device: torch.device) -> str:
    """Return the name of the GPU, or the CPU's architecture and vector instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
