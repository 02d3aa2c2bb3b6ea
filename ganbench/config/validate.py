"""Refuse settings that cannot be run, before anything is written. Nothing here imports torch, so refusals are quick."""

import re
import sys
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ganbench.config.budget import Budget, make_budget
from ganbench.config.compose import is_augmented, method_label, option_names, resolve
from ganbench.config.messages import owner, setting
from ganbench.config.ranges import NAME, NAME_WORDS, RANGES, check_ranges, check_value, original_key
from ganbench.config.schema import GROUPS, Config, LrDecay, Paper, Protocol, ScoredOn, Track
from ganbench.config.signature import (
    Argument,
    NoSuchTarget,
    accepts_argument,
    annotation_words,
    fits_annotation,
    signature,
)
from ganbench.config.typed import typed_arguments
from ganbench.errors import RENAMED, Refused, did_you_mean, renamed_message, unknown_key_message

ALL_GROUPS = (*GROUPS, "optimizer", "protocol", "speed", "wandb")
# Arguments that code provides, not the configuration.
GIVEN_BY_CODE = ("D", "real", "fake", "x", "rng", "data", "device", "name", "params")
GIVEN_TO_METRIC = {"data", "device", "name"}

# Config nodes that are instantiated in addition to the groups.
TARGET_NODES = ("model.generator", "model.critic", "optimizer.generator", "optimizer.critic", "metric.features")

# Datasets that come in one size; images are padded to 32x32.
FIXED_SHAPES = {
    "ganbench.datasets.ring": [2],
    "ganbench.datasets.grid": [2],
    "ganbench.datasets.mnist5k": [1, 32, 32],
    "ganbench.datasets.mnist": [1, 32, 32],
    "ganbench.datasets.fashion_mnist": [1, 32, 32],
    "ganbench.datasets.stacked_mnist5k": [3, 32, 32],
    "ganbench.datasets.stacked_mnist": [3, 32, 32],
    "ganbench.datasets.cifar10": [3, 32, 32],
    "ganbench.datasets.cifar100": [3, 32, 32],
    "ganbench.datasets.svhn": [3, 32, 32],
}

# Sides of the square images that each model has nets for.
SIDES = {
    "dcgan": (16, 32, 64, 128),
    "sngan_resnet": (32, 48, 64, 128),
    "sngan_cnn": (32, 48),
    "infogan": (28, 32, 64),
    "r3gan": (16, 32, 64, 128, 256),
}
R3GAN_UNIT = 8  # r3gan's 3x3 convolutions have groups of 16 of twice as many channels as the width

CELEBA_WIDTH = 178  # pixels of its aligned faces, which are 218 high

DEVICES = ("auto", "cuda", "cpu")

# Settings that must be copies, and what they are copies of.
MIRRORED_KEYS = {
    "model.generator.z_dim": "model.z_dim",
    "probe.z_dim": "model.z_dim",
    "model.generator.shape": "dataset.shape",
    "model.critic.shape": "dataset.shape",
}


def validate(cfg: DictConfig) -> None:
    """Raise Refused for a setting that is unknown, of the wrong type, out of range or at odds with another."""
    _check_leaves(cfg, "")
    _check_groups(cfg)
    check_device(cfg.device)
    _check_target_nodes(cfg)
    _check_renamed(cfg)
    _check_protocol(cfg)
    check_value("dataset.shape", "dataset.shape", cfg.dataset.get("shape"))
    _check_shape(cfg)
    _check_recipe(cfg)
    _check_compatibility(cfg)
    for group in (*GROUPS, "optimizer"):
        _check_targets(cfg, cfg[group], group)
    _check_speed(cfg)
    check_ranges(cfg)
    _check_r3gan(cfg)
    _check_crop(cfg)
    _check_budget(cfg.protocol)
    _check_training(cfg)
    resolve(cfg)  # also what no check has read must be readable


def validate_metric(cfg: DictConfig) -> None:
    """Raise Refused for a metric that does not fit the data of a run, which was validated with another metric."""
    _check_leaves(cfg.metric, "metric.")
    _check_option("metric", cfg.metric)
    _check_target_nodes(cfg)
    _check_compatibility(cfg)
    _check_targets(cfg, cfg.metric, "metric")
    check_ranges(cfg)
    resolve(cfg)


