"""The files of weights whose content is known. Needs no torch, so that another file is refused before anything runs."""

from pathlib import Path

from ganbench.files import read_verified

# Printed by `python -m ganbench.metrics.train_lenet`.
LENET_SHA256 = "d18fc83187446d471f1fb4b6bee1aa4fc7735c7f9bc012f7d315411b36749ba7"

# The original FID network, ported to PyTorch by torch-fidelity; the file's name carries the start of its SHA-256.
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

KNOWN = {  # by class
    "ganbench.metrics.features.LeNet": LENET_SHA256,
    "ganbench.metrics.features.Inception": INCEPTION_SHA256,
}
PUBLISHED = ("ganbench.metrics.features.Inception", "ganbench.metrics.dinov2.DinoV2")  # papers' networks
WRONG_HASH = "put the right file there, or accept another file with its hash, metric.features.sha256=..."


def check_weights(network: str, file: Path, sha256: str | None) -> None:
    """Raise Refused if a file of weights for the class `network` has not its SHA-256, the known one for None."""
    expected = sha256 or KNOWN.get(network)
    if expected:
        read_verified(file, "SHA-256", expected, WRONG_HASH, setting="metric.features.weights=")
