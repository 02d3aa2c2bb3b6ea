"""Preload module of the fork server: imports torch and W&B once, so that each run forks instead of importing.

Imported by nothing else. The server is in a process group of its own and blocks the signals that the launcher handles:
a signal to the sweep's group, as from a terminal that closes, is the launcher's to pass on, and the launcher learns
through the server how its runs ended. The processes that are forked from the server react to signals again.
"""

import gc
import os
import signal
import threading
from contextlib import suppress
from importlib import import_module

from ganbench.runs.signals import handled_signals

SIGNALS = handled_signals()
LAUNCHER = os.getppid()

# torch imports its compiler with the first optimizer, and W&B much with the first run and the first record: three
# seconds that each run would take again.
SLOW_IMPORTS = (
    "ganbench.training.train",
    "torch._dynamo",
    "pandas",
    "wandb.sdk.launch.inputs.internal",
    "wandb.sdk.data_types.utils",
)

imported = threading.Event()


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _exit_with_launcher() -> None:
    """Exit if the launcher ends during the imports; later on, multiprocessing's own server loop sees to that.

    A launcher that refused its sweep or was stopped is not over for whoever reads its output while we hold that open.
    """
    while not imported.wait(0.05):
        if os.getppid() != LAUNCHER:
            os._exit(0)


os.setpgrp()
# Blocked rather than ignored: a signal to a run that has just been forked stays pending until the run can act on it.
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
os.register_at_fork(after_in_child=_unblock_signals)

# A daemon, so that an import that fails ends the server.
watch = threading.Thread(target=_exit_with_launcher, daemon=True)
watch.start()
gc.disable()  # collecting takes a sixth of the imports' time
for name in SLOW_IMPORTS:
    with suppress(ImportError):  # then each run imports what it finds, and says what is missing
        import_module(name)
gc.freeze()  # collecting what is imported would copy all its memory in each run
gc.enable()
imported.set()
watch.join()  # the processes forked from here must find no other thread
