"""Initial weights other than those that a net draws when it is built."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

POWER_ITERATIONS = 15  # as many as torch's spectral norm makes of the weights that it is given


@torch.no_grad()
def initialize(net: nn.Module, init: str) -> None:
    """Draw the weights of all linear and convolutional layers anew, and set their biases to 0.

    `init` is "orthogonal" (Saxe et al. 2013, arXiv:1312.6120), "dcgan" for a normal distribution with a standard
    deviation of 0.02 (Radford et al. 2015, arXiv:1511.06434), or "torch" for the weights that are there. Norms and
    other weights stay as they are.
    """
    if init == "torch":
        return
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            _set_weight(layer, _draw(init, layer.weight))
            if layer.bias is not None:
                layer.bias.zero_()


def _draw(init: str, like: Tensor) -> Tensor:
    weight = torch.empty_like(like)
    return nn.init.orthogonal_(weight) if init == "orthogonal" else nn.init.normal_(weight, std=0.02)


def _set_weight(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, weight: Tensor) -> None:
    if not is_parametrized(layer, "weight"):
        layer.weight.copy_(weight)
        return
    layer.weight = weight
    for _ in range(POWER_ITERATIONS):
        _ = layer.weight  # spectral norm iterates at each look, so that it knows the new weights' norm
