"""The files of weights whose content is known. Needs no torch, so that another file is refused before anything runs."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ganbench.errors import Refused
from ganbench.files import read_verified

# Printed by `python -m ganbench.metrics.train_lenet`.
LENET_SHA256 = "d18fc83187446d471f1fb4b6bee1aa4fc7735c7f9bc012f7d315411b36749ba7"

# The original FID network, ported to PyTorch by torch-fidelity; the file's name carries the start of its SHA-256.
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

INCEPTION = "ganbench.metrics.features.Inception"
DINOV2 = "ganbench.metrics.features.DinoV2"
PUBLISHED = (INCEPTION, DINOV2)  # what papers report scores on
KNOWN = {"ganbench.metrics.features.LeNet": LENET_SHA256, INCEPTION: INCEPTION_SHA256}  # by class
WRONG_HASH = "put the right file there, or accept another file with its hash, metric.features.sha256=..."


def check_weights(network: str, weights: str | None, sha256: str | None) -> None:
    """Raise Refused if the file of weights for the class `network` is not there, or has another SHA-256 than it should:
    for None the known one.
    """
    if network == DINOV2:
        check_dinov2(weights, sha256)
    if not isinstance(weights, str) or not weights:
        return
    file = Path(weights).expanduser()
    if not file.exists():
        raise Refused(f"metric.features.weights={weights} does not exist; pass the file of the weights.")
    expected = sha256 or KNOWN.get(network)
    if expected and network in (*KNOWN, DINOV2):
        _verify(file, file.stat().st_mtime_ns, expected)


@cache
def _verify(file: Path, changed: int, sha256: str) -> None:
    """Read a file for its hash; for all runs of a sweep once, unless it has been `changed` since."""
    read_verified(file, "SHA-256", sha256, WRONG_HASH, setting="metric.features.weights=")


def check_dinov2(weights: str | None, sha256: str | None) -> None:
    """Raise Refused if DINOv2's weights or their hash were not passed, or timm is not installed."""
    if not (weights and sha256):
        raise Refused(
            "metric=fd_dinov2 needs the file of DINOv2's weights and its SHA-256, which ganbench does not know: take "
            "model.safetensors of timm/vit_large_patch14_dinov2.lvd142m from Hugging Face, and pass "
            "metric.features.weights=... and metric.features.sha256=..."
        )
    if find_spec("timm") is None:
        raise Refused("metric=fd_dinov2 needs timm, which is not installed: pip install '.[dinov2]'")
