"""The papers' nets: their numbers of weights, and that all models train, at every size that they are for.

The counts that no paper prints are added up here from the papers' tables, layer by layer.
"""

import re
from functools import partial

import pytest
import torch
from conftest import settings
from iterations import iterating
from omegaconf import DictConfig
from torch import Tensor, nn

from ganbench.config.compose import build
from ganbench.config.schema import CONF
from ganbench.config.validate import SIDES, validate
from ganbench.errors import Refused
from ganbench.models import r3gan
from ganbench.models.initialization import initialize
from ganbench.penalties import input_gradient_norm
from ganbench.training.batches import Batches
from ganbench.training.players import make_players
from ganbench.training.preflight import check_critic, check_generator

CPU = torch.device("cpu")
FOLDER = ("dataset=folder", "dataset.root=.", "metric=kid")
TINY = {
    "dcgan": ("model.width=2",),
    "sngan_resnet": ("model.width=2",),
    "sngan_cnn": ("model.width=2",),
    "infogan": ("model.width=2",),
    "r3gan": (),
}
UNIT = {16: 8, 32: 8, 64: 16, 128: 32, 256: 64}  # of r3gan's width
NORMS = {
    "dcgan": ("none", "layer", "instance", "spectral"),
    "sngan_resnet": ("none", "layer", "spectral"),
    "sngan_cnn": ("none", "layer", "instance", "spectral"),
    "infogan": ("none", "layer", "spectral"),
}


def tiny(model: str, side: int, *others: str):
    width = (f"model.width={UNIT[side]}",) if model == "r3gan" else TINY[model]
    return settings(*FOLDER, f"model={model}", f"dataset.shape=[3,{side},{side}]", *width, "device=cpu", *others)


def conv(n: int, m: int, side: int = 3, groups: int = 1, bias: bool = True) -> int:
    return n // groups * m * side**2 + m * bias


def linear(n: int, m: int, bias: bool = True) -> int:
    return n * m + m * bias


def batch_norm(n: int) -> int:
    return 2 * n


def up(n: int, m: int) -> int:
    """SNGAN's block that doubles: two convolutions with their norms, and a 1x1 one beside them."""
    return batch_norm(n) + conv(n, m) + batch_norm(m) + conv(m, m) + conv(n, m, 1)


def down(n: int, m: int) -> int:
    """Its counterpart in the critic."""
    return conv(n, n) + conv(n, m) + conv(n, m, 1)


def last(w: int) -> int:
    return batch_norm(w) + conv(w, 3)


def deconv(n: int, m: int) -> int:
    return conv(n, m, 4) + batch_norm(m)


FIRST = conv(3, 64) + conv(64, 64) + conv(3, 64, 1)  # the first block of SNGAN's critic at width 64
DOWN_TO_512 = FIRST + down(64, 128) + down(128, 256) + down(256, 512)
DCGAN_BIASES = 16 * 1024 + 512 + 256 + 128 + 3  # of the layers that stand before a batch norm, and of the last one


