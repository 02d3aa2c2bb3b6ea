"""Say how far long work is: a bar for a run, and a line every ten seconds for all that takes longer than that."""

import logging
import multiprocessing
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TypeVar

from tqdm import TqdmWarning, tqdm

log = logging.getLogger("ganbench")

INTERVAL = 10.0  # seconds between two lines
CLEAR_LINE = "\r\x1b[K"
STDOUT = 1  # its file descriptor; W&B may have put an object of its own at sys.stdout
UNREAD_EXIT_CODE = 141  # that of a program which SIGPIPE has ended

Item = TypeVar("Item")
Result = TypeVar("Result")


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items; every ten seconds say which share of them is done, and how long the others will take."""
    start = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= INTERVAL:
            told = now
            left = (now - start) * (len(items) - done) / done
            log.info(f"{what}: {done / len(items):.0%}, {duration(left)} left")
        yield item


def answering_signals(call: Callable[[], Result]) -> Result:
    """Return what `call` returns, made in a thread: Python heeds a signal only once a call of a library is over."""
    result: Future[Result] = Future()

    def make() -> None:
        try:
            result.set_result(call())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=make, daemon=True).start()  # not one that the end of the process would wait for
    while not result.done():
        time.sleep(0.02)
    return result.result()


def duration(seconds: float) -> str:
    """Write seconds as people say them: `40 s`, `7 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def progress_bar(images: int) -> tqdm:
    """Make a bar of that many images on a terminal or in a notebook; an invisible one in logs and in a sweep's runs."""
    return tqdm(total=images, unit=" images", unit_scale=True, dynamic_ncols=True, disable=not _shows_bar())


@contextmanager
def quiet_when_unread() -> Iterator[None]:
    """End what prints inside without a traceback when nobody reads it any more, as after `| head -1`.

    Runs go on, and only their lines are lost: logging would print a traceback for each.
    """
    logging.raiseExceptions = False
    try:
        yield
    except BrokenPipeError:
        if not _is_unread():
            raise
        sys.exit(UNREAD_EXIT_CODE)
    finally:
        _drop_unread_output()


def _drop_unread_output() -> None:
    """Drop what is left to print if nobody reads it. Python would write it at its exit, complain, and exit with 120."""
    with suppress(OSError):  # of any other kind, such as of a full disk, Python tells at its exit
        print(end="", flush=True)
    if _is_unread():
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDOUT)
        os.close(nowhere)


def _is_unread() -> bool:
    """Tell whether standard output is a pipe that has lost its other end. Windows cannot tell."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def lines_above_bar() -> AbstractContextManager:
    """Print log lines above the bar on a terminal: that of this run, or that of the sweep which this process is of."""
    if _in_sweep() and sys.stderr.isatty():
        _clear_line_before_each()
    return redirected_log() if _shows_bar() else nullcontext()


def redirected_log() -> AbstractContextManager:
    """Have log lines printed above the bar of this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # in notebooks it asks for widgets, which our bar does without
        from tqdm.contrib.logging import logging_redirect_tqdm
    return logging_redirect_tqdm()


class _AboveBar(logging.Formatter):
    """Formats as another formatter does, and first clears the terminal's line: the launcher's bar may be on it."""

    def __init__(self, formatter: logging.Formatter):
        super().__init__()
        self.formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return CLEAR_LINE + self.formatter.format(record)


def _clear_line_before_each() -> None:
    """Have this process, which ends with its run, write lines in one piece each, so that nothing gets in between."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream.isatty() and handler.formatter:
            handler.setFormatter(_AboveBar(handler.formatter))


def _shows_bar() -> bool:
    return not _in_sweep() and (sys.stderr.isatty() or _in_notebook())


def _in_sweep() -> bool:
    return multiprocessing.parent_process() is not None


def _in_notebook() -> bool:
    """Tell whether standard error is shown below a notebook's cell."""
    return type(sys.stderr).__module__.startswith("ipykernel.")
