"""Networks whose features are compared. Each maps uint8 images [N, C, H, W] to float features [N, d]."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from ganbench.datasets import concatenate
from ganbench.errors import Refused
from ganbench.files import read_verified

LENET_WEIGHTS = Path(__file__).with_name("lenet.safetensors")
LENET_SHA256 = "d18fc83187446d471f1fb4b6bee1aa4fc7735c7f9bc012f7d315411b36749ba7"


@torch.no_grad()
def embed(features: nn.Module, x: Tensor, size: int = 250) -> Tensor:
    """Features [n, d] in float64, computed a batch at a time."""
    return concatenate(len(x), (features(part).double() for part in x.split(size)))


def _in_parts(net: Callable[[Tensor], Tensor], x: Tensor, at_once: int) -> Tensor:
    """Of a whole batch the activations outgrow a CPU's caches: so many at a time take half the time there."""
    return torch.cat([net(part) for part in x.split(at_once if x.device.type == "cpu" else len(x))])


class LeNet(nn.Module):
    """A small classifier of 32x32 grey digits (classes 0-9) and clothes (10-19); d is 64.

    `python -m ganbench.metrics.train_lenet` made its weights and says how well they classify. A file of others is
    taken with its own SHA-256 as `sha256`; no name at all is for a net that is yet to be trained.
    """

    def __init__(self, weights: str = str(LENET_WEIGHTS), sha256: str | None = None):
        super().__init__()
        self.body = nn.Sequential(
            _block(1, 16), _block(16, 32), _block(32, 64), nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU()
        )
        self.head = nn.Linear(64, 20)
        if weights:
            _load(self, Path(weights).expanduser(), sha256 or LENET_SHA256)
            self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # half the time on a CPU

    def forward(self, x: Tensor) -> Tensor:
        return _in_parts(lambda part: self.body(part.float() / 255), x, 50)

    def classes(self, features: Tensor) -> Tensor:
        """The class of each, from 0 to 19."""
        return self.head(features.float()).argmax(1)

    def logits(self, x: Tensor) -> Tensor:
        """Class logits [N, 20]."""
        return self.head(self(x))


def _block(n: int, m: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n, m, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())  # in this order ReLU sees a quarter


def _load(net: nn.Module, file: Path, sha256: str) -> None:
    """Read weights that are stored as safetensors, which hold tensors only."""
    raw = _verified(file, sha256)
    try:
        net.load_state_dict(load(raw))
    except (SafetensorError, RuntimeError) as error:
        raise _unfit(file, net, error) from None


# The file of the original FID's network, ported to PyTorch; its name carries the start of its SHA-256.
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Inception(nn.Module):
    """The Inception-v3 of FID with its own resize to 299x299, from torch-fidelity; d is 2048.

    `weights` is a path, or None to fetch the standard file once. The file must have the standard SHA-256, or the
    one given as `sha256`, and hold tensors only.
    """

    def __init__(self, weights: str | None = None, sha256: str | None = None):
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Net

        file = Path(weights).expanduser() if weights else _fetched()
        checked = _tensors_only(file, _verified(file, sha256 or INCEPTION_SHA256))
        try:
            self.net = Net("inception-v3-compat", ["2048"], feature_extractor_weights_path=checked)
        except (RuntimeError, TypeError) as error:
            raise _unfit(file, self, error) from None

    def forward(self, x: Tensor) -> Tensor:
        return _in_parts(lambda part: self.net(part.expand(-1, 3, -1, -1))[0], x, 4)


def _fetched() -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(INCEPTION_URL).name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(INCEPTION_URL, str(file), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise Refused(
                f"metric=fid: the Inception weights could not be fetched ({why}): place {file.name} at {file}, "
                "or give its path with metric.features.weights=…"
            ) from None
    return file


def _tensors_only(file: Path, raw: bytes) -> io.BytesIO:
    """The weights written anew: torch-fidelity would run whatever code a file brings, so it opens ours instead."""
    try:
        state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise Refused(
            f"metric.features.weights={file} cannot be read as tensors alone ({_first_line(error)}): take another file."
        ) from None
    anew = io.BytesIO()
    torch.save(state, anew)
    anew.seek(0)
    return anew


def _verified(file: Path, sha256: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise Refused(f"metric.features.sha256={sha256} is no SHA-256: allowed are 64 hexadecimal digits.")
    cure = "put the right file there, or name the hash of another file on purpose with metric.features.sha256=…"
    return read_verified(file, "SHA-256", sha256, cure, setting="metric.features.weights=")


def _unfit(file: Path, net: nn.Module, error: Exception) -> Refused:
    return Refused(
        f"metric.features.weights={file} does not hold the weights of {type(net).__name__} ({_first_line(error)}): "
        "take a file of this net's."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
