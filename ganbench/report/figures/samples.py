"""Samples of the same z through training, small enough to lie in the page."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ganbench.report.load import Run
from ganbench.report.study import Study
from ganbench.report.tables import format_number

SIDE = 256


class Frame(NamedTuple):
    images: int
    source: str  # a data address
    words: str


class SampleHistory(NamedTuple):
    """One arm's pictures in the order of training."""

    label: str
    frames: list[Frame]
    unreadable: list[str]  # names of pictures

    @property
    def last(self) -> Frame:
        return self.frames[-1]


def sample_histories(study: Study) -> list[SampleHistory]:
    """Of the first seed that all arms have; of arms that have pictures of it."""
    if not study.seeds:
        return []
    runs = {arm.label: next(run for run in arm.runs if run.seed == study.seeds[0]) for arm in study.arms}
    return [film for label, run in runs.items() if (film := _film(label, run)).frames]


def _film(label: str, run: Run) -> SampleHistory:
    scores = dict(zip(*run.curve(run.metric), strict=True))
    sources = {images: _source(file) for images, file in run.pictures.items()}
    told = {images: f"{run.metric} {format_number(scores.get(images))}" for images in sources}
    frames = [Frame(images, source, told[images]) for images, source in sources.items() if source]
    return SampleHistory(label, frames, [run.pictures[images].name for images, source in sources.items() if not source])


def evaluation_points(found: list[SampleHistory]) -> list[int]:
    """The images seen at any of the pictures."""
    return sorted({frame.images for film in found for frame in film.frames})


def slider_data(found: list[SampleHistory]) -> dict:
    """What the page's slider needs; a film's last picture is in the page already."""
    return {
        "moments": evaluation_points(found),
        "films": [[[f.images, None if f is film.last else f.source, f.words] for f in film.frames] for film in found],
    }


def _source(file: Path) -> str | None:
    """As WebP, without loss or at quality 80, whichever is smaller; None for a file that is no picture."""
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    picture.thumbnail((SIDE, SIDE))
    tries = [_webp(picture, lossless=True, quality=60), _webp(picture, quality=80)]
    return "data:image/webp;base64," + base64.b64encode(min(tries, key=len)).decode()


def _webp(picture: Image.Image, **settings: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, "WEBP", method=4, **settings)
    return out.getvalue()
