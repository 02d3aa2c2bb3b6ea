"""Weights & Biases as a mirror of the run folder: whatever happens to it, training goes on and the folder is whole.

Every record has a step of its own, counted from 0 in the order of `records`, so that what W&B has already is never
sent twice: a run that is resumed, and `python -m ganbench.runs.wandb_mirror sync`, send what is missing.
"""

import argparse
import json
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import wandb
from omegaconf import DictConfig, OmegaConf

from ganbench.config.compose import method_label
from ganbench.errors import Refused
from ganbench.runs.lock import run_lock
from ganbench.runs.status import read_status

log = logging.getLogger("ganbench")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # leaving would wait 22 s to report that nobody answers

# Seconds that a server which never answers may cost: to knock, to begin, to end a run, to upload one again.
CONNECT_TIMEOUT = 3.0
INIT_TIMEOUT = 6.0
FINISH_TIMEOUT = 8.0
UPLOAD_TIMEOUT = 120.0


class Unreachable(Exception):
    """No W&B server answers; says where."""


class WandbMirror:
    """A run's mirror. Of all that can go wrong only a user's mistake is raised, as Refused; the rest is one warning."""

    def __init__(self, out: Path, cfg: DictConfig, config: dict[str, Any], id: str | None = None, sent: int = 0):
        """Begin, or with the `id` and the number of records `sent` of a run that is resumed, go on."""
        self.out, self.sent, self.run, self.warned = out, sent, None, False
        self.id = id or secrets.token_hex(4)
        mode = config["wandb"]["mode"]
        if mode != "disabled":
            self._guarded(self._begin, mode, partial(start_run, out, cfg, config, self.id, resume=bool(id)))

    def log(self, values: dict[str, Any]) -> None:
        """The next record: `images`, and numbers or the path of a picture."""
        if self.run:
            self._guarded(send, self.run, self.sent, values)
        self.sent += 1

    def summary(self, values: dict[str, Any]) -> None:
        """Facts about the whole run."""
        if self.run:
            self._guarded(self.run.summary.update, values)

    def finish(self, exit_code: int) -> None:
        """Wait for what is not uploaded yet, FINISH seconds at most."""
        if self.run:
            self._guarded(self.run.finish, exit_code=exit_code)
            self.run = None

    def _begin(self, mode: str, start: Callable) -> None:
        try:
            self.run = start(mode)
        except Unreachable as error:
            self._warn(error)
            self.run = start("offline")
        catch_up(self.run, self.out, self.sent)

    def _guarded(self, call: Callable, *args: Any, **kwargs: Any) -> None:
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
                f"Weights & Biases: {first_line(error)}. The run itself is not affected, and {self.out} holds all of it; "
                f"send it later with: python -m ganbench.runs.wandb_mirror sync {self.out}"
            )
        self.warned = True


def prestart(mode: str) -> None:
    """Have W&B's own process start already. Whatever goes wrong with it will go wrong again where it is told."""
    if mode != "disabled":
        with suppress(Exception):
            wandb.setup(settings=wandb.Settings(silent=True))


def start_run(
    out: Path, cfg: DictConfig, config: dict[str, Any], id: str, mode: str, resume: bool, finish: float = FINISH_TIMEOUT
) -> wandb.Run:
    """A W&B run in `mode`. Raise Refused for a user's mistake, Unreachable where no server answers in time."""
    if mode == "online":
        check_api_key()
        check_reachable(wandb.setup().settings.base_url)
    try:
        run = wandb.init(
            dir=out,
            mode=mode,
            **run_metadata(cfg),
            config=config | {"label": method_label(cfg), "folder": str(out)},
            id=id,
            # An offline run is written whole instead: `wandb sync` would send twice what two parts of it share.
            resume="allow" if resume and mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, init_timeout=INIT_TIMEOUT, finish_timeout=finish, finish_timeout_raises=True
            ),
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


def run_metadata(cfg: DictConfig) -> dict[str, Any]:
    """Where and under which names W&B shows a run."""
    return {
        "project": cfg.wandb.project,
        "entity": cfg.wandb.entity,
        "group": cfg.wandb.group or cfg.name,
        "name": f"{method_label(cfg)}-s{cfg.seed}",
        "tags": [cfg.loss.name, cfg.penalty.name, cfg.dataset.name, cfg.model.name, f"seed-{cfg.seed}"],
    }


def silence_wandb_log() -> None:
    """Keep W&B's own log, should its disk be full, from filling the terminal with that."""
    for handler in logging.getLogger("wandb").handlers:
        handler.handleError = lambda record: None


def check_api_key() -> None:
    """Raise Refused without a key, before anything is asked of the network."""
    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        wandb.login(verify=False, force=True)
    except wandb.errors.Error as error:
        raise refusal("online", error) from None


def refusal(mode: str, error: Exception) -> Refused:
    return Refused(f"wandb={mode}: {first_line(error)}. Or choose wandb=offline, and upload later.")


