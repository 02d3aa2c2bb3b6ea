"""Run a whole iteration as one CUDA graph: one launch instead of hundreds, where launches take longer than kernels.

See docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. A graph repeats the captured kernels at the captured
addresses, so inputs are copied to fixed tensors, and weights and optimizer states are restored in place.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganbench.training.batches import Batch, GeneratorBatch

WARM_UP = 3  # iterations before the capture, in which libraries choose algorithms and allocate what they need

Rows = list[dict[str, Tensor]]


class CudaGraphIteration:
    """`iteration`, captured on its first batch; called with batches of the same shapes.

    Building it does not change the players. A loss or penalty that keeps a state of its own, or reads values on the
    host, cannot be captured. On a CPU nothing can be captured; the iteration runs as usual, on the same fixed tensors.
    """

    def __init__(self, iteration: Callable[[Batch], Rows], players: Any, first: Batch):
        self.batch = _own_copy(first)
        before = [copy.deepcopy(part.state_dict()) for part in players]
        prepare = self._capture if first.generator.z.is_cuda else self._eager
        self.replay = prepare(iteration)
        _restore(players, before)

    def __call__(self, batch: Batch) -> Rows:
        """Run the iteration on a batch and return copies of its rows, which the next call would overwrite."""
        self._fill(batch)
        return [{name: value.clone() for name, value in row.items()} for row in self.replay()]

    def _fill(self, batch: Batch) -> None:
        """Copy a batch to the fixed addresses; a generator of noise starts where the batch's starts."""
        for ours, theirs in zip(self.batch.critic, batch.critic, strict=True):
            ours.real.copy_(theirs.real)
            ours.z.copy_(theirs.z)
            ours.rng.manual_seed(theirs.rng.initial_seed())
        self.batch.generator.z.copy_(batch.generator.z)

    def _eager(self, iteration: Callable[[Batch], Rows]) -> Callable[[], Rows]:
        """Return a function that runs the iteration as usual; runs it once, as a capture would."""
        iteration(self.batch)
        return lambda: iteration(self.batch)

    def _capture(self, iteration: Callable[[Batch], Rows]) -> Callable[[], Rows]:
        """Warm up, capture the iteration as a graph, and return a function that replays it."""
        warm_up_stream = torch.cuda.Stream()  # as torch asks for: not the stream of the capture
        warm_up_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up_stream):
            for _ in range(WARM_UP):
                iteration(self.batch)
        torch.cuda.current_stream().wait_stream(warm_up_stream)
        graph = torch.cuda.CUDAGraph()
        if torch.torch_version.TorchVersion(torch.__version__) < "2.14":  # later versions register them by themselves
            for batch in self.batch.critic:
                graph.register_generator_state(batch.rng)
        with torch.cuda.graph(graph):
            rows = iteration(self.batch)

        def replay() -> Rows:
            graph.replay()
            return rows

        return replay


def _own_copy(batch: Batch) -> Batch:
    """Copy a batch to addresses of its own; the generator sees the reals of the critic's last update."""
    critic = [
        each._replace(real=each.real.clone(), z=each.z.clone(), rng=torch.Generator(each.rng.device))
        for each in batch.critic
    ]
    return Batch(critic, GeneratorBatch(critic[-1].real, batch.generator.z.clone()))


@torch.no_grad()
def _restore(players: Any, before: list[dict[str, Any]]) -> None:
    """Set all players to an earlier state, in place: the graph reads and writes the addresses they have now."""
    for part, state in zip(players, before, strict=True):
        if isinstance(part, torch.optim.Optimizer):
            _restore_optimizer(part, state["state"])
        else:
            part.load_state_dict(state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, before: dict[int, dict[str, Tensor]]) -> None:
    """Set an optimizer's state to an earlier one, in place; a weight that had none gets zeros, as at step 0."""
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for i, w in enumerate(weights):
        for name, value in optimizer.state[w].items():
            value.copy_(before[i][name]) if i in before else value.zero_()
    if hasattr(optimizer, "found_inf"):  # whether an update was not finite
        optimizer.found_inf.zero_()
