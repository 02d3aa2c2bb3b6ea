"""Numbers that are not finite, put into the terms and gradients of real runs; and generators that ignore z."""

import functools
import json
import logging
import math
import signal
from pathlib import Path

import pytest
import torch
from conftest import TINY, rows, settings
from PIL import Image
from torch import Tensor, nn

from ganbench.losses import GAN
from ganbench.models import dcgan
from ganbench.runs import checkpoint
from ganbench.runs.signals import Interrupted
from ganbench.runs.status import first_collapse
from ganbench.training import run as module
from ganbench.training.evaluate import relative_std
from ganbench.training.players import Players
from ganbench.training.train import train

pytestmark = pytest.mark.slow

BATCH, AT = 32, 2  # of a step; the step that is spoiled
OFTEN = (*TINY, "protocol.evaluations=4")


class Poison:
    """Adds `value` at call number `at`, and 0 before and after."""

    def __init__(self, at: int, value: float):
        self.at, self.value, self.calls = at, value, 0

    def __call__(self) -> float:
        self.calls += 1
        return self.value if self.calls - 1 == self.at else 0.0


class Loss(GAN):
    """Of a run's own batches: those that are asked before the first step are smaller."""

    def __init__(self, term: str, at: int, value: float):
        self.term, self.poison = term, Poison(at, value)

    def _spoil(self, term: str, logits: Tensor) -> Tensor:
        return logits.mean() * 0 + (self.poison() if self.term == term and len(logits) == BATCH else 0.0)

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().d(real, fake) + self._spoil("real", real) + self._spoil("fake", fake)

    def g(self, fake: Tensor) -> Tensor:
        return super().g(fake) + self._spoil("g", fake)


class Stopped(GAN):
    """Asks the run to stop, as a signal from outside would, in the update that diverges."""

    def g(self, fake: Tensor) -> Tensor:
        if len(fake) < BATCH:  # asked before the first update
            return super().g(fake)
        signal.raise_signal(signal.SIGTERM)
        return fake.mean() * math.nan


