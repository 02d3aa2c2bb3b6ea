"""The door: Hydra in, runs out. Imports torch only once there is something to train."""

import os
import sys

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.compose import register
from ganbench.config.schema import CONF
from ganbench.config.validate import one_line_error, reject_dropped_override, reject_null_option
from ganbench.errors import Refused
from ganbench.runs import signals
from ganbench.runs.status import exit_code, exit_statuses
from ganbench.sweeps.task import task

INTERRUPTED = "Interrupted. The same command with the same name=… goes on where its runs stopped.\n"


def main() -> None:
    signals.exit_on_signal(INTERRUPTED)
    # Let errors reach us whole, so that a refusal is one sentence and a crash keeps its traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    sys.path.append(os.getcwd())  # a loss of one's own lies there, also for the installed command
    try:
        reject_null_option(sys.argv[1:])
        reject_dropped_override(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    except signals.Interrupted:
        sys.stderr.write(INTERRUPTED)
        raise
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)
    except (HydraException, OmegaConfBaseException) as error:
        print(one_line_error(error), file=sys.stderr)
        sys.exit(2)
    sys.exit(exit_code(exit_statuses))


if __name__ == "__main__":
    main()
