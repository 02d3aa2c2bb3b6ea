"""Run a whole iteration as one CUDA graph: one launch instead of hundreds, where launches take longer than kernels.

See docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. A graph repeats the captured kernels at the captured
addresses, so inputs are copied to fixed tensors, and weights and optimizer states are restored in place.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganbench.errors import Refused
from ganbench.randomness import seed_globals
from ganbench.training.batches import Batch, GeneratorBatch

WARM_UP = 3  # iterations before the capture, in which libraries choose algorithms and allocate what they need
TOLERANCE = 0.01  # by which a term of a replay may differ: rounding is far below, what a loss does differently above

Rows = list[dict[str, Tensor]]
Replayed = tuple[list[list[str]], Tensor]  # the names in each row, and all values [n] one after the other


class CudaGraphIteration:
    """`iteration`, captured on the first of `batches`; called with batches of the same shapes.

    A replay repeats what Python decided during the capture. So it is compared with the iteration itself, on all
    `batches` in turn: raise Refused where a loss or penalty counts its calls, say. Building it does not change the
    players. On a CPU nothing can be captured; the iteration runs as usual, on the same fixed tensors.
    """

    def __init__(self, iteration: Callable[[Batch], Rows], players: Any, batches: Sequence[Batch]):
        before = [copy.deepcopy(part.state_dict()) for part in players]
        expected = [seeded(iteration)(batch) for batch in batches]
        _restore(players, before)
        self.batch = _own_copy(batches[0])
        prepare = self._capture if batches[0].generator.z.is_cuda else self._eager
        self.replay = prepare(iteration)
        _restore(players, before)
        replayed = [self(batch) for batch in batches]
        _restore(players, before)
        for rows, expected_rows in zip(replayed, expected, strict=True):
            _check_same(rows, expected_rows)

    def __call__(self, batch: Batch) -> Rows:
        """Run the iteration on a batch and return copies of its rows, which the next call would overwrite."""
        self._fill(batch)
        seed_globals(batch.key, batch.generator.z.device)
        names, values = self.replay()
        copies = iter(values.clone().unbind())
        return [{name: next(copies) for name in row} for row in names]

    def _fill(self, batch: Batch) -> None:
        """Copy a batch to the fixed addresses; a generator of noise starts where the batch's starts."""
        for ours, theirs in zip(self.batch.critic, batch.critic, strict=True):
            ours.real.copy_(theirs.real)
            ours.z.copy_(theirs.z)
        self.batch.generator.z.copy_(batch.generator.z)
        if _has_own_reals(batch):
            self.batch.generator.real.copy_(batch.generator.real)
        for our_rng, their_rng in zip(_generators(self.batch), _generators(batch), strict=True):
            our_rng.manual_seed(their_rng.initial_seed())

    def _eager(self, iteration: Callable[[Batch], Rows]) -> Callable[[], Replayed]:
        """Return a function that runs the iteration as usual; runs it once, as a capture would."""
        iteration(self.batch)
        return lambda: _stacked(iteration(self.batch))

    def _capture(self, iteration: Callable[[Batch], Rows]) -> Callable[[], Replayed]:
        """Warm up, capture the iteration as a graph, and return a function that replays it."""
        warm_up_stream = torch.cuda.Stream()  # as torch asks for: not the stream of the capture
        warm_up_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up_stream):
            for _ in range(WARM_UP):
                iteration(self.batch)
        torch.cuda.current_stream().wait_stream(warm_up_stream)
        graph = torch.cuda.CUDAGraph()
        if torch.torch_version.TorchVersion(torch.__version__) < "2.14":  # later versions register them by themselves
            for rng in _generators(self.batch):
                graph.register_generator_state(rng)
        with torch.cuda.graph(graph):
            replayed = _stacked(iteration(self.batch))

        def replay() -> Replayed:
            graph.replay()
            return replayed

        return replay


def seeded(iteration: Callable[[Batch], Rows]) -> Callable[[Batch], Rows]:
    """Return the iteration with the generators of the whole process started at each batch's key."""

    def run(batch: Batch) -> Rows:
        seed_globals(batch.key, batch.generator.z.device)
        return iteration(batch)

    return run


def _stacked(rows: Rows) -> Replayed:
    """Put all values into one tensor, which is copied at once."""
    return [list(row) for row in rows], torch.stack([value for row in rows for value in row.values()])


def _check_same(replayed: Rows, expected: Rows) -> None:
    """Raise Refused unless the terms of a replay are those of the iteration itself, except for rounding."""
    for row, expected_row in zip(replayed, expected, strict=True):
        for name, value in row.items():
            if not torch.allclose(value, expected_row[name], rtol=TOLERANCE, atol=TOLERANCE / 100, equal_nan=True):
                raise Refused(
                    f"speed.graphs=true: a recorded iteration gives {name} = {float(value):.4g} where the same one "
                    f"unrecorded gives {float(expected_row[name]):.4g}, so the loss, the penalty or a net counts its "
                    "calls or draws random numbers on the CPU, which a recording repeats for ever; use speed=eager."
                )


def _own_copy(batch: Batch) -> Batch:
    """Copy a batch to addresses of its own; where the generator sees the critic's last reals, it still does."""
    critic = [
        each._replace(
            real=each.real.clone(),
            z=each.z.clone(),
            rng=torch.Generator(each.rng.device),
            augment_rng=_new_generator(each.augment_rng),
        )
        for each in batch.critic
    ]
    generator = GeneratorBatch(
        real=batch.generator.real.clone() if _has_own_reals(batch) else critic[-1].real,
        z=batch.generator.z.clone(),
        augment_rng=_new_generator(batch.generator.augment_rng),
    )
    return Batch(critic, generator, batch.key)


def _has_own_reals(batch: Batch) -> bool:
    return batch.generator.real is not batch.critic[-1].real


def _new_generator(rng: torch.Generator | None) -> torch.Generator | None:
    return None if rng is None else torch.Generator(rng.device)


def _generators(batch: Batch) -> list[torch.Generator]:
    """Return the generators of noise of all updates."""
    augments = [*(each.augment_rng for each in batch.critic), batch.generator.augment_rng]
    return [*(each.rng for each in batch.critic), *(rng for rng in augments if rng is not None)]


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
