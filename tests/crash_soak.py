"""Kill and interrupt runs at random moments, and inside the writing of their checkpoints, until they have ended; then
compare bits.

    python tests/crash_soak.py --kills 1000

Each attempt is a fork of this process, so that torch is imported once; it does what a run does, and the kill is a real
SIGKILL. Print one line of JSON; the exit code is 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import torch._dynamo  # optimizers import it at their first use, and every fork would do so again
from conftest import RING, SIX, rows, settings
from omegaconf import DictConfig
from tqdm import tqdm

from ganbench.errors import Refused
from ganbench.runs import checkpoint
from ganbench.runs.signals import SIGNALS, Interrupted
from ganbench.runs.status import RunComplete, read_status
from ganbench.training.train import train

METHODS = SIX.split(",")
REFUSED, COMPLETE = 2, 4  # exit codes
INSIDE = ("open", "write", "fsync", "replace", "unlink")  # what a save consists of


def composed(method: str) -> DictConfig:
    """Small runs of many checkpoints; one with a probe, one with spectral norm, whose power iteration is state, too."""
    more = {
        "hinge": ("model.critic_norm=spectral",),
        "gan": ("probe=vanishing", "probe.steps=16", "probe.moments=[0.3]", "probe.n=64"),
        "lsgan": ("protocol.n_critic=2", "protocol.images=3840"),
        "wgan-lp": ("protocol.lr_decay=linear", "protocol.lr_warmup=640", "protocol.generator_batch=48"),
    }
    return settings(f"loss={method}", *RING, "checkpoint_every=4", *more.get(method, ()))


def digest(run: Path) -> str:
    """Return a digest of all that a run leaves, without wall-clock fields."""
    state = checkpoint.load(run)
    timeless = {k: v for k, v in state.items() if k not in ("meter", "records")}
    digest = hashlib.sha256(repr(_plain(timeless)).encode())
    digest.update(json.dumps(rows(run)).encode())
    probes = run / "probes.jsonl"
    digest.update(probes.read_bytes() if probes.exists() else b"")
    for picture in sorted((run / "samples").glob("*.png")):
        digest.update(picture.name.encode() + picture.read_bytes())
    status = read_status(run)
    facts = ("status", "score", "images", "label", "seed", "weights", "real_reference")
    digest.update(repr([status[fact] for fact in facts]).encode())
    return digest.hexdigest()


def _plain(value):
    """Replace tensors by their bytes, at any depth."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def begin(cfg: DictConfig, out: Path, fatal: tuple[str, int] | None = None) -> int:
    """Start a child that makes or resumes the run; with `fatal` it dies before the nth such call inside a save."""
    child = os.fork()
    if child:
        return child
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        if fatal:
            arm(*fatal)
        train(cfg, out)
        os._exit(0)
    except RunComplete:
        os._exit(COMPLETE)
    except Refused:
        os._exit(REFUSED)
    except (Interrupted, KeyboardInterrupt) as left:
        os._exit(left.code if isinstance(left, Interrupted) else 130)
    except BaseException as error:
        print(f"{out.name}: {error!r}", file=sys.stderr)
        os._exit(1)


def arm(call: str, nth: int) -> None:
    """Have this process kill itself at that call; if it is a write, with half of the bytes written."""
    inside, left = [False], [nth]

    def dies(name: str) -> bool:
        left[0] -= inside[0] and name == call
        return inside[0] and name == call and left[0] == 0

    def watched(name: str, original):
        def replacement(*args, **kwargs):
            if dies(name):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return replacement

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, watched(name, getattr(os, name)))
    Path.open = opened(Path.open, dies)
    save = checkpoint.save

    def saving(*args, **kwargs):
        inside[0] = True
        try:
            return save(*args, **kwargs)
        finally:
            inside[0] = False

    checkpoint.save = saving


