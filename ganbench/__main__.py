"""The door: Hydra in, runs out. Imports torch only once there is something to train."""

import os
import sys

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from ganbench import check, config, outcome, sweep


def main() -> None:
    sweep.leave_on_sigterm()
    # Let errors reach us whole, so that a refusal is one sentence and a crash keeps its traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    config.register()
    sys.path.append(str(config.HERE / "plugins"))  # where Hydra looks for our sweeper and launcher
    try:
        check.refuse_null(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")(sweep.task)()
    except KeyboardInterrupt:
        sys.exit(130)
    except config.Refused as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)
    except (HydraException, OmegaConfBaseException) as error:
        print(_explained(error), file=sys.stderr)
        sys.exit(2)
    sys.exit(outcome.exit_code(outcome.endings))


def _explained(error: Exception) -> str:
    """Key, value and what is allowed, from Hydra's or OmegaConf's own words."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if isinstance(error, (MissingConfigException, OverrideParseException)) or not key:
        return str(error)
    said = next((a for a in sys.argv[1:] if a.lstrip("+~").split("=")[0] in (key, key.split(".")[0])), key)
    if key not in said:
        said = key
    if parent is not None and cause.key is not None and "not in" in str(cause):
        return check.unknown_key(
            key, [str(k) for k in parent if not str(k).startswith("_")], said.partition("=")[2] or None
        )
    return f"{said}: {str(cause).splitlines()[0]}"


if __name__ == "__main__":
    main()
