"""Recipes of papers, held against what the papers and their code say."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ganbench, settings
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from ganbench.bench.recipes import LAUNCHES, RATE, RECIPES, count_operations, hours, rounded, runs, update_operations
from ganbench.config.compose import method_label, resolve
from ganbench.config.schema import CONF
from ganbench.config.validate import validate
from ganbench.sweeps.tuning import check_space

# Typed from the papers and their code, not from the recipes: for each what is trained, and settings by their keys.
MIYATO = {"model.name": "sngan_cnn", "model.width": 64, "model.z_dim": 128, "protocol.batch": 64}
RESNET = {"model.name": "sngan_resnet", "model.z_dim": 128, "protocol.batch": 64, "protocol.n_critic": 5}
RESNET |= {"optimizer.critic.lr": 2e-4, "optimizer.generator.betas": [0.0, 0.9], "protocol.lr_decay": "linear"}
RESNET |= {"protocol.images": 100_000 * 5 * 64}
GULRAJANI = {"model.generator.width": 128, "model.critic.width": 128, "model.critic_norm": "none"}
GULRAJANI |= {"protocol.generator_batch": 2 * 64, "penalty.weight": 10}
MIMICRY = {
    "model.generator.width": 256,
    "model.critic.width": 128,
    "metric.n_fake": 50_000,
    "metric.reference": "train",
}
SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    # igul222/improved_wgan_training, gan_cifar.py, lines 25 to 33 and the optimizers
    "wgan-gp-cnn": (
        "wgan-gp",
        {
            **{"model.name": "dcgan", "model.width": 128, "model.z_dim": 128, "model.critic_norm": "none"},
            **{"protocol.images": 200_000 * 5 * 64, "protocol.batch": 64, "protocol.n_critic": 5},
            **{"optimizer.critic.lr": 1e-4, "optimizer.generator.lr": 1e-4, "optimizer.critic.betas": [0.5, 0.9]},
            **{"penalty.weight": 10, "protocol.lr_decay": "none", "protocol.generator_batch": None},
        },
    ),
    # the same code, gan_cifar_resnet.py, lines 29 to 40: N_CRITIC, LR, DECAY, GEN_BS_MULTIPLE, DIM_G, DIM_D
    "wgan-gp-resnet": ("wgan-gp", RESNET | GULRAJANI),
    # lukovnikov/improved_wgan_training, gan_cifar_resnet.py, `run`: the same, one-sided
    "wgan-lp": ("wgan-lp", RESNET | GULRAJANI),
    # kodalinaveen3/DRAGAN, the notebook
    "dragan": (
        "gan-dragan-notebook",
        {
            **{"optimizer.critic.lr": 1e-4, "optimizer.critic.betas": [0.5, 0.9], "protocol.batch": 128},
            **{"penalty.weight": 10, "penalty.alpha": [0, 1], "penalty.clip": False, "penalty.scale": 0.5},
            **{"protocol.n_critic": 1, "model.critic_norm": "none"},
        },
    ),
    # Mao et al. 2017, equation 9, and xudonmao/LSGAN, train_lsun.py
    "lsgan": (
        "lsgan",
        {
            **{"loss.a": 0, "loss.b": 1, "loss.c": 1, "loss.scale": 0.5, "model.z_dim": 1024},
            **{"optimizer.critic.lr": 1e-3, "optimizer.critic.betas": [0.5, 0.999], "protocol.batch": 64},
            **{"protocol.images": 1_000_000 * 64, "dataset.category": "bedroom", "metric.n_real": 50_000},
        },
    ),
    # lim0606/pytorch-geometric-gan, scripts/exp4.lsun.sh
    "hinge": (
        "hinge",
        {
            **{"optimizer.name": "rmsprop", "optimizer.critic.lr": 2e-4, "protocol.batch": 64},
            **{"protocol.images": 5 * 3_033_042 // 64 * 64, "dataset.shape": [3, 64, 64], "metric.n_real": 50_000},
        },
    ),
    # Miyato et al. 2018, section 4 and tables 1 and 3; the settings are checked below
    "miyato": ("gan", MIYATO | {"metric.n_fake": 5000, "model.critic_norm": "spectral"}),
    # Lucic et al. 2018, and google/compare_gan, params.py, GetDefaultWideRange
    "lucic": (
        "gan",
        {
            **{"model.name": "infogan", "model.width": 64, "protocol.batch": 64, "protocol.trials": 100},
            **{"protocol.space.lr.low": 1e-5, "protocol.space.lr.high": 1e-2, "protocol.space.lr.log": True},
            **{"protocol.space.n_critic.of": [1, 5], "protocol.images": 100 * 50_000, "metric.n_fake": 10_000},
            **{"protocol.space.penalty_weight.low": 0.1, "protocol.space.penalty_weight.high": 100},
            **{"metric.reference": "held_out", "protocol.space.penalty_weight.log": True},
        },
    ),
    # kwotsin/mimicry, README: example, and the parameters for CIFAR-10
    "mimicry-sngan": ("hinge", RESNET | MIMICRY | {"model.critic_norm": "spectral"}),
    "mimicry-wgan-gp": ("wgan-gp", RESNET | MIMICRY | {"model.critic_norm": "none", "penalty.weight": 10}),
    # brownvc/R3GAN, train.py, preset CIFAR10: the last values of its schedules
    "r3gan-cifar10": (
        "rpgan-r1r2",
        {
            **{"model.width": 3 * 1024 // 4, "model.blocks": 2, "model.z_dim": 64, "protocol.batch": 512},
            **{"optimizer.critic.lr": 5e-5, "optimizer.critic.betas": [0, 0.99], "penalty.weight": 0.005},
            **{"protocol.ema_half_life": 5000 * 1000, "protocol.flip_reals": True},
            **{"protocol.images": 250_000_000 // 512 * 512},
        },
    ),
    "r3gan-stacked-mnist": ("rpgan-r1r2", {"metric.name": "modes_kl", "metric.n_fake": 26_000}),
    # Radford et al. 2015, section 4: details of adversarial training
    "dcgan": (
        "gan",
        {
            **{"model.init": "dcgan", "model.z_dim": 100, "protocol.batch": 128, "protocol.n_critic": 1},
            **{"optimizer.critic.lr": 2e-4, "optimizer.generator.betas": [0.5, 0.999]},
        },
    ),
}
# What recipes declare to have otherwise than the paper or its code, by how each line begins; with the settings, as the
# paper has them, where a setting says it. One that SETTINGS has as the paper differs from the code only, or elsewhere.
BATCH_NORM = {"model.critic_norm": "batch"}
GULRAJANI_DIFFERS: dict[str, dict[str, object]] = {
    "the critic sums over the last features": {},
    "torch's initial weights, not He's": {"model.init": "he"},
    "no noise on the training images": {},
}
MIMICRY_DIFFERS: dict[str, dict[str, object]] = {
    "torch's initial weights, not Glorot's": {"model.init": "glorot"},
    "the library takes the Inception network of TensorFlow": {},
    "evaluations of one model made its range": {},
}
DIFFERS: dict[str, dict[str, dict[str, object]]] = {
    "wgan-gp-cnn": {
        "4x4 kernels": {},
        "torch's initial weights, not He's": {"model.init": "he"},
        "the score at the end": {},
        "whether Heusel et al. trained these nets": {},
    },
    "wgan-gp-resnet": GULRAJANI_DIFFERS | {"one model's parts made the paper's range": {}},
    "wgan-lp": GULRAJANI_DIFFERS | {"weight 10": {}},
    "dragan": {
        "no batch norm in the critic": {},  # nor in the notebook's
        "batch, rate and penalty of the notebook on MNIST": {"dataset.name": "mnist"},
        "the budget is ours": {},
        "the paper's last version has another penalty": {"penalty.name": "dragan-normal"},
    },
    "lsgan": {
        "DCGAN's nets at 64x64": {"dataset.shape": [3, 112, 112], "model.name": "vgg"},
        "bedrooms, as in the paper": {},
        "no batch norm in the critic": BATCH_NORM,
        "normal latents": {},
        "the mean over a batch": {},
    },
    "hinge": {"one generator update": {"protocol.n_critic": 0.1}, "no batch norm in the critic": BATCH_NORM},
    "miyato": {
        "the best setting by its score": {},
        "without batch norm": {},
        "clipping takes all weights": {},
        "layer norm has its scale and shift": {},
        "the images that the paper compares with": {},
    },
    "lucic": {
        "beta1 is one of 0": {},
        "batch norm in the critic is not searched": BATCH_NORM,
        "WGAN's clipping is at 0.01": {},
        "LSGAN and DRAGAN take logits": {},
        "DRAGAN's penalty is at other points": {},
        "trials are scored on a fifth of the training images": {},
        "MNIST and Fashion-MNIST are padded": {},
    },
    "mimicry-sngan": MIMICRY_DIFFERS,
    "mimicry-wgan-gp": {"the critic sums over the last features": {}} | MIMICRY_DIFFERS,
    "r3gan-cifar10": {
        "no labels": {},
        "no augmentation but mirrored": {"augment.name": "ada"},
        "constant rate": {"protocol.lr_decay": "cosine"},
        "fp32": {"precision": "bf16"},
    },
    "r3gan-stacked-mnist": {
        "DCGAN's nets": {"model.name": "r3gan"},
        "batch, rate, budget, average and penalty weight are ours": {},
        "digits are classified by another network": {},
        "stacked_mnist5k has the digits of 5,000": {},
    },
    "dcgan": {
        "no batch norm in the critic": BATCH_NORM,
        "normal latents": {},
        "the budget is ours": {},
        "32x32": {"dataset.shape": [3, 64, 64]},
    },
}
# By recipe, method and score, in the datasets' order: value and range.
NUMBERS = {
    "wgan-gp-cnn": {("wgan-gp", "fid"): [(29.3,)]},  # Heusel et al. 2017, table 1
    "wgan-gp-resnet": {("wgan-gp", "inception_score"): [(7.86, 0.07)]},  # table 3
    "wgan-lp": {("wgan-lp", "inception_score"): [()]},
    "dragan": {("gan-dragan-notebook", "inception_score"): [(6.9,)]},  # chainer-gan-lib, README
    "lsgan": {("lsgan", "fid"): [()]},
    "hinge": {("hinge", "fid"): [()]},
    "miyato": {  # table 2
        ("weight-clipping", "fid"): [(42.6,)],
        ("gan-gp", "fid"): [(37.7,)],
        ("wgan-gp", "fid"): [(40.2,)],
        ("layer-norm", "fid"): [(33.9,)],
        ("sn-gan", "fid"): [(29.3,)],
        ("sn-gan-hinge", "fid"): [(25.5,)],
    },
    "lucic": {  # table 2: MNIST, Fashion-MNIST, CIFAR-10, CelebA
        ("minimax", "fid"): [(9.8, 0.9), (29.6, 1.6), (72.7, 3.6), (65.6, 4.2)],
        ("gan", "fid"): [(6.8, 0.5), (26.5, 1.6), (58.5, 1.9), (55.0, 3.3)],
        ("lsgan", "fid"): [(7.8, 0.6), (30.7, 2.2), (87.1, 47.5), (53.9, 2.8)],
        ("wgan-clip", "fid"): [(6.7, 0.4), (21.5, 1.6), (55.2, 2.3), (41.3, 2.0)],
        ("wgan-gp", "fid"): [(20.3, 5.0), (24.5, 2.1), (55.8, 0.9), (30.0, 1.0)],
        ("gan-dragan", "fid"): [(7.6, 0.4), (27.7, 1.2), (69.8, 2.0), (42.3, 3.0)],
    },
    "mimicry-sngan": {("hinge", "fid"): [(16.77, 0.04)], ("hinge", "inception_score"): [(7.97, 0.06)]},
    "mimicry-wgan-gp": {("wgan-gp", "fid"): [(22.29, 0.06)], ("wgan-gp", "inception_score"): [(7.33, 0.02)]},
    "r3gan-cifar10": {("rpgan-r1r2", "fid"): [(1.96,)]},  # table 6
    "r3gan-stacked-mnist": {  # table 1
        ("rpgan-r1r2", "modes_kl"): [(0.0781,)],
        ("rpgan-r1r2", "modes"): [(1000,)],
        ("gan-r1r2", "modes_kl"): [(0.927,)],
        ("gan-r1r2", "modes"): [(693,)],
        ("rpgan-r1", "modes_kl"): [()],
        ("gan-r1", "modes_kl"): [()],
    },
    "dcgan": {("gan", "inception_score"): [(6.64, 0.14)]},  # Miyato et al. 2018, table 2
}
# Miyato et al. 2018, table 1: the learning rate, both betas, and the critic's updates.
A_TO_F = {
    "A": (0.0001, 0.5, 0.9, 5),
    "B": (0.0001, 0.5, 0.999, 1),
    "C": (0.0002, 0.5, 0.999, 1),
    "D": (0.001, 0.5, 0.9, 5),
    "E": (0.001, 0.5, 0.999, 5),
    "F": (0.001, 0.9, 0.999, 5),
}
# The section's methods: loss and penalty, and what normalizes the critic.
METHODS = {
    "sn-gan": ("gan", "spectral"),
    "sn-gan-hinge": ("hinge", "spectral"),
    "layer-norm": ("gan", "layer"),
    "gan-gp": ("gan-gp", "none"),
    "wgan-gp": ("wgan-gp", "none"),
    "weight-clipping": ("gan-clip", "none"),
}


def composed(recipe: str, *overrides: str) -> DictConfig:
    cfg = settings(f"experiment=paper/{recipe}", *overrides)
    validate(cfg)
    return cfg


def test_the_table_has_every_recipe() -> None:
    assert list(SETTINGS) == list(NUMBERS) == list(DIFFERS) and sorted(SETTINGS) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_as_its_paper_says(recipe: str) -> None:
    cfg = composed(recipe)
    method, expected = SETTINGS[recipe]
    assert method_label(cfg) == method
    assert found(cfg, expected) == expected
    paper = cfg.paper
    assert paper.recipe == recipe and cfg.dataset.name in paper.data and paper.differs and paper.h100_hours > 0
    assert cfg.protocol.track.value == ("tuned" if recipe == "lucic" else "paper")
    printed: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in paper.published:
        printed.setdefault((row.method, row.metric), []).append(value_and_range(row))
    assert {key: pytest.approx(numbers) for key, numbers in flat(NUMBERS[recipe]).items()} == flat(printed)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_declares_what_it_has_otherwise_and_no_more(recipe: str) -> None:
    """A line that is missing, or left behind by what has become as in the paper, is found; others cannot be checked."""
    cfg = composed(recipe)
    for line, words in zip(cfg.paper.differs, DIFFERS[recipe], strict=True):
        assert line.startswith(words)
    theirs = {key: value for settings_of in DIFFERS[recipe].values() for key, value in settings_of.items()}
    assert not set(theirs) & set(SETTINGS[recipe][1])
    for key, ours in found(cfg, theirs).items():
        assert ours is not None and ours != theirs[key]


def found(cfg: DictConfig, keys: Iterable[str]) -> dict[str, object]:
    """Return the settings with these keys."""
    values = {key: OmegaConf.select(cfg, key) for key in keys}
    return {key: getattr(value, "value", value) for key, value in values.items()}


def test_the_pooling_that_only_some_critics_have_is_told() -> None:
    """Gulrajani's critic and that of the library's WGAN-GP take means, and the library's SNGAN sums as ours does."""
    told = {recipe: " ".join(composed(recipe).paper.differs) for recipe in RECIPES}
    take_means = [recipe for recipe, text in told.items() if "sums over the last features" in text]
    assert take_means == ["mimicry-wgan-gp", "wgan-gp-resnet", "wgan-lp"]


