"""Check what other launchers have set in the environment, before anything is composed."""

import os

from ganbench.errors import Refused


def reject_torchrun() -> None:
    """Raise Refused if torchrun has started several processes for what is one run.

    Its own variable decides: Slurm jobs of one task may have RANK and WORLD_SIZE, too.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and processes != "1":
        raise Refused(
            f"torchrun started {processes} processes (WORLD_SIZE={processes}), but a run uses one device and one "
            "process; use python -m ganbench instead, with -m for several runs side by side."
        )
