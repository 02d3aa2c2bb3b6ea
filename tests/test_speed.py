"""What only makes a run faster leaves it the run it is."""

import copy
import json
import platform
from pathlib import Path

import pytest
import torch
from conftest import SIX, TINY, ganbench, rows, settings
from iterations import DROPOUT, iterating, side_by_side, state
from torch import Tensor

from ganbench.config.compose import build
from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.models.dcgan import Generator
from ganbench.training.batches import Batches
from ganbench.training.device import to_memory_format
from ganbench.training.iteration import make_iteration
from ganbench.training.players import make_players
from ganbench.training.run import make_objective
from ganbench.training.train import train
from ganbench.training.updates import Objective

CPU = torch.device("cpu")


def losses(folder: Path) -> list[list[float]]:
    return [[row["d_loss"], row["g_loss"], row["d_grad_norm"]] for row in rows(folder) if "d_loss" in row]


WAYS = {
    "dcgan": ("speed.fused_optimizer=true", "speed=channels_last"),
    "sngan_resnet": ("model.fast_double_backward=false",),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "model"),
    [(method, model) for model in WAYS for method in ("gan", "wgan-gp")] + [("dragan", "dcgan")],
)
def test_the_same_losses_to_rounding(method: str, model: str, tmp_path: Path) -> None:
    images = (*TINY, "protocol.images=192", "protocol.n_critic=2", "protocol.lr=0.0002")
    common = (f"loss={method}", f"model={model}", *images)
    train(settings(*common), tmp_path / "eager")
    assert len(losses(tmp_path / "eager")) == 3
    for way in WAYS[model]:
        train(settings(*common, way), tmp_path / way)
        for a, b in zip(losses(tmp_path / "eager"), losses(tmp_path / way), strict=True):
            assert a == pytest.approx(b, rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
def test_channels_are_innermost_from_the_images_to_the_logits(model: str) -> None:
    cfg = settings("dataset=stacked_mnist5k", f"model={model}", "model.width=8", "speed=channels_last")
    players = make_players(cfg, CPU)
    images = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8)
    data = to_memory_format(Data(images, images), cfg)
    inputs, seen = Batches(cfg, data.train)(0), []
    for net in players[:3]:
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                layer.register_forward_hook(lambda layer, given, made: seen.append((given[0], made)))
    z = inputs.generator.z
    players.D(inputs.critic[0].real), players.G(z), players.average(z)
    images = [x for pair in seen for x in pair]
    assert len(images) >= 18 and all(x.is_contiguous(memory_format=torch.channels_last) for x in images)
    assert inputs.critic[0].real.is_contiguous(memory_format=torch.channels_last)


