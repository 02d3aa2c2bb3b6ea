"""Compose command lines and check what they mean."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SIX, ganbench, settings
from omegaconf import OmegaConf

from ganbench.config.compose import build, method_label
from ganbench.config.schema import CONF
from ganbench.config.validate import validate
from ganbench.runs.status import CONSECUTIVE


@pytest.mark.parametrize(
    ("typed", "pair"),
    [
        ("", "gan"),
        ("loss=gan", "gan"),
        ("loss=minimax", "minimax"),
        ("loss=lsgan", "lsgan"),
        ("loss=hinge", "hinge"),
        ("loss=wgan-gp", "wgan-gp"),
        ("loss=wgan-lp", "wgan-lp"),
        ("loss=dragan", "gan-dragan"),
        ("loss=wgan", "wgan-clip"),
        ("loss=wgan-gp penalty=none", "wgan"),
        ("penalty=none loss=wgan-gp", "wgan"),
        ("penalty=lp loss=wgan-gp", "wgan-lp"),
        ("loss=wgan penalty=gp", "wgan-gp"),
        ("loss=hinge penalty=r1", "hinge-r1"),
        ("loss=lsgan penalty=lp", "lsgan-lp"),
        ("loss=rpgan penalty=r1r2", "rpgan-r1r2"),
        ("loss=hinge model.critic_norm=spectral", "hinge"),
        ("loss=ragan dataset=ring model.critic_norm=layer", "ragan"),
        ("dataset=stacked_mnist5k loss=wgan-gp", "wgan-gp"),
        ("experiment=smoke loss=wgan-lp", "wgan-lp"),
        ("dataset=ring loss=wgan-gp", "wgan-gp"),
    ],
)
def test_pairs(typed: str, pair: str) -> None:
    cfg = settings(*typed.split())
    validate(cfg)
    assert method_label(cfg) == pair
    assert cfg.penalty._target_.rpartition(".")[2].lower() == cfg.penalty.name
    assert "penalty" not in cfg.loss


@pytest.mark.parametrize(
    "dataset", ["mnist5k", "ring", "grid", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "celeba"]
)
def test_datasets_bring_what_suits_them(dataset: str) -> None:
    cfg = settings(f"dataset={dataset}")
    validate(cfg)
    points = dataset in ("ring", "grid")
    assert cfg.model.name == ("mlp" if points else "dcgan")
    assert cfg.protocol.name == ("equal-2d" if points else "equal")
    color = dataset in ("cifar10", "cifar100", "svhn", "celeba")
    assert cfg.metric.name == ("energy_distance" if points else "fid" if color else "fd_lenet")


@pytest.mark.slow
def test_the_papers_settings() -> None:
    """Check that each of the six has its authors' settings, with budget, batch size and nets as in `equal`."""
    found = {}
    for name in SIX.split(","):
        cfg = settings(f"loss={name}", "protocol=paper")
        validate(cfg)
        found[name] = (cfg.optimizer.generator.lr, list(cfg.optimizer.critic.betas), cfg.protocol.n_critic)
        assert (cfg.protocol.images, cfg.protocol.batch) == (25600, 32)
    assert found["wgan-gp"] == (0.0001, [0.0, 0.9], 5) and found["gan"] == (0.0002, [0.5, 0.999], 1)
    assert len({str(v) for v in found.values()}) == 5  # wgan-lp and hinge happen to agree
    assert settings("loss=wgan-gp", "protocol=paper", "protocol.n_critic=1").protocol.n_critic == 1


