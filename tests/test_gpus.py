"""Which GPU each run of a sweep gets, with GPUs that a command of the name nvidia-smi makes up."""

import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import RING, ganbench, settings
from test_watch import write

from ganbench.sweeps import gpus
from ganbench.sweeps.gpus import Gpus, Stopped, free_memory, ran_out_of_memory
from ganbench.sweeps.jobs import Job

SMI = """#!/bin/sh
cat {memory}
"""


class FakeGpus:
    """GPUs with so many MiB free each, as nvidia-smi tells."""

    def __init__(self, folder: Path, *free: int):
        self.memory = folder / "memory.csv"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "nvidia-smi").write_text(SMI.format(memory=self.memory))
        (self.bin / "nvidia-smi").chmod(0o755)
        self.set(*free)

    def set(self, *free: int) -> None:
        self.memory.write_text("".join(f"{i}, GPU-{i}{i}{i}, {each}\n" for i, each in enumerate(free)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOOK_SECONDS", 0.01)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *free: int) -> FakeGpus:
    made = FakeGpus(tmp_path, *free)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


def job(tmp_path: Path, name: str, device: str = "auto") -> Job:
    return Job(
        [], settings(*[o for o in RING if not o.startswith("device")], f"device={device}"), tmp_path / name, None
    )


def test_the_free_memory_of_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, 100, 200, 300)
    assert free_memory() == {"GPU-000": 100, "GPU-111": 200, "GPU-222": 300}
    for visible, expected in {
        "2,0": {"2": 300, "0": 100},
        "GPU-11": {"GPU-11": 200},
        "1,7,0": {"1": 200},  # CUDA stops at the first that is not there
        " 2 , 1": {"2": 300, "1": 200},
        "": {},
        "-1": {},
        "0,-1,1": {"0": 100},
        "0,0": {},
        "GPU-000,GPU-000": {},
        "0,GPU-111": {"0": 100},  # numbers and UUIDs do not mix
        "GPU-111,0": {"GPU-111": 200},
        "GPU-": {},  # which of them?
        "MIG-3": {},
        "MIG-GPU-000/1/0,0": {},
        "all": {},
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert free_memory() == expected, visible


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert free_memory() == {}
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert free_memory() == {}


def test_the_first_run_is_measured_then_all_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight GPUs two are busy; a run takes 3,000 MiB."""
    free = [40_000, 1_000, 40_000, 40_000, 2_500, 40_000, 40_000, 40_000]
    made = fake(tmp_path, monkeypatch, *free)
    placed = Gpus(is_bounded=True)
    with ExitStack() as stack:
        first = stack.enter_context(placed.place(job(tmp_path, "first")))
        assert first.gpu == "GPU-000"
        assert placed._try_to_place(job(tmp_path, "early"), alone=False) is None  # it is not known how much it takes
        made.set(37_000, *free[1:])
        write(tmp_path / "first", 800, seconds=8)
        places = [stack.enter_context(placed.place(job(tmp_path, f"run{i}"))) for i in range(17)]
        assert placed.need == 3_000
    used = Counter(place.gpu for place in [first, *places])
    assert used == {f"GPU-{i}{i}{i}": 3 for i in (0, 2, 3, 5, 6, 7)}


def test_a_gpu_that_is_half_full_has_room_for_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake(tmp_path, monkeypatch, 10_000)
    placed = Gpus(is_bounded=True)
    with ExitStack() as stack:
        stack.enter_context(placed.place(job(tmp_path, "a")))
        made.set(7_000)
        write(tmp_path / "a", 800, seconds=8)
        second = stack.enter_context(placed.place(job(tmp_path, "b")))
        # 7,000 are free, of which 3,300 are for the second, which grows; a third has room, a fourth has not.
        third = stack.enter_context(placed.place(job(tmp_path, "c")))
        assert second.had_neighbors and third.had_neighbors
        assert placed._try_to_place(job(tmp_path, "d"), alone=False) is None
        made.set(3_400)  # both have grown, by a little more than the first
        for name in "bc":
            write(tmp_path / name, 800, seconds=8)
        assert placed._try_to_place(job(tmp_path, "d"), alone=False) is not None
        assert placed._try_to_place(job(tmp_path, "e"), alone=False) is None


def test_where_all_gpus_are_busy_a_run_does_not_wait_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, 10, 30, 20)
    with Gpus(is_bounded=True).place(job(tmp_path, "a")) as place:
        assert place.gpu == "GPU-111"


def test_alone_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, 9_000, 8_000)
    placed = Gpus(is_bounded=False)
    with placed.place(job(tmp_path, "a")), placed.place(job(tmp_path, "b"), alone=True) as alone:
        assert alone.gpu == "GPU-111" and not alone.had_neighbors
        with placed.place(job(tmp_path, "c")) as third:  # beside the first: nobody may be beside the second
            assert third.gpu == "GPU-000"
        assert placed._try_to_place(job(tmp_path, "d"), alone=True) is None


def test_a_number_of_ones_own_is_not_bounded_by_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, 1_000, 900)
    placed = Gpus(is_bounded=False)
    with ExitStack() as stack:
        used = [stack.enter_context(placed.place(job(tmp_path, f"run{i}"))).gpu for i in range(4)]
    assert Counter(used) == {"GPU-000": 2, "GPU-111": 2}


def test_a_gpu_that_is_named_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, 1_000, 900, 800)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    with Gpus(is_bounded=True).place(job(tmp_path, "a", "cuda:1")) as place:
        assert place.gpu == "1"


def test_gpus_that_can_no_longer_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake(tmp_path, monkeypatch, 1_000)
    placed = Gpus(is_bounded=True)
    made.memory.write_text("")
    with placed.place(job(tmp_path, "a")) as place:
        assert place.gpu is None


def test_a_sweep_that_ends_waits_for_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, 1_000)
    placed = Gpus(is_bounded=True)
    with placed.place(job(tmp_path, "a")):
        placed.stop.set()
        with pytest.raises(Stopped), placed.place(job(tmp_path, "b")):
            pass


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("RuntimeError: CUDA error: out of memory", True),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("RuntimeError: shapes do not match", False),
        (None, False),
    ],
)
def test_what_lacks_memory(reason: str | None, expected: bool) -> None:
    assert ran_out_of_memory({"status": "failed", "reason": reason}) is expected
    assert not ran_out_of_memory({"status": "finished", "reason": reason})


CROWDED = '''
import os
from pathlib import Path

import torch
from ganbench.losses import GAN


class Crowded(GAN):
    """Notes the GPU of its process; the first time, once others are there, it says that there is no memory."""

    def __init__(self, tries: str, fails: bool):
        self.tries = Path(tries)
        self.fails = fails
        self.updates = 0

    def d(self, real, fake):
        self.updates += 1
        if self.updates == 20:
            with self.tries.open("a") as file:
                file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "none") + "\\n")
            if self.fails and len(self.tries.read_text().splitlines()) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().d(real, fake)
'''


@pytest.mark.slow
def test_a_sweep_on_made_up_gpus(tmp_path: Path) -> None:
    """The runs train on a CPU, since torch finds no GPU; where they are placed their processes know."""
    made = FakeGpus(tmp_path, 9_000, 8_000)
    (tmp_path / "mine.py").write_text(CROWDED)
    options = tmp_path / "options/loss"
    options.mkdir(parents=True)
    for name, fails in (("calm", "false"), ("crowded", "true")):
        text = f"name: {name}\n_target_: mine.Crowded\ntries: {tmp_path}/{name}-${{seed}}.txt\nfails: {fails}\n"
        (options / f"{name}.yaml").write_text(text)
    ring = [override for override in RING if not override.startswith("device")]
    done = ganbench(
        *("-m", *ring, "loss=calm,crowded", "seed=0,1", "sweep.parallel=4", "name=gpus", "--config-dir=options"),
        cwd=tmp_path,
        PATH=f"{made.bin}:{os.environ['PATH']}",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0 and "4 finished" in done.stdout, done.stdout + done.stderr
    tries = {file.stem: file.read_text().split() for file in tmp_path.glob("c*.txt")}
    first = Counter(each[0] for each in tries.values())
    assert first == {"GPU-000": 2, "GPU-111": 2}
    assert [len(tries[name]) for name in ("calm-0", "calm-1", "crowded-0", "crowded-1")] == [1, 1, 2, 2]
    assert done.stdout.count("out of memory beside other runs on its GPU; it is tried again alone there") == 2
