"""Kill runs at random moments, and inside the writing of their checkpoints, until they have ended; then compare bits.

    python tests/kills.py --kills 1000

Each attempt is a fork of this process, so that torch is imported once; what it does is what a run does, and the kill
is a real SIGKILL. Prints one line of JSON; the exit code is 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch._dynamo  # optimisers import it at their first use, and every fork would do so again
from conftest import SIX, rows, settings
from omegaconf import DictConfig

from ganbench import checkpoint
from ganbench.outcome import read_status
from ganbench.train import train

RING = ("dataset=ring", "experiment=smoke", "wandb=disabled", "device=cpu", "model.width=16", "checkpoint_every=4")
METHODS = SIX.split(",")
INSIDE = ("open", "write", "fsync", "replace", "unlink")  # what a save consists of


def composed(method: str) -> DictConfig:
    """Small runs of many checkpoints; one with a probe, one with spectral norm, whose power iteration is state, too."""
    more = {
        "hinge": ("model.critic_norm=spectral",),
        "gan": ("probe=vanishing", "probe.steps=16", "probe.moments=[0.3]", "probe.n=64"),
        "lsgan": ("protocol.n_critic=2", "protocol.images=3840"),
    }
    return settings(f"loss={method}", *RING, *more.get(method, ()))


def digest(run: Path) -> str:
    """Of all that a run leaves, wall-clock fields apart."""
    state = checkpoint.load(run)
    kept = {k: v for k, v in state.items() if k not in ("meter", "records")}
    found = hashlib.sha256(repr(_plain(kept)).encode())
    found.update(json.dumps(rows(run)).encode())
    probes = run / "probes.jsonl"
    found.update(probes.read_bytes() if probes.exists() else b"")
    for picture in sorted((run / "samples").glob("*.png")):
        found.update(picture.name.encode() + picture.read_bytes())
    status = read_status(run)
    found.update(repr([status[k] for k in ("status", "score", "images", "label", "seed", "weights", "floor")]).encode())
    return found.hexdigest()


def _plain(value):
    """Tensors by their bytes, at any depth."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def begin(cfg: DictConfig, out: Path, fatal: tuple[str, int] | None = None) -> int:
    """A child that makes the run, or goes on with it; with `fatal` it dies before the nth such call inside a save."""
    child = os.fork()
    if child:
        return child
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        if fatal:
            arm(*fatal)
        if not out.exists() or read_status(out)["status"] != "finished":
            train(cfg, out)
        os._exit(0)
    except BaseException as error:
        print(f"{out.name}: {error!r}", file=sys.stderr)
        os._exit(1)


def arm(call: str, nth: int) -> None:
    """Have the process kill itself at that call, half of its bytes written if it is a write."""
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


def waited(child: int) -> bool:
    """Whether it was killed, rather than done; anything else is a finding of its own."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a run ended with code {os.WEXITSTATUS(status)} where it should go on")
    return False


def harass(cfg: DictConfig, out: Path, kills: int, whole: float, rng: random.Random) -> tuple[int, int]:
    """Kill the run that often (fewer, if it is done before), then let it end: the kills, and those inside a save."""
    done = inside = 0
    while done < kills:
        aimed = rng.random() < 0.4
        child = begin(cfg, out, (rng.choice(INSIDE), rng.randint(1, 3)) if aimed else None)
        if not aimed:
            time.sleep(rng.uniform(0.02, whole))
            os.kill(child, signal.SIGKILL)
        if not waited(child):
            break
        done, inside = done + 1, inside + aimed
    while waited(begin(cfg, out)):
        pass
    return done, inside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng, start, top = random.Random(given.seed), time.time(), Path(tempfile.mkdtemp(prefix="kills-"))
    configs = {method: composed(method) for method in METHODS}
    wanted, took = {}, {}
    for method, cfg in configs.items():
        began = time.time()
        waited(begin(cfg, top / method))
        wanted[method], took[method] = digest(top / method), time.time() - began
    kills = inside = runs = 0
    differ: list[str] = []
    while kills < given.kills:
        method = METHODS[runs % len(METHODS)]
        out = top / f"{method}-{runs}"
        # A run of several attempts, each of which comes a little further
        killed, within = harass(configs[method], out, min(10, given.kills - kills), took[method], rng)
        kills, inside, runs = kills + killed, inside + within, runs + 1
        if digest(out) != wanted[method]:
            differ.append(str(out))
    told = {"kills": kills, "inside_a_save": inside, "runs": runs, "differ": differ}
    print(json.dumps(told | {"seconds": round(time.time() - start), "folder": str(top)}))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
