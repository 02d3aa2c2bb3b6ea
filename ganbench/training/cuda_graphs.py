"""A whole iteration recorded as a CUDA graph: one launch instead of hundreds, where a step is bound by launches."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganbench.training.batches import Batch

WARM_UP = 3  # iterations before the recording, in which libraries choose their algorithms and set up what they need

Rows = list[dict[str, Tensor]]


class CudaGraphIteration:
    """`iteration` at fixed addresses: each call copies its inputs there, and its noise begins where theirs does.

    What `players` and their optimisers are is not changed by setting up. Call with inputs of the first one's shapes. A
    loss or penalty that keeps a state of its own, or looks at values on the host, cannot be recorded.
    """

    def __init__(self, iteration: Callable[[Batch], Rows], players: Any, first: Batch):
        self.inputs = Batch(
            [x.clone() for x in first.real],
            [z.clone() for z in first.z_d],
            [torch.Generator(rng.device) for rng in first.rng],
            first.moments,
            first.z_g.clone(),
        )
        before = [copy.deepcopy(part.state_dict()) for part in players]
        self.play = self._recorded(iteration) if first.z_g.is_cuda else self._again(iteration)
        _restore(players, before)

    def __call__(self, inputs: Batch) -> Rows:
        self._fill(inputs)
        return [{name: value.clone() for name, value in row.items()} for row in self.play()]

    def _fill(self, inputs: Batch) -> None:
        pairs = [*zip(self.inputs.real, inputs.real, strict=True), *zip(self.inputs.z_d, inputs.z_d, strict=True)]
        for mine, theirs in (*pairs, (self.inputs.z_g, inputs.z_g)):
            mine.copy_(theirs)
        for mine, theirs in zip(self.inputs.rng, inputs.rng, strict=True):
            mine.manual_seed(theirs.initial_seed())

    def _again(self, iteration: Callable[[Batch], Rows]) -> Callable[[], Rows]:
        """On a CPU nothing can be recorded; all else is the same."""
        iteration(self.inputs)
        return lambda: iteration(self.inputs)

    def _recorded(self, iteration: Callable[[Batch], Rows]) -> Callable[[], Rows]:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                iteration(self.inputs)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        if torch.torch_version.TorchVersion(torch.__version__) < "2.14":  # which finds them by itself
            for rng in self.inputs.rng:
                graph.register_generator_state(rng)
        with torch.cuda.graph(graph):
            rows = iteration(self.inputs)

        def play() -> Rows:
            graph.replay()
            return rows

        return play


@torch.no_grad()
def _restore(players: Any, before: list[dict[str, Any]]) -> None:
    """Everything as it was, at the addresses where it is now: those are what was recorded."""
    for part, state in zip(players, before, strict=True):
        if isinstance(part, torch.optim.Optimizer):
            _restore_optimizer(part, state["state"])
        else:
            part.load_state_dict(state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, before: dict[int, dict[str, Tensor]]) -> None:
    """What had no state before has now that of no step: zeros."""
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for i, w in enumerate(weights):
        for name, value in optimizer.state[w].items():
            value.copy_(before[i][name]) if i in before else value.zero_()
    if hasattr(optimizer, "found_inf"):
        optimizer.found_inf.zero_()
