"""Imported by the server that a sweep's runs are forked from, and by nothing else: it stands apart from the sweep.

A signal to the sweep's process group, as from a terminal that closes, is the sweep's to pass on, and a run's end is the
sweep's to hear: neither may be lost with the server. What is forked from it hears signals again.
"""

import os
import signal

from ganbench.stop import heard

HEARD = heard()


def _again() -> None:
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)


os.setpgrp()
for number in HEARD:
    signal.signal(number, lambda number, frame: None)
os.register_at_fork(after_in_child=_again)
