"""Start command lines as forks of a process that has imported torch, which saves each of them four seconds.

A fork has a session, surroundings, signals and an end of its own, as a process has that is started from scratch.
With its siblings it shares the seed of Python's hashes, what is imported, and the digits of mnist5k.
"""

import atexit
import copy
import gc
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing import forkserver, util
from pathlib import Path
from typing import IO

import omegaconf.base
import yaml

IMPORTS = (
    "ganbench.conformance.suite",
    "ganbench.report.pages.overview",
    "ganbench.sweeps.launcher",
    "ganbench.sweeps.task",
    "ganbench.training.probes",
    "ganbench.training.train",
    "mlxtend.data",
    "pandas",
    "torch._dynamo",
    "wandb.sdk.data_types.utils",
    "wandb.sdk.launch.inputs.internal",
)
# What a command line needs until it imports torch, which one that is refused never does.
LIGHT_IMPORTS = ("ganbench.sweeps.launcher", "hydra._internal.hydra", "hydra.core.plugins")
TORCH_WAS_IMPORTED = "torch was imported"  # what a fork of a light server writes at its end if that is so
LONGEST_REQUEST = 1 << 20
IS_LIGHT = sys.orig_argv[-1] == "light"  # as are the forks of such a server


def search_path() -> str:
    """PYTHONPATH for whatever is started here: the repository, and what it has been so far."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))


class Server:
    """A process that has imported torch, or is `light` and has not, and forks for every request."""

    def __init__(self, light: bool = False) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *(["light"] if light else [])],
            env=os.environ | {"PYTHONPATH": search_path()},
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # it ends when its socket closes, rather than by signals
        )
        theirs.close()
        self.lock = threading.Lock()  # some tests start several commands at once

    def fork(self, request: Mapping[str, object], descriptors: list[int]) -> int:
        """Start a command line with these descriptors for its output, errors and exit code; return its process id."""
        with self.lock:
            socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
            return int(self.socket.recv(100))


class Forked:
    """A command line that a server has forked; used like a `subprocess.Popen` in text mode."""

    def __init__(
        self,
        server: Server,
        module: str,
        arguments: list[str],
        cwd: Path,
        environment: Mapping[str, str],
        stdout: int = subprocess.PIPE,
    ):
        self.args = [module, *arguments]
        self.returncode: int | None = None
        output, their_output = os.pipe()
        if stdout == subprocess.DEVNULL:
            os.close(their_output)
            their_output = os.open(os.devnull, os.O_WRONLY)
        errors, their_errors = os.pipe()
        self._end, their_end = os.pipe()
        os.set_blocking(self._end, False)
        request = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        self.pid = server.fork(request, [their_output, their_errors, their_end])
        for descriptor in (their_output, their_errors, their_end):
            os.close(descriptor)
        self.stderr = os.fdopen(errors)
        self.stdout = os.fdopen(output)

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(BlockingIOError):
                self.returncode = int(os.read(self._end, 100))
                os.close(self._end)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        give_up = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float = float("inf")) -> tuple[str, str]:
        """Return what it and its children wrote, once all of them have ended."""
        output: list[str] = []
        errors: list[str] = []
        readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in ((self.stdout, output), (self.stderr, errors))
        ]
        give_up = time.monotonic() + timeout
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if timeout == float("inf") else max(0, give_up - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(1.0, give_up - time.monotonic()))
        return "".join(output), "".join(errors)

    @staticmethod
    def _read(stream, into: list[str]) -> None:
        with suppress(ValueError):  # closed meanwhile
            into.append(stream.read())

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def serve(requests: socket.socket) -> tuple[dict, list[int]]:
    """Fork at every request. Return in the fork, with its request and descriptors; in the server, never."""
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    ends: dict[int, int] = {}  # by process id, where to write its exit code
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ends(ends)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not message:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (ended, wake, requests.detach(), *ends.values(), descriptors.pop()):
                os.close(descriptor)
            return json.loads(message), descriptors
        *others, ends[pid] = descriptors
        for descriptor in others:
            os.close(descriptor)
        requests.send(str(pid).encode())


def _tell_ends(ends: dict[int, int]) -> None:
    """Write the exit codes of the forks that have ended, negative for a signal."""
    while ends:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        end = ends.pop(pid)
        with suppress(BrokenPipeError):
            os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(end)


def become(module: str, arguments: list[str], cwd: str, environment: dict[str, str], output: int, errors: int) -> None:
    """Make this process what `python -m MODULE ARGUMENTS` would be, and end it."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", errors=sys.stdout.errors, closefd=False)  # which may be no file now
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[0] = cwd
    sys.argv[1:] = arguments
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    code = 0
    fork_fork_servers()
    customize_site()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:
        code = 1
        traceback.print_exc()
    if IS_LIGHT and "torch" in sys.modules:
        print(TORCH_WAS_IMPORTED, file=sys.stderr)
    # As Python ends, but for taking all modules apart.
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def customize_site() -> None:
    """Do what Python does at its start with a sitecustomize.py that PYTHONPATH leads to."""
    for folder in os.environ["PYTHONPATH"].split(os.pathsep):
        if (Path(folder) / "sitecustomize.py").exists():
            runpy.run_path(str(Path(folder) / "sitecustomize.py"))


