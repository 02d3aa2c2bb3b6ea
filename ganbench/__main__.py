"""The door: Hydra in, runs out. Imports torch only once there is something to train."""

import os
import sys

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ganbench import check, config, outcome, stop, sweep

INTERRUPTED = "Interrupted. The same command with the same name=… goes on where its runs stopped.\n"


def main() -> None:
    stop.leave_at_once(INTERRUPTED)
    # Let errors reach us whole, so that a refusal is one sentence and a crash keeps its traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    config.register()
    sys.path.append(os.getcwd())  # a loss of one's own lies there, also for the installed command
    try:
        check.refuse_no_name(sys.argv[1:])
        check.refuse_lost(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")(sweep.task)()
    except stop.Interrupted:
        sys.stderr.write(INTERRUPTED)
        raise
    except config.Refused as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)
    except (HydraException, OmegaConfBaseException) as error:
        print(check.explained(error), file=sys.stderr)
        sys.exit(2)
    sys.exit(outcome.exit_code(outcome.endings))


if __name__ == "__main__":
    main()
