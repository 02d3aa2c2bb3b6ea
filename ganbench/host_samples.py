"""Training data that a GPU has no room for: they stay in the host's memory, or in a mapped file, and batches move."""

from typing import Self

import torch
from torch import Tensor

from ganbench.errors import Refused

SHARE = 0.5  # of a GPU's free memory that training data may take


def fits(samples: Tensor, device: torch.device) -> bool:
    """Tell whether samples can be kept on the device, with as much again left for the nets."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return samples.nbytes <= SHARE * free


class HostSamples:
    """Samples [N, ...] that are indexed like a tensor on the device, which gets only what is asked for.

    Indices must be on the host, so that nothing waits for the device.
    """

    def __init__(
        self, samples: Tensor, device: torch.device, memory_format: torch.memory_format = torch.preserve_format
    ):
        self.samples = samples
        self.device = device
        self.memory_format = memory_format
        self.shape = samples.shape
        self.dtype = samples.dtype

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """Return some of the samples, on the device."""
        if isinstance(which, slice):
            chosen = self.samples[which]
            if not fits(chosen, self.device):
                raise Refused(
                    f"{len(chosen):,} training images at once are more than this GPU has room for; pass a smaller "
                    "metric.n_train, and metric.n_real if samples are compared with training images."
                )
        elif self.device.type == "cuda":  # pinned memory can be read by the GPU while the host goes on
            chosen = torch.empty((len(which), *self.shape[1:]), dtype=self.dtype, pin_memory=True)
            torch.index_select(self.samples, 0, which, out=chosen)
        else:
            chosen = self.samples[which]
        return chosen.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def dim(self) -> int:
        """Return the number of dimensions."""
        return self.samples.dim()

    def to(self, memory_format: torch.memory_format) -> Self:
        """Return the same, with this layout in memory for what moves to the device."""
        return type(self)(self.samples, self.device, memory_format)

    def detach(self) -> Tensor:
        """Return the samples where they are."""
        return self.samples

    @property
    def _version(self) -> int:  # as tensors count what writes to them
        return self.samples._version
