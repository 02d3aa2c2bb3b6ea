"""Compose configurations and build what they describe. Nothing here imports torch."""

import hashlib
import sys
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ganbench.config.schema import CONF, HERE, INCIDENTAL, Config


def register() -> None:
    """Make the schema, the resolvers, our sweeper and launcher known to Hydra. Call once, before composing."""
    sys.path.append(str(HERE / "sweeps"))
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("extras", _extra_overrides, replace=True)
    OmegaConf.register_new_resolver("method", _method, replace=True)


def compose_config(*overrides: str) -> DictConfig:
    """The configuration of a command line, for what does not begin with one."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def build(node: DictConfig, **given: Any) -> Any:
    """The object that a group option describes; its `name` is for people, not for the constructor."""
    arguments = OmegaConf.to_container(node, resolve=True)
    arguments.pop("name", None)
    try:
        return instantiate(arguments, **given)
    except InstantiationException as wrapped:
        raise root_cause(wrapped) from None


def root_cause(error: BaseException) -> BaseException:
    """The error that all others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Every setting as it is written down, and as a run that is there already is held against it."""
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)


def _extra_overrides(override_dirname: str) -> str:
    """What a sweep varies beside loss, penalty and seed, made safe for a folder's name."""
    text = override_dirname.replace("/", "_")
    if len(text) > 120:  # a folder's name ends at 255 bytes
        text = f"{text[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return f"-{text}" if text else ""


def _method(loss: str, penalty: str) -> str:
    """Name a pair: the penalty is shown only where there is one."""
    return loss if penalty == "none" else f"{loss}-{penalty}"


def identifying_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Of resolved settings, those that make a run the run it is; some of them are incidental to a comparison."""
    return {k: v for k, v in config.items() if k not in INCIDENTAL or k in ("seed", "probe")}


def method_label(cfg: DictConfig) -> str:
    """The pair that was trained, such as `wgan-gp`; never the name of the file that chose it."""
    return _method(cfg.loss.name, cfg.penalty.name)


def option_names(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))