def first_line(error: Exception) -> str:
    """The first line of what W&B says, without its full stop; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def check_reachable(url: str) -> None:
    """Raise Unreachable unless a server accepts connections. Where a proxy leads there, only the proxy can tell."""
    at = urlsplit(url)
    if at.scheme in getproxies() and not proxy_bypass(at.hostname):
        return
    if not can_connect(at.hostname, at.port or (80 if at.scheme == "http" else 443)):
        raise Unreachable(f"{url} cannot be reached")


def can_connect(host: str, port: int) -> bool:
    """Whether a connection comes about in KNOCK seconds; in a thread, for looking up a name has no time-out."""
    opened = []

    def knock() -> None:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
            opened.append(True)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT)
    return bool(opened)


def send(run: wandb.Run, step: int, values: dict[str, Any]) -> None:
    """One record, unless W&B has it from before the run was resumed."""
    if step >= run.starting_step:
        run.log({k: wandb.Image(str(v)) if isinstance(v, Path) else v for k, v in values.items()}, step=step)


def catch_up(run: wandb.Run, out: Path, sent: int | None = None) -> None:
    """Send what the folder holds (of the first `sent` records) and W&B does not; an offline run is written anew."""
    for step, values in enumerate(records(out)[:sent]):
        send(run, step, values)
    here = Path(run.dir).parent
    for older in out.glob(f"wandb/offline-run-*-{run.id}"):
        if run.offline and older.resolve() != here.resolve():
            shutil.rmtree(older)


def abandon(run: wandb.Run | None) -> None:
    """Let go of W&B: where its process has died, what it does at exit would end in a traceback."""
    if run:
        with suppress(Exception):
            run.finish(exit_code=1)
    with suppress(Exception, SystemExit):  # it would leave with the code of its own process
        wandb.teardown()


def records(out: Path) -> list[dict[str, Any]]:
    """All that a run sends, from its folder and in the order in which it was sent."""
    pictures = ({"images": int(png.stem), "samples": png} for png in sorted(out.glob("samples/*.png")))
    kinds = (
        map(numbers, read_jsonl(out / "metrics.jsonl")),
        pictures,
        gradient_ratios(read_jsonl(out / "probes.jsonl")),
    )
    return sorted((record for kind in kinds for record in kind), key=lambda record: record["images"])


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Of a row of metrics.jsonl, what W&B can draw."""
    return {k: v for k, v in row.items() if isinstance(v, int | float)}


def gradient_ratios(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each row of probes.jsonl what is left of the generator's gradient, as a multiple of what it was at first."""
    first: dict[tuple[int, str], float] = {}
    for row in rows:
        name, norm = f"probe/{row['loss']}_{row['critic']}_left", row["g_norm"]
        before = first.setdefault((row["images"], name), norm)
        share = norm / before if norm is not None and before else math.nan
        yield {"images": row["images"]} | ({name: share} if math.isfinite(share) else {})


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file, none if there is no file. A line that was cut short at the end does not count."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def sync(out: Path, mode: str) -> None:
    """Send what W&B does not have of the run in the folder `out`, under the run's own id. Raise Refused for a folder
    that holds no run; where W&B fails, its error.
    """
    cfg, status = load_run(out)
    config, run = OmegaConf.to_container(cfg), None
    try:
        run = start_run(out, cfg, config, status["wandb_id"], mode, resume=True, finish=UPLOAD_TIMEOUT)
        catch_up(run, out)
        run.summary.update(summary(status))
        run.finish(exit_code=0 if status["status"] == "finished" else 1)
    except Exception:
        abandon(run)
        raise


def summary(status: dict[str, Any]) -> dict[str, Any]:
    """Of status.json, what W&B shows of the whole run."""
    return {"status": status["status"]} | {
        f"real_reference/{k}": v for k, v in (status.get("real_reference") or {}).items()
    }


def load_run(out: Path) -> tuple[DictConfig, dict[str, Any]]:
    """A run's settings and its status; raise Refused where they or its records cannot be read."""
    status = read_status(out)
    if "wandb_id" not in status:
        raise Refused(f"{out}/status.json names no wandb_id: give the folder of a run that has begun.")
    try:
        cfg = OmegaConf.load(out / "config.yaml")
        records(out)
    except Exception as error:  # whatever a damaged file leads to
        raise Refused(f"{out} cannot be read ({first_line(error)}): mend the file, or leave this run out.") from None
    return cfg, status


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ganbench.runs.wandb_mirror", description="What to do with recorded runs."
    )
    command = parser.add_subparsers(required=True, metavar="sync").add_parser(
        "sync",
        help="send runs to Weights & Biases from their folders",
        description="Send runs to Weights & Biases from their folders: settings, metrics.jsonl, samples, probes and "
        "status. Each keeps its id: what W&B has of it already is not sent again.",
        epilog="WANDB_MODE=offline writes each RUN/wandb/offline-run-… anew, for `wandb sync` on another machine. "
        "Exit codes: 0 all sent, 1 W&B failed, 2 refused.",
    )
    command.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run's folder, such as outputs/run/mine")
    sys.exit(sync_all(parser.parse_args().runs, os.environ.get("WANDB_MODE") or "online"))


def sync_all(runs: list[Path], mode: str) -> int:
    """Send each run and say so; return the exit code."""
    try:
        if mode not in ("online", "offline"):
            raise Refused(f"WANDB_MODE={mode}: nothing would be sent; set it to online or offline, or unset it.")
        for run in runs:
            load_run(run)
        for run in runs:
            with run_lock(run):
                sync(run, mode)
            print(f"{run}: {'sent' if mode == 'online' else 'written for `wandb sync`'}")
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except Exception as error:
        print(f"{run}: not sent, {first_line(error)}; nothing is lost, so try again once W&B answers.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
