"""Bad command lines are refused in one line, before torch is imported and before anything is written."""

from pathlib import Path

import pytest
import torch
from conftest import ganbench

from ganbench.config.signature import signature
from ganbench.errors import RENAMED

pytestmark = pytest.mark.slow

# What is typed, and what the message must contain: setting, value, what is allowed.
BAD = [
    ("~lossx", ["~lossx", "no lossx to remove", "--cfg job"]),
    ("=3", ["=3 names no setting"]),
    ("+=gan", ["+=gan names no setting"]),
    ("+hydra.foo=1", ["hydra.foo: unknown setting"]),
    ("--mutlirun loss=gan,hinge", ["--mutlirun is not a flag; did you mean --multirun?", "--config-dir"]),
    ("--confg-dir=options", ["--confg-dir is not a flag; did you mean --config-dir?"]),
    ("hydra/job_loging=none", ["hydra/job_loging is not a group of options; did you mean job_logging?"]),
    ("loss@second=gan", ["loss@second", "write loss=... instead"]),
    ("device=cdua", ["device=cdua must be one of: auto, cuda, cpu, cuda:N (", "; did you mean cuda?"]),
    ("device=gpu", ["device=gpu must be", "did you mean cuda?"]),
    ("device=0", ["device=0 must be", "did you mean cuda:0?"]),
    ("device=gpu2", ["device=gpu2 must be", "did you mean cuda:2?"]),
    ("device=mps", ["device=mps is not supported, because", "use device=cpu."]),
    ("lr=0.1", ["lr is not a setting; the learning rate is protocol.lr."]),
    ("+lr=0.1", ["lr is not a setting; the learning rate is protocol.lr."]),
    ("--lr=0.1", ["--lr is not a flag; the learning rate is protocol.lr."]),
    ("--batch-size 32", ["--batch-size is not a flag; the batch size is protocol.batch."]),
    ("Batch-Size=32", ["Batch-Size is not a setting; the batch size is protocol.batch."]),
    (
        "epochs=3",
        ["epochs is not a setting; the budget is protocol.images, counted in real images: N epochs are N times"],
    ),
    ("++steps=3", ["steps is not a setting; the budget is protocol.images", "N * n_critic * batch"]),
    ("seeds=0,1", ["seeds is not a setting; each seed is a run of its own, and -m seed=0,1,2 makes three."]),
    ("-m lr=0.1,0.2", ["run 1", "lr is not a setting; the learning rate is protocol.lr."]),
    (
        "penalty=gp penalty.lambda=3",
        ["penalty.lambda is not a setting; the weight of the penalty is protocol.penalty_weight"],
    ),
    ("model.latent_dim=3", ["model.latent_dim is not a setting", "model.z_dim"]),
    ("optimizer.learning_rate=3", ["optimizer.learning_rate is not a setting; the learning rate is protocol.lr."]),
    ("protocol.g_batch=64", ["protocol.g_batch is not a setting; the generator's batch size is protocol.generator_ba"]),
    ("protocol.lr_g=1", ["protocol.lr_g is not a setting; the generator's learning rate is optimizer.generator.lr."]),
    ("protocol.flip=true", ["protocol.flip is not a setting", "protocol.flip_reals=true", "augment=flip"]),
    ("protocol.augment=flip", ["protocol.augment is not a setting; augmentation is augment=..., such as augment="]),
    ("+protocol.seed=1", ["protocol.seed is not a setting; the seed is seed=0."]),
    ("protocol.device=cpu", ["protocol.device is not a setting; the device is device=cpu or"]),
    ("probe=vanishing probe.n_steps=3", ["probe.n_steps: unknown setting; did you mean steps?"]),
    ("data_dir=photos", ["data_dir is not a setting; the folder of the data is dataset.root"]),
    ("dataset=ring dataset.root=photos", ["dataset.root: unknown setting; dataset=ring has: modes, n, "]),
    ("dataset=folder dataset.root=~/no-photos(2)", ["dataset.root=~/no-photos(2) does not exist; pass the folder"]),
    ("dataset=folder dataset.root=/dev/null", ["dataset.root=/dev/null is a file; pass the folder"]),
    ("dataset=folder dataset.root=/ dataset.held_out=none", ["dataset.held_out=none does not exist"]),
    ("metric=fid metric.features.weights=~/none.pt", ["metric.features.weights=~/none.pt does not exist"]),
    ("dataset=folder dataset.root=a,b", ["dataset.root=a,b has several values; add -m"]),
    ("penalty=dragan penalty.noise=(a)", ["penalty.noise=(a) cannot be read", "\"penalty.noise='(a)'\""]),
    ("dataset.root", ["dataset.root cannot be read; write key=value or group=option."]),
    ("-m loss=gan,hinge --run", ["--run and --multirun are two things to do; use one of them."]),
    ("--config-dir=none", ["--config-dir=none is not a folder; pass the one that holds your options"]),
    ("--config-path=mine", ["--config-path=mine", "by --config-dir=mine."]),
    ("--experimental-rerun=x", ["--experimental-rerun", "rerun the same command"]),
    ("--cfg all_of_it", ["--cfg/-c", "all_of_it", "job", "--hydra-help"]),
    ("--config mine", ["--config may be --config-dir or --config-name or --config-path; write it in full."]),
    ("-z", ["-z is not a flag", "--hydra-help"]),
    ("~seed", ["~seed: seed cannot be removed; pass seed=... with another value."]),
    ("~protocol", ["~protocol: protocol cannot be removed; pass protocol=..., with one of: equal, "]),
    ("~protocol.lr", ["~protocol.lr: protocol.lr cannot be removed; pass protocol.lr=... with another value."]),
    ("-m loss=gan, hinge", ["loss=gan, ends with a comma", "without spaces"]),
    ("loss==hinge", ["loss==hinge cannot be read; write loss= and the name of an option: python -m ganbench --help"]),
    ("-m loss=gan,,hinge", ["loss=gan,,hinge cannot be read; write loss= and the name"]),
    ("protocol.betas=[0.5,0.9", ["protocol.betas=[0.5,0.9 has a bracket that nothing closes"]),
    ("loss._target_=Relaxed", ["loss._target_=Relaxed cannot be found: it must be a module and a name in it"]),
    ("--resolve", ["--resolve resolves what --cfg shows", "--cfg job"]),
    ("dataset=ring metric=kid", ["metric=kid needs images", "use metric=energy_distance."]),
    ("+experiment=mine", ["experiment=mine is not an option", "smoke"]),
    ("device=tpu", ["device=tpu must be one of: auto, cuda, cpu"]),
    ("precision=fp23", ["precision=fp23 must be one of: fp32, tf32, bf16, bf16_all; did you mean fp32?"]),
    ("experiment.foo=1", ["experiment.foo", "no settings of its own", "smoke"]),
    ("loss=GAN", ["loss=GAN is not an option; use loss=gan, or one of"]),
    ("loss=gan-none", ["loss=gan-none is not an option; use loss=gan, or one of"]),
    ("--config-name=x", ["--config-name=x", "leave it out"]),
    ("seed=0 -m loss=hingee,gan", ["run 1", "loss=hingee is not an option; use loss=hinge"]),
    ("-m seed=range(0)", ["The sweep has no runs", "a range is empty"]),
    ("experimnt=smoke", ["experimnt", "did you mean experiment?"]),
    ("loss=wgann", ["loss=wgann is not an option; use loss=wgan, or one of: dragan, gan, hinge, "]),
    ("losss=gan", ["losss", "gan", "loss"]),
    ("penalty=null", ["penalty=null is not an option; use penalty=none, or one of: clip, "]),
    ("loss=null", ["loss=null", "hinge"]),
    ("loss=1", ["loss=1 is not an option", "hinge"]),
    ("penalty=True", ["penalty=True is not an option", "gp"]),
    ("loss=gan penalty=gp penalty.wieght=5", ["penalty.wieght: unknown setting; did you mean weight?"]),
    ("penalty.wieght=5 loss=wgan-gp", ["penalty.wieght: unknown setting", "penalty=gp has: weight."]),
    ("+penalty.wieght=5 loss=wgan-gp", ["penalty.wieght: unknown setting", "penalty=gp has: weight."]),
    ("+loss.margin=2", ["loss.margin: unknown setting; loss=gan has none."]),
    ("+extra=1", ["extra", "protocol"]),
    ("protocol.imges=100", ["protocol.imges", "images"]),
    ("seed=abc", ["seed=abc", "a whole number"]),
    ("seed=-1", ["seed=-1", ">= 0"]),
    ("device=tpu", ["device", "tpu", "cuda", "cpu"]),
    ("dataset=folder dataset.root=x dataset.background=blak", ["dataset.background=blak must be a color", "white"]),
    ("precision=fp8", ["precision", "fp8", "bf16"]),
    ("wandb=on", ["wandb=on is not an option", "online", "offline"]),
    ("wandb.mode=on", ["wandb.mode", "on", "offline"]),
    ("penalty=gp penalty.weight=heavy", ["penalty.weight=heavy", "a number"]),
    ("penalty=gp penalty.weight=-1", ["penalty.weight=-1 must be a finite number >= 0."]),
    ("penalty=clip penalty.c=0", ["penalty.c=0", "> 0"]),
    ("penalty=dragan penalty.noise=pink", ["penalty.noise=pink", "uniform", "normal"]),
    ("penalty=dragan penalty.alpha=[0,1,2]", ["penalty.alpha=[0,1,2]", "[a number, a number]"]),
    ("loss=lsgan loss.a=zero", ["loss.a=zero", "a number"]),
    ("model.width=1.5", ["model.width=1.5", "a whole number."]),
    ("protocol.images=1e5", ["protocol.images=1e5 must be a whole number; did you mean 100000?"]),
    ("protocol.images=inf", ["protocol.images=inf must be a whole number."]),
    ("model.critic_norm=batch", ["norm", "batch", "layer", "instance", "spectral"]),
    ("optimizer.lr=fast", ["optimizer.lr=fast", "a number"]),
    ("optimizer.lr=0", ["optimizer.lr=0", "> 0"]),
    ("protocol.batch=1", ["protocol.batch", "1", "whole number from 2"]),
    ("protocol.n_critic=0", ["protocol.n_critic", "0", "whole number from 1"]),
    ("protocol.images=1000", ["protocol.images=1000 must be a multiple of n_critic * batch = 32; nearest: 992, 1024."]),
    ("protocol.ema=1", ["protocol.ema=1", "< 1"]),
    ("protocol.evaluations=100000", ["protocol.evaluations", "100000"]),
    ("metric.n_fake=1", ["metric.n_fake", "1", "whole number from 2"]),
    ("dataset=ring model=dcgan", ["model=dcgan", "ring", "model=mlp"]),
    ("model=mlp", ["model=mlp", "mnist5k", "model=dcgan"]),
    ("dataset=ring metric=fd_lenet", ["metric=fd_lenet", "ring", "metric=energy_distance"]),
    ("metric=energy_distance", ["metric", "mnist5k", "metric=fd_lenet"]),
    ("dataset=cifar10 metric=fd_lenet", ["metric=fd_lenet", "cifar10", "metric=fid"]),
    ("dataset=folder", ["dataset.root"]),
    ("dataset.shape=[1,64,64]", ["dataset.shape=[1,64,64]", "[1, 32, 32]"]),
    ("dataset=svhn dataset.shape=[3,64,64]", ["dataset.shape=[3,64,64]", "[3, 32, 32]"]),
    ("dataset=lsun", ["dataset.category has no value; pass dataset.category=..."]),
    ("dataset=lsun dataset.category=tower dataset.root=.", ["tower_train_lmdb/data.mdb does not exist; download http"]),
    (
        "dataset=lsun dataset.category=tower dataset.root=~noone-here/x",
        ["dataset.root=~noone-here/x begins with a user who"],
    ),
    ("dataset=cifar10 dataset.root=~noone-here/x", ["has no home here; write the folder in full."]),
    (
        "dataset=cifar10 metric.features.weights=~noone-here/x.pt",
        ["metric.features.weights=~noone-here/x.pt begins with a user who"],
    ),
    ("wandb.dir=~noone-here/x", ["wandb.dir=~noone-here/x begins with a user who has no home here"]),
    ("dataset=lsun dataset.category=cat", ["dataset.category=cat must be one of: bedroom, bridge, church_outdoor"]),
    ("dataset=folder dataset.root=. dataset.filter=sinc", ["dataset.filter=sinc must be one of: ", "lanczos"]),
    ("dataset=folder dataset.root=. dataset.on_error=ignore", ["dataset.on_error=ignore must be one of: refuse, skip"]),
    ("dataset=folder dataset.root=. dataset.crop=0", ["dataset.crop=0 must be a whole number from 1"]),
    ("dataset=prepared dataset.root=nowhere", ["dataset.root=nowhere does not exist"]),
    ("dataset=cifar10 dataset.shape=[1,32,32]", ["dataset.shape=[1,32,32]", "[3, 32, 32]"]),
    ("dataset=folder dataset.root=x dataset.shape=[3,48,48]", ["model=dcgan", "[3,48,48]", "32x32, 64x64"]),
    ("dataset=folder dataset.root=x dataset.shape=[3,64,32]", ["model=dcgan", "[3,64,32]", "32x32, 64x64"]),
    (
        "dataset=folder dataset.root=x dataset.shape=[3,64,64] model=sngan_cnn",
        ["model=sngan_cnn", "[3,64,64]", "48x48"],
    ),
    ("dataset=folder dataset.root=x dataset.shape=[1,64,64] metric=fd_lenet", ["metric=fd_lenet", "[1,64,64]"]),
    (f"name={'x' * 300}", ["name", "xxx", "100 bytes"]),
    ("name=null", ["name=null must not be null."]),
    ("name=../../x", ["name", "../../x", "slashes"]),
    ("loss._target_=os.system", ["os.system"]),
    ("loss._target_=subprocess.Popen +loss.args=[touch,x]", ["loss._target_=subprocess.Popen", "Python itself"]),
    ("loss._target_=builtins.exec", ["loss._target_=builtins.exec", "Python itself"]),
    ("loss._target_=logging.os.system", ["loss._target_=logging.os.system", "Python itself"]),
    ("loss._target_=null", ["loss._target_=null", "class or function"]),
    ("loss._target_=nowhere.Loss", ["nowhere"]),
    ("loss._target_=ganbench.losses.Gan", ["ganbench.losses", "Gan"]),
    ("loss", ["loss"]),
    ("wandb=null", ["wandb=null is not an option; use wandb=disabled, or one of: offline, online."]),
    ("~penalty", ["penalty", "none", "gp"]),
    ("~model", ["model", "dcgan"]),
    ("protocol.betas=[2,3]", ["protocol.betas=[2,3]", "< 1"]),
    ("optimizer.generator.lr=-3", ["optimizer.generator.lr=-3", "> 0"]),
    ("optimizer=rmsprop optimizer.lr=0", ["optimizer.lr=0", "> 0"]),
    ("dataset=ring dataset.n=-4", ["dataset.n", "-4", "whole number from 20"]),
    ("dataset=ring dataset.modes=0", ["dataset.modes", "0", "whole number from 1"]),
    ("dataset=grid dataset.std=0", ["dataset.std=0", "> 0"]),
    ("model.generator.z_dim=3", ["model.generator.z_dim", "3", "64"]),
    (
        "dataset=folder dataset.root=x dataset.shape=[2,32,32]",
        ["dataset.shape=[2,32,32]", "1 (gray)", "3 (color)"],
    ),
    ("probe=gradient", ["probe=gradient is not an option", "none", "vanishing"]),
    ("probe=vanishing probe.moments=[0.1,2]", ["probe.moments=[0.1,2]", "from 0 to 1"]),
    ("probe=vanishing probe.steps=0", ["probe.steps=0", ">= 1"]),
    ("probe=vanishing probe.n=100", ["probe.n", "100", "a multiple of 16"]),
    ("probe=vanishing probe.seed=[a]", ["probe.seed=[a]", "a whole number"]),
    ("protocol=paper loss=minimax", ["protocol=paper", "minimax", "gan", "protocol=equal"]),
    ("loss=wgan-gp ~penalty.weight", ["penalty.weight", "no value"]),
    ("~metric.n_fake", ["metric.n_fake", "no value"]),
    ("loss=wgan-gp +penalty.rng=1", ["penalty.rng: unknown setting", "weight"]),
    ("loss=wgan-gp ~penalty._partial_", ["_partial_: true"]),
    ("~loss._target_", ["loss", "_target_"]),
    ("metric.features.weights=3", ["metric.features.weights: unknown setting; metric.features has none."]),
    ("loss.name=../../x", ["loss.name", "../../x"]),
    ("dataset=ring model.critic_norm=instance", ["norm", "instance", "none", "layer", "spectral"]),
    ("metric=modes_kl", ["metric=modes_kl", "mnist5k", "stacked digits"]),
    ("metric.k_neighbors=0", ["metric.k_neighbors=0", ">= 1"]),
    ("metric.n_subsets=2", ["metric.n_subsets=2", "a whole number from 3 to 1,000, or 0"]),
    ("model.width=1000000", ["model.width=1000000", "4,096"]),
    (f"seed={10**30}", ["seed=1", "1e+18"]),
    ("loss=lsgan loss.b=nan", ["loss.b=nan", "3e+38"]),
    ("loss=lsgan loss.scale=-1", ["loss.scale=-1", "> 0"]),
    ("model.critic=5", ["model.critic=5", "_target_"]),
    ("optimizer.generator=sgd", ["optimizer.generator", "sgd"]),
    ("metric.features=inception", ["metric.features", "inception"]),
    ("optimizer.betas=null", ["optimizer.betas=null", "a list [a number"]),
    ("optimizer.generator.lr=true", ["optimizer.generator.lr=true", "> 0"]),
    ("loss=wgan-gp penalty._partial_=x", ["penalty._partial_=x", "true or false"]),
    ("loss.name=1", ["loss.name=1", "a name"]),
    (f"loss.name={'x' * 60}", ["loss.name", "up to 50"]),
    ("protocol.authors=x", ["protocol.authors=x", "mapping"]),
    ("protocol=paper protocol.method=wgan-gp", ["protocol.method=wgan-gp", "gan"]),
    ("protocol=paper protocol.authors.hinge.lr=-1", ["protocol.authors.hinge.lr=-1", "> 0"]),
    ("protocol.trials=4", ["protocol.trials=4", "protocol=tuned"]),
    ("protocol.space={lr:{of:[1]}}", ["protocol.space", "protocol=tuned"]),
    ("probe=vanishing probe.batch=0", ["probe.batch=0", "whole number from 2"]),
    ("probe=vanishing probe.z_dim=3", ["probe.z_dim=3", "model.z_dim=64"]),
    ("model.critic.shape=[3,32,32]", ["model.critic.shape=[3,32,32]", "dataset.shape"]),
    ("threads=100000", ["threads=100000", "256"]),
    ("wandb.project=a/b", ["wandb.project=a/b", "128"]),
    ("metric=fid metric.features.sha256=abc", ["metric.features.sha256=abc", "64 hexadecimal"]),
    ("+metric.features.weights=null", ["metric.features.weights=null", "a text"]),
    (f"dataset=mnist dataset.root={'x' * 300}", ["dataset.root=xxx", "256 bytes"]),
    ("wandb.group=${nope}", ["nope"]),
    ("metric.n_train=1", ["metric.n_train", "1", "whole number from 2", "null for all"]),
    ("loss.foo=1", ["loss.foo: unknown setting; loss=gan has none."]),
    ("loss=lsgan loss.foo=1", ["loss.foo: unknown setting; loss=lsgan has: a, b, c, scale."]),
    ("protocol.lr=-1", ["protocol.lr=-1 must be a finite number > 0."]),
    (
        "protocol.batch=33",
        ["protocol.images=25600 must be a multiple of n_critic * batch = 33; nearest: 25575, 25608."],
    ),
    ("loss=hingee", ["loss=hingee is not an option; use loss=hinge, or one of: dragan, gan, lsgan, "]),
    ("dataset=mnst", ["dataset=mnst is not an option; use dataset=mnist, or one of: celeba, cifar10, "]),
    ("protocol=equl", ["protocol=equl is not an option; use protocol=equal, or one of: "]),
    ("experiment=smok", ["experiment=smok is not an option; use experiment=smoke, or one of: benchmark, "]),
    ("speed=eagr", ["speed=eagr is not an option; use speed=eager, or one of: channels_last, graphs."]),
    (
        "hydra/launcher=proceses",
        ["hydra/launcher=proceses is not an option; use hydra/launcher=processes, or one of: basic"],
    ),
    ("loss=[gan,hinge]", ["loss=[gan,hinge] must be one option, not a list; use one of: dragan, gan, ", "-m"]),
    ("-m loss=gan,[gan,hinge]", ["loss=gan,[gan,hinge] must be one option, not a list"]),
    ("+augment=[a,b]", ["augment=[a,b] must be one option, not a list; use one of: diffaug, flip, none, or"]),
    ("model=[dcgan]", ["model=[dcgan] must be one option"]),
    ("hydra/launcher=[basic]", ["must be one option, not a list; write hydra/launcher=... with the name of one.\n"]),
    ("paper/miyato=sn-gan", ["chooses among the settings of a recipe; add experiment=paper/miyato."]),
    ("+paper/miyato=sn-gan", ["add experiment=paper/miyato."]),
    ("dataset={}", ["dataset={} sets nothing; use one of: celeba, "]),
    ("experiment=[smok,benchmark]", ["experiment=smok is not an option; use experiment=smoke, or one of: benchmark"]),
    ("experiment={lr:1}", ["an experiment has no settings of its own", "smoke"]),
    ("augment=diffaug augment.policy={a:1}", ["augment.policy={a:1} must be a list."]),
    ("protocol.betas={a:1}", ["protocol.betas={a:1} must be a list."]),
    ("sweep=[1]", ["sweep=[1] must be a mapping."]),
    ("precision=[fp32]", ["precision=[fp32] must be a single word."]),
    ("device=[cpu]", ["device=[cpu] must be a single word."]),
    ("-m seed=0,1 hydra.sweeper.max_batch_size=-1", ["hydra.sweeper.max_batch_size=-1 must be a whole number"]),
    ("-m seed=0,1 hydra.sweeper.max_batch_size=0", ["hydra.sweeper.max_batch_size=0 must be a whole number"]),
    ("loss=", ["loss= is not an option; use one of: dragan, "]),
    ("loss=gan,hinge", ["loss=gan,hinge has several values; add -m"]),
    ("penalty=zero_centred", ["penalty=zero_centred was renamed; use penalty=zero_centered."]),
    ("++penalty=zero_centred", ["penalty=zero_centred was renamed; use penalty=zero_centered."]),
    ("~penalty=zero_centred", ["penalty=zero_centred was renamed; use penalty=zero_centered."]),
    ("model=resnet", ["model=resnet was renamed; use model=sngan_resnet."]),
    ("dataset=ring metric=modes", ["metric=modes was renamed; use metric=energy_distance."]),
    ("dataset=stacked_mnist5k metric=stacked", ["metric=stacked was renamed; use metric=modes_kl."]),
]
# Each former name of a setting, as it may be typed, and the present one.
BAD += [
    (f"{options} {prefix}{old}{value}".strip(), [f"{old} was renamed; use {new}."])
    for old, new in RENAMED.items()
    if "=" not in old
    for options in ["model=sngan_resnet" if old.startswith("model") else ""]
    for prefix, value in (("", "=1"), ("+", "=1"), ("++", "=1"), ("~", ""))
    if not prefix or old == "model.fused"  # one stands for all
]