def r3(w: int) -> int:
    """Two blocks of R3GAN, which has groups of 16 channels among 2w."""
    block = conv(w, 2 * w, 1) + conv(2 * w, 2 * w, 3, groups=w // 8) + conv(2 * w, w, 1, bias=False)
    return 2 * block


R3_CIFAR = 4 * r3(768)
R3_256 = R3_CIFAR + sum(r3(w) + conv(2 * w, w, 1, bias=False) for w in (384, 192, 96))
BASIS = 16 * 768  # 4x4 for each channel
PAPERS = {
    # what is typed, side, weights of the generator and of the critic without norm
    "table 4": ("sngan_resnet model.generator.width=256 model.critic.width=128", 32, 4_276_739, 1_053_825),
    "table 5": (
        "sngan_resnet",
        48,
        linear(128, 6 * 6 * 512) + up(512, 256) + up(256, 128) + up(128, 64) + last(64),
        DOWN_TO_512 + down(512, 1024) + linear(1024, 1),
    ),
    "64x64": (
        "sngan_resnet",
        64,
        linear(128, 16 * 1024) + up(1024, 512) + up(512, 256) + up(256, 128) + up(128, 64) + last(64),
        DOWN_TO_512 + down(512, 1024) + linear(1024, 1),
    ),
    "table 6": (
        "sngan_resnet",
        128,
        linear(128, 16 * 1024)
        + (up(1024, 1024) + up(1024, 512) + up(512, 256) + up(256, 128) + up(128, 64))
        + last(64),
        DOWN_TO_512 + down(512, 1024) + 2 * conv(1024, 1024) + linear(1024, 1),
    ),
    **{
        f"table 3, {side}": (
            "sngan_cnn model.width=64",
            side,
            linear(128, first**2 * 512) + deconv(512, 256) + deconv(256, 128) + deconv(128, 64) + conv(64, 3),
            conv(3, 64)
            + (conv(64, 64, 4) + conv(64, 128) + conv(128, 128, 4) + conv(128, 256) + conv(256, 256, 4))
            + (conv(256, 512) + linear(first**2 * 512, 1)),
        )
        for side, first in ((32, 4), (48, 6))
    },
    "DCGAN": (
        "dcgan model.width=128 model.z_dim=100",
        64,
        (100 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) * 16
        + batch_norm(1024 + 512 + 256 + 128)
        + DCGAN_BIASES,
        conv(3, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1024, 4) + linear(16 * 1024, 1),
    ),
    **{
        f"InfoGAN, {side}": (
            "infogan model.width=64",
            side,
            (linear(64, 1024) + batch_norm(1024) + linear(1024, pixels * 128) + batch_norm(pixels * 128))
            + (deconv(128, 64) + conv(64, 3, 4)),
            conv(3, 64, 4) + conv(64, 128, 4) + linear(pixels * 128, 1024) + linear(1024, 1),
        )
        for side, pixels in ((28, 7 * 7), (32, 8 * 8), (64, 16 * 16))
    },
    "R3GAN, CIFAR-10": (
        "r3gan model.width=768 model.blocks=2",
        32,
        BASIS + linear(64, 768, bias=False) + R3_CIFAR + 768 * 3,
        3 * 768 + R3_CIFAR + BASIS + 768,
    ),
    "R3GAN, FFHQ-256": (
        "r3gan model.width=768 model.blocks=2",
        256,
        BASIS + linear(64, 768, bias=False) + R3_256 + 96 * 3,
        3 * 96 + R3_256 + BASIS + 768,
    ),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_numbers_of_weights(name: str) -> None:
    typed, side, of_generator, of_critic = PAPERS[name]
    options = f"model={typed} dataset.shape=[3,{side},{side}]".split()
    norm = () if "r3gan" in typed else ("model.critic_norm=none",)
    cfg = settings(*FOLDER, *options, *norm)
    validate(cfg)
    assert [weights(cfg, player) for player in ("generator", "critic")] == [of_generator, of_critic]


def weights(cfg: DictConfig, player: str) -> int:
    """Count the weights of a net that takes no memory."""
    with torch.device("meta"):
        return sum(w.numel() for w in build(cfg.model[player]).parameters())


def test_the_numbers_that_others_print() -> None:
    """R3GAN's paper, table 2, configuration E, in millions; and PyTorch's example of DCGAN, which has no biases."""
    assert [f"{n / 1e6:.3f}" for n in PAPERS["R3GAN, FFHQ-256"][2:]] == ["23.058", "23.010"]
    nets = ("model.width=64", "model.z_dim=100", "model.critic_norm=none")
    cfg = settings(*FOLDER, "dataset.shape=[3,64,64]", *nets)
    biases = {"generator": 512 * 16 + 256 + 128 + 64 + 3, "critic": 64 + 128 + 256 + 512 + 1}
    assert weights(cfg, "generator") - biases["generator"] == 3_576_704
    assert weights(cfg, "critic") - biases["critic"] + batch_norm(128 + 256 + 512) == 2_765_568


def test_the_documented_numbers() -> None:
    """What conf/README.md says of each net, by what is typed for it and the side of its images."""
    counts = {(typed, side): (of_generator, of_critic) for typed, side, of_generator, of_critic in PAPERS.values()}
    row = re.compile(r"^\|[^|]*\| (\d+) \| `model=([^`]*)`[^|]*\| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)
    rows = row.findall((CONF / "README.md").read_text(encoding="utf-8"))
    assert len(rows) == 11
    for side, typed, *numbers in rows:
        assert [f"{n:,}" for n in counts[typed, int(side)]] == numbers


EVERY_SIZE = [(model, side) for model, sides in SIDES.items() for side in sides]


@pytest.mark.parametrize(("model", "side"), EVERY_SIZE)
def test_every_size(model: str, side: int) -> None:
    """Generator and critic have the shapes of the data, and images of a trained net stay in range."""
    cfg = tiny(model, side)
    validate(cfg)
    players = make_players(cfg, CPU)
    with torch.no_grad():
        images = players.average.eval()(100 * torch.randn(2, cfg.model.z_dim))
        assert images.shape == (2, 3, side, side) and 0.1 < images.abs().max() <= 1
        assert players.D(images).shape == (2,)


@pytest.mark.parametrize("model", SIDES)
def test_they_are_what_a_run_asks_for(model: str) -> None:
    """The checks before a run's first update, among them that no sample changes another one's logit."""
    cfg = tiny(model, 32)
    players = make_players(cfg, CPU)
    real = torch.rand(4, 3, 32, 32) * 2 - 1
    check_generator(players.G, cfg.model.z_dim, real)
    check_critic(players.D, real)


REFUSED = [
    (
        "[3,28,28] model=sngan_resnet",
        "sngan_resnet needs images of 32x32, 48x48, 64x64, 128x128, and .*; use model=inf",
    ),
    (
        "[3,33,33] model=sngan_cnn",
        "sngan_cnn needs images of 32x32, 48x48, and .* use a dataset.shape of 32x32, 48x48,",
    ),
    (
        "[3,64,64] model=r3gan model.width=24",
        "model.width=24 must be a multiple of 16 with model=r3gan and images of 64",
    ),
    ("[3,32,32] model=r3gan model.critic.width=4", "model.critic.width=4 must be a multiple of 8 with model=r3gan"),
    ("[3,32,32] model=r3gan +model.init=orthogonal", "model.init=orthogonal needs another model: .* begin at zero"),
    ("[3,32,32] model.init=he", "model.init=he must be one of: torch, dcgan, orthogonal."),
]


@pytest.mark.parametrize(("typed", "sentence"), REFUSED)
def test_what_does_not_fit_is_refused(typed: str, sentence: str) -> None:
    shape, *options = typed.split()
    with pytest.raises(Refused, match=sentence):
        validate(settings(*FOLDER, f"dataset.shape={shape}", *options))


CRITICS = [(model, norm) for model, norms in NORMS.items() for norm in norms] + [("r3gan", "none")]


@pytest.mark.parametrize(("model", "norm"), CRITICS)
def test_fast_layers_change_no_derivative(model: str, norm: str) -> None:
    """The gradient of a gradient penalty by all weights, with torch's own layers and with ours, in float64."""
    other = () if model == "r3gan" else (f"model.critic_norm={norm}",)
    critics = [
        tiny(model, 32, *other, f"++model.critic.fast_double_backward={fast}").model.critic
        for fast in ("true", "false")
    ]
    ours, theirs = (make_critic(critic) for critic in critics)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    assert ours(x).shape == (3,)
    torch.testing.assert_close(penalty_gradients(ours, x), penalty_gradients(theirs, x), rtol=1e-9, atol=1e-11)


def make_critic(option) -> nn.Module:
    torch.manual_seed(0)
    D = build(option).double().eval()
    with torch.no_grad():
        for w in D.parameters():  # r3gan's blocks begin at zero
            w.add_(0.1 * torch.randn_like(w))
    return D


def penalty_gradients(D: nn.Module, x: Tensor) -> list[Tensor]:
    value = (input_gradient_norm(D, x) - 1).square().mean()
    gradients = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
    found = [g for g in gradients if g is not None]
    assert sum(bool(g.any()) for g in found) >= 4
    return [g for g in found if g.any()]


TRAINED = [("dcgan", 64), ("sngan_resnet", 48), ("sngan_resnet", 64), ("sngan_cnn", 48), ("infogan", 64), ("r3gan", 64)]


@pytest.mark.parametrize(("model", "side"), TRAINED)
def test_every_weight_is_trained(model: str, side: int) -> None:
    """By a few updates with a gradient penalty, whose terms stay finite."""
    cfg = tiny(model, side, "loss=gan", "penalty=gp", "protocol.batch=4")
    players = make_players(cfg, CPU)
    before = [[w.clone() for w in net.parameters()] for net in (players.G, players.D)]
    real = torch.rand(8, 3, side, side) * 2 - 1
    iterate = iterating(cfg, players)
    batches = Batches(cfg, real)
    for step in range(3):
        for terms in iterate(batches(step)):
            assert all(bool(torch.isfinite(term)) for term in terms.values())
    for net, weights_before in zip((players.G, players.D), before, strict=True):
        assert all(not torch.equal(w, was) for w, was in zip(net.parameters(), weights_before, strict=True))


def test_r3gan_begins_as_its_resampling() -> None:
    """Each block is the identity at first; halving and doubling are what linear interpolation is inside an image."""
    block = r3gan._Block(8, 1.0, True)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), x) and any(w.any() for w in block.body[0].parameters())
    doubled = r3gan._Up(8, 8)(x)[:, :, 1:-1, 1:-1]
    expected = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(doubled, expected)
    halved = r3gan._Down(8, 8, True)(x)
    torch.testing.assert_close(
        (halved * x[:, :, ::2, ::2]).sum(), (x * 0.25 * r3gan._Up(8, 8)(x[:, :, ::2, ::2])).sum()
    )


LAYERS = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
INITIALIZED = ["dcgan", "sngan_resnet", "sngan_cnn model.critic_norm=layer", "infogan", "mlp dataset=ring"]


@pytest.mark.parametrize("typed", INITIALIZED)
def test_orthogonal_initialization(typed: str) -> None:
    """Rows, or columns where there are fewer, are orthonormal; spectral norm knows the new weights at once."""
    players = make_players(settings(*f"model={typed}".split(), "model.width=8", "model.init=orthogonal"), CPU)
    layers = [layer for net in (players.G, players.D) for layer in net.modules() if isinstance(layer, LAYERS)]
    assert len(layers) > 7
    for layer in layers:
        w = layer.weight.detach().flatten(1)
        gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
        torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-4)
        assert layer.bias is None or not layer.bias.any()


