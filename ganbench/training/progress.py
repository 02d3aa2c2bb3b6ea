"""The progress bar of a run, and log lines that do not tear it."""

import multiprocessing
import sys
from contextlib import AbstractContextManager, nullcontext

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


def progress_bar(images: int) -> tqdm:
    """Make a bar of that many images on a terminal; an invisible one in logs and in the processes of a sweep."""
    return tqdm(total=images, unit=" images", unit_scale=True, disable=not _shows_bar())


def lines_above_bar() -> AbstractContextManager:
    """Print log lines above the bar. Not in a sweep's processes: tqdm writes in two pieces, which would interleave."""
    return logging_redirect_tqdm() if _shows_bar() else nullcontext()


def _shows_bar() -> bool:
    return multiprocessing.parent_process() is None and sys.stderr.isatty()
