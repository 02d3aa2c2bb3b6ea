"""The Inception Score."""

from itertools import pairwise

import torch
from torch import Tensor

from ganbench.interfaces import Scores
from ganbench.metrics.scores import missing

SPLITS = 10  # as in the paper and those after it


def inception_score(logits: Tensor, splits: int = SPLITS) -> Scores:
    """Return exp(E KL(p(class | x) || p(class))) of class logits [n, k]: the mean over `splits` parts, in order.

    From 1, where all samples are of the same classes, to k, where each is surely of one and all classes are alike
    frequent (Salimans et al. 2016, arXiv:1606.03498, section 4). It is missing with fewer samples than parts.
    """
    n = len(logits)
    if n < splits:
        return missing(["inception_score"], f"{n} samples are fewer than the {splits} parts of the score")
    ends = [i * n // splits for i in range(splits + 1)]
    scores = torch.stack([_score_of_part(logits[begin:end]) for begin, end in pairwise(ends)])
    return {"inception_score": float(scores.mean())}


def _score_of_part(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    marginal = p.mean(0).clamp(min=torch.finfo(p.dtype).tiny)  # of a class that no sample has, p is 0, too
    return (p * (log_p - marginal.log())).sum(1).mean().exp()