def _check_leaves(node: DictConfig | ListConfig, path: str) -> None:
    """Reject non-finite or out-of-range numbers and over-long strings, whatever the key."""
    keys: Any = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, DictConfig | ListConfig):
            _check_leaves(value, f"{path}{key}.")
        else:
            _check_leaf(f"{path}{key}", value)


def _check_leaf(key: str, value: Any) -> None:
    limit = 1e18 if isinstance(value, int) else 3e38  # what int64 and float32 hold
    if isinstance(value, int | float) and not -limit < value < limit:
        raise Refused(f"{setting(key, value)} must be a number between -{limit} and {limit}.")
    if isinstance(value, str) and len(value) > 1000:
        raise Refused(f"{key}={value[:30]}… must have at most 1000 characters; it has {len(value)}.")


def _check_groups(cfg: DictConfig) -> None:
    """Check that every group is there, and what any option must have, also a user's own."""
    unknown = sorted(set(map(str, cfg)) - set(Config.__dataclass_fields__))
    if unknown:
        raise Refused(unknown_key_message(unknown[0], Config.__dataclass_fields__))
    for group in ALL_GROUPS:
        if OmegaConf.is_missing(cfg, group):
            raise Refused(f"{group} is missing; use {group}=..., with one of: {', '.join(option_names(group))}.")
    for group in GROUPS:
        _check_option(group, cfg[group])


def reject_lists_of_options(config: DictConfig) -> None:
    """Refuse a list of options in a file, such as an experiment's defaults: Hydra would mix them without a word.

    `config` is a configuration with Hydra's part, which says what was chosen: for a list, nothing.
    """
    taken_out = {override.partition("=")[0] for override in config.hydra.overrides.task}
    for group in ALL_GROUPS:
        if group not in config.hydra.runtime.choices and f"~{group}" not in taken_out:
            raise Refused(
                f"{group} has a list of options, in a YAML file; name one of: {', '.join(option_names(group))}."
            )


def _check_option(group: str, node: DictConfig) -> None:
    name = node.get("name")
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise Refused(f"{setting(f'{group}.name', name)} must be {NAME_WORDS}; set `name: …` in its YAML file.")
    _check_method_name(group, name, node)
    if "_target_" not in node and group != "model":
        raise Refused(f"{group}={name} has no _target_; name its class or function in its YAML file.")
    for key in node:
        if OmegaConf.is_missing(node, key):
            raise Refused(f"{group}.{key!s} has no value; pass {group}.{key!s}=...")


def _check_method_name(group: str, name: str, node: DictConfig) -> None:
    """Refuse names under which two methods would have one label: `wgan-gp` is a loss and a penalty."""
    target = node.get("_target_")
    if group == "penalty" and name == "none" and target != "ganbench.penalties.none":
        raise Refused(
            f"{setting('penalty._target_', target)} is shown as no penalty, because penalty.name=none; choose another "
            "`name: …` in its YAML file."
        )
    if group == "loss":
        for penalty in option_names("penalty"):
            if name.endswith(f"-{penalty}"):
                raise Refused(
                    f"loss.name={name} reads as loss {name.removesuffix(f'-{penalty}')} with penalty {penalty}; "
                    f"choose a `name: …` that does not end in -{penalty} in its YAML file."
                )


def check_device(device: str) -> None:
    """Raise Refused for a device that no machine has."""
    if device in DEVICES or re.fullmatch(r"cuda:\d{1,3}", device):
        return
    if device.lower().startswith("mps"):
        raise Refused(
            f"device={device} is not supported, because random numbers are drawn and results compared bit by bit on "
            "CPUs and CUDA only; use device=cpu."
        )
    number = re.fullmatch(r"(?:cuda|gpu)?[:_ ]?(\d{1,3})", device.lower())
    meant = (
        f"did you mean cuda:{number[1]}?"
        if number
        else did_you_mean(device.lower().replace("gpu", "cuda"), DEVICES, "")
    )
    allowed = f"{', '.join(DEVICES)}, cuda:N (GPU number N, from 0)"
    raise Refused(f"device={device} must be one of: {allowed}{f'; {meant}' if meant else '.'}")


def _check_target_nodes(cfg: DictConfig) -> None:
    for key in TARGET_NODES:
        node = OmegaConf.select(cfg, key)
        if key == "metric.features" and "features" not in cfg.metric:
            continue
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise Refused(f"{setting(key, node)} must be a mapping whose _target_ names a class or function.")