def test_what_the_readme_types_for_gulrajani_is_his_recipe() -> None:
    (line,) = re.findall(r"Gulrajani's CIFAR-10 code are `([^`]*)`", (CONF / "README.md").read_text(encoding="utf-8"))
    typed, recipe = (resolve(cfg) for cfg in (settings(*line.split()), composed("wgan-gp-resnet")))
    for group in ("loss", "penalty", "augment", "optimizer"):
        assert typed[group] == recipe[group]
    assert typed["model"] | {"width": None} == recipe["model"] | {"width": None}  # which each net has of its own
    ours = {"name", "track", "log_every"}
    assert {key for key, value in recipe["protocol"].items() if typed["protocol"][key] != value} == ours


def value_and_range(row: DictConfig) -> tuple[float, ...]:
    """Return the value and half of the range around it, without what is not printed."""
    if row.get("low") is None:
        return tuple(filter(None, [row.get("value")]))
    assert row.high - row.value == pytest.approx(row.value - row.low)
    return row.value, row.high - row.value


def flat(numbers: dict[tuple[str, str], list[tuple[float, ...]]]) -> dict[tuple[str, str], list[float]]:
    return {key: [number for values in each for number in values] for key, each in numbers.items()}


def miyato(method: str, setting: str) -> DictConfig:
    return composed("miyato", f"paper/miyato={method}", f"paper.setting={setting}")


