"""Skip second derivatives that are zero: what a gradient penalty need not compute for a piecewise linear critic.

The gradient of such a critic at x changes with its weights, but not with x, unless a unit switches on or off. autograd
does not know that: it makes zeros of the second derivative and sends them back through all layers, at the cost of one
more backward pass. Here they are dropped, which changes no bit of any gradient; a weight whose gradient would be all
zeros gets none.

This relies on the names that torch gives its autograd nodes ("ReluBackward0"). They are not documented, and were read
off torch 2.11 to 2.14. A name that another version changes is unknown here, and then nothing is skipped: slower, never
wrong. tests/test_linear_regions.py asserts that the nets of ganbench do profit.
"""

import re

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

enabled = True  # speed.skip_zeros

# autograd's names without "Backward0". Functions that are linear, or linear apart from kinks:
REARRANGING = {"View", "UnsafeView", "Permute", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Clone", "ToCopy", "Cat"}
PIECEWISE_LINEAR = {"Add", "Sub", "Neg", "Sum", "Mean", "AvgPool2D", "UpsampleNearest2D", "Relu", "LeakyRelu"}
# Linear in each argument, so linear in x if only one of them depends on it. An autograd Function can declare the same
# by setting `ctx.linear_in_each = True`, as fast_conv.py does.
BILINEAR = {"Convolution", "Addmm", "Mm", "Bmm"}
LEAF = "torch::autograd::AccumulateGrad"


def skip_zero_second_derivatives(y: Tensor, x: Tensor) -> None:
    """Keep later backward passes off the path from y to the leaf x; call once dy/dx is taken.

    Only for callers that differentiate dy/dx and nothing else that was computed on that path. Does nothing unless
    every function on it is known to be piecewise linear.
    """
    path = _path(y, x) if enabled else {}
    if all(_is_piecewise_linear(node, path) for node in path):
        for node in path:
            node.register_prehook(_drop_gradients)


def _path(y: Tensor, x: Tensor) -> dict[Node, None]:
    """Return all nodes of y's graph that lead to the leaf x, in an ordered set."""
    users = _users(get_gradient_edge(y).node)
    path = {get_gradient_edge(x).node: None}
    todo = list(path)
    while todo:
        new = [node for node in users.get(todo.pop(), ()) if node not in path]
        path |= dict.fromkeys(new)
        todo += new
    return path


def _users(root: Node) -> dict[Node, list[Node]]:
    """Return, for each node below the root, the nodes that use its output."""
    users: dict[Node, list[Node]] = {}
    todo = [root]
    while todo:
        node = todo.pop()
        for argument, _ in node.next_functions:
            if argument is None:
                continue
            if argument not in users:
                todo.append(argument)
            users.setdefault(argument, []).append(node)
    return users


def _is_piecewise_linear(node: Node, path: dict[Node, None]) -> bool:
    """Return whether a node on the path is known to be linear in x apart from kinks."""
    torchs_own = re.fullmatch(r"(\w+)Backward\d+", node.name())  # the name of a user's Function has no number
    name = torchs_own[1] if torchs_own else node.name()
    if name in BILINEAR or getattr(node, "linear_in_each", False):
        return sum(argument in path for argument, _ in node.next_functions) == 1
    return name in REARRANGING or name in PIECEWISE_LINEAR or name == LEAF


def _drop_gradients(gradients: tuple[Tensor, ...]) -> tuple[None, ...]:
    return (None,) * len(gradients)