def _check_renamed(cfg: DictConfig) -> None:
    """Refuse the former names that no signature would miss; a user's own nets are free to have such settings."""
    own_nets = not str(cfg.model.generator["_target_"]).startswith("ganbench.")
    for key in cfg.model:
        if f"model.{key}" in RENAMED and not own_nets:
            raise Refused(renamed_message(f"model.{key}"))


def _check_protocol(cfg: DictConfig) -> None:
    protocol = cfg.protocol
    method = method_label(cfg)
    if protocol.method not in (None, method):
        raise Refused(
            f"{setting('protocol.method', protocol.method)} must be {method}, the method that is trained; leave it out."
        )
    if protocol.track is not Track.tuned:
        for key in ("trials", "space", "trial"):
            if protocol[key] is not None:
                raise Refused(f"{setting(f'protocol.{key}', protocol[key])} needs protocol=tuned; leave it out.")
    if protocol.authors is None:
        return
    _check_authors(protocol.authors)
    if method not in protocol.authors:
        known = ", ".join(map(str, protocol.authors))
        raise Refused(f"protocol={protocol.name} has no settings for {method}; use protocol=equal, or one of: {known}.")


def _check_authors(authors: Any) -> None:
    """Check the settings of every method, so that a sweep over methods is refused before its first run."""
    if not isinstance(authors, DictConfig):
        raise Refused(f"{setting('protocol.authors', authors)} must be a mapping from methods to their settings.")
    for method, settings in authors.items():
        path = f"protocol.authors.{method!s}"
        if not isinstance(settings, DictConfig):
            raise Refused(f"{setting(path, settings)} must be a mapping of settings, such as lr, betas and n_critic.")
        for key, value in settings.items():
            check_value(f"{path}.{key!s}", f"protocol.{key!s}", value)


def _check_shape(cfg: DictConfig) -> None:
    shape = list(cfg.dataset.shape)
    typed = setting("dataset.shape", cfg.dataset.shape)
    fixed = FIXED_SHAPES.get(cfg.dataset["_target_"])
    if fixed and shape != fixed:
        raise Refused(f"{typed} must be {fixed}, the only shape of dataset={cfg.dataset.name}.")
    if len(shape) == 3 and shape[0] not in (1, 3):
        raise Refused(f"{typed} must have 1 (gray) or 3 (color) channels, which come first.")
    for key, origin in MIRRORED_KEYS.items():
        copy, expected = OmegaConf.select(cfg, key), OmegaConf.select(cfg, origin)
        if copy is not None and copy != expected:
            raise Refused(f"{setting(key, copy)} must equal {setting(origin, expected)}; set {origin} only.")


def _check_recipe(cfg: DictConfig) -> None:
    """Refuse a paper's recipe on images of another size, for which its numbers are not, or one that lacks facts."""
    if cfg.paper is None:
        return
    if not isinstance(cfg.paper, DictConfig):
        raise Refused(f"{setting('paper', cfg.paper)} must be null, or the facts of a recipe in conf/experiment/paper.")
    paper = OmegaConf.merge({"paper": OmegaConf.structured(Paper)}, {"paper": cfg.paper}).paper
    lacking = sorted(OmegaConf.missing_keys(paper))
    if not lacking and not paper.data:
        lacking = ["paper.data"]
    if lacking:
        raise Refused(f"{lacking[0]} has no value; a recipe has one, such as those in conf/experiment/paper.")
    if paper.setting is not None and paper.setting not in (paper.settings or ()):
        allowed = f"one of: {', '.join(paper.settings)}" if paper.settings else "null, for the recipe has no settings"
        raise Refused(f"{setting('paper.setting', paper.setting)} must be {allowed}.")
    for name, shape in paper.data.items():
        if not RANGES["dataset.shape"].accepts(shape):
            raise Refused(f"{setting(f'paper.data.{name}', shape)} must be {RANGES['dataset.shape'].words}.")
    for i, row in enumerate(paper.published):
        _check_published(f"paper.published[{i}]", row, list(map(str, paper.data)))
    if cfg.dataset.shape in paper.data.values():
        return
    shapes = dict.fromkeys(f"[{','.join(map(str, shape))}]" for shape in paper.data.values())
    raise Refused(
        f"experiment=paper/{paper.recipe} is a recipe for images of {' or '.join(shapes)}, and "
        f"dataset={cfg.dataset.name} has {setting('dataset.shape', cfg.dataset.shape)}; use "
        f"dataset={' or '.join(map(str, paper.data))}."
    )