def test_the_command_line_beats_what_a_dataset_brings() -> None:
    assert settings("dataset=ring", "protocol=equal", "penalty=gp").penalty.weight == 10
    assert settings("dataset=ring", "penalty=gp").penalty.weight == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("option", sorted((CONF / "penalty").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_penalty_takes_the_place_of_a_loss_s_own(option: Path) -> None:
    """Of losses with none, with weight clipping and with a gradient penalty."""
    for loss in ("gan", "wgan", "wgan-gp"):
        cfg = settings(f"loss={loss}", f"penalty={option.stem}")
        validate(cfg)
        assert cfg.penalty.name == option.stem


def test_methods_differ_in_nothing_but_loss_and_penalty() -> None:
    composed = [OmegaConf.to_container(settings(f"loss={name}"), resolve=True) for name in SIX.split(",")]
    rest = [json.dumps({k: v for k, v in c.items() if k not in ("loss", "penalty")}, default=str) for c in composed]
    assert len(set(rest)) == 1


class Holder:
    """Keeps its arguments."""

    def __init__(self, **arguments: object):
        if "failure" in arguments:
            raise LookupError(arguments["failure"])
        self.arguments = arguments


def test_what_an_experiment_leaves_out_of_folder_names_is_also_left_out_elsewhere() -> None:
    """A list of Hydra's cannot be added to, so experiments repeat that of config.yaml, and add to it."""
    place = "hydra.job.config.override_dirname.exclude_keys"
    shared = OmegaConf.select(OmegaConf.load(CONF / "config.yaml"), place)
    lists = {file.stem: OmegaConf.select(OmegaConf.load(file), place) for file in CONF.glob("experiment/**/*.yaml")}
    added = {name: keys[len(shared) :] for name, keys in lists.items() if keys and keys[: len(shared)] == shared}
    assert added == {"benchmark": ["dataset"], "miyato": ["paper/miyato", "paper.setting"]}
    assert sorted(added) == sorted(name for name, keys in lists.items() if keys)


def test_arguments_from_code_reach_the_target_as_they_are() -> None:
    """Not copied, resolved or instantiated, whatever they look like; the configuration's are added."""
    given = {"nested": {"_target_": "nowhere.Thing", "value": "${nope}", "missing": "???"}, "list": [1, {"a": 2}]}
    node = OmegaConf.create({"name": "x", "_target_": f"{__name__}.Holder", "width": 3})
    built = build(node, **given).arguments
    assert built == given | {"width": 3}
    assert all(built[key] is value for key, value in given.items())


def test_a_partial_node_is_called_later_with_what_was_given() -> None:
    node = OmegaConf.create({"_target_": f"{__name__}.Holder", "_partial_": True, "width": 3})
    samples = [1]
    assert build(node)(real=5).arguments == {"width": 3, "real": 5}
    assert build(node, samples=samples)(real=5).arguments["samples"] is samples


def test_what_a_target_raises_comes_out_as_it_is() -> None:
    inner = {"_target_": f"{__name__}.Holder", "failure": "inner"}
    for node in (inner, {"_target_": f"{__name__}.Holder", "part": inner}):
        with pytest.raises(LookupError, match="inner"):
            build(OmegaConf.create(node))


OWN_LOSS = "name: own\n_target_: ganbench.losses.LSGAN\nscale: 0.5\n"
OWN_EXPERIMENT = """# @package _global_
defaults:
  - override /loss: own
  - override /dataset: ring
protocol: {lr: 0.125}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", [("--config-dir", "mine"), ("hydra.searchpath=[file://{}/mine]",)], ids=["flag", "key"]
)
def test_hydra_s_own_ways_from_any_directory(where: tuple[str, ...], tmp_path: Path) -> None:
    """An experiment of one's own, lists, keys taken away, and what --info shows."""
    for group, text in (("loss", OWN_LOSS), ("experiment", OWN_EXPERIMENT)):
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "own.yaml").write_text(text)
    typed = [*(argument.format(tmp_path) for argument in where), "experiment=own"]
    changes = ("protocol.betas=[0.25,0.75]", "wandb.tags=[a,'b c']", "~loss.scale", "+model.critic.slope=0.1")
    shown = ganbench(*typed, *changes, "--cfg", "job", "--resolve", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    cfg = OmegaConf.create(shown.stdout)
    assert cfg.loss == {"name": "own", "_target_": "ganbench.losses.LSGAN"}
    assert (cfg.dataset.name, cfg.model.name, cfg.protocol.lr) == ("ring", "mlp", 0.125)
    assert cfg.optimizer.critic.betas == [0.25, 0.75] and cfg.wandb.tags == ["a", "b c"]
    assert cfg.model.critic.slope == 0.1
    info = ganbench(*typed, "--info", cwd=tmp_path)
    assert info.returncode == 0, info.stderr
    assert "CheckedSweeper" in info.stdout and str(tmp_path / "mine") in info.stdout
    assert "experiment: own" in info.stdout and "loss: own" in info.stdout and "lr: 0.125" in info.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_experiments_of_a_list_may_lie_in_folders_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine/experiment/night").mkdir(parents=True)
    (tmp_path / "mine/experiment/night/long.yaml").write_text("# @package _global_\nprotocol: {images: 51200}\n")
    typed = ("--config-dir=mine", "experiment=[smoke.yaml,night/long]", "--cfg=job", "--package=protocol.images")
    shown = ganbench(*typed, cwd=tmp_path)
    assert (shown.returncode, shown.stdout.strip()) == (0, "51200"), shown.stderr


@pytest.mark.slow
def test_from_an_installed_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], check=True)
    command = [str(tmp_path / "site" / "bin" / "ganbench"), "-m", "loss=wgan-gp,hinge", "experiment=smoke", "name=w"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(source) not in done.stderr
    for folder in ("wgan-gp-s0", "hinge-s0"):
        status = json.loads((tmp_path / "outputs/sweep/w" / folder / "status.json").read_text())
        assert status["status"] == "finished"


@pytest.mark.parametrize("dataset", ["mnist5k", "stacked_mnist5k", "ring", "grid"])
@pytest.mark.parametrize("track", ["equal", "tuned"])
def test_each_dataset_s_protocol_looks_often_enough_to_tell_a_collapse(dataset: str, track: str) -> None:
    found = settings(f"dataset={dataset}").protocol.name.replace("equal", track)
    assert settings(f"dataset={dataset}", f"protocol={found}").protocol.evaluations >= CONSECUTIVE
