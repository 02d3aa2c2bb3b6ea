"""A Slurm of one node on this machine, for tests: munged, slurmctld and slurmd, as root, in a folder of their own."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CONFIG = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={top}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd.pid
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool
SlurmctldLogFile={top}/slurmctld.log
SlurmdLogFile={top}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
MaxArraySize=19
KillWait=30
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=10000 Gres=gpu:a100:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=10 State=UP
"""


@contextmanager
def loopback_slurm(top: Path) -> Iterator[None]:
    """Run the three daemons while the block does; SLURM_CONF has Slurm's commands find them."""
    host = socket.gethostname().partition(".")[0]
    top.chmod(0o755)
    for folder in ("state", "spool"):
        (top / folder).mkdir()
    (top / "munge.key").write_bytes(os.urandom(1024))
    (top / "munge.key").chmod(0o400)
    (top / "slurm.conf").write_text(CONFIG.format(host=host, top=top, controller=_free_port(), node=_free_port()))
    (top / "gres.conf").write_text(f"NodeName={host} Name=gpu Type=a100 File=/dev/zero\n")
    os.environ["SLURM_CONF"] = str(top / "slurm.conf")
    try:
        _start_daemons(top)
        _wait_for_node()
        yield
    finally:
        subprocess.run(["scancel", "--me"], check=False)
        for daemon in ("slurmd", "slurmctld", "munged"):
            _end(top / f"{daemon}.pid")
        del os.environ["SLURM_CONF"]


def _start_daemons(top: Path) -> None:
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    munged = [f"--{option}={top / file}" for option, file in (files | {"seed-file": "munged.seed"}).items()]
    for command in (["munged", "--force", *munged], ["slurmctld"], ["slurmd"]):
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def _wait_for_node() -> None:
    for _ in range(120):
        state = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False).stdout
        if "idle" in state:
            return
        time.sleep(0.5)
    raise TimeoutError(f"The node is not idle after a minute, but {state!r}.")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _end(pid_file: Path) -> None:
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