def _check_published(path: str, row: DictConfig, datasets: list[str]) -> None:
    """Refuse a published number that no score could be held against."""
    if row.dataset is not None and row.dataset not in datasets:
        raise Refused(f"{setting(f'{path}.dataset', row.dataset)} must be one of paper.data: {', '.join(datasets)}.")
    if row.low is None and row.high is None:
        return
    if None in (row.low, row.value, row.high) or not row.low <= row.value <= row.high:
        typed = ", ".join(setting(key, row[key]) for key in ("low", "value", "high"))
        raise Refused(f"{path} has {typed}, which must be a range around the value; set all three, or the value alone.")


def _check_compatibility(cfg: DictConfig) -> None:
    """Refuse built-in options that cannot work together; a user's own options are judged when they are built."""
    shape = list(cfg.dataset.shape)
    points = len(shape) == 1
    images = len(shape) == 3
    needs = {
        **{f"model={model}": (f"images of {_squares(sides)}", _fits(shape, sides)) for model, sides in SIDES.items()},
        "model=mlp": ("points", points),
        "metric=fd_lenet": ("gray images of 32x32", shape == [1, 32, 32]),
        "metric=energy_distance": ("2-D mixtures (ring, grid)", points),
        "metric=modes_kl": ("stacked digits", shape[:1] == [3] and "stacked" in cfg.dataset["_target_"]),
        "metric=fid": ("images", images),
        "metric=kid": ("images", images),
    }
    unadvised = {f"metric={name}": ("images", images) for name in ("fid50k", "fd_dinov2")}  # as fid, but dearer
    _check_reference(cfg)
    for option in (f"model={cfg.model.name}", f"metric={cfg.metric.name}"):
        needed, fits = (needs | unadvised).get(option, ("", True))
        if not fits:
            has = setting("dataset.shape", cfg.dataset.shape)
            others = [other for other, (_, suits) in needs.items() if suits and _group(other) == _group(option)]
            fix = ", or ".join(others) or _other_shape(shape[0], SIDES[cfg.model.name])
            raise Refused(f"{option} needs {needed}, and dataset={cfg.dataset.name} has {has}; use {fix}.")


def _fits(shape: list[int], sides: tuple[int, ...]) -> bool:
    return shape[1:] in [[side, side] for side in sides]


def _squares(sides: tuple[int, ...]) -> str:
    return ", ".join(f"{side}x{side}" for side in sides)


def _other_shape(channels: int, sides: tuple[int, ...]) -> str:
    """Advise a shape that a model has nets for, where no other model has nets for that of the dataset."""
    side = 64 if 64 in sides else sides[0]
    return f"a dataset.shape of {_squares(sides)}, such as [{channels},{side},{side}]"


def _check_crop(cfg: DictConfig) -> None:
    """Refuse a crop that none of CelebA's images has, before all of them are tried."""
    crop = cfg.dataset.get("crop")
    if cfg.dataset["_target_"] == "ganbench.datasets.celeba" and crop is not None and crop > CELEBA_WIDTH:
        raise Refused(
            f"{setting('dataset.crop', crop)} must be at most {CELEBA_WIDTH} with dataset=celeba, whose images are "
            f"{CELEBA_WIDTH} pixels wide."
        )