@pytest.mark.slow
def test_the_sweep_over_settings_and_methods_has_all_of_both() -> None:
    wanted = {(f"paper/miyato={method}", f"paper.setting={setting}") for method in METHODS for setting in A_TO_F}
    assert dict(runs("miyato")) == dict.fromkeys(wanted, 1)
    for method, (label, norm) in METHODS.items():
        cfg = miyato(method, "A")
        assert (cfg.paper.method, method_label(cfg), cfg.model.critic_norm) == (method, label, norm)
        assert cfg.penalty.get("weight", 10) == 10 and cfg.penalty.get("c", 0.01) == 0.01
    for setting, expected in A_TO_F.items():
        cfg = miyato("sn-gan", setting)
        assert cfg.protocol.images == 100_000 * cfg.protocol.n_critic * 64
        assert (cfg.optimizer.critic.lr, *cfg.optimizer.generator.betas, cfg.protocol.n_critic) == expected


@pytest.mark.slow
def test_the_random_search_has_six_methods_four_datasets_and_a_space() -> None:
    assert [n for _, n in runs("lucic")] == [50] * 6
    losses = [overrides[0].removeprefix("loss=") for overrides, _ in runs("lucic")]
    assert losses == ["minimax", "gan", "lsgan", "wgan", "wgan-gp", "dragan"]
    assert {method_label(settings(f"loss={loss}")) for loss in losses} == {method for method, _ in NUMBERS["lucic"]}
    check_space(composed("lucic").protocol)
    betas = composed("lucic").protocol.space.betas.of
    assert [list(pair) for pair in betas] == [[k / 10, 0.999] for k in range(10)]
    sizes = {"mnist": 60_000, "fashion_mnist": 60_000, "celeba": 162_770}
    for dataset, epochs in {"mnist": 20, "fashion_mnist": 20, "celeba": 40}.items():
        cfg = composed("lucic", f"dataset={dataset}")
        images = cfg.protocol.images
        assert cfg.metric.n_real == (10_000 if dataset == "celeba" else None)  # others have as many test images
        assert images == epochs * sizes[dataset] // 320 * 320  # whole steps at one update of the critic and at five


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_s_nets_are_built_at_full_width(recipe: str) -> None:
    """On the meta device, where updates of both players are counted without being computed."""
    critic, generator = update_operations(composed(recipe, *runs(recipe)[0][0]))
    assert 1e8 < critic < 1e12 and 1e8 < generator < 1e12


