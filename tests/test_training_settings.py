"""Settings that papers train with: schedules of the learning rate, batches, flips, the average's half-life, a start."""

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, ganbench, rows, settings
from crash_soak import digest
from iterations import CPU, assert_equal, iterating, outcome
from omegaconf import OmegaConf

from ganbench.config.budget import make_budget
from ganbench.config.compose import build, load_config, resolve
from ganbench.config.typed import typed_instead
from ganbench.config.validate import validate
from ganbench.datasets import real_batch, to_float
from ganbench.errors import Refused
from ganbench.report.load import load_runs
from ganbench.runs import checkpoint
from ganbench.runs.status import existing_status
from ganbench.runs.wandb_rows import Rows
from ganbench.training.batches import Batches
from ganbench.training.cuda_graphs import CudaGraphIteration
from ganbench.training.iteration import ema_decay, iterate, seeded, update_average
from ganbench.training.players import make_players
from ganbench.training.rates import LearningRates
from ganbench.training.run import Run
from ganbench.training.schedule import make_schedule
from ganbench.training.train import train

SMALL = ("model.width=8", "protocol.batch=8")


# The learning rate.


def rates(*overrides: str) -> list[float]:
    """The generator's rate at each step of a budget of 10 steps of 2 * 32 images, with a first rate of 1."""
    cfg = settings(
        "dataset=ring",
        "model.width=8",
        "protocol.batch=32",
        "protocol.n_critic=2",
        "protocol.images=640",
        "protocol.lr=1",
        *overrides,
    )
    players = make_players(cfg, CPU)
    schedule = make_schedule(cfg, [])
    lr = LearningRates(cfg, players, schedule)
    found = []
    for step in range(schedule.steps):
        lr.set(players, step)
        found.append(players.opt_g.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), [1] * 10),
        (("protocol.lr_decay=linear",), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (("protocol.lr_warmup=256",), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        (("protocol.lr_warmup=96",), [2 / 3, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (("protocol.lr_warmup=128", "protocol.lr_decay=linear"), [0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_rates_in_closed_form(overrides: tuple[str, ...], expected: list[float]) -> None:
    assert rates(*overrides) == pytest.approx(expected, rel=1e-12)


def test_each_player_has_its_own_rate_betas_and_eps() -> None:
    cfg = settings(
        *("protocol.lr_decay=linear", "optimizer.generator.lr=0.5", "optimizer.critic.lr=2", "optimizer.eps=0.25"),
        *(
            "optimizer.critic.betas=[0.5,0.75]",
            "optimizer.critic.eps=0.125",
            "protocol.images=64",
            "protocol.evaluations=2",
        ),
    )
    validate(cfg)
    players = make_players(cfg, CPU)
    lr = LearningRates(cfg, players, make_schedule(cfg, []))
    lr.set(players, 1)
    assert [o.param_groups[0]["lr"] for o in (players.opt_g, players.opt_d)] == [0.25, 1]
    assert lr.terms(2) == {"g_lr": 0.25, "d_lr": 1} and lr.terms(0) == {}
    assert [o.defaults["eps"] for o in (players.opt_g, players.opt_d)] == [0.25, 0.125]
    assert [list(o.defaults["betas"]) for o in (players.opt_g, players.opt_d)] == [[0, 0.9], [0.5, 0.75]]
    row = Rows(cfg).part({"images": 32} | lr.terms(1))
    assert row["rate/g_lr"] == 0.5 and row["rate/d_lr"] == 2


def test_a_recorded_iteration_reads_rates_where_they_were_when_it_was_recorded() -> None:
    """All but the recording itself, which needs a GPU: the rates are tensors, and change in place."""
    cfg = settings("speed=graphs", "protocol.lr_decay=linear", "protocol.images=64", "protocol.evaluations=1", *SMALL)
    data = build(cfg.dataset).train
    found = []
    for graphs in (False, True):
        players = make_players(cfg, CPU)
        lr = LearningRates(cfg, players, make_schedule(cfg, []))
        lr.set(players, 0)
        iteration = iterating(cfg, players)
        run = (
            CudaGraphIteration(iteration, players, [Batches(cfg, data)(k) for k in (0, 1)])
            if graphs
            else seeded(iteration)
        )
        addresses = [id(o.param_groups[0]["lr"]) for o in (players.opt_g, players.opt_d)]

        def step(batch, run=run, players=players, lr=lr):
            lr.set(players, batch.when[0]["step"])
            return run(batch)

        found.append(outcome(step, players, Batches(cfg, data), range(4)))
        assert addresses == [id(o.param_groups[0]["lr"]) for o in (players.opt_g, players.opt_d)]
        assert players.opt_g.param_groups[0]["lr"].item() == pytest.approx(0.002 * 5 / 8)
        saved = copy.deepcopy(players.state_dict())
        players.load_state_dict(saved)  # a checkpoint's tensors lie elsewhere
        lr.set(players, 7)
        assert players.opt_d.param_groups[0]["lr"].item() == pytest.approx(0.002 / 8)
    assert_equal(*found)


# The average.


def test_half_of_the_average_is_new_after_the_half_life() -> None:
    """By simulation: weights jump from 0 to 1, and the average follows them, at whatever batch."""
    for images, half_life in ((64, 6400), (320, 6400), (32, 100.5)):
        G, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        for w, value in ((G, 1.0), (average, 0.0)):
            torch.nn.init.constant_(w.weight, value)
        seen = 0
        while seen < 3 * half_life:
            update_average(average, G, ema_decay(images, decay=0.5, half_life=half_life))
            seen += images
        assert average.weight.item() == pytest.approx(1 - 0.5 ** (seen / half_life), rel=1e-4)
    assert ema_decay(64, decay=0.75, half_life=None) == 0.75


@pytest.mark.parametrize("n_critic", [1, 3])
def test_an_iteration_s_images_are_all_that_the_critic_sees(n_critic: int) -> None:
    cfg = settings(f"protocol.n_critic={n_critic}", "dataset=ring", *SMALL)
    players = make_players(cfg, CPU)
    seen: list[int] = []
    objective = iterating(cfg, players).args[1]
    batch = Batches(cfg, build(cfg.dataset).train)(0)
    iterate(players, objective, batch, ema_decay=lambda images: seen.append(images) or 0.5)
    assert seen == [8 * n_critic]


# The generator's batch.


@pytest.mark.parametrize("loss", ["wgan-gp", "rpgan"])
@pytest.mark.parametrize("n", [4, 8, 16])
def test_the_generator_s_batch_is_its_own(loss: str, n: int) -> None:
    cfg = settings(f"loss={loss}", f"protocol.generator_batch={n}", "protocol.n_critic=2", "dataset=ring", *SMALL)
    data = build(cfg.dataset).train
    plain = Batches(settings(f"loss={loss}", "protocol.n_critic=2", "dataset=ring", *SMALL), data)(3)
    batch = Batches(cfg, data)(3)
    assert [len(each.real) for each in batch.critic] == [8, 8] and len(batch.generator.z) == n
    assert all(
        torch.equal(a.real, b.real) and torch.equal(a.z, b.z) for a, b in zip(batch.critic, plain.critic, strict=True)
    )
    assert len(batch.generator.real) == n
    assert (batch.generator.real is batch.critic[-1].real) is (n == 8)
    if n == 8:
        assert torch.equal(batch.generator.z, plain.generator.z)
    else:  # whole epochs of its own
        assert torch.equal(batch.generator.real, real_batch(data, cfg.seed, 3, n, stream="data_g"))
        assert not torch.equal(batch.generator.real[:4], batch.critic[-1].real[:4])
    players = make_players(cfg, CPU)
    made: list[int] = []
    judged: list[int] = []
    players.G.register_forward_hook(lambda net, given, out: made.append(len(out)))
    players.D.register_forward_hook(lambda net, given, out: judged.append(len(out)))
    iterating(cfg, players)(batch)
    assert made == [8, 8, n] and judged[-1] == (2 * n if loss == "rpgan" else n)


@pytest.mark.parametrize(
    "options", ["loss=rpgan protocol.generator_batch=12", "augment=diffaug", "augment=flip protocol.generator_batch=4"]
)
def test_at_fixed_addresses_it_is_the_same(options: str) -> None:
    cfg = settings("speed=graphs", *SMALL, *options.split())
    data = build(cfg.dataset).train
    found = []
    for graphs in (False, True):
        players = make_players(cfg, CPU)
        iteration = iterating(cfg, players)
        run = (
            CudaGraphIteration(iteration, players, [Batches(cfg, data)(k) for k in (0, 1)])
            if graphs
            else seeded(iteration)
        )
        found.append(outcome(run, players, Batches(cfg, data), range(3)))
    assert_equal(*found)


# WGAN's start.

WGAN = {
    "images": 0,
    "batch": 2,
    "n_critic": 5,
    "critic_start": 100,
    "critic_start_steps": 25,
    "critic_start_every": 500,
}


def diters(step: int, protocol: dict) -> int:
    """As in the code of WGAN's authors."""
    every = protocol["critic_start_every"]
    start = step < protocol["critic_start_steps"] or (every is not None and step % every == 0)
    return protocol["critic_start"] if start else protocol["n_critic"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"critic_start_every": None},
        {"critic_start_steps": 0},
        {"critic_start_every": 7},
        {"critic_start_steps": 1001},
        {"critic_start": 1},
        {"critic_start_every": 1},
    ],
)
def test_the_start_is_counted_as_its_authors_count(change: dict) -> None:
    protocol = WGAN | change
    before = 0
    for step in range(1200):
        budget = make_budget(protocol | {"images": 2 * before})
        assert budget.critic_updates_before(step) == before and budget.images_before(step) == 2 * before
        assert budget.steps == step and budget.steps_within(2 * before + 1) == step
        assert step == 0 or budget.steps_within(2 * before - 1) == step - 1
        before += diters(step, protocol)


def test_the_start_written_down() -> None:
    protocol = make_budget(WGAN)
    updates = [
        protocol.critic_updates_before(k + 1) - protocol.critic_updates_before(k)
        for k in (0, 24, 25, 499, 500, 501, 1000)
    ]
    assert updates == [100, 100, 5, 5, 100, 5, 100]
    assert protocol.critic_updates_before(501) == 25 * 100 + 475 * 5 + 100


def test_evaluations_are_evenly_spaced_in_images() -> None:
    cfg = settings(
        "dataset=ring",
        "protocol.batch=2",
        "protocol.critic_start=10",
        "protocol.critic_start_steps=3",
        "protocol.critic_start_every=null",
        "protocol.images=80",
        "protocol.evaluations=4",
    )
    validate(cfg)
    schedule = make_schedule(cfg, [0.5], earlier_budgets=[62])
    assert schedule.steps == 13
    assert [schedule.images(k) for k in range(5)] == [0, 20, 40, 60, 62]
    assert schedule.evaluations == {0, 1, 2, 3, 4, 13} and schedule.probes == {2}


START = ("protocol.critic_start=3", "protocol.critic_start_steps=2", "protocol.critic_start_every=3")


def test_a_run_with_a_start_counts_right(tmp_path: Path) -> None:
    """Updates of the critic: 3, 3, 1, 3, 1, 1, 3: the last of these at images 15 * 32."""
    train(settings("loss=wgan", *TINY, *START, "protocol.images=480", "protocol.evaluations=1"), tmp_path)
    recorded = rows(tmp_path)
    assert [row["images"] for row in recorded if "d_loss" in row] == [96, 192, 224, 320, 352, 384, 480]
    state = checkpoint.load(tmp_path)
    assert state["now"] == {"step": 6, "critic_step": 14, "images": 480} and state["step"] == 7
    steps = {float(part["step"]) for part in state["opt_d"]["state"].values()}
    assert steps == {15} and {float(part["step"]) for part in state["opt_g"]["state"].values()} == {7}


START_OF_ONE = (  # of WGAN's critic, on a track with settings for each method
    "protocol=paper",
    "+protocol.authors.gan.critic_start=null",
    "+protocol.authors.wgan-gp.critic_start=100",
    "protocol.critic_start='${protocol.authors.${protocol.method}.critic_start}'",
    "protocol.critic_start_steps=10",
)


@pytest.mark.parametrize(("loss", "start", "images"), [("gan", None, 25_600), ("wgan-gp", 100, 35_360)])
def test_a_track_may_give_a_start_to_one_of_its_methods(loss: str, start: int | None, images: int) -> None:
    cfg = settings(*START_OF_ONE, f"loss={loss}", f"protocol.images={images}")
    validate(cfg)
    assert cfg.protocol.critic_start == start and make_budget(cfg.protocol).images_before(10) == 320 * (start or 1)


def test_a_sweep_may_compare_a_start_with_none() -> None:
    typed = ("protocol.critic_start=null", "protocol.critic_start_steps=10", "protocol.critic_start_every=null")
    with typed_instead(["-m", "protocol.critic_start=null,100", *typed[1:]]):
        validate(settings(*typed))
    with typed_instead(["-m", *typed[1:]]), pytest.raises(Refused, match="critic_start_steps=10 needs"):
        validate(settings(*typed))


# Flips of the training data.


def test_an_epoch_sees_each_image_as_it_is_and_mirrored() -> None:
    train_images = torch.arange(2 * 1 * 2 * 3, dtype=torch.uint8).view(2, 1, 2, 3)
    both = torch.cat([train_images, train_images.flip(3)])
    for step in range(3):  # two and a bit of epochs of four images
        assert torch.equal(real_batch(train_images, 0, step, 3, mirrored=True), real_batch(both, 0, step, 3))
    epoch = real_batch(train_images, 0, 0, 4, mirrored=True)
    assert sorted(epoch.flatten(1).tolist()) == sorted(to_float(both).flatten(1).tolist())


# All of it together.

EVERYTHING = (
    *("protocol.lr_decay=linear", "protocol.lr_warmup=100", "protocol.generator_batch=48", "protocol.flip_reals=true"),
    *(
        "augment=diffaug",
        "protocol.ema=null",
        "protocol.ema_half_life=200",
        "optimizer.eps=1e-6",
        "optimizer.critic.lr=0.004",
    ),
    *(*START, "protocol.images=480", "protocol.evaluations=1", "checkpoint_every=2", "model.critic_norm=spectral"),
    *("probe=vanishing", "probe.moments=[0.5]", "probe.steps=2", "probe.n=16"),
)


class Dies(Exception):
    """As if the process had been killed."""


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["wgan-gp", "rpgan"])
def test_stopped_and_resumed_a_run_with_all_of_it_ends_bit_equal(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = settings(f"loss={loss}", *TINY, *EVERYTHING, "retry=true")
    validate(cfg)
    train(cfg, tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) > 7 and "g_lr" in rows(tmp_path / "whole")[1]
    update, steps = Run.update, []

    def dying(self: Run, step: int) -> None:
        steps.append(step)
        if len(steps) in (6, 9):
            raise Dies
        update(self, step)

    monkeypatch.setattr(Run, "update", dying)
    for _ in range(2):
        with pytest.raises(Dies):
            train(cfg, tmp_path / "cut")
    monkeypatch.undo()
    train(cfg, tmp_path / "cut")
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_whose_rate_decays_is_not_extended(tmp_path: Path) -> None:
    short = (*TINY, "loss=gan", "protocol.evaluations=1", "name=a")
    for options, allowed in ((("protocol.lr_decay=linear",), False), (("protocol.lr_warmup=64",), True)):
        where = tmp_path / options[0]
        where.mkdir()
        assert ganbench(*short, *options, "protocol.images=64", cwd=where).returncode == 0
        again = ganbench(*short, *options, "protocol.images=128", cwd=where)
        if allowed:
            assert again.returncode == 0, again.stderr
            continue
        assert again.returncode == 2
        assert "learning rate falls to 0 at protocol.images=64" in again.stderr and "another name=" in again.stderr


def test_a_folder_of_an_earlier_version_is_read_and_refused_as_one(tmp_path: Path) -> None:
    """It has none of these settings."""
    cfg = settings("loss=gan", *TINY)
    old = resolve(cfg)
    now = dict(old["protocol"])
    kept = ("images", "batch", "n_critic", "evaluations", "track", "name", "ema", "scored_on")
    del old["augment"]
    old["protocol"] = {key: now[key] for key in kept}
    OmegaConf.save(OmegaConf.create(old), tmp_path / "config.yaml")
    (tmp_path / "status.json").write_text(json.dumps({"status": "failed", "label": "gan", "code": "0" * 12}))
    with pytest.raises(Refused, match="contains a run made with other code"):
        existing_status(tmp_path, cfg)
    loaded = load_config(tmp_path / "config.yaml").protocol
    assert {key for key in now if key in loaded and loaded[key] != cfg.protocol[key]} == set()
    (tmp_path / "metrics.jsonl").touch()
    (run,) = load_runs(tmp_path)
    assert run.status == "failed" and [run.updates(images) for images in (0, 32, 128)] == [0, 1, 4]
    run.config["protocol"] |= {"critic_start": 3, "critic_start_steps": 1}
    assert [run.updates(images) for images in (0, 32, 96, 128)] == [0, 0, 1, 2]


REFUSED = [
    (
        "protocol.ema_half_life=1000",
        "protocol.ema_half_life=1000 and protocol.ema=0.99: exactly one .* set the other to null",
    ),
    ("protocol.ema=null", "protocol.ema_half_life=null and protocol.ema=null: exactly one"),
    ("protocol.lr_warmup=25632", "protocol.lr_warmup=25632 must be at most protocol.images=25600"),
    ("protocol.reuse_fakes=true protocol.generator_batch=64", "critic's 32 fakes, and protocol.generator_batch=64"),
    (
        "protocol.critic_start=100 speed=graphs protocol.images=83200",
        "protocol.critic_start=100 needs speed.graphs=false",
    ),
    (
        "protocol.critic_start=100 protocol.images=25632",
        "protocol.images=25632 must be .* whole steps, .* nearest: 25600, 28800",
    ),
    ("dataset=ring augment=diffaug", "augment=diffaug needs images, and dataset=ring has points"),
    ("dataset=ring protocol.flip_reals=true", "protocol.flip_reals=true needs images"),
    (
        "protocol.lr_decay=linear probe=vanishing probe.moments=[0.5,1]",
        r"probe.moments=\[0.5, 1\] has the end of the budget, where protocol.lr_decay=linear leaves a learning",
    ),
    ("protocol.lr_decay=linear probe=vanishing probe.moments=[0.9999]", "probe.moments=.* take earlier moments"),
    ("optimizer=rmsprop optimizer.betas=[0.5,0.9]", "optimizer=rmsprop has no betas; use optimizer=adam, or leave"),
    ("augment=diffaug augment.policy=[]", r"augment.policy=\[\] must be a list of color, translation and cutout"),
    ("augment=diffaug augment.policy=[color,color]", "each once at most"),
    ("augment=diffaug augment.policy=[colour]", "augment.policy"),
    ("optimizer.eps=0", "optimizer.eps=0 must be a finite number > 0"),
    ("optimizer.critic.eps=-1", "optimizer.critic.eps=-1"),
    ("protocol.generator_batch=1", "protocol.generator_batch=1 must be a whole number from 2"),
    ("protocol.critic_start=0", "protocol.critic_start=0"),
    ("protocol.critic_start_steps=10", "protocol.critic_start_steps=10 needs protocol.critic_start=...; leave it out"),
    ("protocol.critic_start_every=null", "protocol.critic_start_every=null needs protocol.critic_start"),
    (
        "protocol.critic_start=100 protocol.critic_start_steps=1 protocol.critic_start_every=null "
        "protocol.images=3264 protocol.evaluations=3",
        "protocol.evaluations=3 leaves two evaluations no generator update apart",
    ),
]


ALLOWED = (
    "loss=wgan-gp dataset=cifar10 model=sngan_resnet protocol.lr=2e-4 protocol.lr_decay=linear protocol.n_critic=5 "
    "protocol.batch=64 protocol.generator_batch=128 protocol.images=32000000",
    "loss=wgan optimizer=rmsprop protocol.lr=5e-5 protocol.critic_start=100 protocol.n_critic=5 protocol.images=83200",
    "augment._target_=ganbench.augment.cutout augment.name=mine",
    "protocol.reuse_fakes=true protocol.generator_batch=32",
    "protocol.lr_decay=linear probe=vanishing probe.moments=[0,0.99]",
    "optimizer=rmsprop protocol.betas=[0.5,0.9]",
    "protocol.lr_warmup=3200 probe=vanishing probe.moments=[1]",
)


@pytest.mark.parametrize("typed", ALLOWED)
def test_what_papers_and_users_do_is_not(typed: str) -> None:
    validate(settings(*typed.split()))


@pytest.mark.parametrize(("typed", "message"), REFUSED)
def test_what_does_not_fit_together_is_refused_when_it_is_composed(typed: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        validate(settings(*typed.split()))