def _check_r3gan(cfg: DictConfig) -> None:
    """Refuse initial weights other than r3gan's own, and a width that leaves a group of channels with too few."""
    if cfg.model.name != "r3gan":
        return
    init = cfg.model.get("init", "torch")
    if init != "torch":
        raise Refused(
            f"{setting('model.init', init)} needs another model: the initial weights of model=r3gan are a part of it, "
            "and its blocks must begin at zero; leave it out."
        )
    for player in ("generator", "critic"):
        net = cfg.model[player]
        if not net["_target_"].startswith("ganbench."):
            continue
        unit = R3GAN_UNIT * max(1, cfg.dataset.shape[1] // 32)  # above 32x32 channels halve with each doubling
        if net.width % unit:
            typed = setting(original_key(cfg, f"model.{player}.width"), net.width)
            side = cfg.dataset.shape[1]
            raise Refused(f"{typed} must be a multiple of {unit} with model=r3gan and images of {side}x{side}.")


def _check_reference(cfg: DictConfig) -> None:
    """Refuse to choose settings by how near samples come to images that were trained on."""
    reference = cfg.metric.get("reference", "held_out")
    if reference != "held_out" and cfg.protocol.scored_on is ScoredOn.selection:
        raise Refused(
            f"{setting('metric.reference', reference)} (metric={cfg.metric.name}) compares with images that are "
            "trained on, and protocol.scored_on=selection, as in the trials of protocol=tuned, chooses by images that "
            "are not; use metric.reference=held_out."
        )


def _group(option: str) -> str:
    return option.partition("=")[0]


def _check_targets(cfg: DictConfig, node: Any, path: str) -> None:
    """Check every `_target_` in and below `node`, which is at `path`, against the signature of what it names."""
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        partial = node.get("_partial_", False)
        if not isinstance(partial, bool):
            raise Refused(f"{setting(f'{path}._partial_', partial)} must be true or false.")
        arguments = _target_arguments(node["_target_"], path)
        if arguments is not None:
            _check_arguments(cfg, node, path, arguments)
    for key in node:
        _check_targets(cfg, node[key], f"{path}.{key!s}")


def _target_arguments(target: Any, path: str) -> dict[str, Argument] | None:
    typed = setting(f"{path}._target_", target)
    if not isinstance(target, str):
        raise Refused(f"{typed} must be the name of a class or function, such as ganbench.losses.GAN.")
    if target.startswith("__main__."):
        raise Refused(
            f"{typed} is defined where the run is started from, and not in a file that says what it is; write it into "
            f"one, such as mine.py, and name it mine.{target.rpartition('.')[2]}."
        )
    if target.partition(".")[0] in sys.stdlib_module_names:
        raise Refused(f"{typed} belongs to Python itself; use what ganbench, torch or a module of yours defines.")
    try:
        return signature(target)
    except NoSuchTarget as missing:
        raise Refused(f"{typed} cannot be found: {missing}.") from None


def _check_arguments(cfg: DictConfig, node: DictConfig, path: str, arguments: dict[str, Argument]) -> None:
    settable = {name: argument for name, argument in arguments.items() if name not in GIVEN_BY_CODE}
    for name in map(str, node):
        if name in ("name", "_target_", "_partial_"):
            continue
        if name not in settable:
            raise Refused(unknown_key_message(f"{path}.{name}", settable, owner(f"{path}.{name}", node)))
        annotation = settable[name].annotation
        if annotation is not None and not fits_annotation(node[name], annotation):
            typed = setting(original_key(cfg, f"{path}.{name}"), node[name])
            raise Refused(f"{typed} must be {annotation_words(annotation)}.")
    for name, argument in settable.items():
        if argument.required and name not in node:
            raise Refused(f"{path}.{name} has no value, and {node['_target_']} needs one; pass +{path}.{name}=...")
    if path == "metric" and not arguments.keys() >= GIVEN_TO_METRIC:
        raise Refused(
            f"metric={cfg.metric.name}: {node['_target_']} must take {', '.join(sorted(GIVEN_TO_METRIC))}, "
            "beside the keys of its YAML file."
        )
    if "rng" in arguments and not node.get("_partial_"):
        raise Refused(f"{path} needs `_partial_: true` in its YAML file: {node['_target_']} is called with samples.")


def _check_speed(cfg: DictConfig) -> None:
    speed = cfg.speed
    if speed.channels_last and len(cfg.dataset.shape) == 1:
        raise Refused(f"speed.channels_last=true needs images; use false for the points of dataset={cfg.dataset.name}.")
    if speed.benchmark and speed.deterministic:
        raise Refused(
            "speed.benchmark=true needs speed.deterministic=false: the algorithm that is fastest today may be another "
            "one tomorrow, and gives other bits."
        )
    if speed.graphs and not speed.fused_optimizer:
        raise Refused("speed.graphs=true needs speed.fused_optimizer=true; use speed=graphs, which sets both.")
    for player in ("generator", "critic"):
        option = cfg.optimizer[player]
        if speed.fused_optimizer and not accepts_argument(option, "fused"):
            fix = "optimizer=adam" if speed.graphs else "speed.fused_optimizer=null or optimizer=adam"
            raise Refused(
                f"speed.fused_optimizer=true needs an optimizer with a fused kernel, unlike {option['_target_']}; "
                f"use {fix}."
            )


def _check_budget(protocol: DictConfig) -> None:
    budget = make_budget(protocol)
    typed = setting("protocol.images", protocol.images)
    if budget.images_before(budget.steps) != protocol.images:
        nearest = ", ".join(str(budget.images_before(n)) for n in (budget.steps, budget.steps + 1) if n)
        raise Refused(f"{typed} must be {_whole_budgets(budget)}; nearest: {nearest}.")
    n = protocol.evaluations
    if budget.steps < n:
        raise Refused(
            f"{setting('protocol.evaluations', n)} must be at most {budget.steps}, the generator updates of {typed}."
        )
    if len(budget.evaluations(n)) <= n:
        raise Refused(
            f"{setting('protocol.evaluations', n)} leaves two evaluations no generator update apart, since the steps "
            f"of protocol.critic_start={protocol.critic_start} are long; use fewer, or a larger protocol.images."
        )


def _whole_budgets(budget: Budget) -> str:
    """Say which budgets end with a whole step."""
    if budget.critic_start is None:
        return f"a multiple of n_critic * batch = {budget.n_critic * budget.batch}"
    return f"the images of whole steps, of which some have protocol.critic_start={budget.critic_start} critic updates"


def _check_training(cfg: DictConfig) -> None:
    """Refuse settings of training that contradict each other, or do not fit the data."""
    p = cfg.protocol
    if (p.ema is None) is (p.ema_half_life is None):
        half_life = setting("protocol.ema_half_life", p.ema_half_life)
        raise Refused(
            f"{half_life} and {setting('protocol.ema', p.ema)}: exactly one of them must be a number, the half-life in "
            "images or the decay at each step; set the other to null."
        )
    if p.lr_warmup > p.images:
        typed = setting("protocol.lr_warmup", p.lr_warmup)
        raise Refused(f"{typed} must be at most {setting('protocol.images', p.images)}, the budget.")
    if p.reuse_fakes and p.generator_batch not in (None, p.batch):
        raise Refused(
            f"protocol.reuse_fakes=true has the generator learn from the critic's {p.batch} fakes, and "
            f"{setting('protocol.generator_batch', p.generator_batch)}; leave one of the two out."
        )
    if p.critic_start is None and not _is_off_beside_others(p):
        for key in ("critic_start_steps", "critic_start_every"):
            if p[key] != getattr(Protocol, key):
                raise Refused(f"{setting(f'protocol.{key}', p[key])} needs protocol.critic_start=...; leave it out.")
    if p.critic_start is not None and cfg.speed.graphs:
        raise Refused(
            f"{setting('protocol.critic_start', p.critic_start)} needs speed.graphs=false, since a recorded iteration "
            "has the same number of critic updates at every step; use speed=eager."
        )
    _check_moments(cfg)
    _check_betas(cfg.optimizer)
    _check_images_for("protocol.flip_reals=true", p.flip_reals, cfg)
    _check_images_for(f"augment={cfg.augment.name}", is_augmented(cfg), cfg)


def _is_off_beside_others(protocol: DictConfig) -> bool:
    """Tell whether there is no start for one method of a track, or one run of a sweep, where others may have one."""
    is_typed = any(argument.lstrip("+").startswith("protocol.critic_start=") for argument in typed_arguments())
    return is_typed or OmegaConf.is_interpolation(protocol, "critic_start")


def _check_moments(cfg: DictConfig) -> None:
    """Refuse a probe whose critics would learn at a rate of 0, and seem to leave the gradient as it is."""
    budget = make_budget(cfg.protocol)
    moments = cfg.probe.get("moments") or []
    if cfg.protocol.lr_decay is LrDecay.linear and any(budget.step_at(share) == budget.steps for share in moments):
        raise Refused(
            f"{setting('probe.moments', moments)} has the end of the budget, where protocol.lr_decay=linear leaves a "
            "learning rate of 0, so that no critic gets better there; take earlier moments."
        )


def _check_betas(optimizer: DictConfig) -> None:
    """Refuse betas that no player's optimizer takes; a copy of the protocol's was not meant for this one."""
    takers = [player for player in ("generator", "critic") if "betas" in optimizer[player]]
    if optimizer.betas is not None and not takers and not OmegaConf.is_interpolation(optimizer, "betas"):
        raise Refused(
            f"{setting('optimizer.betas', optimizer.betas)} would be ignored, since optimizer={optimizer.name} has no "
            "betas; use optimizer=adam, or leave it out."
        )


def _check_images_for(typed: str, is_set: bool, cfg: DictConfig) -> None:
    if is_set and len(cfg.dataset.shape) == 1:
        raise Refused(f"{typed} needs images, and dataset={cfg.dataset.name} has points; leave it out.")
