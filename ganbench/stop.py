"""Signals ask a run to stop; it does so once its state is safe. Needs no torch."""

import os
import signal
import threading
from types import FrameType

SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, n)]


class Interrupted(SystemExit):
    """A signal ended what was going on; the exit code is 130 for SIGINT and 143 for all others."""

    def __init__(self, number: int):
        super().__init__(exit_code(number))
        self.signal = signal.Signals(number).name


def exit_code(number: int) -> int:
    return 130 if number == signal.SIGINT else 143


def leave_at_once() -> None:
    """What signals do where nothing needs to be saved: raise. SIGINT stays Python's own KeyboardInterrupt."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, leave)


class Stop:
    """Use as a context: the first signal is kept until `leave_if_asked`, the second ends the process at once.

    A signal that was ignored before stays ignored; outside of the main thread, Python gives signals to nobody else.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self.before = {n: signal.signal(n, self._hear) for n in heard}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def leave_if_asked(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            os._exit(exit_code(number))
        self.asked = number
