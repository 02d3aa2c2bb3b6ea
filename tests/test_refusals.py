"""Bad command lines: refused before torch is imported and before anything is written."""

from pathlib import Path

import pytest
import torch
from conftest import ganbench

# what is typed, and what the message must name: key, value, what is allowed
BAD = [
    ("loss=wgann", ["loss/wgann", "wgan-gp", "hinge"]),
    ("losss=gan", ["losss", "gan", "loss"]),
    ("penalty=null", ["penalty=null", "none", "gp"]),
    ("loss=null", ["loss=null", "hinge"]),
    ("loss=1", ["loss=1", "no option of loss", "hinge"]),
    ("penalty=True", ["penalty=True", "no option of penalty", "gp"]),
    ("loss=gan penalty=gp penalty.wieght=5", ["penalty.wieght=5", "weight"]),
    ("penalty.wieght=5 loss=wgan-gp", ["penalty.wieght", "5", "weight"]),
    ("+penalty.wieght=5 loss=wgan-gp", ["penalty.wieght", "5", "weight"]),
    ("+loss.margin=2", ["loss.margin", "2"]),
    ("+extra=1", ["extra", "protocol"]),
    ("protocol.imges=100", ["protocol.imges", "images"]),
    ("seed=abc", ["seed", "abc", "nteger"]),
    ("seed=-1", ["seed", "-1", "0 or more"]),
    ("device=tpu", ["device", "tpu", "cuda", "cpu"]),
    ("precision=fp8", ["precision", "fp8", "bf16"]),
    ("wandb=on", ["wandb/on", "online", "offline"]),
    ("wandb.mode=on", ["wandb.mode", "on", "offline"]),
    ("penalty=gp penalty.weight=heavy", ["penalty.weight", "heavy", "float"]),
    ("penalty=gp penalty.weight=-1", ["penalty.weight", "-1", "0 or more"]),
    ("penalty=clip penalty.c=0", ["penalty.c", "0", "above 0"]),
    ("penalty=dragan penalty.noise=pink", ["penalty.noise", "pink", "uniform", "normal"]),
    ("penalty=dragan penalty.alpha=[0,1,2]", ["penalty.alpha", "[0, 1, 2]", "tuple[float, float]"]),
    ("loss=lsgan loss.a=zero", ["loss.a", "zero", "float"]),
    ("model.width=1.5", ["model", "width", "1.5", "int"]),
    ("model.critic_norm=batch", ["norm", "batch", "layer", "instance", "spectral"]),
    ("optimizer.lr=fast", ["optimizer.lr", "fast", "loat"]),
    ("optimizer.lr=0", ["optimizer.lr", "0", "above 0"]),
    ("protocol.batch=1", ["protocol.batch", "1", "whole number from 2"]),
    ("protocol.n_critic=0", ["protocol.n_critic", "0", "whole number from 1"]),
    ("protocol.images=1000", ["protocol.images", "1000", "992", "1024"]),
    ("protocol.ema=1", ["protocol.ema", "1", "below 1"]),
    ("protocol.evaluations=100000", ["protocol.evaluations", "100000"]),
    ("metric.n_fake=1", ["metric.n_fake", "1", "whole number from 2"]),
    ("dataset=ring model=dcgan", ["model=dcgan", "ring", "model=mlp"]),
    ("model=mlp", ["model=mlp", "mnist5k", "model=dcgan"]),
    ("dataset=ring metric=fd_lenet", ["metric=fd_lenet", "ring", "metric=energy_distance"]),
    ("metric=energy_distance", ["metric", "mnist5k", "metric=fd_lenet"]),
    ("dataset=cifar10 metric=fd_lenet", ["metric=fd_lenet", "cifar10", "metric=fid"]),
    ("dataset=folder", ["dataset.root"]),
    ("dataset.shape=[1,64,64]", ["dataset.shape", "[1, 64, 64]", "[1, 32, 32]"]),
    ("dataset=cifar10 dataset.shape=[1,32,32]", ["dataset.shape", "[1, 32, 32]", "[3, 32, 32]"]),
    ("dataset=folder dataset.root=x dataset.shape=[3,48,48]", ["model=dcgan", "[3, 48, 48]", "32x32, 64x64"]),
    ("dataset=folder dataset.root=x dataset.shape=[3,64,32]", ["model=dcgan", "[3, 64, 32]", "32x32, 64x64"]),
    ("dataset=folder dataset.root=x dataset.shape=[3,64,64] model=resnet", ["model=resnet", "[3, 64, 64]", "32x32"]),
    ("dataset=folder dataset.root=x dataset.shape=[1,64,64] metric=fd_lenet", ["metric=fd_lenet", "[1, 64, 64]"]),
    (f"name={'x' * 300}", ["name", "xxx", "100 bytes"]),
    ("name=null", ["name=null", "not Optional"]),
    ("name=../../x", ["name", "../../x", "slashes"]),
    ("loss._target_=os.system", ["os.system"]),
    ("loss._target_=subprocess.Popen +loss.args=[touch,x]", ["loss._target_=subprocess.Popen", "Python itself"]),
    ("loss._target_=builtins.exec", ["loss._target_=builtins.exec", "Python itself"]),
    ("loss._target_=logging.os.system", ["loss._target_=logging.os.system", "Python itself"]),
    ("loss._target_=null", ["loss._target_=None", "class or function"]),
    ("loss._target_=nowhere.Loss", ["nowhere"]),
    ("loss._target_=ganbench.losses.Gan", ["ganbench.losses", "Gan"]),
    ("loss", ["loss"]),
    ("wandb=null", ["wandb=null", "offline", "online"]),
    ("experiment=null", ["experiment=null", "leave it out"]),
    ("~penalty", ["penalty", "none", "gp"]),
    ("~model", ["model", "dcgan"]),
    ("protocol.betas=[2,3]", ["protocol.betas", "[2", "below 1"]),
    ("optimizer.generator.lr=-3", ["optimizer.generator.lr", "-3", "above 0"]),
    ("optimizer=rmsprop optimizer.lr=0", ["optimizer.lr", "0", "above 0"]),
    ("dataset=ring dataset.n=-4", ["dataset.n", "-4", "whole number from 20"]),
    ("dataset=ring dataset.modes=0", ["dataset.modes", "0", "whole number from 1"]),
    ("dataset=grid dataset.std=0", ["dataset.std", "0", "above 0"]),
    ("model.generator.z_dim=3", ["model.generator.z_dim", "3", "64"]),
    (
        "dataset=folder dataset.root=x dataset.shape=[2,32,32]",
        ["dataset.shape", "[2, 32, 32]", "1 (grey)", "3 (colour)"],
    ),
    ("probe=gradient", ["probe/gradient", "none", "vanishing"]),
    ("probe=vanishing probe.moments=[0.1,2]", ["probe.moments", "[0.1, 2]", "from 0 to 1"]),
    ("probe=vanishing probe.steps=0", ["probe.steps", "0", "1 or more"]),
    ("probe=vanishing probe.n=100", ["probe.n", "100", "a multiple of 16"]),
    ("probe=vanishing probe.seed=[a]", ["probe.seed", "int"]),
    ("protocol=paper loss=minimax", ["protocol=paper", "minimax", "gan", "protocol=equal"]),
    ("loss=wgan-gp ~penalty.weight", ["penalty.weight", "no value"]),
    ("~metric.n_fake", ["metric.n_fake", "no value"]),
    ("loss=wgan-gp +penalty.rng=1", ["penalty.rng", "1", "weight"]),
    ("loss=wgan-gp ~penalty._partial_", ["_partial_: true"]),
    ("~loss._target_", ["loss", "_target_"]),
    ("metric.features.weights=3", ["metric.features.weights", "3"]),
    ("loss.name=../../x", ["loss.name", "../../x"]),
    ("dataset=ring model.critic_norm=instance", ["norm", "instance", "none", "layer", "spectral"]),
    ("metric=modes_kl", ["metric=modes_kl", "mnist5k", "stacked digits"]),
    ("metric.k_neighbors=0", ["metric.k_neighbors", "0", "1 or more"]),
    ("metric.n_subsets=2", ["metric.n_subsets", "2", "0, or a whole number from 3"]),
    ("model.width=1000000", ["model.width=1000000", "4096"]),
    (f"seed={10**30}", ["seed=1", "1e+18"]),
    ("loss=lsgan loss.b=nan", ["loss.b=nan", "3e+38"]),
    ("loss=lsgan loss.scale=-1", ["loss.scale=-1", "above 0"]),
    ("model.critic=5", ["model.critic=5", "_target_"]),
    ("optimizer.generator=sgd", ["optimizer.generator", "sgd"]),
    ("metric.features=inception", ["metric.features", "inception"]),
    ("optimizer.betas=null", ["optimizer.betas", "None", "tuple"]),
    ("optimizer.generator.lr=true", ["optimizer.generator.lr", "True", "above 0"]),
    ("loss=wgan-gp penalty._partial_=x", ["penalty._partial_=x", "true or false"]),
    ("loss.name=1", ["loss.name=1", "text"]),
    (f"loss.name={'x' * 60}", ["loss.name", "up to 50"]),
    ("protocol.authors=x", ["protocol.authors=x", "mapping"]),
    ("protocol=paper protocol.method=wgan-gp", ["protocol.method=wgan-gp", "gan"]),
    ("protocol=paper protocol.authors.hinge.lr=-1", ["protocol.authors.hinge.lr=-1", "above 0"]),
    ("protocol.trials=4", ["protocol.trials=4", "protocol=tuned"]),
    ("protocol.space={lr:{of:[1]}}", ["protocol.space", "protocol=tuned"]),
    ("probe=vanishing probe.batch=0", ["probe.batch=0", "whole number from 2"]),
    ("probe=vanishing probe.z_dim=3", ["probe.z_dim=3", "model.z_dim=64"]),
    ("model.critic.shape=[3,32,32]", ["model.critic.shape", "[3, 32, 32]", "dataset.shape"]),
    ("threads=100000", ["threads=100000", "256"]),
    ("wandb.project=a/b", ["wandb.project=a/b", "128"]),
    ("metric=fid metric.features.sha256=abc", ["metric.features.sha256=abc", "64 hexadecimal"]),
    ("+metric.features.weights=null", ["metric.features.weights=None", "str"]),
    (f"dataset=mnist dataset.root={'x' * 300}", ["dataset.root=xxx", "256 bytes"]),
    ("wandb.group=${nope}", ["nope"]),
    ("metric.n_train=1", ["metric.n_train", "1", "whole number from 2", "null for all"]),
]