def test_dcgan_initialization() -> None:
    players = make_players(settings("model.width=32", "model.init=dcgan", "model.critic_norm=none"), CPU)
    for net in (players.G, players.D):
        for layer in (layer for layer in net.modules() if isinstance(layer, LAYERS)):
            n = layer.weight.numel()
            assert abs(float(layer.weight.detach().mean())) < 4 * 0.02 / n**0.5
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=4 / n**0.5)
            assert not layer.bias.any()
        norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert all(bool((layer.weight == 1).all()) for layer in norms)


def test_spectral_norm_of_drawn_weights() -> None:
    """It divides by their own norm, not by that of the weights which were there before."""
    torch.manual_seed(0)
    D = build(tiny("sngan_cnn", 32).model.critic)
    initialize(D, "dcgan")
    normed = [layer for layer in D.modules() if isinstance(layer, LAYERS)]
    largest = torch.stack([torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in normed])
    torch.testing.assert_close(largest, torch.ones(len(normed)), rtol=0, atol=0.1)


def test_initial_weights_follow_from_the_seed() -> None:
    drawn = [
        partial(make_players, settings("model.width=4", f"seed={seed}", "model.init=orthogonal"), CPU)
        for seed in (0, 0, 1)
    ]
    first, again, other = ([*make().G.parameters(), *make().D.parameters()] for make in drawn)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
