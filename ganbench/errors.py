"""Errors that end a run, and the sentences for a setting or an option that does not exist."""

import difflib
import re
from collections.abc import Iterable

# Former names of options (group=option) and of settings, with their present ones.
RENAMED = {
    "model=resnet": "model=sngan_resnet",
    "penalty=zero_centred": "penalty=zero_centered",
    "metric=modes": "metric=energy_distance",
    "metric=stacked": "metric=modes_kl",
    "metric.neighbours": "metric.k_neighbors",
    "metric.sizes": "metric.n_subsets",
    "model.fused": "model.fuse_rescaling",
    "model.direct": "model.fast_double_backward",
    "model.generator.fused": "model.generator.fuse_rescaling",
    "model.critic.fused": "model.critic.fuse_rescaling",
    "model.critic.direct": "model.critic.fast_double_backward",
    "speed.fused": "speed.fused_optimizer",
}

# What other programs call a setting, and how ganbench has it. Lower case, with `_` for `-`.
OTHER_NAMES = {
    "lr learning_rate": "the learning rate is protocol.lr",
    "lr_g g_lr glr lr_gen": "the generator's learning rate is optimizer.generator.lr",
    "lr_d d_lr dlr lr_disc lr_critic": "the critic's learning rate is optimizer.critic.lr",
    "batch batch_size batchsize bs": "the batch size is protocol.batch",
    "epochs epoch n_epochs num_epochs max_epochs": "the budget is protocol.images, counted in real images: N epochs "
    "are N times the number of training images, of which mnist5k has 4,000",
    "images kimg": "the budget is protocol.images, counted in real images",
    "steps n_steps num_steps max_steps total_steps iterations iters niter n_iter num_iterations max_iter": "the budget "
    "is protocol.images, counted in real images: N generator updates are N * n_critic * batch of them",
    "n_critic critic_iters d_iters d_steps n_dis num_d_steps": "the critic's updates to one of the generator are "
    "protocol.n_critic",
    "lambda lambda_ lambda_gp gp_lambda lambda_reg gp_weight weight_gp penalty_weight gamma r1_gamma": "the weight of "
    "the penalty is protocol.penalty_weight",
    "penalty gp penalty_type reg": "the penalty is penalty=..., such as penalty=gp",
    "loss gan gan_mode gan_type loss_type loss_fn objective criterion method": "the loss is loss=..., such as "
    "loss=hinge",
    "beta1 beta2 beta_1 beta_2 b1 b2 betas adam_betas": "Adam's two betas are protocol.betas, as in "
    "protocol.betas=[0.5,0.9]",
    "eps epsilon adam_eps": "what the optimizer adds to its denominator is optimizer.eps",
    "lr_decay lr_schedule scheduler lr_scheduler schedule decay": "the decay of the learning rate is "
    "protocol.lr_decay=linear",
    "warmup lr_warmup warmup_steps warm_up": "the warm-up of the learning rate, in images, is protocol.lr_warmup",
    "g_batch g_batch_size gen_batch gen_batch_size generator_batch batch_g": "the generator's batch size is "
    "protocol.generator_batch",
    "augment diffaug diff_aug diffaugment augmentation aug augments": "augmentation is augment=..., such as "
    "augment=diffaug",
    "flip hflip mirror xflip horizontal_flip random_flip": "mirrored training images are protocol.flip_reals=true, and "
    "flips of reals and fakes augment=flip",
    "ema_half_life ema_kimg ema_nimg half_life": "the half-life of the averaged generator, in images, is "
    "protocol.ema_half_life",
    "optimizer opt optim optimiser": "the optimizer is optimizer=adam or optimizer=rmsprop",
    "ema ema_decay ema_beta": "the decay of the averaged generator is protocol.ema",
    "z z_dim dim_z nz latent latent_dim latent_size noise_dim": "the number of latent dimensions is model.z_dim",
    "width nf channels hidden_dim": "the width of the nets is model.width, or each player's: model.generator.width, "
    "model.critic.width",
    "ngf g_width generator_width": "the width of the generator is model.generator.width",
    "ndf d_width critic_width discriminator_width": "the width of the critic is model.critic.width",
    "init weight_init init_type initialization initializer": "the initialization of the nets is model.init",
    "norm": "the critic's norm is model.critic_norm",
    "model arch architecture backbone net network nets": "the nets are model=..., such as model=dcgan",
    "seeds num_seeds n_seeds": "each seed is a run of its own, and -m seed=0,1,2 makes three",
    "seed random_seed manual_seed rng_seed": "the seed is seed=0",
    "device gpu gpus gpu_id gpu_ids cuda use_cuda accelerator": "the device is device=cpu or device=cuda, and one "
    "of several GPUs device=cuda:1",
    "precision amp fp16 bf16 half mixed_precision": "the precision is precision=..., such as precision=bf16",
    "dataset data dataset_name data_name": "the data are dataset=..., such as dataset=ring",
    "data_dir data_root dataroot datadir data_path dataset_path root image_dir": "the folder of the data is "
    "dataset.root, as in dataset=folder dataset.root=photos",
    "image_size img_size imsize resolution": "the size of images is dataset.shape, as in dataset.shape=[3,64,64] with "
    "dataset=folder",
    "workers num_workers n_workers": "a run keeps its data in memory and needs no workers; its CPU threads are threads",
    "threads num_threads n_threads num_cpus": "the number of CPU threads of a run is threads",
    "jobs n_jobs parallel": "the number of runs at a time is sweep.parallel",
    "project project_name wandb_project": "the project at Weights & Biases is wandb.project",
    "entity wandb_entity": "the account at Weights & Biases is wandb.entity",
    "logger use_wandb wandb_mode": "Weights & Biases is wandb=offline, wandb=online or wandb=disabled",
    "run_name exp_name experiment_name exp out out_dir outdir output_dir log_dir save_dir results_dir": "the name of "
    "a run's folder below outputs/ is name",
    "resume resume_from checkpoint ckpt ckpt_path": "the same command again with the same name=... resumes a run",
    "log_every log_interval log_freq print_freq": "the number of generator updates from record to record is "
    "protocol.log_every",
    "save_every save_interval save_freq checkpoint_interval": "the number of generator updates from checkpoint to "
    "checkpoint is checkpoint_every",
    "eval_every eval_interval eval_freq evaluations": "the number of evaluations is protocol.evaluations",
    "metric metrics": "the score that ranks is metric=..., such as metric=kid",
    "n_samples num_samples fid_samples n_fake": "the number of samples that are scored is metric.n_fake",
}  # fmt: skip


