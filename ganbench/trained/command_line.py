"""What the command lines for trained runs share. Needs no torch."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.compose import register
from ganbench.config.messages import one_line_error
from ganbench.errors import Diverged, Refused
from ganbench.files import allow_any_name_in_print, can_be_made
from ganbench.progress import quiet_when_unread
from ganbench.runs.signals import Interrupted, handled_signals, write_to_stderr


class Arguments(argparse.ArgumentParser):
    """A command line of which whatever is wrong is refused in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; {self.prog} --help shows what can be passed.")


@contextmanager
def answered(unfinished: str = "what was not complete is not kept") -> Iterator[None]:
    """Run a command in the block. Exit with 2 if it is refused, 3 for samples not finite, 1 for a full disk.

    `unfinished` says what becomes of its work where it is cut short.
    """
    for number in handled_signals():
        signal.signal(number, _interrupt)
    allow_any_name_in_print()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ganbench").setLevel(logging.INFO)
    register()
    sys.path.append(os.getcwd())  # so that a generator in the current folder can be imported
    try:
        with quiet_when_unread():
            yield
    except (Refused, HydraException, OmegaConfBaseException) as error:
        print(_with_flags(one_line_error(error)), file=sys.stderr)
        sys.exit(2)
    except Diverged as error:
        print(f"{error} ({error.facts['value']}), so nothing was written.", file=sys.stderr)
        sys.exit(3)
    except OSError as error:
        print(f"{' '.join(str(error).split())}; {unfinished}.", file=sys.stderr)
        sys.exit(1)
    except Interrupted:
        write_to_stderr(f"Interrupted: {unfinished}.\n")
        raise


def _with_flags(message: str) -> str:
    """Write settings as flags, where these command lines have flags for them."""
    return re.sub(r"(?<!\S)(device|metric)=", r"--\1 ", message)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise the signal as an exception, so that unfinished files are removed."""
    raise Interrupted(number)


def count(text: str) -> int:
    """Read a number of samples."""
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1")
    return int(text)


def is_named_as_file(out: Path) -> bool:
    """Tell whether a name is that of a file, such as `G.bin`, and not that of a folder, such as `run-0.5`."""
    return bool(re.fullmatch(r"\.[A-Za-z]\w*", out.suffix))


def check_new(out: Path, flag: str = "--out ") -> None:
    """Raise Refused unless a new file or folder can be made at `out`: nothing is ever overwritten."""
    if os.path.lexists(out):
        raise Refused(f"{flag}{out} already exists, and nothing is overwritten; pass another name, or remove it first.")
    if not can_be_made(out.parent):
        raise Refused(f"{flag}{out} cannot be written there; pass another place.")
