"""Signals ask a run to stop, and it stops once its state is saved. Needs no torch."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has only the first two


class Interrupted(SystemExit):
    """A signal ended the process; the exit code is 130 for SIGINT and 143 for all others."""

    def __init__(self, number: int):
        super().__init__(_exit_code(number))
        self.signal = signal.Signals(number).name


class GracefulStop:
    """A context that keeps the first signal until `exit_if_requested` or its own end; a second one ends the process.

    It handles signals in the main thread only, because Python delivers them to no other.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Return whether a signal has come."""
        return self._number is not None

    def exit_if_requested(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._number is not None:
            raise Interrupted(self._number)

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            self._previous = _handle_signals(self._remember)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        _restore_handlers(self._previous)
        if error is None:
            self.exit_if_requested()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            _exit(number, frame)
        self._number = number


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """Raise Interrupted at the first signal inside the block, and end the process at the second.

    Only for blocks of our own code: see `exit_on_signal`.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _handle_signals(_exit)
        raise Interrupted(number)

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


def write_to_stderr(message: str) -> None:
    """Write a message, unless standard error is closed or whoever read it is gone."""
    with suppress(OSError):
        os.write(2, message.encode())


def handled_signals() -> list[signal.Signals]:
    """Return the signals that are not ignored: `nohup` and shells ignore some for processes in the background."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _handle_signals(handler: Any) -> dict[int, Any]:
    """Set the handler of all signals that are not ignored; return the previous handlers."""
    return {number: signal.signal(number, handler) for number in handled_signals()}


def _restore_handlers(previous: dict[int, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(_exit_code(number))


def _exit_code(number: int) -> int:
    return 130 if number == signal.SIGINT else 143
