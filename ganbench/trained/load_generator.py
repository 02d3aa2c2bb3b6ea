"""Load the generator of this folder: needs torch, safetensors, and the module that config.json names."""

import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

HERE = Path(__file__).parent


def load(folder: Path | str = HERE) -> nn.Module:
    """Return the generator in eval mode: it maps z [N, z_dim] to samples, images in [-1, 1]."""
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    G = build(config["generator"])
    G.load_state_dict(load_file(Path(folder, "generator.safetensors")))
    return G.eval().requires_grad_(False)


def build(node: Any) -> Any:
    """Build what a node with a `_target_` describes, and all such nodes in its arguments."""
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value) for key, value in node.items() if not key.startswith("_")}
    if "_target_" not in node:
        return arguments
    module, _, name = node["_target_"].rpartition(".")
    target = getattr(import_module(module), name)
    return partial(target, **arguments) if node.get("_partial_") else target(**arguments)
