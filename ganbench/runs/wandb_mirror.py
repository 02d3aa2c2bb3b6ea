"""Mirror the run folder to Weights & Biases. Whatever happens to W&B, training goes on and the folder is complete.

A row has all that was recorded at one number of real images, which is its step. So what W&B has already is never sent
twice: a resumed run, and `python -m ganbench.runs.wandb_mirror sync`, send what is missing.
"""

import argparse
import logging
import os
import secrets
import shlex
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import wandb
from omegaconf import DictConfig, OmegaConf

from ganbench.config.compose import method_label, resolve
from ganbench.config.environment import agent_sweep, mode_variable
from ganbench.config.schema import ScoredOn
from ganbench.config.typed import typed_arguments
from ganbench.errors import Refused
from ganbench.files import ensure_home, is_run_folder
from ganbench.runs.lock import run_lock
from ganbench.runs.status import read_status, write_status
from ganbench.runs.wandb_artifact import Uploaded, artifact_to_log, log_artifact
from ganbench.runs.wandb_privacy import private_settings, shown_folder, without_names
from ganbench.runs.wandb_rows import Rows, rows, summary

log = logging.getLogger("ganbench")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # at its exit W&B would wait 22 s to report an outage

# Seconds that a server which never answers may cost: to connect, to begin a run, to end it, to upload one later.
CONNECT_TIMEOUT = 3.0
INIT_TIMEOUT = 6.0
FINISH_TIMEOUT = 8.0
UPLOAD_TIMEOUT = 120.0

OFFLINE_INSTEAD = "Or use wandb=offline and upload later."

LONGEST_NAME, LONGEST_TAG = 128, 64  # at W&B, in characters

Mode = Literal["online", "offline"]


class Unreachable(Exception):
    """No W&B server answers; the message says where."""


class Address(NamedTuple):
    """Where W&B has a run."""

    id: str
    project: str
    entity: str | None  # None: that of the key, which W&B knows

    def facts(self) -> dict[str, str | None]:
        """Return what status.json says of it."""
        return {f"wandb_{part}": value for part, value in self._asdict().items()}


