"""The lock of a run's folder, also where a file system has none: there the kernel is made to refuse `flock`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, RING, end, ganbench

from ganbench.runs.lock import RunLocked, raise_if_locked, run_lock

# Has the kernel answer `flock` with EOPNOTSUPP, as file systems without it do: for this process and all it starts.
WITHOUT_FLOCK = """
import ctypes, errno, os, struct, sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
flock = {"x86_64": 73, "aarch64": 32}[os.uname().machine]
refuse = (RETURN, 0, 0, ERRNO | errno.EOPNOTSUPP)
program = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, flock), refuse, (RETURN, 0, 0, ALLOW)]

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]

code = b"".join(struct.pack("HBBI", *step) for step in program)
libc = ctypes.CDLL(None, use_errno=True)
for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Filter(4, code)))):
    if libc.prctl(*call):
        sys.exit(f"no seccomp here: {os.strerror(ctypes.get_errno())}")
"""
AND_GO_ON = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
HOLD = """
import sys, time
from pathlib import Path
from ganbench.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(10**6)
"""
LOOK = """
import sys
from pathlib import Path
from ganbench.runs.lock import RunLocked, raise_if_locked, run_lock
folder = Path(sys.argv[1])
try:
    raise_if_locked(folder)
    with run_lock(folder):
        print("free")
except RunLocked as error:
    print(error)
print(sorted(file.name for file in folder.iterdir()))
"""


@pytest.fixture(params=["flock", "no flock"])
def python(request: pytest.FixtureRequest) -> list[str]:
    """The command that runs a script, where the kernel has `flock` and where it has not."""
    if request.param == "flock":
        return [sys.executable]
    command = [sys.executable, "-c", WITHOUT_FLOCK + AND_GO_ON]
    if subprocess.run([*command, "-c", ""]).returncode:
        pytest.skip("system calls cannot be filtered here")
    return command


@pytest.fixture
def hold(python: list[str]) -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Start a process that holds the lock of a folder until it is killed."""
    processes = []

    def begin(folder: Path) -> subprocess.Popen:
        command = [*python, "-c", HOLD, str(folder)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in processes:
        end(process)


def look(python: list[str], folder: Path) -> str:
    """Return what another process says of the lock, and the folder's files."""
    command = [*python, "-c", LOOK, str(folder)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_held_lock_names_its_holder(python: list[str], hold: Callable, tmp_path: Path) -> None:
    holder = hold(tmp_path)
    files = sorted(file.name for file in tmp_path.iterdir())
    message, after = look(python, tmp_path).splitlines()
    who = rf"process {holder.pid} on \S+ since [-0-9]+ [:0-9]+"
    assert re.match(rf"{tmp_path} is locked by {who}; wait", message), message
    assert message.endswith(", or pass another name=...")
    assert after == str(files)  # looking neither leaves a file nor takes one from the holder
    assert ("delete" in message) == (".lock.soft" in files) == (len(python) > 1)
    assert look(python, tmp_path).startswith(f"{tmp_path} is locked by process {holder.pid}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_died_keeps_nobody_out(
    number: signal.Signals, python: list[str], hold: Callable, tmp_path: Path
) -> None:
    holder = hold(tmp_path)
    holder.send_signal(number)
    holder.wait()
    assert look(python, tmp_path) == "free\n['.lock']\n"


def test_the_lock_ends_with_its_block(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    raise_if_locked(folder)
    assert not folder.exists()
    with run_lock(folder):
        assert str(os.getpid()) in (folder / ".lock.holder").read_text()
        with pytest.raises(RunLocked, match=f"process {os.getpid()} "), run_lock(folder):
            pass
    raise_if_locked(folder)
    assert [file.name for file in folder.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_run_needs_no_flock(python: list[str], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITHOUT_FLOCK if len(python) > 1 else "")
    done = ganbench(*RING, "name=soft", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "outputs/run/soft").glob(".lock.*"))
