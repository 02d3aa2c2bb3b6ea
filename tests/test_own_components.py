"""One seed is one run, also where a user's own components draw random numbers by themselves."""

import signal
from pathlib import Path

import pytest
import torch
from conftest import RING, ganbench, rows

from ganbench.runs import checkpoint

pytestmark = pytest.mark.slow

MINE = """
import os, random, signal
import numpy as np
import torch
from torch import nn
from ganbench.losses import GAN
from ganbench.models import mlp
from ganbench.penalties import gp

class NoisyGenerator(mlp.Generator):  # as StyleGAN's: noise of its own, in evaluation, too
    def forward(self, z):
        return super().forward(z) + 0.1 * torch.randn(len(z), 1, device=z.device)

class DropoutCritic(mlp.Critic):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, self.training))

class NoisyLabels(GAN):
    calls = 0
    def d(self, real, fake):
        flip = torch.from_numpy(np.random.random(len(real)) < 0.1)
        smooth = random.uniform(0.8, 1.0)
        self.calls += 1
        if self.calls == 10 and os.path.exists("signal"):  # somewhere in the middle
            number = int(open("signal").read())
            os.remove("signal")
            os.kill(os.getpid(), number)
        return super().d(torch.where(flip, -real, real) * smooth, fake)

class Wasteful(GAN):  # draws, and makes nothing of it
    def d(self, real, fake):
        torch.rand(3), np.random.random(5), random.random()
        return super().d(real, fake)

def noisy_penalty(D, real, fake, rng, weight):
    return gp(D, real + 0.1 * torch.randn_like(real), fake, rng, weight)
"""
PROBE = ("probe=vanishing", "probe.steps=4", "probe.moments=[0.5]")
NOISY = (
    *RING,
    "loss._target_=mine.NoisyLabels",
    "penalty=gp",
    "penalty._target_=mine.noisy_penalty",
    "model.generator._target_=mine.NoisyGenerator",
    "model.critic._target_=mine.DropoutCritic",
    *PROBE,
    "checkpoint_every=4",
)


def run(here: Path, name: str, *overrides: str) -> Path:
    done = ganbench(*overrides, f"name={name}", cwd=here)
    assert done.returncode == 0, done.stderr
    return here / "outputs/run" / name


def assert_equal(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    assert (one / "probes.jsonl").read_text() == (other / "probes.jsonl").read_text()
    ours, theirs = (checkpoint.load(folder)["average"] for folder in (one, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for picture in (one / "samples").iterdir():
        assert picture.read_bytes() == (other / "samples" / picture.name).read_bytes()


def test_the_same_command_twice_gives_the_same_records(here: Path) -> None:
    one = run(here, "one", *NOISY)
    assert_equal(one, run(here, "two", *NOISY))
    assert rows(one) != rows(run(here, "other", *NOISY, "seed=1"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_goes_on_bit_equal(number: int, here: Path) -> None:
    (here / "signal").write_text(str(int(number)))
    assert ganbench(*NOISY, "name=cut", cwd=here).returncode != 0
    assert not (here / "signal").exists()
    assert_equal(run(here, "cut", *NOISY), run(here, "whole", *NOISY))


def test_a_sweep_makes_the_same_run(here: Path) -> None:
    done = ganbench("-m", *NOISY, "seed=1,0", "name=s", cwd=here)
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "outputs/sweep/s").glob("*-s0")
    assert_equal(folder, run(here, "alone", *NOISY))


def test_what_a_component_draws_moves_the_draws_of_no_other(here: Path) -> None:
    plain = (*RING, *PROBE, "penalty=gp")
    assert_equal(run(here, "plain", *plain), run(here, "own", *plain, "loss._target_=mine.Wasteful"))
