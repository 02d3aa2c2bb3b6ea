"""Evaluate a run: draw samples, score them, and say so in log lines."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganbench import randomness
from ganbench.datasets import Data, concatenate, to_dataset_format, to_float
from ganbench.errors import Diverged
from ganbench.interfaces import Metric, Scores
from ganbench.metrics.scores import explain_non_finite
from ganbench.models.layers import eval_mode
from ganbench.penalties import input_gradient_norm
from ganbench.progress import tracked

CHUNK = 250  # samples generated at once

Sampler = Callable[..., Tensor]  # (generator, n) -> samples in the dataset's format


def sample(G: nn.Module, n: int, z_dim: int, seed: int, device: torch.device, stream: str = "z_eval") -> Tensor:
    """Draw n samples in the dataset's format from G in eval mode, of the same z and other noise at every call.

    Raise Diverged where a sample is not finite.
    """
    return concatenate(n, sample_chunks(G, chunk_sizes(n), z_dim, seed, device, stream))


def chunk_sizes(n: int) -> list[int]:
    """Return how many of n samples are generated at once, in order: they decide what is drawn and how it rounds."""
    return [min(CHUNK, n - first) for first in range(0, n, CHUNK)]


@torch.no_grad()
def sample_chunks(
    G: nn.Module, sizes: Sequence[int], z_dim: int, seed: int, device: torch.device, stream: str = "z_eval"
) -> Iterator[Tensor]:
    """Draw chunks of samples, as `sample` does."""
    randomness.seed_globals(randomness.key(seed, f"own_{stream}"), device)
    with eval_mode(G):
        for i, size in enumerate(tracked(sizes, "generating samples")):
            yield finite_samples(G(randomness.normal((size, z_dim), seed, stream, i, device)))


def finite_samples(x: Tensor) -> Tensor:
    """Return generated samples in the dataset's format. Raise Diverged where one is not finite."""
    if not x.isfinite().all():
        raise Diverged("generated samples are not finite", "samples", float(x[~x.isfinite()][0]), "generator")
    return to_dataset_format(x)


class Judgement(NamedTuple):
    """What the critic says of some samples."""

    logits: Tensor  # [n]
    gradient_norms: Tensor  # [n], by the samples


def evaluate(metric: Metric, fake: Tensor, critic: dict[str, Judgement], data: Data) -> Scores:
    """Score samples; add their relative spread and the critic's mean gradient norms at `real` and `fake` samples."""
    norms = {f"d_slope_{kind}": judged.gradient_norms.mean().item() for kind, judged in critic.items()}
    return explain_non_finite(metric(fake)) | norms | {"g_spread": relative_std(fake, data.train)}


def score(metric: Metric, sampler: Sampler, G: nn.Module) -> Scores:
    """Score a generator by as many samples as the metric takes."""
    return explain_non_finite(metric(sampler(G, n=metric.n_fake)))


def evaluate_raw(metric: Metric, sampler: Sampler, G: nn.Module) -> Scores:
    """Score the generator that is not averaged, under `<name>_raw`: the difference is what averaging gains."""
    scores = score(metric, sampler, G)
    return {f"{name}_raw": value for name, value in scores.items() if name != "histogram"}


def judge(D: nn.Module, x: Tensor, n: int = 256) -> Judgement:
    """Return the critic's logits of the first n samples, and the norms of its gradients at them."""
    x = to_float(x[:n])
    with eval_mode(D):
        norms = input_gradient_norm(D, x).detach()
        with torch.no_grad():
            return Judgement(D(x), norms)


def histogram(x: Tensor, bins: int = 32) -> dict[str, list[float]] | None:
    """Return counts and the edges of their bins; None for values that are not finite."""
    if not x.isfinite().all():
        return None
    counts, edges = torch.histogram(x.float().cpu(), bins)
    return {"counts": counts.tolist(), "edges": edges.tolist()}


def relative_std(fake: Tensor, real: Tensor, n: int = 1000) -> float:
    """Return the fakes' standard deviation over the reals', each the mean over coordinates, of the first n samples.

    Near 1 for a good generator, 0 for one that ignores z; not finite where all reals are equal.
    """
    return float(_mean_std(fake[:n]) / _mean_std(real[:n]))


def _mean_std(x: Tensor) -> Tensor:
    return to_float(x).flatten(1).std(0).mean()


def progress_line(images: int, total: int, name: str, scores: Scores, losses: dict[str, float]) -> str:
    """Say how far training is, the score, the last losses and the speed."""
    parts = [f"{images:>9,}/{total:,} images", f"{name} {format_score(scores[name])}"]
    if f"{name}_raw" in scores:
        parts.append(f"(not averaged {format_score(scores[f'{name}_raw'])})")
    parts += [f"{player} {losses[player]:.3f}" for player in ("d_loss", "g_loss") if player in losses]
    if "t_images_per_second" in losses:
        parts.append(f"{losses['t_images_per_second']:,.0f} images/s")
    return "  ".join(parts)


def final_line(scores: Scores, real_reference: Scores) -> str:
    """Say the final scores, each with its real-data reference; for a missing one, why."""
    names = [name for name in real_reference if name in scores and _is_shown(name)]
    parts = [f"{name} {score_or_reason(scores, name)} ({score_or_reason(real_reference, name)})" for name in names]
    return "final scores (real-data reference in parentheses): " + "  ".join(parts)


def _is_shown(name: str) -> bool:
    return name != "histogram" and not name.endswith("_why")


def score_or_reason(scores: Scores, name: str) -> str:
    """Format a score; add the reason if it is missing."""
    why = scores.get(f"{name}_why")
    return format_score(scores[name]) + (f": {why}" if why else "")


def format_score(value: Any) -> str:
    """Format a score with four digits, or "none"."""
    return "none" if value is None else f"{value:.4g}"