def fork_fork_servers() -> None:
    """Have this process fork its fork server, which would else import torch again, in five seconds of a core.

    It runs what it would be started with, with the descriptors and signals that it would have.
    """
    start = util.spawnv_passfds

    def fork(path: bytes, arguments: list[str], kept: list[int]) -> int:
        code = arguments[-1]
        if "multiprocessing.forkserver" not in code:
            return start(path, arguments, kept)
        sys.stdout.flush()
        launcher = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            _forget_parent(kept)
            if os.getppid() != launcher:  # a sweep that was refused meanwhile needs no server
                os._exit(0)
            sys.setprofile(None)
            sys.orig_argv = [os.fsdecode(path), *arguments[1:]]
            customize_site()
            exec(code, {"__name__": "__main__"})
        finally:
            os._exit(1)

    util.spawnv_passfds = fork


def _forget_parent(kept: list[int]) -> None:
    """Undo, in a fork, what a new program would not have: open files, handled signals, held locks."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):  # the one of the listing itself
                os.close(descriptor)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    forkserver._forkserver.__init__()  # type: ignore[misc]
    logging.root.handlers.clear()


def parse_once() -> None:
    """Keep what is read of interpolations and of YAML, which every composition and every run asks for again."""
    omegaconf.base.parse = cache(omegaconf.base.parse)
    load = yaml.load
    kept: dict[tuple[str | bytes, str], object] = {}

    def load_once(stream: str | bytes | IO, Loader: type) -> object:
        text = stream if isinstance(stream, str | bytes) else stream.read()
        key = (text, Loader.__name__)
        if key not in kept:
            if not isinstance(stream, str | bytes):
                stream.seek(0)  # for errors that name it
            kept[key] = load(stream, Loader)
        return copy.deepcopy(kept[key])

    yaml.load = load_once


def know_settings() -> None:
    """Compose once, for what Hydra and OmegaConf then know of their grammars, of plugins and of our settings."""
    parse_once()
    with suppress(ImportError):
        import_module("ganbench.config.compose").compose_config()


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    gc.disable()
    for name in LIGHT_IMPORTS if IS_LIGHT else IMPORTS:
        with suppress(ImportError):  # then each command line says what is missing
            import_module(name)
    know_settings()
    if not IS_LIGHT:
        with suppress(ImportError):
            import_module("ganbench.datasets").mnist5k()
    gc.freeze()  # collecting what is imported would copy all its memory in each fork
    gc.enable()
    request, (output, errors) = serve(socket.socket(fileno=int(sys.argv[1])))
    become(**request, output=output, errors=errors)
