import os

os.environ["OMP_NUM_THREADS"] = "1"  # here and in all processes started here; libraries read it when imported

import copy
import gc
import gzip
import hashlib
import io
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import prefork
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from ganbench.bench.gpu import random_inception_weights
from ganbench.config.compose import compose_config, register
from ganbench.runs.signals import SIGNALS

REPOSITORY = Path(__file__).resolve().parent.parent
RING = ("dataset=ring", "experiment=smoke", "wandb=disabled", "device=cpu", "model.width=16")
TINY = (
    "experiment=smoke",
    "wandb=disabled",
    "device=cpu",
    "model.width=8",
    "protocol.images=128",
    "protocol.log_every=1",
)
SIX = "gan,lsgan,wgan-gp,wgan-lp,dragan,hinge"
# How long tests wait for something that should happen; long, since it only ends what would otherwise hang.
PATIENCE = float(os.environ.get("GANBENCH_TEST_PATIENCE", "900"))
SERVER_START = threading.Lock()  # some tests start their first commands from several threads at once

torch.set_num_threads(1)
register()
prefork.parse_once()


# The files that take minutes, the longest first.
LONGEST = (
    "test_conformance",
    "test_recovery",
    "test_page",
    "test_sweep",
    "test_refusals",
    "test_report",
    "test_tuning",
    "test_wandb",
    "test_api",
    "test_watch",
    "test_wandb_agent",
    "test_bench",
    "test_divergence",
    "test_fuzz",
    "test_agreement",
    "test_speed",
    "test_dashboard",
    "test_wandb_artifacts",
    "test_runs",
    "test_probes",
    "test_composition",
    "test_recipes",
    "test_trained",
    "test_contributing",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that at the end no process is left alone with it."""
    order = {stem: position for position, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    """Leave what is imported to itself: looking through it for garbage takes a twentieth of the tests' time."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Give all tests the same surroundings, however they are started."""
    # `nohup` and shells ignore signals for what they start in the background, and what is ignored here would be
    # ignored by every process started here. What is handled here has its default there.
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up, as after Ctrl-C
    if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the folder of the process that started them
        cache = tempfile.TemporaryDirectory(prefix="ganbench-")
        config.add_cleanup(cache.cleanup)
        os.environ["GANBENCH_CACHE"] = cache.name


def settings(*overrides: str) -> DictConfig:
    """Compose the configuration of a command line; the same one only once, for it takes a tenth of a second."""
    return copy.deepcopy(composed(overrides))


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_config(*overrides, "name=test")


def launch(
    *arguments: str,
    cwd: Path,
    module: str = "ganbench",
    flags: tuple[str, ...] = (),
    light: bool = False,
    stdout: int = subprocess.PIPE,
    **environment: str,
) -> subprocess.Popen | prefork.Forked:
    """Start the command line in a session of its own. Tests call `ganbench` or `start`, which also end it.

    A light one begins without torch, and writes so to its standard error at its end if it has imported it.
    With flags or variables for Python it is started from scratch, as everywhere but on Linux; not so for a folder in
    PYTHONPATH that hides nothing.
    """
    is_for_python = bool(flags) or any(map(changes_imports, environment.items()))
    if sys.platform == "linux" and not is_for_python:
        path = os.pathsep.join(filter(None, [prefork.search_path(), environment.pop("PYTHONPATH", None)]))
        surroundings = os.environ | {"PYTHONPATH": path} | environment
        return prefork.Forked(prefork_server(light), module, list(arguments), cwd, surroundings, stdout)
    path = os.pathsep.join([str(REPOSITORY), environment.pop("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *flags, "-m", module, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def changes_imports(variable: tuple[str, str]) -> bool:
    """Return whether a variable, of this name and value, changes what Python does, or hides a module from it."""
    name, value = variable
    if name == "PYTHONPATH":
        names = {file.stem for file in Path(value).iterdir()} - {"sitecustomize"}
        return any(find_spec(name) for name in names if name.isidentifier())
    return name.startswith("PYTHON")


def prefork_server(light: bool) -> prefork.Server:
    with SERVER_START:
        return _started_server(light)


@cache
def _started_server(light: bool) -> prefork.Server:
    return prefork.Server(light)


def ganbench(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run the command line to its end, in the folder `cwd`; other keywords are those of `launch`, or environment."""
    process = launch(*arguments, **options)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        end(process)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


# Losses that end a run in ways of their own; tests add others.
DYING_LOSSES = """
import os, signal
from ganbench.losses import GAN

class Killed(GAN):
    def d(self, real, fake):
        os.kill(os.getpid(), signal.SIGKILL)

class Explodes(GAN):
    def g(self, fake, real=None):
        return fake.mean() * float("nan")
"""
# One that fails with the first batch, beside those.
RAISING_LOSS = """
class Raises(GAN):
    def d(self, real, fake):
        if len(real) == 32:  # a batch, and not what is asked before the first step
            raise RuntimeError("a loss of my own went wrong")
        return super().d(real, fake)
"""


def add_losses(top: Path, source: str) -> Path:
    """Write losses of a user's own into a folder, each an option of `--config-dir mine`; return the folder."""
    (top / "own_losses.py").write_text(source)
    (top / "mine/loss").mkdir(parents=True)
    for name in re.findall(r"class (\w+)", source):
        (top / f"mine/loss/{name.lower()}.yaml").write_text(f"name: {name.lower()}\n_target_: own_losses.{name}\n")
    return top


@pytest.fixture
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a user's own module `mine`, whose source is MINE in the file of the test."""
    (tmp_path / "mine.py").write_text(request.module.MINE)
    return tmp_path


def report(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run `python -m ganbench.report` to its end."""
    return ganbench(str(folder), *options, cwd=REPOSITORY, module="ganbench.report")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium or Chrome: the system's, or else the one that Playwright has downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with sync_playwright() as play:
        installed = next(filter(None, map(shutil.which, names)), play.chromium.executable_path)
        if not Path(installed).exists():
            pytest.skip("no Chromium or Chrome: `make browser` gets one")
        browser = play.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start the command line and go on: `process = start("loss=gan", "name=a", cwd=tmp_path)`.

    Its standard error can be read by `process.communicate()[1]`; its standard output is dropped. Signals have their
    defaults, and it leads a process group of its own, so `os.killpg(process.pid, number)` reaches what a terminal
    would. Whatever becomes of the test, nothing of what it started is left.
    """
    processes = []

    def begin(*arguments: str, **options) -> subprocess.Popen:
        processes.append(launch(*arguments, stdout=subprocess.DEVNULL, **options))
        return processes[-1]

    yield begin
    for process in processes:
        end(process)


def end(process: subprocess.Popen) -> None:
    """Kill a process that `launch` started, and all that it has started in turn."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # A sweep's runs have a process group of their own, but its session. (Where there is no /proc they end with it.)
    until(lambda: not list(filter(partial(kill_member, process.pid), Path("/proc").glob("[0-9]*"))))
    for stream in filter(None, (process.stdout, process.stderr)):
        stream.close()


def kill_member(session: int, process: Path) -> bool:
    """Kill the process of this folder in /proc if it belongs to a session; return whether it did."""
    try:
        state, _, _, its_session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
        if int(its_session) != session or state in "ZX":
            return False
        os.kill(int(process.name), signal.SIGKILL)
    except OSError:  # it has just ended
        return False
    return True


def until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until a condition holds; fail once the process that should bring it about has ended without that."""
    give_up = time.monotonic() + PATIENCE
    while True:
        ended = process is not None and process.poll() is not None
        if condition():
            return
        assert not ended, f"it ended with code {process.returncode}:\n{process.stderr.read()}"
        assert time.monotonic() < give_up, f"nothing happened within {PATIENCE:g} seconds"
        time.sleep(0.02)


def rows(folder: Path) -> list[dict]:
    """metrics.jsonl without its wall-clock fields."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("t_")} for line in lines]


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 40 MB, which the test may fill."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("a file system of its own can be mounted by root only")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def idx_dataset(
    source: type, folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Seven images to train on and three held out, in files as torchvision's class knows them but for their size."""
    images = np.random.default_rng(seed).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    parts = {"train-images-idx3-ubyte.gz": images[:7], "t10k-images-idx3-ubyte.gz": images[7:]}
    for name, part in parts.items():
        header = np.array([0x803, *part.shape], ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(header + part.tobytes(), mtime=0))
    monkeypatch.setattr(source, "resources", [(name, md5(folder / name)) for name in parts])
    return images[:7], images[7:]


def cifar100_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Eight images of CIFAR-100 to train on and four held out, likewise."""
    from torchvision.datasets import CIFAR100

    place = folder / CIFAR100.base_folder
    place.mkdir()
    random = np.random.default_rng(0)
    pixels = {name: random.integers(0, 256, (n, 3072), dtype=np.uint8) for name, n in (("train", 8), ("test", 4))}
    for name, images in pixels.items():
        (place / name).write_bytes(pickle.dumps({"data": images, "fine_labels": [0] * len(images)}))
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a"]}))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(place / "train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(place / "test")]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5(place / "meta")})
    return pixels


def svhn_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Six images [N, 32, 32, 3] of SVHN to train on and three held out, likewise."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    random = np.random.default_rng(0)
    parts = {"train": random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)}
    parts["test"] = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    known = {}
    for name, images in parts.items():
        url, file, _ = SVHN.split_list[name]
        savemat(folder / file, {"X": images.transpose(1, 2, 3, 0), "y": np.zeros((len(images), 1))})
        known[name] = [url, file, md5(folder / file)]
    monkeypatch.setattr(SVHN, "split_list", known)
    return list(parts.values())


def stl10_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Two labeled images [N, 96, 96, 3] of STL-10, four unlabeled and three held out, likewise."""
    from torchvision.datasets import STL10

    place = folder / STL10.base_folder
    place.mkdir()
    random = np.random.default_rng(0)
    counts = {"train_X.bin": 2, "unlabeled_X.bin": 4, "test_X.bin": 3}
    pixels = {name: random.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for name, n in counts.items()}
    for name, images in pixels.items():
        (place / name).write_bytes(images.transpose(0, 3, 2, 1).tobytes())  # column by column
    known = [[name, md5(place / name)] for name in counts]
    monkeypatch.setattr(STL10, "train_list", known[:2])
    monkeypatch.setattr(STL10, "test_list", known[2:])
    return pixels


def celeba_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Seven faces [218, 178, 3] of CelebA, three to train on, two for validation and two held out, likewise."""
    from torchvision.datasets import CelebA

    place = folder / CelebA.base_folder
    place.mkdir()
    random = np.random.default_rng(0)
    faces = [random.integers(0, 256, (218, 178, 3), dtype=np.uint8) for _ in range(7)]
    with zipfile.ZipFile(place / "img_align_celeba.zip", "w") as archive:
        for i, face in enumerate(faces):
            out = io.BytesIO()
            Image.fromarray(face).save(out, "PNG")  # by whatever name; without JPEG's loss
            archive.writestr(f"img_align_celeba/{i + 1:06d}.jpg", out.getvalue())
    parts = (0, 0, 0, 1, 1, 2, 2)
    lines = [f"{i + 1:06d}.jpg {part}\n" for i, part in enumerate(parts)]
    (place / "list_eval_partition.txt").write_text("".join(lines))
    known = [(key, md5(place / file) if (place / file).exists() else old, file) for key, old, file in CelebA.file_list]
    monkeypatch.setattr(CelebA, "file_list", known)
    return faces


def cifar_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Four images in each batch of CIFAR-10, likewise."""
    from torchvision.datasets import CIFAR10

    batches = folder / CIFAR10.base_folder
    batches.mkdir()
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    pixels = {name: random.integers(0, 256, (4, 3072), dtype=np.uint8) for name in names}
    for name in names:
        (batches / name).write_bytes(pickle.dumps({"data": pixels[name], "labels": [0, 1, 2, 3]}))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcd")}))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(batches / name)] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(batches / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(batches / "batches.meta")})
    return pixels


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Weights of the right layout and random values, in the standard file's format."""
    file, digest = random_inception_weights(tmp_path_factory.mktemp("weights") / "inception.pth")
    return Path(file), digest
