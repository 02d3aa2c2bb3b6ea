"""Memory that tensors free stays with the process, since the next step needs as much again.

By itself glibc hands large pieces back at once, and the kernel clears each again when it is next touched: on wide nets
up to a sixth of a step.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep() -> None:
    """For the rest of the process, where the C library is glibc; others have no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large pieces come from the heap, too
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # whose end is not handed back