FAULTS = """
import resource, sys, torch
from pathlib import Path
from ganbench.config.compose import compose_config
from ganbench.training.train import train

train(compose_config(*sys.argv[1:], "name=test"), Path("run"))
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(16_000_000)
    del x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("keep", [True, False])
def test_memory_that_is_freed_is_there_for_the_next_step(keep: bool, tmp_path: Path) -> None:
    """Where it is not, the kernel hands out 64 MB anew: 15,625 pages, or 32 large ones of as many bytes."""
    (tmp_path / "faults.py").write_text(FAULTS)
    typed = (*TINY, "protocol.images=32", f"speed.keep_memory={str(keep).lower()}")
    done = ganbench(*typed, module="faults", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout.splitlines()[-1]) < 16) is keep


@pytest.mark.parametrize("method", [*SIX.split(","), "rpgan"])
def test_fakes_that_are_reused_are_those_of_the_same_z(method: str) -> None:
    """The weights move, bit by bit, as where the generator's z is the critic's last; statistics see it once only."""
    cfg = settings(f"loss={method}", "model.width=8", "protocol.n_critic=2", "protocol.batch=8")
    digits, left = build(cfg.dataset), []
    for reuse in (True, False):
        players = make_players(cfg, CPU)
        made = []
        players.G.register_forward_hook(lambda *call, made=made: made.append(call[2]))
        for step in range(2):
            inputs = Batches(cfg, digits.train)(step)
            same_z = inputs._replace(generator=inputs.generator._replace(z=inputs.critic[-1].z))
            iterating(cfg, players)(inputs if reuse else same_z, reuse_fakes=reuse)
        weights = [w for net in players[:2] for w in net.parameters()]
        left.append((weights, len(made)))
    (ours, made_once), (theirs, made_again) = left
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert (made_once, made_again) == (4, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("reuse", "made"), [("false", 3), ("true", 2)])
def test_a_run_reuses_them_if_asked(reuse: str, made: int, tmp_path: Path) -> None:
    """Of an iteration of two critic steps: how often the generator makes a batch."""
    seen: list[int] = []
    counting = torch.nn.modules.module.register_module_forward_hook(
        lambda net, inputs, outputs: seen.append(1) if isinstance(net, Generator) and len(outputs) == 16 else None
    )
    try:
        images = ("protocol.images=64", "protocol.batch=16", "protocol.n_critic=2")
        train(settings(*TINY, *images, f"protocol.reuse_fakes={reuse}"), tmp_path)
    finally:
        counting.remove()
    assert len(seen) == 2 * made


@pytest.mark.parametrize("resumed", [0, 2])
@pytest.mark.parametrize("method", SIX.split(","))
def test_an_iteration_at_fixed_addresses_is_the_same(method: str, resumed: int) -> None:
    """All of what speed=graphs does but the recording, which needs a GPU."""
    wide = ("model.width=8", "model.critic_norm=spectral", "protocol.n_critic=2", "protocol.batch=8")
    side_by_side(settings(f"loss={method}", "speed=graphs", *wide), CPU, resumed=resumed)


def test_so_is_one_that_draws_by_itself() -> None:
    narrow = ("model.width=8", "protocol.n_critic=2", "protocol.batch=8")
    side_by_side(settings("loss=wgan-gp", "speed=graphs", DROPOUT, *narrow), CPU, resumed=2)


@pytest.mark.parametrize(("before", "after"), [("null", "true"), ("true", "null")])
def test_what_an_optimizer_has_learnt_outlives_the_way_it_computes(before: str, after: str) -> None:
    """As when a run that was begun on a CPU goes on on a GPU, or the other way round."""
    cfg = settings("model.width=8", f"speed.fused_optimizer={before}")
    digits, players = build(cfg.dataset).train, make_players(cfg, CPU)
    iterating(cfg, players)(Batches(cfg, digits)(0))
    saved = copy.deepcopy(players.state_dict())
    others = make_players(settings("model.width=8", f"speed.fused_optimizer={after}"), CPU)
    others.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(state(players), state(others), strict=True))
    rows = [iterating(cfg, each)(Batches(cfg, digits)(1)) for each in (players, others)]
    assert rows[0][0]["d_loss"].item() == pytest.approx(rows[1][0]["d_loss"].item(), rel=1e-5)
    assert {float(part["step"]) for o in (others.opt_g, others.opt_d) for part in o.state.values()} == {2}


@pytest.mark.parametrize("model", ["dcgan", "sngan_resnet"])
def test_nets_are_wholly_where_their_weights_are(model: str) -> None:
    """A step that fetched something from the host would keep a GPU waiting; `meta` has no way to fetch it."""
    cfg = settings(f"model={model}", "model.width=8")
    players = make_players(cfg, CPU)
    for net, x in ((players.D, torch.empty(2, *cfg.dataset.shape)), (players.G, torch.empty(2, cfg.model.z_dim))):
        parts = [*net.parameters(), *net.buffers()]
        held = {id(part) for part in parts}
        stray = [
            name
            for module in net.modules()
            for name, part in vars(module).items()
            if isinstance(part, torch.Tensor) and id(part) not in held
        ]
        assert stray == [] and net.to("meta")(x.to("meta")).is_meta


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "printed"),
    [
        (["speed=graphs"], ["speed.graphs=true needs a GPU", "device=cpu", "use speed=eager"]),
        (["precision=tf32"], ["precision=tf32 needs a GPU", "device=cpu", "use precision=fp32"]),
        (["speed.benchmark=true"], ["speed.benchmark=true needs speed.deterministic=false"]),
        (["+speed.channel_last=true"], ["speed.channel_last: unknown setting; did you mean channels_last?"]),
        (["++sweep.many=3"], ["sweep.many: unknown setting; sweep has: parallel."]),
        (["+protocol.foo=1"], ["protocol.foo: unknown setting", "n_critic"]),
        (
            ["-m", "seed=0,1", "hydra/launcher=basic", "sweep.parallel=2"],
            ["sweep.parallel=2", "hydra/launcher", "use sweep.parallel=auto"],
        ),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=true"], ["hydra.launcher.n_jobs=true", "auto"]),
        (["speed.graphs=true"], ["speed.graphs=true needs speed.fused_optimizer=true", "speed=graphs"]),
        (
            ["speed.fused_optimizer=true", "optimizer=rmsprop"],
            ["speed.fused_optimizer=true", "RMSprop", "null", "optimizer=adam"],
        ),
        (["speed=channels_last", "dataset=ring"], ["speed.channels_last=true", "ring", "use false"]),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], printed: list[str], tmp_path: Path) -> None:
    refusal = ganbench(*overrides, "device=cpu", "wandb=disabled", "name=no", cwd=tmp_path)
    assert refusal.returncode == 2 and not (tmp_path / "outputs").exists()
    assert all(part in refusal.stderr for part in printed), refusal.stderr


@pytest.mark.slow
def test_the_footing_says_what_was_done(tmp_path: Path) -> None:
    train(settings(*TINY, "speed.fused_optimizer=true", "speed.channels_last=true"), tmp_path)
    reported = json.loads((tmp_path / "footing.json").read_text())
    assert reported["machine"]["fused_optimizer"] is True and reported["machine"]["channels_last"] is True
    assert reported["machine"]["graphs"] is False and "fused" not in reported["setting"]["optimizer_options"]


class Lazy:
    """A penalty of every second call only, as lazy regularization counts them."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, D, real: torch.Tensor, fake: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        self.calls += 1
        return D(real).square().mean() * (self.calls % 2)


