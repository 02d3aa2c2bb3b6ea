"""Signals ask a run to stop, and it stops once its state is saved. Needs no torch."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from types import FrameType
from typing import Any, TypeVar

from ganbench.progress import CLEAR_LINE

Item = TypeVar("Item")

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has only the first two

# Signals within so many seconds are one: schedulers send SIGUSR1 and SIGTERM together, or the same to every process.
ONE_SIGNAL = 3.0


class Interrupted(SystemExit):
    """A signal ended the process; the exit code is 130 for SIGINT and 143 for all others."""

    def __init__(self, number: int):
        super().__init__(_exit_code(number))
        self.signal = signal.Signals(number).name


class GracefulStop:
    """A context that keeps the first signal until `exit_if_requested` or its own end.

    Another one, three seconds later, ends the process, or does what `leave` does; not that of a sweep's run, which ends
    with its launcher. It handles signals in the main thread only, because Python delivers them to no other. At its end
    it calls the handlers that were there before, such as submitit's, which queues the job again.
    """

    def __init__(self, leave: Callable[[int, FrameType | None], object] | None = None) -> None:
        self._leave = leave or _exit
        self._number: int | None = None  # of the first signal
        self._received: list[int] = []
        self._since = 0.0
        self._at_once = False
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Return whether a signal has come."""
        return self._number is not None

    def exit_if_requested(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._number is not None:
            raise Interrupted(self._number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Interrupted inside the block as soon as a signal comes: for long work of which nothing is saved.

        Where a library swallows the exception, or raises another in its place, the signal counts all the same.
        """
        self.exit_if_requested()
        self._at_once = True
        try:
            yield
        except Exception:
            self.exit_if_requested()
            raise
        finally:
            self._at_once = False
        self.exit_if_requested()

    def each_at_once(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, each of which is made inside `at_once`; what is done with them is not."""
        iterator = iter(items)
        while True:
            with self.at_once():
                item = list(islice(iterator, 1))
            if not item:
                return
            yield item[0]

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            self._previous = _handle_signals(self._remember)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        _restore_handlers(self._previous)
        for number in dict.fromkeys(self._received):
            _call_handler(self._previous[number], number)
        if error is None:
            self.exit_if_requested()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        in_sweep = multiprocessing.parent_process() is not None  # its launcher answers, and passes signals on
        if self._number is not None:
            if not in_sweep and time.monotonic() - self._since > ONE_SIGNAL:
                self._leave(number, frame)
            return
        self._number = number
        self._since = time.monotonic()
        if not in_sweep:
            what = "stopping" if self._at_once else "saving"
            write_to_stderr(f"{signal.Signals(number).name}: {what}; send it again to leave at once.\n")
        if self._at_once:
            raise Interrupted(number)


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """Raise Interrupted at once: for a process that goes on afterwards, as that of a notebook."""
    raise Interrupted(number)


@contextmanager
def raise_on_signal(message: str = "runs are saving; send it again to leave at once") -> Iterator[None]:
    """Raise Interrupted at the first signal inside the block, and end the process at one three seconds later.

    Only for blocks of our own code: see `exit_on_signal`.
    """
    first: list[float] = []

    def leave(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            write_to_stderr(f"{signal.Signals(number).name}: {message}.\n")
            raise Interrupted(number)
        if time.monotonic() - first[0] > ONE_SIGNAL:
            _exit(number, frame)

    previous = _handle_signals(leave)
    try:
        yield
    finally:
        _restore_handlers(previous)


def exit_on_signal(message: str = "") -> None:
    """Print the message and end the process at the next signal; for code that has nothing to save.

    An exception could not do that: inside a library's code it may be lost, or replaced by one from a `finally` there.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _handle_signals(_exit)
        write_to_stderr(message)
        _exit(number, frame)

    _handle_signals(leave)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block signals inside; processes that are started there have them blocked for good. Not for Windows."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ignore signals from now on: the process ends, and its exit code is to be what it has done."""
    _handle_signals(signal.SIG_IGN)


def write_to_stderr(message: str) -> None:
    """Write a message, on a terminal in the place of a bar, unless standard error is closed or its reader is gone."""
    with suppress(OSError):
        os.write(2, (CLEAR_LINE * os.isatty(2) + message).encode())


def handled_signals() -> list[signal.Signals]:
    """Return the signals that are not ignored: `nohup` and shells ignore some for processes in the background."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _handle_signals(handler: Any) -> dict[int, Any]:
    """Set the handler of all signals that are not ignored; return the previous handlers."""
    return {number: signal.signal(number, handler) for number in handled_signals()}


def _call_handler(handler: Any, number: int) -> None:
    """Call a handler that others have set; not Python's own for Ctrl-C, nor one of ours."""
    is_ours = getattr(handler, "__module__", None) == __name__
    if callable(handler) and not is_ours and handler is not signal.default_int_handler:
        handler(number, None)


def _restore_handlers(previous: dict[int, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(_exit_code(number))


def _exit_code(number: int) -> int:
    return 130 if number == signal.SIGINT else 143
