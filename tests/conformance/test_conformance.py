"""The suite as users run it: complete, for one method, and for classes of their own."""

import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, ganbench, settings

from ganbench.config.compose import option_names
from ganbench.conformance import suite
from ganbench.conformance.tables import generator_gradient_table
from ganbench.penalties import gp


def conformance(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    return ganbench(*arguments, cwd=cwd, module="ganbench.conformance")


README = REPOSITORY / "ganbench/conformance/README.md"


@pytest.mark.slow
def test_all_checks_pass() -> None:
    done = conformance()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines[1:-2])
    for group in ("loss", "penalty"):
        for option in option_names(group):
            if option not in ("wgan-gp", "wgan-lp") or group == "penalty":
                assert f" {option} " in done.stdout, f"{group}={option} was not checked"
    readme = README.read_text(encoding="utf-8")
    for topic in {line[6:28].strip() for line in lines[1:-2]}:
        assert f"\n| {topic} | " in readme, f"{README} has no line for {topic!r}"
    count = int(lines[-1].split()[0])
    assert lines[-1].startswith(f"{count} checks, {count} passed, 0 failed")
    assert f"{count} checks" in readme, f"{README} gives another number of checks than {count}"


MINE = """
import torch
from torch import nn
from torch.nn.functional import softplus
from ganbench.losses import LSGAN
from ganbench.penalties import input_gradient_norm, interpolate

class Same(LSGAN):
    pass

class PerSample:
    def d(self, real, fake):
        return softplus(-real) + softplus(fake)
    def g(self, fake):
        return softplus(-fake).mean()

def flat(D, real, fake, rng, weight: float):
    x = interpolate(real, fake, rng).detach().requires_grad_()
    g, = torch.autograd.grad(D(x).sum(), x)
    return weight * (g.flatten(1).norm(dim=1) - 1).square().mean()

def third(D, real, fake, rng, weight: float):
    return weight * (input_gradient_norm(D, interpolate(real, fake, rng)) - 3).square().mean()

class Mixing(nn.Module):
    def __init__(self, shape: list[int], width: int, norm: str):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(shape[0] * shape[1] * shape[2]),
                                 nn.Linear(shape[0] * shape[1] * shape[2], 1), nn.Flatten(0))
    def forward(self, x):
        return self.net(x)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MINE)
    for group in ("loss", "penalty"):
        (folder / "options" / group).mkdir(parents=True)
    (folder / "options/penalty/third.yaml").write_text(
        "name: third\n_target_: mine.third\n_partial_: true\nweight: 2.0\n"
    )
    (folder / "options/model").mkdir()
    (folder / "options/model/bare.yaml").write_text("defaults: [dcgan]\ncritic_norm: none\n")
    (folder / "options/loss/greedy.yaml").write_text(
        "defaults:\n  - override /penalty@_global_.penalty: gp\n  - override /model@_global_.model: bare\n"
        "name: greedy\n_target_: ganbench.losses.WGAN\n"
    )
    return folder


@pytest.mark.slow
def test_own_classes_pass(own: Path) -> None:
    """An own class is checked against what is known of the option that it replaces; an unknown penalty is, too."""
    done = conformance(
        "--config-dir", "options", "dataset=ring", "loss=lsgan", "loss._target_=mine.Same", "penalty=third", cwd=own
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "values                 lsgan" in done.stdout and "penalty                third" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("loss=gan loss._target_=mine.PerSample", "loss gan: d must return a scalar; got shape [4]"),
        ("loss=wgan-gp penalty._target_=mine.flat", "penalty gp gives no gradient to the critic's weights"),
        ("loss=wgan-gp penalty._target_=mine.third", "value at a constant critic: 90, expected 10"),
        ("loss=wgan model.critic._target_=mine.Mixing", "critic Mixing mixes the samples of a batch"),
        ("loss=greedy", "changes only loss and penalty, but also model: no"),
    ],
)
def test_failures_are_explained_in_a_sentence(own: Path, overrides: str, sentence: str) -> None:
    done = conformance("--config-dir", "options", *overrides.split(), cwd=own)
    assert done.returncode == 1, done.stdout + done.stderr
    named = [line for line in done.stdout.splitlines() if sentence in line]
    assert len(named) == 1 and named[0].startswith("FAIL "), done.stdout


@pytest.mark.slow
def test_bad_settings_are_refused(own: Path) -> None:
    refused = conformance("loss=wgann", cwd=own)
    assert refused.returncode == 2 and "wgann" in refused.stderr and "wgan-gp" in refused.stderr
    refused = conformance("penalty=gp", "penalty.weight=-1", cwd=own)
    assert refused.returncode == 2
    assert refused.stderr == "penalty.weight=-1 must be a finite number >= 0.\n"


class GP:
    """A penalty as a class, its weight given to the constructor."""

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, D, real, fake, rng):
        return gp(D, real, fake, rng, self.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        "loss=lsgan loss.scale=0.5",
        "loss=lsgan_pearson loss.scale=0.5",
        "loss=lsgan loss.b=10 loss.c=3",
        "loss=lsgan loss.scale=4 penalty=dragan-normal penalty.scale=10",
        "loss=wgan penalty=dragan penalty.scale=10",
        "loss=wgan penalty=dragan penalty.scale=0",
        "loss=wgan penalty=dragan penalty.clip=false penalty.alpha=[-5,5]",
        "loss=wgan penalty=gp penalty.weight=0",
        "loss=wgan penalty=clip penalty.c=3",
        "loss=hinge penalty=gp penalty._partial_=false penalty._target_=test_conformance.GP",
    ],
)
def test_known_answers_follow_the_settings(overrides: str) -> None:
    """An option passes whatever its settings are."""
    cfg = settings("dataset=ring", *overrides.split())
    checks = list(suite.method_checks(cfg, settings("dataset=ring")))
    assert [check for check in checks if not check.passed] == []


def test_readme_shows_the_closed_form_gradients() -> None:
    assert generator_gradient_table() in README.read_text(encoding="utf-8")