class WandbMirror:
    """A run's mirror. A user's mistake is raised, as Refused; anything else that goes wrong is one warning."""

    def __init__(self, out: Path, cfg: DictConfig, address: Address | None = None):
        """Begin a W&B run; for a resumed run continue the one at this address, with what the folder has."""
        self.out, self.cfg = out, cfg
        self.artifact: Uploaded | None = None  # that was logged
        self.naming = Rows(cfg)
        self.row: dict[str, Any] = {}  # not sent yet: all of it has the same number of images
        self.run: wandb.Run | None = None
        self.warned = False
        self.address = address or Address(secrets.token_hex(4), cfg.wandb.project, cfg.wandb.entity)
        mode = resolve(cfg)["wandb"]["mode"]
        if mode != "disabled":
            self._guarded(self._begin, mode, partial(start_run, out, cfg, self.address, resume=address is not None))

    @property
    def facts(self) -> dict[str, str | None]:
        """Return what status.json says of where W&B has the run, with its page if a server has answered."""
        return self.address.facts() | (page_of(self.run) if self.run else {})

    def log(self, record: dict[str, Any]) -> None:
        """Add `images`, and numbers or the path of a picture, to the row; send the row before if this begins one."""
        if record["images"] != self.row.get("images"):
            self._send_row()
        self.row |= self.naming.part(record)

    def finish(self, exit_code: int, saved_images: int | None = None) -> None:
        """Wait until everything is uploaded, at most FINISH_TIMEOUT seconds.

        A run that goes on later from a checkpoint at `saved_images` will record that row again, whole: it is not sent.
        """
        if self.row.get("images") != saved_images:
            self._send_row()
        if self.run and saved_images is not None and agent_sweep():
            self._guarded(self.run.mark_preempting)  # so that W&B gives the run to an agent once more
        if self.run:
            self._guarded(self._conclude, exit_code)
            self.run = None

    def _conclude(self, exit_code: int) -> None:
        assert self.run is not None
        self.artifact = conclude(self.run, self.out, self.cfg, exit_code)

    def _send_row(self) -> None:
        if self.run and self.row:
            self._guarded(send, self.run, self.row)
        self.row = {}

    def _begin(self, mode: Mode, start: Callable[[Mode], wandb.Run]) -> None:
        try:
            self.run = start(mode)
        except Unreachable as error:
            self._warn(error)
            self.run = start("offline")
        self.address = address_of(self.run)
        catch_up(self.run, self.out)

    def _guarded(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call W&B; if that fails, warn and go on without it."""
        try:
            call(*args, **kwargs)
        except Refused:
            raise
        except Exception as error:
            self._warn(error)
            abandon(self.run)
            self.run = None

    def _warn(self, error: Exception) -> None:
        if not self.warned:
            log.warning(
                f"Weights & Biases: {first_line(error)}. The run is not affected and {self.out} is complete; "
                f"upload it later with: python -m ganbench.runs.wandb_mirror sync {self.out}"
            )
        self.warned = True


def prestart(mode: str) -> None:
    """Start W&B's own process early. If that fails, it fails again, with a message, when the run begins."""
    if mode != "disabled":
        with suppress(Exception):
            wandb.setup(settings=wandb.Settings(silent=True, mode=cast(Mode, mode)))


def start_run(
    out: Path, cfg: DictConfig, address: Address, mode: Mode, resume: bool, finish_timeout: float = FINISH_TIMEOUT
) -> wandb.Run:
    """Return a W&B run in `mode`. Raise Refused for a user's mistake, Unreachable if no server answers in time."""
    if mode == "online":
        check_api_key()
        check_reachable(wandb.setup().settings.base_url)
    settings = wandb.Settings(
        silent=True,
        init_timeout=INIT_TIMEOUT,
        finish_timeout=UPLOAD_TIMEOUT if cfg.wandb.get("artifacts") else finish_timeout,
        finish_timeout_raises=True,
        **private_settings(),
    )
    try:
        run = wandb.init(
            dir=mirror_folder(out, cfg),
            mode=mode,
            **address._asdict(),
            **run_metadata(cfg, out),
            config=sent_config(cfg, out),
            # An offline run is written whole instead: `wandb sync` would send twice what two parts of it share.
            resume="allow" if resume and mode == "online" else None,
            reinit="create_new",
            settings=settings,
        )
    except wandb.errors.Error as error:
        if any(word in str(error).lower() for word in ("timed out", "deadline", "giving up")):
            raise Unreachable(f"no answer from {wandb.setup().settings.base_url} in {INIT_TIMEOUT:.0f} s") from None
        raise refusal(mode, error) from None
    silence_wandb_log()
    run.define_metric("*", step_metric="images")
    if mode == "online":
        log.info(f"Weights & Biases: {run.url}")
    return run


def sent_config(cfg: DictConfig, out: Path) -> dict[str, Any]:
    """Return the settings that W&B is sent."""
    config = resolve(cfg)
    config["wandb"]["dir"] = None  # an agent sets it, to a folder that may name the user
    return without_names(config) | {"method": method_label(cfg), "folder": shown_folder(out)}


def mirror_folder(out: Path, cfg: DictConfig) -> Path:
    """Return the folder that W&B writes into, made if it is not there: W&B would quietly take another."""
    folder = Path(cfg.wandb.dir or out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def address_of(run: wandb.Run) -> Address:
    """Return where W&B put a run: under an agent the id, project and entity are those of its sweep, not ours."""
    return Address(run.id, run.project, run.entity or None)


def page_of(run: wandb.Run) -> dict[str, str | None]:
    """Return what status.json says of a run's page; nothing of an offline run, which has none yet."""
    return {} if run.offline else {"wandb_url": run.url}


def recorded_address(status: dict[str, Any], cfg: DictConfig) -> Address | None:
    """Return where W&B has the run of this status; None if it was never begun there."""
    if "wandb_id" not in status:
        return None
    project = status.get("wandb_project", cfg.wandb.project)  # before 0.4 only the id was kept
    return Address(status["wandb_id"], project, status.get("wandb_entity") or cfg.wandb.entity)


def run_metadata(cfg: DictConfig, out: Path) -> dict[str, Any]:
    """Return what W&B shows a run under, and sorts and finds it by."""
    tags = [method_label(cfg), cfg.dataset.name, cfg.metric.name, cfg.protocol.name, *(cfg.wandb.tags or ())]
    is_trial = cfg.protocol.scored_on is ScoredOn.selection
    return {
        "name": cfg.wandb.name or display_name(out.resolve().name),
        "group": cfg.wandb.group or cfg.name,
        "job_type": os.environ.get("WANDB_JOB_TYPE") or ("trial" if is_trial else "final"),
        "tags": list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags)),
        "notes": without_names("\n\n".join(filter(None, [read_status(out).get("command"), cfg.wandb.notes]))),
    }


