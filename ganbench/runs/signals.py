"""Signals ask a run to stop; it does so once its state is safe. Needs no torch."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupted(SystemExit):
    """A signal ended what was going on; the exit code is 130 for SIGINT and 143 for all others."""

    def __init__(self, number: int):
        super().__init__(exit_code(number))
        self.signal = signal.Signals(number).name


def exit_code(number: int) -> int:
    return 130 if number == signal.SIGINT else 143


def handled_signals() -> list[signal.Signals]:
    """What is not ignored, as `nohup` and shells ignore some for what they start in the background."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def exit_on_signal(saying: str = "") -> None:
    """Where nothing needs to be saved, have a signal end the process there and then. An exception could not do that:
    raised in the midst of code that is not ours, it may be replaced by another from a `finally` there, or be lost.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        try:
            os.write(2, saying.encode())
        finally:  # also where nobody reads that
            _exit(number, frame)

    for number in handled_signals():
        signal.signal(number, leave)


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """In this context, where all code that may be interrupted is ours, the first signal raises Interrupted, and the
    second ends the process at once.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for each in handled_signals():
            signal.signal(each, _exit)
        raise Interrupted(number)

    before = {number: signal.signal(number, leave) for number in handled_signals()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(exit_code(number))


class GracefulStop:
    """Use as a context: the first signal is kept until `leave_if_asked`, or the end; the second ends the process at
    once. Outside of the main thread nothing is heard, for Python gives signals to nobody else.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.before: dict[int, object] = {}

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._hear) for number in handled_signals()}
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if error is None:
            self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            _exit(number, frame)
        self.asked = number