def test_operations_are_counted_right() -> None:
    """By hand: two for each weight and place, twice more for gradients, but for those of the first layer's input."""
    n = 3
    linear = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 1))
    assert count_operations(lambda: linear(torch.zeros(n, 2)).sum()) == 2 * n * (2 * 2 * 5 + 3 * 5)
    grouped = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(8 * 16, 1))
    convolution = 16 * 8 * 2 * 9
    assert count_operations(lambda: grouped(torch.zeros(n, 4, 4, 4)).sum()) == 2 * n * (2 * convolution + 3 * 8 * 16)
    upward = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2))
    transposed = 16 * 8 * 3 * 16
    assert count_operations(lambda: upward(torch.zeros(n, 4, 4, 4)).sum()) == 2 * n * (2 * 16 * 32 + 3 * transposed)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "miyato"])
def test_the_hours_are_those_of_its_updates(recipe: str) -> None:
    assert settings(f"experiment=paper/{recipe}").paper.h100_hours == rounded(hours(recipe))


@pytest.mark.slow
def test_the_hours_of_a_sweep_are_those_of_all_its_runs() -> None:
    """Of 36 runs with 100,000 updates of the generator, a third with as many of the critic, others with five times."""
    seconds = 0.0
    for method in METHODS:
        critic, generator = update_operations(miyato(method, "A"))
        critic_updates = 2 * 100_000 + 4 * 500_000
        seconds += 64 * (critic_updates * critic + 6 * 100_000 * generator) / RATE
        seconds += (critic_updates + 6 * 100_000) * LAUNCHES
    assert settings("experiment=paper/miyato").paper.h100_hours == rounded(seconds / 3600)


