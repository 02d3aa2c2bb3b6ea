"""Networks whose features are compared. Each maps uint8 images [N, C, H, W] to float features [N, d]."""

import io
import pickle
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode, normalize, resize

from ganbench.datasets import concatenate
from ganbench.errors import Refused
from ganbench.files import read_verified
from ganbench.gpu import without_tf32
from ganbench.metrics.known_weights import INCEPTION_SHA256, INCEPTION_URL, LENET_SHA256, WRONG_HASH, check_dinov2
from ganbench.metrics.protocol import Provenance
from ganbench.progress import tracked

LENET_WEIGHTS = Path(__file__).with_name("lenet.safetensors")


@torch.no_grad()
def embed(features: nn.Module, x: Tensor, size: int = 250) -> Tensor:
    """Return the features [n, d] of images x [n, C, H, W] in float64, computed `size` images at a time at most."""
    if x.device.type == "cpu":
        size = min(size, getattr(features, "cpu_batch", size))
    parts = tracked(x.split(size), f"features of images by {type(features).__name__}")
    with without_tf32():  # scores are compared between runs of any precision
        return concatenate(len(x), (features(part).double() for part in parts))


def _in_cache_sized_parts(net: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Apply the net to `size` images at a time on a CPU, which takes half the time: activations stay in its caches."""
    return torch.cat([net(part) for part in x.split(size if x.device.type == "cpu" else len(x))])


class LeNet(nn.Module):
    """A small classifier of 32x32 gray digits (classes 0-9) and clothes (10-19), with 64 features.

    `python -m ganbench.metrics.train_lenet` trains its weights and prints how well they classify. A file with other
    weights needs its own SHA-256 as `sha256`; an empty name leaves the net untrained.
    """

    def __init__(self, weights: str = str(LENET_WEIGHTS), sha256: str | None = None):
        super().__init__()
        self.body = nn.Sequential(
            _block(1, 16), _block(16, 32), _block(32, 64), nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU()
        )
        self.head = nn.Linear(64, 20)
        if weights:
            _load_safetensors(self, Path(weights).expanduser(), sha256 or LENET_SHA256)
            self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # half the time on a CPU

    def forward(self, x: Tensor) -> Tensor:
        return _in_cache_sized_parts(lambda part: self.body(part.float() / 255), x, 50)

    def classify(self, features: Tensor) -> Tensor:
        """Return the class [n] of each of features [n, 64], from 0 to 19."""
        return self.head(features.float()).argmax(1)

    def logits(self, x: Tensor) -> Tensor:
        """Return the class logits [n, 20] of images [n, 1, 32, 32]."""
        return self.head(self(x))


def _block(n: int, m: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n, m, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())  # in this order ReLU sees a quarter


def _load_safetensors(net: nn.Module, file: Path, sha256: str) -> None:
    """Load weights into the net; safetensors files hold tensors only."""
    raw = _read_weights(file, sha256)
    try:
        net.load_state_dict(load(raw))
    except (SafetensorError, RuntimeError) as error:
        raise _wrong_weights_error(file, net, error) from None


class Inception(nn.Module):
    """The Inception-v3 of FID with its own resize to 299x299, from torch-fidelity, with 2,048 features.

    `weights` is a path, or None to download the standard file once. The file must have the SHA-256 of the standard
    file, or the one given as `sha256`, and hold tensors only.
    """

    cpu_batch = 20  # images, which take seconds

    def __init__(self, weights: str | None = None, sha256: str | None = None):
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Net

        file = Path(weights).expanduser() if weights else _standard_inception_file()
        self.provenance = Provenance(
            "Inception-v3 of 2015",
            (sha256 or INCEPTION_SHA256).lower(),
            "bilinear resize of TensorFlow 1 to 299x299",
            f"torch-fidelity {version('torch-fidelity')}",
        )
        safe_copy = _copy_of_tensors(file, _read_weights(file, sha256 or INCEPTION_SHA256))
        try:
            self.net = Net("inception-v3-compat", ["2048"], feature_extractor_weights_path=safe_copy)
        except (RuntimeError, TypeError) as error:
            raise _wrong_weights_error(file, self, error) from None

    def forward(self, x: Tensor) -> Tensor:
        return _in_cache_sized_parts(lambda part: self.net(part.expand(-1, 3, -1, -1))[0], x, 4)

    def class_logits(self, features: Tensor) -> Tensor:
        """Return the logits [n, 1008] of the Inception Score from features [n, 2048]: those without the biases."""
        return features.float() @ self.net.fc.weight.T


DINOV2_SIZE = 224
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


class DinoV2(nn.Module):
    """A vision transformer of DINOv2, from timm, with the class token of 1,024 numbers (ViT-L/14) as features.

    Images are scaled to 224x224 and normalized as ImageNet's, as Stein et al. 2023 do (arXiv:2306.04675). `weights` is
    a safetensors file of timm's, or a file of the authors' that holds tensors only, and has the hash `sha256`.
    `model` is timm's name of the net.
    """

    cpu_batch = 20  # images, which take seconds

    def __init__(self, weights: str | None, sha256: str | None, model: str = "vit_large_patch14_dinov2"):
        super().__init__()
        check_dinov2(weights, sha256)
        assert weights and sha256
        from timm import create_model

        file = Path(weights).expanduser()
        raw = _read_weights(file, sha256)
        try:
            state = load(raw) if file.suffix == ".safetensors" else _tensors(file, raw)
            source = {"state_dict": state, "hf_hub_id": None, "url": ""}
            self.net = create_model(model, pretrained=True, pretrained_cfg_overlay=source, img_size=DINOV2_SIZE)
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise _wrong_weights_error(file, self, error) from None
        self.provenance = Provenance(
            f"DINOv2 {model}",
            sha256.lower(),
            f"antialiased bicubic resize to {DINOV2_SIZE}x{DINOV2_SIZE}",
            f"timm {version('timm')}",
        )
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return _in_cache_sized_parts(lambda part: self.net(self._normalized(part)), x, 4)

    def _normalized(self, x: Tensor) -> Tensor:
        """Return what the net takes, floats [n, 3, 224, 224], for uint8 images."""
        x = resize(x.expand(-1, 3, -1, -1), [DINOV2_SIZE, DINOV2_SIZE], InterpolationMode.BICUBIC, antialias=True)
        return normalize(x.float() / 255, IMAGENET_MEAN, IMAGENET_STD)


def _standard_inception_file() -> Path:
    """Return the path of the standard weights in torch's cache, downloaded if they are not there."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(INCEPTION_URL).name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(INCEPTION_URL, str(file), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise Refused(
                f"metric.features: the Inception weights could not be downloaded ({reason}); place {file.name} at "
                f"{file}, or pass its path with metric.features.weights=..."
            ) from None
    return file


def _copy_of_tensors(file: Path, raw: bytes) -> io.BytesIO:
    """Copy the tensors of a weight file: torch-fidelity would run code from the file, so it opens our copy instead."""
    copy = io.BytesIO()
    torch.save(_tensors(file, raw), copy)
    copy.seek(0)
    return copy


def _tensors(file: Path, raw: bytes) -> dict[str, Tensor]:
    """Return the tensors of a weight file, in which no code is run."""
    try:
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise Refused(
            f"metric.features.weights={file} must hold tensors only and cannot be read ({_first_line(error)}); "
            "choose another file."
        ) from None


def _read_weights(file: Path, sha256: str) -> bytes:
    """Read a weight file; raise Refused unless it has this SHA-256."""
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise Refused(f"metric.features.sha256={sha256} is not a SHA-256, which has 64 hexadecimal digits.")
    return read_verified(file, "SHA-256", sha256, WRONG_HASH, setting="metric.features.weights=")


def _wrong_weights_error(file: Path, net: nn.Module, error: Exception) -> Refused:
    return Refused(
        f"metric.features.weights={file} does not hold the weights of {type(net).__name__} ({_first_line(error)}); "
        "choose a file made for this network."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