def test_a_loss_that_a_recording_would_freeze_is_refused() -> None:
    cfg = settings("model.width=8", "speed=graphs")
    players, digits = make_players(cfg, CPU), build(cfg.dataset).train
    before = [x.clone() for x in state(players)[: len(players.G.state_dict())]]
    objective = Objective(build(cfg.loss), Lazy())
    with pytest.raises(
        Refused, match=r"a recorded iteration gives d_penalty = .*counts its calls.*; use speed=eager\.$"
    ):
        make_iteration(cfg, players, objective, Batches(cfg, digits))
    assert all(torch.equal(a, b) for a, b in zip(before, players.G.state_dict().values(), strict=True))


class Unpredictable(torch.nn.Module):
    """A critic of an operation that torch has no kernel for that gives equal results."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        index = torch.zeros(1, dtype=torch.long)
        return (x * self.weight).clone().put_(index, torch.ones(1)).flatten(1).sum(1)


def test_operations_without_a_deterministic_kernel_are_refused() -> None:
    """As on a GPU, where torch is told so; on a CPU nearly all of its kernels are deterministic."""
    cfg = settings()
    data = build(cfg.dataset)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(Refused, match=r"^speed\.deterministic=true: .* no kernel of put_ .*=false"):
            make_objective(cfg, CPU, Unpredictable(list(cfg.dataset.shape)), data)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_a_run_on_a_cpu_leaves_a_broken_driver_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the driver is broken")

    for name in ("device_count", "_lazy_init", "get_device_properties"):  # what fails there; torch asks is_available
        monkeypatch.setattr(torch.cuda, name, broken)
    train(settings(*TINY, "probe=vanishing", "probe.steps=2", "probe.n=32", "probe.moments=[0]"), tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "finished"
