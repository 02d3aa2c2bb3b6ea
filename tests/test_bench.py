"""Correctness of the benchmark, not its timings; and what its README says of the recorded results."""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import mean

import pytest
import torch
from conftest import REPOSITORY, ganbench
from omegaconf import DictConfig
from test_report import plant

from ganbench import penalties
from ganbench.bench import baselines, costs, gpu, methods, steps
from ganbench.bench.steps import PLAIN, VARIANTS, compose_run
from ganbench.bench.tables import PRECISIONS, welch_p
from ganbench.config.compose import build
from ganbench.conformance.descent import descending
from ganbench.report.compare import group_by_method
from ganbench.report.load import load_runs
from ganbench.training.batches import CriticBatch, GeneratorBatch
from ganbench.training.players import Players, make_players
from ganbench.training.updates import Objective, critic_update, generator_update

CPU = torch.device("cpu")


@pytest.mark.slow
def test_it_prints_one_document() -> None:
    parts = ["--part", "peak"]
    small = ["--width", "4", "--repeats", "2", "--device", "cpu"]
    done = ganbench(*parts, *small, module="ganbench.bench", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert {"commit", "machine", "torch", "threads", "peak"} == set(results) and results["peak"]["fp32"] > 1


def test_each_method_has_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of two updates takes GAN a second and WGAN three; a run has 25 updates."""

    def worker(turn: partial, device: torch.device) -> nullcontext:
        loss = turn.args[0].loss.name
        return nullcontext(lambda: ({"gan": 1.0, "wgan": 3.0}[loss], 0.0))

    monkeypatch.setattr(methods, "WorkerProcess", worker)
    for loss, final in (("wgan-gp", 3.0), ("gan", 4.0)):
        plant(tmp_path, loss, 0, final, "dataset=ring", "device=cpu")
    timed = methods.time_methods(group_by_method(load_runs(tmp_path)), updates=2, turns=3)
    assert timed["seconds"] == {"wgan-gp": 37.5, "gan": 12.5}


@pytest.mark.slow
def test_memory_is_that_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "METHODS", ("gan",))
    found = costs.memory(4, CPU)
    assert set(found) == {"gan"} and found["gan"] > 100  # torch alone takes more


@pytest.mark.slow
def test_what_a_gpu_is_asked_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, at toy sizes and with two of the variants: every part is measured, and none fails."""
    variants = {name: VARIANTS[name] for name in ("fp32", "bf16_all, channels_last, reuse_fakes")}
    monkeypatch.setattr(steps, "VARIANTS", variants)
    run = ("experiment=smoke", "dataset=ring")
    toy = gpu.Sizes(nets=(("dcgan", 4),), methods=("wgan-gp",), batch=4, repeats=2, samples=8, run=run, seeds="0")
    found = dict(gpu.measure_gpu(CPU, toy))
    timed = found["iteration of wgan-gp, dcgan-4"]
    assert {"card", "evaluation", "sweeps"} < set(found)
    assert not [part for part in found.values() if "failed" in part], found
    assert set(timed["seconds"]) - {baselines.mimicry_version()} == {"textbook", *variants}
    for name in variants:
        low, high = timed[name]["quartiles"]
        assert 0 < low <= timed[name]["times_faster"] <= high
    assert found["sweeps"]["equal_scores"] is True and found["sweeps"]["runs"] == 2
    assert 0 < found["evaluation"]["features_seconds"] < found["evaluation"]["building_seconds"]


@pytest.mark.slow
def test_a_gpu_is_needed_to_measure_one() -> None:
    done = ganbench("--part", "gpu", "--device", "cpu", module="ganbench.bench", cwd=REPOSITORY)
    assert done.returncode == 2 and "--part gpu: torch finds no GPU here" in done.stderr


@pytest.mark.slow
def test_flops_grow_as_expected() -> None:
    lines = costs.scaling(1, CPU, batch=8, width=16)
    gflop = {(line["batch"], line["side"], line["width"], line["n_critic"]): line["gflop"] for line in lines}
    base = gflop[8, 32, 16, 1]
    assert gflop[32, 32, 16, 1] == pytest.approx(4 * base) and gflop[2, 32, 16, 1] == pytest.approx(base / 4)
    assert 3 < gflop[8, 32, 64, 1] / base / 4 < 4 and 2 < gflop[8, 64, 16, 1] / base < 8
    assert 3 < gflop[8, 32, 16, 5] / base < 5  # the generator still moves once


@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
@pytest.mark.parametrize("method", ["gan", "hinge", "wgan-gp", "dragan"])
def test_the_textbook_does_the_same_work(method: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same weights, noise and points, its step ends with the same weights as ours.

    In float64: by how much they differ in float32 depends on the processor's kernels. With plain gradient descent,
    since Adam amplifies rounding.
    """
    real = torch.rand(8, 3, 32, 32).double() * 2 - 1
    z_d, z_g = torch.randn(2, 8, 128).double()
    points = torch.rand(8, 3, 32, 32).double() if method in ("wgan-gp", "dragan") else None
    for module, name in ((baselines, "penalized_points"), (penalties, "interpolate"), (penalties, "perturb")):
        monkeypatch.setattr(module, name, lambda *_: points)

    cfg = compose_run(method, model, 8, real)
    ours = _descending_in_float64(cfg)
    objective = Objective(build(cfg.loss), build(cfg.penalty))
    critic_update(ours, CriticBatch(real, z_d, torch.Generator(), when={}), objective)
    generator_update(ours, GeneratorBatch(real, z_g), objective)

    textbooks = _descending_in_float64(compose_run(method, model, 8, real, *PLAIN[model]))
    noise = iter([z_d, z_g])
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(noise))
    baselines.textbook_step(method, textbooks, real, 128)

    for our_net, textbook_net in ((ours.G, textbooks.G), (ours.D, textbooks.D)):
        for our_weight, textbook_weight in zip(our_net.parameters(), textbook_net.parameters(), strict=True):
            torch.testing.assert_close(our_weight, textbook_weight, rtol=1e-5, atol=1e-8)


def _descending_in_float64(cfg: DictConfig) -> Players:
    players = make_players(cfg, CPU)
    return descending(players.D.double(), players.G.double(), 0.01)


def test_bf16_changes_no_recorded_result_significantly() -> None:
    """What the README says of outputs/reference/precision.json: no significant difference, and the same order."""
    scores = json.loads((REPOSITORY / "outputs/reference/precision.json").read_text(encoding="utf-8"))["scores"]
    fp32, bf16, bf16_all = (_order(scores, precision) for precision in PRECISIONS)
    assert fp32 == bf16 == bf16_all
    assert min(welch_p(each[name], each["fp32"]) for each in scores.values() for name in PRECISIONS[1:]) > 0.1


def _order(scores: dict, precision: str) -> list[str]:
    return sorted(scores, key=lambda method: mean(scores[method][precision]))
