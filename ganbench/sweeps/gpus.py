"""Choose the GPU of each run of a sweep: by the memory that is free there, and by what a run has been seen to take."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ganbench.runs.live import LiveRun
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.outcomes import Status

LOOK_SECONDS = 1.0
MARGIN = 1.1  # runs of one sweep differ a little in what they take
OUT_OF_MEMORY = re.compile(r"out of memory|_ALLOC_FAILED", re.IGNORECASE)

Mebibytes = int


class Stopped(Exception):
    """The sweep has ended before there was room for a run."""


@dataclass(eq=False)
class Place:
    """A run's place on a GPU."""

    gpu: str | None  # as CUDA_VISIBLE_DEVICES names it; None if no GPU can be asked for its memory any more
    run: LiveRun
    images: int  # that the run had seen before
    free: Mebibytes  # on the GPU, before the run began
    alone: bool  # whether no other run may share the GPU
    grows: bool = True  # until its first updates: it takes more and more memory
    undisturbed: bool = True  # whether no other run has begun, grown or ended there while it grew
    had_neighbors: bool = False


@dataclass
class Gpus:
    """The GPUs of a sweep, and the runs on them. Its methods may be called from several threads."""

    is_bounded: bool  # by memory; else more runs than there is room for are what was asked for
    need: Mebibytes | None = None  # of one run; None until one has been measured
    places: list[Place] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def place(self, job: Job, alone: bool = False) -> Iterator[Place]:
        """Give a run its place for the time of the block, once there is room. Raise Stopped if the sweep ends first."""
        place = self._try_to_place(job, alone)
        while place is None:
            if self.stop.wait(LOOK_SECONDS):
                raise Stopped
            place = self._try_to_place(job, alone)
        try:
            yield place
        finally:
            self._leave(place)

    def _try_to_place(self, job: Job, alone: bool) -> Place | None:
        with self.lock:
            free = _free_for(job)
            self._measure_runs(free)
            gpu = self._choose(free, alone)
            if gpu is None and free:
                return None
            return self._take(gpu, job, free.get(gpu or "", 0), alone)

    def _take(self, gpu: str | None, job: Job, free: Mebibytes, alone: bool) -> Place:
        run = LiveRun(job.folder)
        run.refresh()
        neighbors = self._on(gpu)
        for neighbor in neighbors:
            neighbor.undisturbed = False
            neighbor.had_neighbors = True
        disturbed = any(neighbor.grows for neighbor in neighbors)
        place = Place(gpu, run, run.images, free, alone, undisturbed=not disturbed, had_neighbors=bool(neighbors))
        self.places.append(place)
        return place

    def _leave(self, place: Place) -> None:
        with self.lock:
            self.places.remove(place)
            for neighbor in self._on(place.gpu):
                neighbor.undisturbed = False

    def _on(self, gpu: str | None) -> list[Place]:
        return [place for place in self.places if place.gpu == gpu]

    def _measure_runs(self, free: dict[str, Mebibytes]) -> None:
        """See which runs have made their first updates; what such a run takes is by how much less is free now."""
        for place in self.places:
            if not place.grows or place.gpu not in free:
                continue
            place.run.refresh()
            place.grows = place.run.images <= place.images
            if not place.grows and place.undisturbed:
                self.need = max(self.need or 0, place.free - free[place.gpu])

    def _choose(self, free: dict[str, Mebibytes], alone: bool) -> str | None:
        """Return the GPU with room and the fewest runs of ours; None if one of these has to end first, or to grow."""
        shared = [gpu for gpu in free if not any(place.alone for place in self._on(gpu))]
        if alone:
            shared = [gpu for gpu in shared if not self._on(gpu)]
        elif self.is_bounded and self.places:
            # Where nothing of ours runs, waiting would be in vain.
            shared = [gpu for gpu in shared if self._has_room(gpu, free)]
        return max(shared, key=lambda gpu: (-len(self._on(gpu)), self._room(gpu, free)), default=None)

    def _has_room(self, gpu: str, free: dict[str, Mebibytes]) -> bool:
        return self.need is not None and self._room(gpu, free) >= MARGIN * self.need

    def _room(self, gpu: str, free: dict[str, Mebibytes]) -> float:
        """Return the memory that is left once all runs there have grown."""
        growing = sum(place.grows for place in self._on(gpu))
        return free[gpu] - MARGIN * growing * (self.need or 0)


def _free_for(job: Job) -> dict[str, Mebibytes]:
    """Return the free memory of the GPUs that a run may have: all, or the one that its `device` names."""
    free = free_memory()
    number = named_gpu(job)
    return free if number is None else dict(list(free.items())[number : number + 1])


def named_gpu(job: Job) -> int | None:
    """Return the number of the GPU that a run's `device` names; None if it may be any."""
    number = job.shared.device.partition("cuda:")[2]
    return int(number) if number else None


def free_memory() -> dict[str, Mebibytes]:
    """Return the free memory of each GPU that CUDA would find here, by its name in CUDA_VISIBLE_DEVICES.

    Nothing where NVIDIA's own command is not there, or the GPU is a part of one.
    """
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    asked = subprocess.run(command, capture_output=True, text=True)
    rows = [[value.strip() for value in line.split(",")] for line in asked.stdout.splitlines()]
    present = [row for row in rows if len(row) == 3 and row[2].isdecimal()] if asked.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return {uuid: int(free) for _, uuid, free in present}
    return _visible(visible, present)


def _visible(visible: str, present: list[list[str]]) -> dict[str, Mebibytes]:
    """Return the free memory of the GPUs listed in CUDA_VISIBLE_DEVICES, as CUDA reads it.

    By numbers or by UUIDs; the list ends at the first that is not there, and shows none if one is in it twice.
    """
    names = [name.strip() for name in visible.split(",")]
    by_uuid = names[0].startswith("GPU-")
    free: dict[str, Mebibytes] = {}
    for name in names:
        rows = [row for row in present if (_has_uuid(row, name) if by_uuid else row[0] == name)]
        if len(rows) != 1:
            break
        if name in free:
            return {}
        free[name] = int(rows[0][2])
    return free


def _has_uuid(row: list[str], beginning: str) -> bool:
    return beginning.startswith("GPU-") and row[1].startswith(beginning)


def ran_out_of_memory(status: Status) -> bool:
    """Tell whether a run failed because its GPU had no memory left."""
    return status["status"] == "failed" and OUT_OF_MEMORY.search(status.get("reason") or "") is not None