def display_name(folder: str) -> str:
    """Return the name of a run's folder, without its middle where it is longer than W&B allows; its end is the seed."""
    return folder if len(folder) <= LONGEST_NAME else f"{folder[:100]}...{folder[-25:]}"


def command_line() -> str:
    """Return what was typed to make this run, or the sweep that it is of."""
    return shlex.join(["python", "-m", "ganbench", *typed_arguments()])


def silence_wandb_log() -> None:
    """Keep W&B's own log from filling the terminal with errors if its disk is full."""
    for handler in logging.getLogger("wandb").handlers:
        setattr(handler, "handleError", lambda record: None)  # noqa: B010  # mypy forbids to assign to a method


def check_api_key() -> None:
    """Raise Refused without a valid key, before any connection is made."""
    try:
        log_in()
    except wandb.errors.Error as error:
        raise refusal("online", error) from None


def log_in() -> None:
    """Have W&B's library find the key. Raise its error if there is none, or if it cannot be one."""
    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))  # whatever WANDB_MODE says
    wandb.login(verify=False, force=True)


def refusal(mode: str, error: Exception) -> Refused:
    """Return W&B's complaint about a user's mistake as a refusal."""
    return Refused(f"wandb={mode}: {first_line(error)}. {OFFLINE_INSTEAD}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without its period; the error's type if it has no message."""
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def check_reachable(url: str) -> None:
    """Raise Unreachable unless a server accepts connections. Behind a proxy only the proxy can tell, so do nothing."""
    address = urlsplit(url)
    host = address.hostname or ""
    if address.scheme in getproxies() and not proxy_bypass(host):
        return
    if not can_connect(host, address.port or (80 if address.scheme == "http" else 443)):
        raise Unreachable(f"{url} cannot be reached")


def can_connect(host: str, port: int) -> bool:
    """Return whether a server accepts a connection within CONNECT_TIMEOUT seconds."""
    connected = threading.Event()

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
            connected.set()

    # In a thread, because looking up a name has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT)
    return connected.is_set()


def send(run: wandb.Run, row: dict[str, Any]) -> None:
    """Send a row, unless W&B has it from before the run was resumed."""
    if row["images"] >= run.starting_step:
        run.log({key: as_media(value) for key, value in row.items()}, step=row["images"], commit=True)


def as_media(value: Any) -> Any:
    """Return what W&B draws: a picture for its path, a histogram for its counts and edges."""
    match value:
        case Path():
            return wandb.Image(str(value))
        case {"counts": counts, "edges": edges}:
            return wandb.Histogram(np_histogram=(counts, edges))
    return value


def conclude(run: wandb.Run, out: Path, cfg: DictConfig, exit_code: int) -> Uploaded | None:
    """Send the summary of the run in the folder `out`, and its artifact if it is to have one and has none yet.

    Wait until everything is sent; return the artifact.
    """
    run.summary.update(summary(out))
    artifact = artifact_to_log(out, cfg, "offline" if run.offline else "online")
    try:
        if artifact:
            log_artifact(run, out, artifact)
    finally:  # W&B is to know how the run ended, whatever becomes of its artifact
        run.finish(exit_code=exit_code)
    return artifact


def catch_up(run: wandb.Run, out: Path) -> None:
    """Send what the folder has and W&B has not; write an offline run from the start."""
    for row in rows(out):
        send(run, row)
    if run.offline:
        _delete_older_offline_runs(run)


def abandon(run: wandb.Run | None) -> None:
    """Drop W&B: if its process has died, what it does at exit would end in a traceback."""
    if run:
        with suppress(Exception):
            run.finish(exit_code=1)
    with suppress(Exception, SystemExit):  # it would exit with the code of its own process
        wandb.teardown()


def sync(out: Path, mode: Mode) -> None:
    """Send what W&B does not have of the run in the folder `out`, under the run's own id.

    Raise Refused for a folder that contains no run; if W&B fails, its error.
    """
    cfg, status = load_run(out)
    address = recorded_address(status, cfg)
    assert address is not None  # as `load_run` has checked
    run = None
    try:
        run = start_run(out, cfg, address, mode, resume=True, finish_timeout=UPLOAD_TIMEOUT)
        write_status(out, status | address_of(run).facts() | page_of(run))
        catch_up(run, out)
        artifact = conclude(run, out, cfg, exit_code=0 if status["status"] == "finished" else 1)
        if artifact:
            write_status(out, read_status(out) | artifact.facts())
    except Exception:
        abandon(run)
        raise


def load_run(out: Path) -> tuple[DictConfig, dict[str, Any]]:
    """Return a run's settings and its status. Raise Refused if they or its records cannot be read."""
    status = read_status(out)
    if "wandb_id" not in status:
        raise Refused(f"{out}/status.json has no wandb_id: pass the folder of a run that has begun.")
    try:
        cfg = OmegaConf.load(out / "config.yaml")
        rows(out)
    except Exception as error:  # whatever a damaged file leads to
        raise Refused(f"{out} cannot be read ({first_line(error)}): repair the file, or leave this run out.") from None
    return cast(DictConfig, cfg), status


def main() -> None:
    """Send runs to W&B; the command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m ganbench.runs.wandb_mirror", description="Upload recorded runs to Weights & Biases."
    )
    command = parser.add_subparsers(required=True, metavar="sync").add_parser(
        "sync",
        help="upload runs from their folders",
        description="Upload runs to Weights & Biases from their folders: settings, metrics, samples, probes and "
        "status. Each keeps its id, and only what W&B does not have yet is sent.",
        epilog="WANDB_MODE=offline writes RUN/wandb/offline-run-... again instead, for `wandb sync` on another "
        "machine. Exit codes: 0 all sent, 1 W&B failed, 2 refused.",
    )
    command.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="folder of a run or of a sweep, such as outputs/run/mine"
    )
    runs = parser.parse_args().runs
    ensure_home()
    sys.exit(sync_all(runs, mode_variable() or "online"))


def sync_all(runs: list[Path], mode: str) -> int:
    """Send each run and print so; return the exit code."""
    try:
        checked = _checked_mode(mode)
        runs = [run for folder in runs for run in _runs_of(folder)]
        for run in runs:
            load_run(run)
        for run in runs:
            with run_lock(run):
                sync(run, checked)
            print(f"{run}: {'sent' if mode == 'online' else 'written for `wandb sync`'}")
    except Refused as refused:
        print(str(refused).removesuffix(OFFLINE_INSTEAD).rstrip(), file=sys.stderr)  # this is later
        return 2
    except Exception as error:
        print(f"{run}: not sent ({first_line(error)}); nothing is lost, try again once W&B answers.", file=sys.stderr)
        return 1
    return 0


def _runs_of(folder: Path) -> list[Path]:
    """Return the folders of a sweep's runs and trials; the folder itself if it is not that of a sweep."""
    found = [status.parent for pattern in ("*", "trials/*") for status in sorted(folder.glob(f"{pattern}/status.json"))]
    return [folder] if is_run_folder(folder) else found or [folder]


def _checked_mode(mode: str) -> Mode:
    if mode not in get_args(Mode):
        raise Refused(f"WANDB_MODE={mode} sends nothing; set it to online or offline, or unset it.")
    return cast(Mode, mode)


def _delete_older_offline_runs(run: wandb.Run) -> None:
    """Delete what earlier parts of a resumed run wrote, because the new one contains it."""
    newest = Path(run.dir).parent.resolve()
    for folder in newest.parent.glob(f"offline-run-*-{run.id}"):
        if folder.resolve() != newest:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
