"""What a score of images depends on besides the images: the protocol, which the number carries wherever it goes."""

from typing import Any, NamedTuple

from ganbench.config.schema import REAL_IMAGES

QUANTIZATION = "uint8"  # of every image that is scored, also of a generated one


class Provenance(NamedTuple):
    """Where features come from, as far as a score depends on it."""

    network: str
    weights: str  # the SHA-256 of their file
    resize: str  # how an image gets the size that the network takes
    library: str  # with its version


class Protocol(NamedTuple):
    """How a score of images is taken that papers report, too. Scores of different protocols must not be compared."""

    metric: str
    n_fake: int
    n_real: int
    reference: str  # which real images the samples are compared with: a name of RealImages
    n_available: int  # real images of this kind
    n_pairs: int | None  # images of either kind that are compared pair by pair; None for all
    provenance: Provenance

    @property
    def sentence(self) -> str:
        """Say everything: two protocols are the same if their sentences are."""
        network, weights, resize, library = self.provenance
        parts = [
            f"{self.metric}: {self.n_fake:,} samples against {self._reals()}",
            f"{network} (weights {weights[:12]}, {library})",
            f"{QUANTIZATION} images, {resize}",
        ]
        if self.n_pairs:
            parts.append(f"KID, diversity and memorization of the first {self.n_pairs:,} of each")
        return "; ".join(parts)

    def _reals(self) -> str:
        kind = REAL_IMAGES[self.reference]
        if self.n_real == self.n_available:
            return f"all {self.n_real:,} {kind}"
        return f"the first {self.n_real:,} of {self.n_available:,} {kind}"

    def facts(self) -> dict[str, Any]:
        """Return everything by name, as JSON holds it, and the sentence."""
        facts = self._asdict() | self.provenance._asdict() | {"quantization": QUANTIZATION, "sentence": self.sentence}
        del facts["provenance"]
        return facts
