"""Export a trained generator: a folder that loads without Hydra, W&B and the run."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save
from torch import nn

from ganbench.errors import Refused
from ganbench.randomness import normal, seed_globals
from ganbench.runs.identity import is_library, users_modules
from ganbench.trained.folder import RunFolder
from ganbench.trained.generator import Trained
from ganbench.trained.model_card import model_card

LOADER = Path(__file__).with_name("load_generator.py")


def write_package(run: RunFolder, trained: Trained, folder: Path) -> None:
    """Write weights, settings, loader, model card and a user's own classes into a new folder, and load it once."""
    folder.mkdir()
    write_weights(trained, folder / "generator.safetensors")
    _write_json(folder / "config.json", _config(trained))
    shutil.copyfile(LOADER, folder / LOADER.name)
    _copy_users_modules(trained, folder)
    (folder / "README.md").write_text(model_card(run, trained.images), encoding="utf-8")
    _check_loads(trained, folder)


def write_weights(trained: Trained, file: Path) -> None:
    """Write the weights into one file, with the generator's class and arguments among its metadata."""
    file.write_bytes(save(_tensors(trained.G), metadata={"config": json.dumps(_config(trained))}))


def _tensors(G: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of the generator, each tensor in memory of its own. Raise Refused for one that is no tensor."""
    state = G.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise Refused(f"{type(G).__name__} has a state that is no tensor, {others[0]}, which safetensors cannot hold.")
    return {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def _config(trained: Trained) -> dict[str, Any]:
    generator = OmegaConf.to_container(trained.cfg.model.generator, resolve=True)
    assert isinstance(generator, dict)
    generator.pop("name", None)  # for people, not for the constructor
    shape = list(trained.cfg.dataset.shape)
    return {"generator": generator, "z_dim": trained.cfg.model.z_dim, "shape": shape}


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _copy_users_modules(trained: Trained, folder: Path) -> None:
    """Copy the user's own modules that the generator needs; what is installed, as ganbench is, is imported."""
    for module, file in users_modules(trained.cfg.model.generator).items():
        if is_library(file):
            continue
        place = folder.joinpath(*module.split("."))
        place = place / file.name if file.name == "__init__.py" else place.with_suffix(".py")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _check_loads(trained: Trained, folder: Path) -> None:
    """Raise Refused unless the folder gives a generator of the same samples, but for rounding in another layout."""
    try:
        G = runpy.run_path(str(folder / LOADER.name))["load"](folder).to(trained.device)
        same = torch.allclose(_few_samples(G, trained), _few_samples(trained.G, trained), rtol=1e-3, atol=1e-4)
    except Exception as error:  # a class of the user's can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Refused(f"{type(trained.G).__name__} cannot be built from its exported arguments ({reason}).") from error
    if not same:
        raise Refused(
            f"{type(trained.G).__name__} gives other samples once exported; does it draw something in __init__ that is "
            "neither a weight nor a buffer?"
        )


@torch.no_grad()
def _few_samples(G: nn.Module, trained: Trained) -> torch.Tensor:
    seed_globals(0, trained.device)  # for generators with noise of their own
    return G(normal((4, trained.cfg.model.z_dim), 0, "export", 0, trained.device))
