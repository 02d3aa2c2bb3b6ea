"""Samples from fixed latents through training, small enough to be part of the page."""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ganbench.report.load import Run
from ganbench.report.study import Study
from ganbench.report.tables import format_number

MAX_SIDE = 256


class Frame(NamedTuple):
    """A grid of samples at one evaluation."""

    images: int  # real images seen
    source: str  # a data URL
    score: str


class SampleHistory(NamedTuple):
    """The grids of samples of a method, in the order of training."""

    label: str
    frames: list[Frame]
    unreadable: list[str]  # names of image files

    @property
    def last(self) -> Frame:
        return self.frames[-1]


def sample_histories(study: Study) -> list[SampleHistory]:
    """Load the samples of the first seed that all methods have; of methods that have any, and of many the best."""
    if not study.seeds:
        return []
    histories = []
    for method in study.methods_in_detail:
        run = next(run for run in method.runs if run.seed == study.seeds[0])
        histories.append(_sample_history(method.label, run))
    return [history for history in histories if history.frames]


def _sample_history(label: str, run: Run) -> SampleHistory:
    scores = run.series(run.metric)
    history = SampleHistory(label, [], [])
    for images, file in run.sample_grids.items():
        if source := _data_url(file):
            score = f"{run.metric} {format_number(scores.get(images))}"
            history.frames.append(Frame(images, source, score))
        else:
            history.unreadable.append(file.name)
    return history


def evaluation_points(histories: list[SampleHistory]) -> list[int]:
    """List the real images seen at all samples."""
    return sorted({frame.images for history in histories for frame in history.frames})


def slider_data(histories: list[SampleHistory]) -> dict[str, Any]:
    """Return what the page's slider needs, without each history's last grid, which is in the page already."""
    return {
        "points": evaluation_points(histories),
        "histories": [[_slider_frame(frame, history) for frame in history.frames] for history in histories],
    }


def _slider_frame(frame: Frame, history: SampleHistory) -> list[int | str | None]:
    source = None if frame is history.last else frame.source
    return [frame.images, source, frame.score]


def _data_url(file: Path) -> str | None:
    """Encode as WebP, lossless or at quality 80, whichever is smaller; None for a file that is not an image."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    encodings = [_webp(image, lossless=True, quality=60), _webp(image, quality=80)]
    return "data:image/webp;base64," + base64.b64encode(min(encodings, key=len)).decode()


def _webp(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=4, **options)
    return buffer.getvalue()
