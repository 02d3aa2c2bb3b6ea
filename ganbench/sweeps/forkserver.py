"""What makes the server that a sweep's runs are forked from, and is imported by nothing else: it stands apart from the
sweep, and has imported what takes runs time.

A signal to the sweep's process group, as from a terminal that closes, is the sweep's to pass on, and a run's end is the
sweep's to hear: neither may be lost with the server. What is forked from it hears signals again.
"""

import os
import signal
import threading
from contextlib import suppress
from importlib import import_module

from ganbench.runs.signals import handled_signals

HEARD, SWEEP, ready = handled_signals(), os.getppid(), threading.Event()
# torch imports its compiler with the first optimiser, and W&B much with the first run and the first record: two
# seconds that each run would take again.
SLOW = ("ganbench.training.train", "torch._dynamo", "wandb.sdk.launch.inputs.internal", "wandb.sdk.data_types.utils")


def _again() -> None:
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)


def _leave_with_the_sweep() -> None:
    """One that was refused or stopped meanwhile is over only once its output is closed, which the server has, too."""
    while not ready.wait(0.05):
        if os.getppid() != SWEEP:
            os._exit(0)


os.setpgrp()
for number in HEARD:
    signal.signal(number, lambda number, frame: None)
os.register_at_fork(after_in_child=_again)

waiting = threading.Thread(target=_leave_with_the_sweep, daemon=True)  # nor does it outlive what could not be imported
waiting.start()
for name in SLOW:
    with suppress(ImportError):  # then a run imports what it finds
        import_module(name)
ready.set()
waiting.join()  # what is forked must find no other thread