@pytest.mark.parametrize(("typed", "named"), BAD, ids=[typed for typed, _ in BAD])
def test_refused(typed: str, named: list[str], tmp_path: Path) -> None:
    refusal = ganbench(*typed.split(), cwd=tmp_path, flags=("-X", "importtime"))
    said = [line for line in refusal.stderr.splitlines() if not line.startswith("import time:")]
    message = "\n".join(said)
    assert refusal.returncode == 2, message
    assert all(word in message for word in named), message
    assert "Traceback" not in message
    assert not any(line.rstrip().endswith("| torch") for line in refusal.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("loss=gan,hinge,wgann", ["loss/wgann", "wgan-gp"]),
        ("loss=gan,hinge protocol.batch=64,1", ["run 2", "protocol.batch", "1"]),
        ("dataset=mnist5k,ring model=dcgan", ["run 2", "model=dcgan", "ring"]),
        ("seed=0,0", ["gan-s0", "twice"]),
        ("loss=wgan,wgan-gp penalty=gp", ["wgan-gp-s0", "twice"]),
        ("loss=gan,null", ["loss=gan,null", "hinge"]),
        ("loss=gan,lsgan loss.scale=1,2", ["run 1", "loss.scale"]),
        ("loss=gan,hinge loss.name=a/b", ["loss.name", "a/b"]),
        ("seed=0,1 hydra.launcher.n_jobs=0", ["n_jobs", "0", "1 to 1000"]),
    ],
)
def test_a_sweep_is_refused_before_its_first_run(typed: str, named: list[str], tmp_path: Path) -> None:
    refusal = ganbench("-m", *typed.split(), cwd=tmp_path)
    assert refusal.returncode == 2, refusal.stderr
    assert all(word in refusal.stderr for word in named), refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_lists_groups_and_settings(tmp_path: Path) -> None:
    shown = ganbench("--help", cwd=tmp_path, flags=("-X", "importtime"))
    assert shown.returncode == 0
    assert all(group in shown.stdout for group in ("loss: dragan, gan", "penalty: clip", "dataset: cifar10", "lr: "))
    assert not any(line.rstrip().endswith("| torch") for line in shown.stderr.splitlines())


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    folder = tmp_path / "outputs/run/kept"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    refusal = ganbench("name=kept", cwd=tmp_path)
    assert refusal.returncode == 2
    assert "status.json is there already" in refusal.stderr
    assert [p.name for p in folder.iterdir()] == ["status.json"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("typed", ["device=cuda", "-m device=cuda seed=0,1"])
def test_a_gpu_where_there_is_none(typed: str, tmp_path: Path) -> None:
    refusal = ganbench(*typed.split(), cwd=tmp_path)
    assert refusal.returncode == 2
    assert "device=cuda: torch finds no GPU here" in refusal.stderr and "Traceback" not in refusal.stderr
    assert list(tmp_path.iterdir()) == []