class Refused(ValueError):
    """A configuration that cannot be run. The message names the setting, its value, what is allowed and what to do."""


class Diverged(Exception):
    """A number in training became infinite or NaN: `what` was `value` in an update of `player`, critic or generator.

    `facts` holds these three; whoever knows at which update it happened adds that.
    """

    def __init__(self, message: str, what: str, value: float, player: str):
        super().__init__(message)
        self.facts: dict[str, str | int] = {"what": what, "value": str(value), "player": player}


def plural(n: int, word: str) -> str:
    """Write `1 image`, `2,000 images`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def renamed_message(name: str) -> str:
    """Say what replaces a former name of RENAMED."""
    return f"{name} was renamed; use {RENAMED[name]}."


def meaning_of(name: str) -> str:
    """Return how ganbench has what other programs call `name`; empty for a name that is not known."""
    lower = name.lower().replace("-", "_")
    return next((meaning for names, meaning in OTHER_NAMES.items() if lower in names.split()), "")


def unknown_key_message(key: str, allowed: Iterable[str], owner: str = "") -> str:
    """Say that there is no setting `key`, and what `owner` has instead; by default the owner is what `key` is in."""
    if key in RENAMED:
        return renamed_message(key)
    parent, _, last = key.rpartition(".")
    settable = [name for name in allowed if name != ("name" if parent else "hydra") and not name.startswith("_")]
    meaning = meaning_of(last)
    if meaning and (not parent or _is_elsewhere(key, meaning, settable)):
        return f"{key} is not a setting; {meaning}."
    if not parent:
        settable.append("experiment")  # a group without settings of its own
    has = f"has: {', '.join(sorted(settable))}." if settable else "has none."
    return f"{key}: unknown setting; {did_you_mean(last, settable)}{owner or parent or 'ganbench'} {has}"


def _is_elsewhere(key: str, meaning: str, settable: Iterable[str]) -> bool:
    """Tell whether `meaning` says more of a setting that a group lacks than the name that is most like it there."""
    group, _, last = key.partition(".")
    is_of_other_group = group != "protocol" and f"{group}." not in meaning
    is_itself = re.search(rf"\b{re.escape(key)}\b", meaning)
    return "." not in last and not is_itself and not (is_of_other_group and closest_name(last, settable))


def did_you_mean(typed: str, names: Iterable[str], end: str = " ") -> str:
    """Ask whether the name that is most like what was typed was meant; empty if none is like it."""
    close = closest_name(typed, names)
    return f"did you mean {close[0]}?{end}" if close else ""


def closest_name(typed: str, names: Iterable[str]) -> list[str]:
    """Return the name that is most like what was typed, in upper or lower case; empty if none is."""
    by_lower_case = {name.lower(): name for name in names}
    return [by_lower_case[match] for match in difflib.get_close_matches(typed.lower(), by_lower_case, n=1)]


def unknown_option_message(group: str, option: str, options: Iterable[str]) -> str:
    """Say that `group` has no such option, and which it has; the nearest comes first."""
    typed = f"{group}={option}"
    if typed in RENAMED:
        return renamed_message(typed)
    names = sorted(options)
    is_null = option.lower() == "null"
    without_penalty = option.removesuffix("-none")  # as version 0.1.0 showed methods without a penalty
    close = [name for name in names if is_null and name in ("none", "disabled")] or closest_name(without_penalty, names)
    if close:
        first = f"use {group}={close[0]}, or one of"
    else:
        first = "leave it out, or use one of" if is_null else "use one of"
    rest = [name for name in names if name not in close]
    return f"{typed} is not an option; {first}: {', '.join(rest)}."
