"""The benchmark's own correctness; what it measures belongs to the machine."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from ganbench import penalties
from ganbench.bench import peer, textbook
from ganbench.bench.costs import scaling
from ganbench.bench.steps import EVERYWHERE, METHODS, PLAIN, compare_step_time, composed
from ganbench.config.compose import build
from ganbench.training.players import make_players
from ganbench.training.steps import critic_step, generator_step

CPU = torch.device("cpu")


def test_it_prints_one_document() -> None:
    parts = [word for part in ("peak", "memory") for word in ("--part", part)]
    command = [sys.executable, "-m", "ganbench.bench", *parts, "--width", "4"]
    done = subprocess.run(
        [*command, "--repeats", "2", "--device", "cpu"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert {"machine", "torch", "threads", "peak", "memory"} == set(told)
    assert set(told["memory"]) == set(METHODS) and min(told["memory"].values()) > 10


@pytest.mark.parametrize(("method", "model"), [("dragan", "dcgan"), ("wgan-gp", "resnet")])
def test_all_ways_are_timed(method: str, model: str) -> None:
    line = compare_step_time(method, model, 4, 8, 2, CPU)
    assert set(line["seconds"]) - {peer.installed()} == {"textbook", *EVERYWHERE}
    for way in EVERYWHERE:
        low, high = line[way]["quartiles"]
        assert 0 < low <= line[way]["times_faster"] <= high


def test_products_grow_as_they_must() -> None:
    told = {tuple(line[k] for k in ("batch", "side", "width", "n_critic")): line["gflop"] for line in scaling(2, CPU)}
    first = told[64, 32, 32, 1]
    assert told[256, 32, 32, 1] == pytest.approx(4 * first) and told[16, 32, 32, 1] == pytest.approx(first / 4)
    assert 3 < told[64, 32, 128, 1] / first / 4 < 4 and 2 < told[64, 64, 32, 1] / first < 8
    assert 3 < told[64, 32, 32, 5] / first < 5  # the generator still moves once


@pytest.mark.parametrize("model", ["dcgan", "resnet"])
@pytest.mark.parametrize("method", ["gan", "hinge", "wgan-gp", "dragan"])
def test_the_textbook_does_the_same_work(method: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same weights, noise and points, its step ends with the weights that ours ends with.

    In float64: how much float32 parts them differs from one processor's kernels to another's.
    """
    real, zs = torch.rand(8, 3, 32, 32).double() * 2 - 1, [torch.randn(8, 128).double() for _ in range(2)]
    points = torch.rand(8, 3, 32, 32).double()
    for module, name in ((textbook, "where"), (penalties, "on_line"), (penalties, "around")):
        monkeypatch.setattr(module, name, lambda *rest: points if method in ("wgan-gp", "dragan") else None)
    left = []
    for ours in (True, False):
        cfg = composed(method, model, 8, real, *(() if ours else PLAIN[model]))
        G, D = (net.double() for net in make_players(cfg, CPU)[:2])
        opt_g, opt_d = (torch.optim.SGD(net.parameters(), 0.01) for net in (G, D))  # Adam blows rounding up
        if ours:
            loss, penalty = build(cfg.loss), build(cfg.penalty)
            critic_step(D, G, real, zs[0], loss, penalty, opt_d, torch.Generator())
            generator_step(D, G, real, zs[1], loss, opt_g)
        else:
            noise = iter(zs)
            monkeypatch.setattr(torch, "randn", lambda *shape, noise=noise, **where: next(noise))
            textbook.step(method, G, D, opt_g, opt_d, real, 128)
            monkeypatch.undo()
        left.append([w.detach() for net in (G, D) for w in nn.ParameterList(net.parameters())])
    for mine, its in zip(*left, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-8)