def opened(original, dies):
    def replacement(path: Path, *args, **kwargs):
        if dies("open"):
            os.kill(os.getpid(), signal.SIGKILL)
        stream = original(path, *args, **kwargs)
        if path.name.startswith(".step-") and dies("write"):
            write = stream.write

            class Half:
                def write(self, content: bytes) -> None:
                    write(content[: len(content) // 2])
                    stream.flush()
                    os.kill(os.getpid(), signal.SIGKILL)

                def __enter__(self):
                    return self

                def __exit__(self, *error) -> None:
                    stream.close()

            return Half()
        return stream

    return replacement


def was_stopped(child: int) -> bool:
    """Wait for the child; return whether it was stopped rather than done. Raise SystemExit for any other end."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (130, 143):
        return True
    if os.WEXITSTATUS(status) not in (0, COMPLETE):
        raise SystemExit(f"a run ended with code {os.WEXITSTATUS(status)} where it should go on")
    return False


def harass(cfg: DictConfig, out: Path, stops: int, whole: float, rng: random.Random) -> Counter:
    """Stop the run that often (less, if it is done before), then let it end; count the ways it was stopped."""
    done = Counter()
    while done["kill"] + done["save"] + done["signal"] < stops:
        how = rng.choice(("save", "save", "kill", "kill", "signal"))
        child = begin(cfg, out, (rng.choice(INSIDE), rng.randint(1, 3)) if how == "save" else None)
        if how != "save":
            time.sleep(rng.uniform(0.02, whole))
            os.kill(child, signal.SIGKILL if how == "kill" else rng.choice(SIGNALS))
        if not was_stopped(child):
            break
        done[how] += 1
        if how == "signal" and out.exists() and read_status(out)["status"] == "interrupted":
            check_nothing_lost(out)
            done["saved"] += 1
    while was_stopped(begin(cfg, out)):
        pass
    return done


def check_nothing_lost(run: Path) -> None:
    """Raise SystemExit unless the records end where the newest checkpoint begins: a signal loses nothing.

    A signal in an evaluation comes after the losses of that step have been logged, which a resumed run does again. One
    before the first checkpoint finds no records to lose.
    """
    records = (run / "metrics.jsonl").read_bytes()
    if not list(run.glob("checkpoints/step-*.pt")) and not records:
        return
    state = checkpoint.load(run)
    size = state["records"]["metrics.jsonl"]
    if len(records) < size or any(
        json.loads(line)["images"] != state["images"] for line in records[size:].splitlines()
    ):
        raise SystemExit(f"{run}: a signal lost records")


def contest(cfg: DictConfig, out: Path) -> bool:
    """Return whether, of two processes that begin in one folder at once, exactly one makes the run."""
    children = [begin(cfg, out), begin(cfg, out)]
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    return codes in ([0, REFUSED], [0, COMPLETE])  # the other one came during the run, or after it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--contests", type=int, default=50, help="how often two begin in one folder at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng, start, top = random.Random(given.seed), time.time(), Path(tempfile.mkdtemp(prefix="kills-"))
    configs = {method: composed(method) for method in METHODS}
    wanted, took = {}, {}
    for method, cfg in configs.items():
        began = time.time()
        was_stopped(begin(cfg, top / method))
        wanted[method], took[method] = digest(top / method), time.time() - began
    done, runs, differ = Counter(), 0, []
    bar = tqdm(total=given.kills, unit=" kills", disable=not sys.stderr.isatty())
    while done["kill"] + done["save"] < given.kills or done["save"] < given.kills / 4 or runs < len(METHODS):
        method = METHODS[runs % len(METHODS)]
        out = top / f"{method}-{runs}"
        done, runs = done + harass(configs[method], out, 10, took[method], rng), runs + 1
        if digest(out) != wanted[method]:
            differ.append(str(out))
        bar.update(done["kill"] + done["save"] - bar.n)
    bar.close()
    for k in range(given.contests):
        out = top / f"contest-{k}"
        if not contest(configs["gan"], out) or digest(out) != wanted["gan"]:
            differ.append(str(out))
    kills = {"kills": done["kill"] + done["save"], "inside_a_save": done["save"], "signals": done["signal"]}
    counts = kills | {"saved_by_signal": done["saved"], "contests": given.contests, "runs": runs, "differ": differ}
    print(json.dumps(counts | {"seconds": round(time.time() - start), "folder": str(top)}))
    if not differ:
        shutil.rmtree(top)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