def test_many_wrong_settings_are_tried() -> None:
    assert len(BAD) >= 113


@pytest.mark.parametrize(("typed", "named"), BAD, ids=[typed for typed, _ in BAD])
def test_refused(typed: str, named: list[str], tmp_path: Path) -> None:
    refusal = ganbench(*typed.split(), cwd=tmp_path, light=True)
    message = refusal.stderr
    assert refusal.returncode == 2, message
    assert all(word in message for word in named), message
    assert "Traceback" not in message and message.count("\n") == 1, message  # nor was torch imported
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("loss=gan,hingee", ["run 2", "loss=hingee is not an option; use loss=hinge, or one of: dragan, gan, "]),
        ("penalty=gp,zero_centred", ["run 2", "penalty=zero_centred was renamed; use penalty=zero_centered."]),
        ("metric.neighbours=3,4", ["run 1", "metric.neighbours was renamed; use metric.k_neighbors."]),
        ("loss=gan,hinge,wgann", ["run 3", "loss=wgann is not an option; use loss=wgan, or one of"]),
        ("loss=gan,hinge protocol.batch=64,1", ["run 2", "protocol.batch=1"]),
        ("dataset=mnist5k,ring model=dcgan", ["run 2", "model=dcgan", "ring"]),
        ("seed=0,0", ["gan-s0", "twice"]),
        ("name=a,b", ["name=a,b has several values, and all runs of a sweep lie in the folder of one name"]),
        ("retry=true,false seed=0,1", ["2 runs", "gan-s0", "differ only in retry", "by which no folder is named"]),
        ("seed=0,1 device=cpu,auto checkpoint_every=5,6", ["4 runs", "differ only in device, checkpoint_every"]),
        ("loss=glob(hing)", ["The sweep has no runs", "--help"]),
        ("loss=gan loss.name=wgan-gp,gan", ["run 1", "loss.name=wgan-gp reads as loss wgan with penalty gp"]),
        ("loss=wgan,wgan-gp penalty=gp", ["wgan-gp-s0", "twice"]),
        ("loss=gan,null", ["run 2", "loss=null is not an option", "hinge"]),
        ("loss=gan,lsgan loss.scale=1,2", ["run 1", "loss.scale"]),
        ("loss=gan,hinge loss.name=a/b", ["loss.name", "a/b"]),
        ("dataset=folder dataset.root=/,none", ["run 2", "dataset.root=none does not exist"]),
        ("seed=0,1 hydra.launcher.n_jobs=0", ["n_jobs=0", "1 to 1,000"]),
    ],
)
def test_a_sweep_is_refused_before_its_first_run(typed: str, named: list[str], tmp_path: Path) -> None:
    refusal = ganbench("-m", *typed.split(), cwd=tmp_path)
    assert refusal.returncode == 2, refusal.stderr
    assert all(word in refusal.stderr for word in named), refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", [("--config-dir", "options"), ("--config-dir=options",), ("hydra.searchpath=[file://{}/options]",)]
)
def test_a_users_own_options_are_listed_where_one_is_misspelt(place: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "options/loss"
    folder.mkdir(parents=True)
    (folder / "relaxed.yaml").write_text("name: relaxed\n_target_: ganbench.losses.Hinge\n")
    where = [argument.format(tmp_path) for argument in place]
    for typed, first in (("loss=relaxd", "loss=relaxed"), ("loss=hingee", "loss=hinge")):
        refusal = ganbench(*where, typed, cwd=tmp_path)
        assert refusal.returncode == 2 and refusal.stderr.count("\n") == 1, refusal.stderr
        assert refusal.stderr.startswith(f"{typed} is not an option; use {first}, or one of: ")
        assert "relaxed" in refusal.stderr and "wgan-gp" in refusal.stderr
    missing = ganbench(*where, "~loss", cwd=tmp_path)
    assert missing.returncode == 2 and "ragan, relaxed, rpgan" in missing.stderr
    shown = ganbench("--help", *where, cwd=tmp_path)
    assert shown.returncode == 0 and "ragan, relaxed, rpgan" in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("metric: {neighbours: 3}", "metric.neighbours was renamed; use metric.k_neighbors."),
        ("speed: {fused: true}", "speed.fused was renamed; use speed.fused_optimizer."),
        ("model: {fused: true}", "model.fused was renamed; use model.fuse_rescaling."),
        (
            "model: {generator: {fused: true}}",
            "model.generator.fused was renamed; use model.generator.fuse_rescaling.",
        ),
        ("defaults: [override /penalty: zero_centred]", "penalty=zero_centred was renamed; use penalty=zero_centered."),
        ("defaults: [override /metric: modes]", "metric=modes was renamed; use metric=energy_distance."),
        (
            "hydra: {mode: MULTIRUN, sweeper: {params: {penalty: 'gp,zero_centred'}}}",
            "penalty=zero_centred was renamed; use penalty=zero_centered.",
        ),
    ],
)
def test_a_former_name_in_a_users_experiment_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    assert refusal_of_experiment(text, tmp_path).endswith(f"{sentence}\n")


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("defaults: [override /loss: [hinge, wgan-gp]]", ()),
        ("defaults: [override /loss: [hinge, wgan-gp]]", ("-m", "seed=0,1")),
        ("hydra: {sweeper: {params: {loss: '[hinge,wgan-gp]'}}}", ("-m",)),
    ],
)
def test_a_list_of_options_in_a_users_experiment_is_refused(text: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    refusal = refusal_of_experiment(text, tmp_path, *flags)
    assert "loss has a list of options, in a YAML file; name one of: dragan, gan, " in refusal


def refusal_of_experiment(text: str, folder: Path, *overrides: str) -> str:
    """Return the one line that answers experiment=own, a YAML file of this text."""
    (folder / "options/experiment").mkdir(parents=True)
    (folder / "options/experiment/own.yaml").write_text(f"# @package _global_\n{text}\n")
    refusal = ganbench("--config-dir", "options", *overrides, "experiment=own", cwd=folder)
    assert refusal.returncode == 2 and refusal.stderr.count("\n") == 1, refusal.stderr
    assert [path.name for path in folder.iterdir()] == ["options"]
    return refusal.stderr


def test_a_users_own_option_may_have_a_former_name(tmp_path: Path) -> None:
    (tmp_path / "options/metric").mkdir(parents=True)
    (tmp_path / "options/metric/modes.yaml").write_text("name: modes\n_target_: mine.Modes\nneighbours: 3\n")
    (tmp_path / "mine.py").write_text("class Modes:\n    def __init__(self, name, data, device, neighbours): ...\n")
    own = ("--config-dir", "options", "-m", "metric=modes", "hydra.launcher.n_jobs=0")
    refusal = ganbench(*own, "metric.neighbours=3,4", cwd=tmp_path)
    assert refusal.stderr.startswith("hydra.launcher.n_jobs=0 must be"), refusal.stderr


def test_help_lists_groups_and_settings(tmp_path: Path) -> None:
    shown = ganbench("--help", cwd=tmp_path, light=True)
    assert (shown.returncode, shown.stderr) == (0, "")  # nor was torch imported
    assert all(
        group in shown.stdout for group in ("loss: dragan, gan", "penalty: clip", "dataset: celeba, cifar10", "lr: ")
    )


def test_a_file_of_a_user_that_python_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("one = 1\ndef two(:\n")
    refusal = ganbench("loss._target_=broken.Two", cwd=tmp_path, light=True)
    assert refusal.returncode == 2 and refusal.stderr.count("\n") == 1, refusal.stderr
    assert f"cannot be found: {tmp_path / 'broken.py'}, line 2: invalid syntax" in refusal.stderr


def test_a_metric_that_cannot_get_the_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Own:\n    def __call__(self, samples): return {'own': 0.0}\n")
    option = tmp_path / "options/metric/own.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("name: own\n_target_: own.Own\n")
    refusal = ganbench("--config-dir=options", "dataset=ring", "metric=own", cwd=tmp_path, light=True)
    assert refusal.returncode == 2 and refusal.stderr.count("\n") == 1, refusal.stderr
    assert refusal.stderr.startswith("metric=own: own.Own must take data, device, name, beside the keys")


LATIN = """# coding: latin-1
from dataclasses import dataclass
@dataclass
class Café:
    data: object
@dataclass
class Crème(Café):
    n: int = 3
"""


def test_what_source_does_not_say_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latin.py").write_text(LATIN, encoding="latin-1")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(signature("latin.Café")) == {"data"}
    assert signature("latin.Crème") is None  # what it inherits is not looked for


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    folder = tmp_path / "outputs/run/kept"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    refusal = ganbench("name=kept", cwd=tmp_path)
    assert refusal.returncode == 2
    assert "status.json already exists" in refusal.stderr
    assert [p.name for p in folder.iterdir()] == ["status.json"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("typed", ["device=cuda", "device=cuda:1", "-m seed=0,1 device=cuda:1"])
def test_a_gpu_where_there_is_none(typed: str, tmp_path: Path) -> None:
    refusal = ganbench(*typed.split(), cwd=tmp_path)
    assert refusal.returncode == 2
    assert f"{typed.split()[-1]}: torch finds no GPU here; use device=cpu or device=auto." in refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("protocol: {imges: 5}", "experiment/own.yaml: imges is not a setting of protocol; remove or correct it.\n"),
        ("protocol: {images: [", "A YAML file cannot be read: "),
        (
            "penalty: {name: none}",
            "penalty._target_=ganbench.penalties.gp is shown as no penalty, because penalty.name=none; choose",
        ),
    ],
)
def test_a_yaml_file_of_a_user_is_refused_in_one_line(text: str, printed: str, tmp_path: Path) -> None:
    assert refusal_of_experiment(text, tmp_path, "loss=wgan-gp").startswith(printed)
