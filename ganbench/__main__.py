"""Run ganbench from the command line: Hydra composes, checks refuse, runs train.

torch is imported only once there is something to train, so that --help and refusals take less than a second.
"""

import os
import sys
from typing import NoReturn

import hydra

from ganbench import __version__
from ganbench.config.compose import register
from ganbench.config.environment import check_wandb_variables, reject_torchrun
from ganbench.config.messages import UNREADABLE, one_line_error
from ganbench.config.overrides import as_hydra_reads, completion_of_line, reject_senseless_overrides
from ganbench.config.schema import CONF
from ganbench.errors import Refused
from ganbench.files import allow_any_name_in_print, is_out_of_space, out_of_space_message
from ganbench.progress import quiet_when_unread
from ganbench.runs import signals
from ganbench.runs.status import exit_code, exit_statuses
from ganbench.sweeps.task import RunEnded, task

INTERRUPTED = "Interrupted. Rerun with the same name=... to resume.\n"


@quiet_when_unread()
def main() -> None:
    """Run a command line; exit with 2 if it is refused, and else with a code for how its runs ended."""
    if "--version" in sys.argv[1:]:
        print(f"ganbench {__version__}")
        return
    allow_any_name_in_print()
    signals.exit_on_signal(INTERRUPTED)
    # Hydra must raise its errors, so that a refusal is one line and a crash has its traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    sys.path.append(os.getcwd())  # so that a loss in the current folder can be imported
    try:
        reject_torchrun()
        check_wandb_variables()
        sys.argv[1:] = as_hydra_reads(completion_of_line(sys.argv[1:]))
        reject_senseless_overrides(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    except signals.Interrupted:
        signals.write_to_stderr(INTERRUPTED)
        raise
    except (Refused, *UNREADABLE) as error:
        _exit_with(error)
    except RunEnded as ended:
        _exit_with(ended.error)
    except OSError as error:
        if not is_out_of_space(error):
            raise
        _exit_with(error)
    finally:
        signals.ignore_signals()  # Python resets handlers at its exit, where another signal would change the exit code
    sys.exit(exit_code(exit_statuses))


def _exit_with(error: Exception) -> NoReturn:
    """Say in one sentence why nothing more is done; exit with 1 if a disk is full, with 2 if something is refused."""
    if is_out_of_space(error):  # some of Hydra's errors are an OSError, too
        print(out_of_space_message(error), file=sys.stderr)
        sys.exit(1)
    print(one_line_error(error), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
