import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from ganbench import config

REPOSITORY = Path(__file__).resolve().parent.parent
SIX = "gan,lsgan,wgan-gp,wgan-lp,dragan,hinge"

torch.set_num_threads(1)
config.register()
sys.path.append(str(config.HERE / "plugins"))


def settings(*overrides: str) -> DictConfig:
    """The composed configuration of a command line."""
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return compose("config", [*overrides, "name=test"])


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
