"""What of the real data is missing among the generated, and what is too near to the training data."""

import torch
from torch import Tensor

from ganbench.metrics.scores import BLOCK_ROWS, Scores, all_usable, missing, pairwise_distances

NAMES = ("precision", "recall", "density", "coverage")


def diversity(real: Tensor, fake: Tensor, k: int, of_real: Tensor | None = None) -> Scores:
    """Precision, recall, density and coverage of features by their k nearest neighbours, at equal numbers of both.

    A sample's ball reaches to the k-th nearest other of its own kind. Precision and recall: the share of fakes in
    a real's ball, and of reals in a fake's (Kynkaanniemi et al. 2019, arXiv:1904.06991). Density: real balls a fake
    lies in, over k; coverage: the share of reals with a fake in their ball (Naeem et al. 2020, arXiv:2002.09797).
    Pass `radii(real, k)` as `of_real` to compute it once for many fakes, where there are as many as reals or more.
    """
    n = min(len(real), len(fake))
    if n <= k:
        return missing(NAMES, f"{n} samples have no {k} neighbours")
    if not all_usable(real, fake):
        return missing(NAMES, "features are not finite")
    real, fake = real[:n], fake[:n]
    of_real, of_fake = radii(real, k) if of_real is None or len(of_real) != n else of_real, radii(fake, k)
    near_fake = torch.zeros(n, dtype=torch.bool, device=real.device)
    covered, held_by, one = near_fake.clone(), [], torch.ones_like(of_real)
    for part, radius in zip(fake.split(BLOCK_ROWS), of_fake.split(BLOCK_ROWS), strict=True):
        apart = pairwise_distances(part, real)
        held = apart <= of_real
        held_by.append(held.to(one.dtype) @ one)  # a product counts several times faster than a sum
        covered |= held.any(0)
        near_fake |= (apart <= radius[:, None]).any(0)
    counts = torch.cat(held_by).double()
    shares = ((counts > 0).double().mean(), near_fake.double().mean(), counts.mean() / k, covered.double().mean())
    return {name: float(share) for name, share in zip(NAMES, shares, strict=True)}


def radii(x: Tensor, k: int) -> Tensor:
    """The distance of each sample to its k-th nearest other; infinite where there are not so many."""
    if len(x) <= k:
        return x.new_full((len(x),), torch.inf)
    if x.shape[1] <= 3:  # where a tree finds them in a tenth of the time
        from scipy.spatial import KDTree  # a tenth of a second that images need not wait

        points = x.detach().cpu().numpy()
        return torch.from_numpy(KDTree(points).query(points, [k + 1])[0][:, 0]).to(x)
    near = [torch.cdist(part, x).topk(k + 1, dim=1, largest=False).values[:, k] for part in x.split(BLOCK_ROWS)]
    return torch.cat(near)


def memorisation(fake: Tensor, train: Tensor, test: Tensor) -> Scores:
    """The median distance of fakes to the nearest training sample, over that to the nearest held-out one.

    Copies of training data bring it to 0. What it is for data that were never trained on depends on how many of
    each there are: see `memorisation_of_reals`.
    """
    if not all_usable(fake, train, test):
        return missing(["memorisation"], "features are not finite")
    return _ratio(_nearest(fake, train), _nearest(fake, test))


def memorisation_of_reals(train: Tensor, test: Tensor) -> Scores:
    """The same for all held-out samples, each against the others."""
    if not all_usable(train, test):
        return missing(["memorisation"], "features are not finite")
    return _ratio(_nearest(test, train), radii(test, 1))


def _nearest(x: Tensor, y: Tensor) -> Tensor:
    """Distances to the nearest of y; what is lost in rounding counts as 0."""
    size = y.square().sum(1)
    least = torch.cat([torch.addmm(size, part, y.T, alpha=-2).amin(1) for part in x.split(BLOCK_ROWS)])  # |y|^2 - 2xy
    far = (least + x.square().sum(1)).clamp(min=0).sqrt()
    return torch.where(far > 1e-6 * size.max().sqrt(), far, 0.0)


def _ratio(near: Tensor, far: Tensor) -> Scores:
    near, far = float(near.median()), float(far.median())
    if far == 0:
        return missing(["memorisation"], "most samples are copies of held-out ones")
    return {"memorisation": near / far}
