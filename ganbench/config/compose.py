"""Compose configurations and build what they describe. Nothing here imports torch."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from ganbench.config.environment import agent_run, environment_variable, runs_folder, wandb_mode
from ganbench.config.messages import root_cause
from ganbench.config.schema import CONF, HERE, INCIDENTAL, Config
from ganbench.config.typed import typed_arguments

PLUGINS = "hydra_plugins.ganbench_sweep"
OF_HYDRA = (GlobalHydra, HydraConfig, JobRuntime, version.VersionBase)  # what it keeps of an application in a process


def register() -> None:
    """Make the schema, the resolvers, our sweeper and launcher known to Hydra. Call before composing."""
    plugins = str(HERE / "sweeps")
    if plugins not in sys.path:
        sys.path.append(plugins)
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("extras", _extra_overrides, replace=True)
    OmegaConf.register_new_resolver("method", _method, replace=True)
    OmegaConf.register_new_resolver("environment", environment_variable, replace=True)
    OmegaConf.register_new_resolver("wandb_mode", wandb_mode, replace=True)
    OmegaConf.register_new_resolver("agent_run", agent_run, replace=True)
    OmegaConf.register_new_resolver("runs_folder", runs_folder, replace=True)
    if Plugins in Singleton._instances:  # Hydra looks for plugins once per process, and has perhaps done so before
        for plugin in import_module(PLUGINS).PLUGINS:
            Plugins.instance().register(plugin)


@contextmanager
def hydra_of_ganbench(config_dir: Path | None = None) -> Iterator[Hydra]:
    """Let Hydra compose ganbench's settings inside the block, whatever else uses it in this process.

    What others have made of it is there again afterwards. `config_dir` is a folder with a user's own options.
    """
    register()
    there = [kind for kind in OF_HYDRA if kind in Singleton._instances]
    others: dict[type, Singleton] = {kind: Singleton._instances.pop(kind) for kind in there}
    try:
        version.setbase("1.3")
        places = create_config_search_path(str(CONF))
        if config_dir:
            places.prepend("command-line", f"file://{config_dir.resolve()}", SearchPathQuery(provider="schema"))
        yield Hydra.create_main_hydra2("ganbench", places)
    finally:
        for kind in OF_HYDRA:
            Singleton._instances.pop(kind, None)
        Singleton._instances.update(others)


def compose_config(*overrides: str, config_dir: Path | None = None) -> DictConfig:
    """Compose the configuration of a command line, for callers that are not started by Hydra.

    `config_dir` is a folder with a user's own options.
    """
    with hydra_of_ganbench(config_dir) as hydra:
        cfg = hydra.compose_config("config", list(overrides), RunMode.RUN)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def load_config(file: Path) -> DictConfig:
    """Load a run's config.yaml with the types that the command line gives it. Raise what YAML and OmegaConf raise."""
    cfg = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(file))
    assert isinstance(cfg, DictConfig)
    return cfg


def build(node: DictConfig, **given: Any) -> Any:
    """Build the object that a node with a `_target_` describes; `given` are the arguments that code provides.

    A node with `_partial_: true` becomes a function that is called later. Raise what the target itself raises.
    """
    arguments = _to_dict(node)
    arguments.pop("name", None)  # for people, not for the constructor
    is_partial = arguments.pop("_partial_", False)
    try:
        # What code provides stays out of Hydra's hands, which would copy and convert it.
        target = instantiate(arguments, _partial_=True)
        if is_partial:
            # A plain one: Hydra's own checks its target again at every call, which is every step.
            return partial(target.func, *target.args, **target.keywords | given)
        return target(**given)
    except InstantiationException as error:
        raise root_cause(error) from None


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Return every setting with its interpolations resolved, as it is saved and compared with an existing run's."""
    return _to_dict(cfg, enum_to_str=True)


def _to_dict(node: DictConfig, enum_to_str: bool = False) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True, enum_to_str=enum_to_str)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _extra_overrides(override_dirname: str) -> str:
    """Make the part of a folder's name that says what a sweep varies in addition to loss, penalty and seed."""
    text = re.sub(r"['\"\\]", "", override_dirname).replace("/", "_")
    if len(text) > 120:  # a folder's name ends at 255 bytes
        text = f"{text[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return f"-{text}" if text else ""


def _method(loss: str, penalty: str) -> str:
    """Name a method; the penalty is shown only where there is one."""
    return loss if penalty == "none" else f"{loss}-{penalty}"


def method_label(cfg: DictConfig) -> str:
    """Name the method that is trained, such as `wgan-gp`, and never the file that chose it."""
    return _method(cfg.loss.name, cfg.penalty.name)


def is_augmented(cfg: DictConfig) -> bool:
    """Tell whether the critic sees anything but the samples themselves."""
    return cfg.augment["_target_"] != "ganbench.augment.none"


def identifying_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Keep the resolved settings that identify a run; of the incidental ones these are seed and probe."""
    return {key: value for key, value in config.items() if key not in INCIDENTAL or key in ("seed", "probe")}


def identity_text(cfg: DictConfig) -> str:
    """Write what identifies a run; for how long it trains does not, since a run may be extended, unless rates decay."""
    settings = identifying_settings(resolve(cfg))
    if settings["protocol"].get("lr_decay", "none") == "none":
        settings["protocol"].pop("images")
    return json.dumps(settings, sort_keys=True)


def option_names(group: str) -> list[str]:
    """List the options of a group, those of a user's own folders included; those in a folder as `paper/<name>`."""
    own = [Path(place.removeprefix("file://")) for place in typed_search_path()]
    tops = [folder / group for folder in (CONF, *own)]
    return sorted({file.relative_to(top).with_suffix("").as_posix() for top in tops for file in top.rglob("*.yaml")})


def typed_search_path() -> list[str]:
    """Return the places of a user's own options, as --config-dir and hydra.searchpath of the command line name them."""
    places = []
    for argument in typed_arguments():
        key, _, value = argument.partition("=")
        if key == "--config-dir":
            places.append(f"file://{Path(value).absolute()}")
        if key.lstrip("+") == "hydra.searchpath":
            places += [place.strip(" '\"") for place in value.strip("[]").split(",") if place]
    return places
