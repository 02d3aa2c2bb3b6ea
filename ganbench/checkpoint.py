"""Checkpoints: written aside, synced and renamed, so that a good one is never lost to a half-written one."""

import io
import os
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save(folder: Path, step: int, images: int, **parts: Any) -> Path:
    """Write the state of every part (modules and optimisers) as the folder's only checkpoint; return its path."""
    state = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, "images": images, **state}, buffer)
    file, aside = folder / f"step-{step:08d}.pt", folder / f".step-{step:08d}.tmp"
    with aside.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)
    for old in folder.glob("step-*.pt"):
        if old != file:
            old.unlink()
    return file


def load(run: Path | str) -> dict[str, Any]:
    """A run's saved state, on the CPU: format, step, images, and a state_dict for each part. Runs no code from it."""
    file = max((Path(run) / "checkpoints").glob("step-*.pt"), default=None)
    if file is None:
        raise FileNotFoundError(f"{run} holds no checkpoints/step-….pt; name the folder of a run.")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if state.get("format") != FORMAT:
        raise ValueError(f"{file} has checkpoint format {state.get('format')}; this version reads {FORMAT}.")
    return state