# Features of one's own in place of Inception's, which takes seconds.
MEANS = """
from torch import nn
class Means(nn.Module):
    def __init__(self, weights=None, sha256=None):
        super().__init__()
    def forward(self, x):
        return x.double().mean((2, 3))
"""
SMALL = ("wandb=disabled", "device=cpu", "protocol.batch=4", "protocol.evaluations=1", "protocol.log_every=1")
# What a recipe has besides, and a small run on other data does not take.
NARROW = {
    **dict.fromkeys(["wgan-gp-resnet", "wgan-lp"], ("model.generator.width=4", "model.critic.width=4")),
    **dict.fromkeys(["mimicry-sngan", "mimicry-wgan-gp"], ("model.generator.width=8", "model.critic.width=4")),
    **dict.fromkeys(["lsgan", "hinge"], ("~dataset.category", "model.width=4", "metric.n_real=null")),
    "r3gan-cifar10": ("model.width=8", "protocol.lr_warmup=0"),
    "lucic": ("model.width=16", "loss=gan", "seed=0", "protocol.trials=1"),  # a trial, and the run that it is for
    "miyato": ("model.width=8", "paper/miyato=wgan-gp", "paper.setting=A"),
    "r3gan-stacked-mnist": ("model.width=8", "loss=rpgan"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 made images, and a metric's features."""
    top = tmp_path_factory.mktemp("recipes")
    (top / "own_features.py").write_text(MEANS)
    (top / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(top / f"photos/{number}.png")
    return top


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_ten_steps_at_small_width(recipe: str, photos: Path) -> None:
    cfg = settings(f"experiment=paper/{recipe}")
    images = 10 * (5 if recipe == "lucic" else cfg.protocol.n_critic) * 4
    typed = [f"experiment=paper/{recipe}", f"name={recipe}", *SMALL, f"protocol.images={images}"]
    typed += NARROW.get(recipe, ("model.width=8",))
    if cfg.protocol.generator_batch:
        typed.append("protocol.generator_batch=8")
    if cfg.metric.name == "modes_kl":
        typed += ["dataset=stacked_mnist5k", "dataset.n=60", "metric.n_fake=16", "metric.n_real=10"]
    else:
        shape = ",".join(map(str, cfg.dataset.shape))
        typed += ["dataset=folder", "dataset.root=photos", f"dataset.shape=[{shape}]", "metric.n_fake=8"]
        typed += ["metric.features._target_=own_features.Means"]
    done = ganbench(*typed, cwd=photos)
    assert done.returncode == 0, done.stderr
    (folder,) = {
        file.parent for file in photos.glob(f"outputs/*/{recipe}/**/status.json") if "trials" not in file.parts
    }
    trained = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((folder / "status.json").read_text())["images"] == images
    assert len([row for row in trained if math.isfinite(row.get("g_loss", math.nan))]) in (10, 50)
    recorded = OmegaConf.load(folder / "config.yaml")
    assert recorded.paper.published == cfg.paper.published and recorded.paper.recipe == recipe


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            ("paper/mimicry-sngan", "dataset=celeba"),
            "experiment=paper/mimicry-sngan is a recipe for images of [3,32,32], and dataset=celeba has "
            "dataset.shape=[3, 64, 64]; use dataset=cifar10.",
        ),
        (
            ("paper/hinge", "dataset=cifar10", "~dataset.category"),
            "experiment=paper/hinge is a recipe for images of [3,64,64], and dataset=cifar10 has "
            "dataset.shape=[3, 32, 32]; use dataset=lsun.",
        ),
        (("paper/lucic", "dataset=stl10", "seed=0"), "use dataset=cifar10 or mnist or fashion_mnist or celeba."),
        (("paper/miyato", "paper.setting=G"), "paper.setting=G must be one of: A, B, C, D, E, F."),
        (("paper/dcgan", "+paper.setting=A"), "paper.setting=A must be null, for the recipe has no settings."),
        (
            ("paper/dcgan", "paper.published=[{method:gan}]"),
            "\npaper.published[0].metric has no value; a recipe has one,",
        ),
        (("paper/dcgan", "~paper.title"), "\npaper.title has no value; a recipe has one,"),
        (("paper/dcgan", "~paper.data.cifar10"), "\npaper.data has no value; a recipe has one,"),
        (("paper/dcgan", "+paper.settings=3", "+paper.setting=A"), "paper.settings=3 must be a mapping."),
        (("paper/mimicry-sngan", "paper.seeds=-1"), "\npaper.seeds=-1 must be a whole number >= 1, or null."),
        (("paper/mimicry-sngan", "paper.samples=0"), "\npaper.samples=0 must be a whole number >= 1, or null."),
        (("paper/dcgan", "paper.h100_hours=0"), "\npaper.h100_hours=0 must be a finite number > 0."),
        (
            ("paper/dcgan", "paper.published=[{method:gan,metric:fid,value:3,low:2}]"),
            "\npaper.published[0] has low=2, value=3, high=null, which must be a range around the value;",
        ),
        (
            ("paper/dcgan", "paper.published=[{method:gan,metric:fid,value:3,low:4,high:2}]"),
            "has low=4, value=3, high=2,",
        ),
        (("paper/dcgan", "paper.published=[{method:gan,metric:fid,low:2,high:4}]"), "has low=2, value=null, high=4,"),
        (
            ("paper/dcgan", "paper.published=[{method:gan,metric:fid,value:3,dataset:svhn}]"),
            "\npaper.published[0].dataset=svhn must be one of paper.data: cifar10.",
        ),
        (("paper/dcgan", "paper=3"), "paper=...: what a paper says is in its recipe; use experiment=paper/..."),
        (("paper/dcgam",), "experiment=paper/dcgam is not an option; use experiment=paper/dcgan, or one of:"),
        (("smoke", "paper.setting=A"), "paper.setting: unknown setting;"),
    ],
)
def test_what_no_paper_has_is_refused_before_anything_is_written(
    typed: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = ganbench(f"experiment={typed[0]}", *typed[1:], cwd=tmp_path, light=True)
    assert done.returncode == 2 and sentence in f"\n{done.stderr}" and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
