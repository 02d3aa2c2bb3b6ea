import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from ganbench.config.compose import compose_config, register

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

torch.set_num_threads(1)
os.environ["GANBENCH_CACHE"] = tempfile.mkdtemp(prefix="ganbench-")  # of all processes here
register()


def settings(*overrides: str) -> DictConfig:
    """The composed configuration of a command line."""
    return compose_config(*overrides, "name=test")


def ganbench(
    *arguments: str, cwd: Path, flags: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess:
    """Run the real command line in a new process."""
    path = os.pathsep.join([str(REPOSITORY), environment.pop("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *flags, "-m", "ganbench", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def rows(folder: Path) -> list[dict]:
    """metrics.jsonl without its wall-clock fields."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("t_")} for line in lines]


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


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
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    # The library can build its net only from a file, so borrow its layout by letting it load nothing.
    keep, FeatureExtractorInceptionV3.load_state_dict = (
        FeatureExtractorInceptionV3.load_state_dict,
        lambda *a, **k: None,
    )
    try:
        torch.save({}, file)
        net = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(file))
    finally:
        FeatureExtractorInceptionV3.load_state_dict = keep
    generator = torch.Generator().manual_seed(0)
    state = net.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and value.dim() > 1:
            state[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
    torch.save(state, file)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()
