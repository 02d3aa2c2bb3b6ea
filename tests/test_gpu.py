"""What only a GPU shows: run by `make gpu`, skipped everywhere else."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import SIX, ganbench, rows, settings, until
from iterations import DROPOUT, assert_equal, iterating, outcome, side_by_side

from ganbench import gpu, host_samples
from ganbench.config.compose import build
from ganbench.datasets import Data, real_batch
from ganbench.errors import Refused
from ganbench.metrics.features import LeNet, embed
from ganbench.training.batches import Batches
from ganbench.training.device import configure_process
from ganbench.training.players import make_players
from ganbench.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda")
SMOKE = ("experiment=smoke", "wandb=disabled", "device=cuda")
METHODS = SIX.split(",")


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    configure_process(settings("device=cuda"), CUDA)
    yield
    gpu.choose_kernels(tf32=True, deterministic=False, benchmark=False)  # torch's defaults
    torch.autograd.set_multithreading_enabled(True)


def test_a_gpu_by_its_number(tmp_path: Path) -> None:
    for name, device in (("first", "cuda"), ("same", "cuda:0")):
        done = ganbench(*SMOKE[:2], "dataset=ring", f"device={device}", f"name={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "outputs/run/first") == rows(tmp_path / "outputs/run/same")
    n = torch.cuda.device_count()
    refused = ganbench(f"device=cuda:{n}", "name=none", cwd=tmp_path)
    assert refused.returncode == 2 and f"device=cuda:{n}: torch finds {n} GPU" in refused.stderr


def test_data_that_the_gpu_has_no_room_for_give_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(50 * 3 * 8 * 8).remainder(256).to(torch.uint8).view(50, 3, 8, 8)
    there = Data(x, x).to(CUDA)
    assert there.train.is_cuda
    monkeypatch.setattr(host_samples, "SHARE", 0.0)
    host = Data(x, x).to(CUDA)
    assert isinstance(host.train, host_samples.HostSamples) and host.test.is_cuda
    torch.cuda.set_sync_debug_mode("error")  # nothing may wait for the GPU
    try:
        batches = [real_batch(host.train, 0, step, 32) for step in range(9)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step, batch in enumerate(batches):
        assert torch.equal(batch, real_batch(there.train, 0, step, 32))
    with pytest.raises(Refused, match=r"metric\.n_train"):
        host.train[:]


VARIANTS = {
    "bf16": ("precision=bf16",),
    "bf16_all, channels last": ("precision=bf16_all", "speed.channels_last=true"),
    "reused fakes": ("protocol.reuse_fakes=true",),
    "augmented": ("augment=diffaug",),
    "a generator's batch": ("protocol.generator_batch=48", "augment=flip"),
    "an unrelated generator's batch in pairs": ("loss=rpgan", "penalty=none", "protocol.generator_batch=64"),
    "spectral norm": ("model.critic_norm=spectral",),
    "points": ("dataset=ring",),
    "dropout": (DROPOUT,),
}


@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
@pytest.mark.parametrize("method", [*METHODS, "rpgan"])
def test_a_recorded_iteration_is_the_same(method: str, model: str) -> None:
    side_by_side(settings(f"loss={method}", f"model={model}", "speed=graphs", "protocol.n_critic=2"), CUDA, resumed=2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_so_is_that_of_every_variant(variant: str) -> None:
    side_by_side(settings("loss=wgan-gp", "speed=graphs", *VARIANTS[variant]), CUDA, resumed=1)


@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_does_not_depend_on_what_the_process_did_before(method: str, model: str) -> None:
    """A run that is resumed has made fewer backward passes than one that was never stopped."""
    cfg = settings(f"loss={method}", f"model={model}")
    data = build(cfg.dataset).to(CUDA).train
    found = []
    for before in (0, 5, 40):
        others = make_players(cfg, CUDA)
        outcome(iterating(cfg, others, CUDA), others, Batches(cfg, data), range(before + 1))
        players = make_players(cfg, CUDA)
        found.append(outcome(iterating(cfg, players, CUDA), players, Batches(cfg, data), range(10)))
    assert_equal(found[0], found[1])
    assert_equal(found[0], found[2])


@pytest.mark.parametrize("speed", ["eager", "graphs"])
@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
@pytest.mark.parametrize("method", METHODS)
def test_the_host_does_not_wait(method: str, model: str, speed: str) -> None:
    """Not within a step, and not where an epoch ends."""
    from ganbench.training.cuda_graphs import CudaGraphIteration

    cfg = settings(f"loss={method}", f"model={model}", f"speed={speed}")
    players, data = make_players(cfg, CUDA), build(cfg.dataset).to(CUDA).train
    last = len(data) // cfg.protocol.batch
    run = iterating(cfg, players, CUDA)
    if speed == "graphs":
        run = CudaGraphIteration(run, players, [Batches(cfg, data)(step) for step in range(2)])
    run(Batches(cfg, data)(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in (1, 2, last - 1, last, last + 1):
            run(Batches(cfg, data)(step))
    finally:
        torch.cuda.set_sync_debug_mode("default")


TRAINED = [
    *((method, "speed=eager", "precision=fp32") for method in METHODS),
    *(("wgan-gp", "speed=graphs", f"precision={precision}") for precision in ("fp32", "tf32", "bf16", "bf16_all")),
    *(("gan", "speed=channels_last", f"precision={precision}") for precision in ("fp32", "tf32", "bf16")),
]


@pytest.mark.parametrize(("method", "speed", "precision"), TRAINED)
def test_runs_finish_and_say_what_they_ran_on(method: str, speed: str, precision: str, tmp_path: Path) -> None:
    train(settings(f"loss={method}", *SMOKE, speed, precision, "probe=vanishing", "probe.steps=4"), tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "finished"
    machine = json.loads((tmp_path / "footing.json").read_text())["machine"]
    assert machine["gpu"] == torch.cuda.get_device_name() and machine["deterministic"] is True
    assert machine["tf32"] is (precision == "precision=tf32") and machine["cudnn"] > 90000


@pytest.mark.parametrize("speed", ["eager", "graphs"])
@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
@pytest.mark.parametrize("method", ["gan", "wgan-gp", "dragan"])
def test_the_same_run_twice_and_once_interrupted(
    method: str, model: str, speed: str, tmp_path: Path, start: Callable
) -> None:
    options = (f"loss={method}", f"model={model}", f"speed={speed}", *SMOKE, "protocol.images=6400")
    options = (*options, "checkpoint_every=5", "protocol.log_every=5")
    for name in ("a", "b"):
        done = ganbench(*options, f"name={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    process = start(*options, "name=c", cwd=tmp_path)
    log = tmp_path / "outputs/run/c/metrics.jsonl"
    until(lambda: log.exists() and log.read_text().count("d_loss") >= 2, process)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert json.loads((log.parent / "status.json").read_text())["status"] == "interrupted"
    assert ganbench(*options, "name=c", cwd=tmp_path).returncode == 0
    a, b, c = (rows(tmp_path / f"outputs/run/{name}") for name in "abc")
    assert len(a) > 8 and a == b == c


def test_a_sweep_does_not_depend_on_how_many_run_at_once(tmp_path: Path) -> None:
    sweep = ("-m", "loss=gan,wgan-gp", "seed=0,1", *SMOKE)
    for at_once in (1, 4):
        done = ganbench(*sweep, f"sweep.parallel={at_once}", f"name=by{at_once}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "outputs/sweep/by1").glob("*-s?"))
    assert len(folders) == 4
    assert all(rows(folder) == rows(tmp_path / "outputs/sweep/by4" / folder.name) for folder in folders)


def test_fp32_is_fp32_and_scores_always_are() -> None:
    x, w = torch.randn(8, 64, 16, 16, device=CUDA), torch.randn(64, 64, 3, 3, device=CUDA)
    exact = torch.nn.functional.conv2d(x.double(), w.double())

    def error() -> float:
        return float((torch.nn.functional.conv2d(x, w) - exact).norm() / exact.norm())

    images = torch.randint(256, (100, 1, 32, 32), dtype=torch.uint8, device=CUDA)
    net = LeNet().to(CUDA)
    assert error() < 2e-6
    features = embed(net, images)
    gpu.choose_kernels(tf32=True, deterministic=True, benchmark=False)
    assert 1e-5 < error() < 2e-3
    assert torch.equal(embed(net, images), features) and torch.backends.cudnn.allow_tf32


def test_a_step_leaves_the_same_memory_each_time() -> None:
    """What is kept from step to step would fill the GPU in a long run."""
    cfg = settings("loss=wgan-gp")
    players, data = make_players(cfg, CUDA), build(cfg.dataset).to(CUDA).train
    run, held = iterating(cfg, players, CUDA), []
    for step in range(12):
        run(Batches(cfg, data)(step))
        held.append(torch.cuda.memory_allocated())
    assert len(set(held[4:])) == 1