class Penalty:
    def __init__(self, at: int, value: float):
        self.poison = Poison(at, value)

    def __call__(self, D, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return D(real).square().mean() + (self.poison() if len(real) == BATCH else 0.0)


def spoil_one_element(net: nn.Module, at: int, value: float) -> None:
    """In the gradient of the first weight, at one backward pass; copies of the net are not spoiled."""
    poison = Poison(at, value)

    def hook(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[3] += poison()
        return gradient

    next(net.parameters()).register_hook(hook)


class Critic(dcgan.Critic):
    def __init__(self, at: int, value: float, **settings):
        super().__init__(**settings)
        spoil_one_element(self, at, value)


class Generator(dcgan.Generator):
    def __init__(self, at: int, value: float, **settings):
        super().__init__(**settings)
        spoil_one_element(self, at, value)


class Still(dcgan.Generator):
    """Its last layer is zero and stays so: every z is the same gray image."""

    def __init__(self, **settings):
        super().__init__(**settings)
        for w in self.head.parameters():
            nn.init.zeros_(w).requires_grad_(False)


PLACES = {  # what is spoiled: the settings that do it, the player that stops, and the term that is found out
    "real term of d": (("loss._target_={0}.Loss", "+loss.term=real", "{1}loss"), "critic", "d_loss"),
    "fake term of d": (("loss._target_={0}.Loss", "+loss.term=fake", "{1}loss"), "critic", "d_loss"),
    "penalty": (("penalty._target_={0}.Penalty", "penalty._partial_=false", "{1}penalty"), "critic", "d_penalty"),
    "gradient of D": (("model.critic._target_={0}.Critic", "{1}model.critic"), "critic", "d_grad_norm"),
    "loss of g": (("loss._target_={0}.Loss", "+loss.term=g", "{1}loss"), "generator", "g_loss"),
    "gradient of G": (("model.generator._target_={0}.Generator", "{1}model.generator"), "generator", "g_grad_norm"),
}


def composed(place: str, at: int, value: float, *others: str):
    reported = []
    for line in PLACES[place][0]:
        group = line.removeprefix("{1}")
        reported += [f"+{group}.at={at}", f"+{group}.value={value}"] if group != line else [line.format(__name__)]
    return settings("loss=gan", "penalty=none", *OFTEN, *reported, *others)


@pytest.fixture
def made_players(monkeypatch: pytest.MonkeyPatch) -> list[Players]:
    """The players of every run, which it would let go of."""
    made: list[Players] = []
    make = module.make_players
    monkeypatch.setattr(module, "make_players", lambda *rest: made.append(make(*rest)) or made[-1])
    return made


def weights_and_moments(players: Players, who: str) -> list[Tensor]:
    net, optimizer = {"D": (players.D, players.opt_d), "G": (players.G, players.opt_g)}[who]
    moments = [m for state in optimizer.state.values() for m in state.values()]
    return [*(w.detach().clone() for w in net.parameters()), *moments]


@pytest.fixture(scope="module")
def unspoiled(tmp_path_factory: pytest.TempPathFactory):
    """Of each place, the players after two and after three steps, and where the shorter run is."""

    @functools.cache
    def made(place: str, *others: str) -> tuple[Players, Players, Path]:
        out, players = tmp_path_factory.mktemp("unspoiled"), []
        with pytest.MonkeyPatch.context() as patch:
            make = module.make_players
            patch.setattr(module, "make_players", lambda *rest: players.append(make(*rest)) or players[-1])
            for steps in (AT, AT + 1):
                cfg = composed(place, 99, math.nan, f"protocol.images={steps * BATCH}", *others)
                train(cfg, out / str(steps))
        return *players, out / str(AT)

    return made


def assert_left(spoiled: Players, before: Players, after: Players, player: str) -> None:
    for who, expected in (("G", before), ("D", after if player == "generator" else before)):
        pairs = list(zip(weights_and_moments(spoiled, who), weights_and_moments(expected, who), strict=True))
        assert len(pairs) > 8 and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", PLACES)
def test_a_run_stops_before_the_optimizer_moves(
    place: str, value: float, tmp_path: Path, made_players: list[Players], unspoiled
) -> None:
    """The players are left bit-equal to those of unspoiled runs; D has one update more where G's was spoiled."""
    _, player, what = PLACES[place]
    before, after, unspoiled_run = unspoiled(place)
    made_players.clear()
    assert train(composed(place, AT, value), tmp_path / "spoiled") == math.inf
    (spoiled,) = made_players
    assert_left(spoiled, before, after, player)

    status = json.loads((tmp_path / "spoiled/status.json").read_text())
    when = {"step": AT, "critic_step": AT, "images": (AT + 1) * BATCH}
    assert status["status"] == "diverged"
    assert status["diverged"] == {"what": what, "value": str(value), "player": player} | when
    assert status["reason"] == f"{what} was {value} at generator update 2, critic update 2, 96 real images"
    assert status["last_finite"]["images"] == 64 and math.isfinite(status["last_finite"]["d_loss"])
    assert status["last_good"] == "samples/000000064.png"
    assert Image.open(tmp_path / "spoiled" / status["last_good"]).size == (256, 256)
    assert checkpoint.load(tmp_path / "spoiled")["step"] == AT
    expected = [{k: v for k, v in row.items() if "_raw" not in k} for row in rows(unspoiled_run)]  # which its end adds
    assert rows(tmp_path / "spoiled") == expected  # none of what is recorded is spoiled


@pytest.mark.parametrize("place", PLACES)
def test_fused_optimizers_hold_back_until_it_is_seen(
    place: str, tmp_path: Path, made_players: list[Players], unspoiled
) -> None:
    """Three more iterations go by before the host looks; none of them moves a weight, and the first is told of."""
    seldom = ("speed.fused_optimizer=true", "protocol.evaluations=1", "protocol.log_every=10")
    _, player, what = PLACES[place]
    before, after, _ = unspoiled(place, *seldom)
    made_players.clear()
    assert train(composed(place, AT, math.nan, *seldom, f"protocol.images={6 * BATCH}"), tmp_path) == math.inf
    assert_left(made_players[0], before, after, player)
    found = json.loads((tmp_path / "status.json").read_text())["diverged"]
    when = {"step": AT, "critic_step": AT, "images": (AT + 1) * BATCH}
    assert found == {"what": what, "value": "nan", "player": player} | when
    assert checkpoint.load(tmp_path)["step"] == 0  # nothing that came after is saved


def test_points_diverge_at_a_learning_rate_of_a_million(tmp_path: Path, made_players: list[Players]) -> None:
    cfg = settings(
        "dataset=ring", "loss=wgan", "penalty=none", "optimizer.lr=1e6", "experiment=smoke", "wandb=disabled"
    )
    assert train(cfg, tmp_path) == math.inf
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "diverged" and status["diverged"]["value"] in ("nan", "inf", "-inf")
    assert all(w.isfinite().all() for net in (made_players[0].D, made_players[0].G) for w in net.parameters())
    assert (tmp_path / status["last_good"]).is_file()


def test_digits_collapse_at_a_learning_rate_of_a_million(tmp_path: Path) -> None:
    """The generator's last layer saturates, and every gradient is finite."""
    cfg = settings("loss=wgan", "penalty=none", "optimizer.lr=1e6", *OFTEN, "protocol.images=640")
    train(cfg, tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["collapsed"], status["score"]) == ("finished", 480, None)


def test_a_signal_counts_even_if_the_run_diverges(tmp_path: Path) -> None:
    """The run is over, but whoever was asked to stop must not begin another."""
    with pytest.raises(Interrupted) as interrupted:
        train(settings("loss=gan", f"loss._target_={__name__}.Stopped", *OFTEN), tmp_path)
    assert interrupted.value.code == 143
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "diverged"


def test_several_critic_steps_are_told_apart(tmp_path: Path) -> None:
    train(composed("penalty", 3, math.nan, "protocol.n_critic=2", "protocol.evaluations=1"), tmp_path)
    found = json.loads((tmp_path / "status.json").read_text())["diverged"]
    assert (found["step"], found["critic_step"], found["images"]) == (1, 3, 4 * BATCH)


def test_a_probe_that_diverges_does_not_end_the_run(tmp_path: Path) -> None:
    """Its copy of the penalty is spoiled at its fourth step, and is not told again; the run's own never is."""
    probe = ("probe=vanishing", "probe.steps=8", "probe.n=32", "probe.moments=[0]")
    train(composed("penalty", 3, math.nan, *probe, "protocol.images=64", "protocol.evaluations=1"), tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "finished"
    reported = [json.loads(line) for line in (tmp_path / "probes.jsonl").read_text().splitlines()]
    assert {r["steps"] for r in reported if r["g_norm"] is not None} == {0, 1, 2}
    assert {r["steps"] for r in reported if r["g_norm"] is None} == {4, 8}


def test_a_generator_that_does_not_depend_on_z_is_flagged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ganbench"):
        train(settings("loss=gan", *OFTEN, f"model.generator._target_={__name__}.Still"), tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["collapsed"]) == ("finished", 64)
    assert [r["g_spread"] for r in rows(tmp_path) if "g_spread" in r] == [0] * 5
    assert sum("mode collapse at 64 images" in record.message for record in caplog.records) == 1


def test_a_generator_that_does_depend_on_z_is_not(tmp_path: Path) -> None:
    train(settings("loss=gan", *OFTEN), tmp_path)
    assert "collapsed" not in json.loads((tmp_path / "status.json").read_text())
    assert all(1e-3 < r["g_spread"] < 1 for r in rows(tmp_path) if "g_spread" in r)


def test_collapse_is_three_evaluations_in_a_row() -> None:
    def records(*spreads: float | None) -> list[dict]:
        reported = [{"images": 10 * i, "g_spread": s} for i, s in enumerate(spreads)]
        return [row for one in reported for row in (one, {"images": one["images"], "d_loss": 1.0})]

    assert first_collapse([]) is None and first_collapse(records(0, 0)) is None
    assert first_collapse(records(0, 0, 1, 0, 0)) is None and first_collapse(records(0, 0, None, 0)) is None
    assert first_collapse(records(1e-3, 1e-3, 1e-3)) is None
    assert first_collapse(records(1, 9e-4, 0, 9e-4, 0, 1)) == 30


def test_spread_is_relative_to_the_data(rng: torch.Generator) -> None:
    real = torch.randn(1000, 2, generator=rng) * torch.tensor([1.0, 3.0])
    assert relative_std(real, real) == 1 and relative_std(real[:1].expand(50, 2), real) == 0
    assert relative_std(torch.randn(1000, 2, generator=rng) * 0.2, real) == pytest.approx(0.1, rel=0.1)
    images = torch.randint(0, 256, (500, 1, 4, 4), generator=rng).to(torch.uint8)
    assert relative_std(images // 2, images) == pytest.approx(0.5, rel=0.02)
    assert math.isnan(relative_std(real[:1].expand(50, 2), torch.ones(50, 2)))
