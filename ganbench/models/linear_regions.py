"""What a penalty on the slope need not compute: a critic that is linear between its kinks.

The slope of such a critic changes with its weights, but not with x, save where a unit switches on or off. autograd does
not see that: it makes zeros of it, and hands them back through all layers, at the cost of one more backward pass. Here
they are dropped, which moves no bit of any gradient; a weight that would have got zeros alone has none.
"""

import re

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

enabled = True

# autograd's names, up to their "Backward". What is linear, or linear between kinks:
REARRANGING = {"View", "UnsafeView", "Permute", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Clone", "ToCopy", "Cat"}
PIECEWISE_LINEAR = {"Add", "Sub", "Neg", "Sum", "Mean", "AvgPool2D", "UpsampleNearest2D", "Relu", "LeakyRelu"}
# What is linear in each of its arguments, of which only one may depend on x. A Function that is says `linear_in_each`.
BILINEAR = {"Convolution", "Addmm", "Mm", "Bmm"}


def skip_zero_second_derivatives(y: Tensor, x: Tensor) -> None:
    """Once dy/dx is taken: keep what follows from it off the way from y to x, of which nothing else may be made.

    Does nothing unless every layer on that way is known to be linear between its kinks.
    """
    way = _path(y, x) if enabled else {}
    if all(_is_piecewise_linear(node, way) for node in way):
        for node in way:
            node.register_prehook(_drop_gradients)


def _path(y: Tensor, x: Tensor) -> dict[Node, None]:
    """All nodes of y's graph that lead to x, which is a leaf."""
    users: dict[Node, list[Node]] = {}
    todo = [get_gradient_edge(y).node]
    while todo:
        node = todo.pop()
        for following, _ in node.next_functions:
            if following is not None:
                if following not in users:
                    todo.append(following)
                users.setdefault(following, []).append(node)
    way = {get_gradient_edge(x).node: None}
    todo = list(way)
    while todo:
        above = [node for node in users.get(todo.pop(), ()) if node not in way]
        way |= dict.fromkeys(above)
        todo += above
    return way


def _is_piecewise_linear(node: Node, way: dict[Node, None]) -> bool:
    own = re.fullmatch(r"(\w+)Backward\d+", node.name())  # a Function of somebody else's has no number
    kind = own[1] if own else node.name()
    if kind in BILINEAR or getattr(node, "linear_in_each", False):
        return sum(following in way for following, _ in node.next_functions) == 1
    return kind in REARRANGING or kind in PIECEWISE_LINEAR or kind == "torch::autograd::AccumulateGrad"


def _drop_gradients(gradients: tuple[Tensor, ...]) -> tuple[None, ...]:
    return (None,) * len(gradients)
