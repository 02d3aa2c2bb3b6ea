"""Which real data are missing among the generated samples, and which samples are too close to the training data."""

import torch
from torch import Tensor

from ganbench.interfaces import Scores
from ganbench.metrics.scores import BLOCK_ROWS, COMPARING, all_usable, missing, pairwise_distances
from ganbench.progress import tracked

PRDC_NAMES = ("precision", "recall", "density", "coverage")


def diversity(real: Tensor, fake: Tensor, k: int, real_radii: Tensor | None = None) -> Scores:
    """Return precision, recall, density and coverage of features [n, d] and [m, d]; the first min(n, m) of each count.

    A sample's ball reaches to its k-th nearest neighbor of its own kind.
    - precision: share of fakes inside the ball of a real; recall: share of reals inside the ball of a fake
      (Kynkaanniemi et al. 2019, arXiv:1904.06991)
    - density: number of real balls that a fake lies in, over k; coverage: share of reals with a fake in their ball
      (Naeem et al. 2020, arXiv:2002.09797)

    Pass `radii(real, k)` to compute it once for many fakes; it is used if there are at least as many fakes as reals.
    """
    n = min(len(real), len(fake))
    if n <= k:
        return missing(PRDC_NAMES, f"{n} samples do not have {k} neighbors each")
    if not all_usable(real, fake):
        return missing(PRDC_NAMES, "features are not finite")
    real, fake = real[:n], fake[:n]
    if real_radii is None or len(real_radii) != n:
        real_radii = radii(real, k)
    real_balls, covered, recalled = _compare_balls(real, fake, real_radii, radii(fake, k))
    return {
        "precision": float((real_balls > 0).double().mean()),
        "recall": float(recalled.double().mean()),
        "density": float(real_balls.mean() / k),
        "coverage": float(covered.double().mean()),
    }


def _compare_balls(real: Tensor, fake: Tensor, real_radii: Tensor, fake_radii: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each fake the number of real balls it lies in; for each real whether a fake lies in its ball, and
    whether it lies in the ball of a fake.
    """
    ones = torch.ones_like(real_radii)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = covered.clone()
    counts = []
    blocks = list(zip(fake.split(BLOCK_ROWS), fake_radii.split(BLOCK_ROWS), strict=True))
    for block, block_radii in tracked(blocks, COMPARING):
        distances = pairwise_distances(block, real)
        inside = distances <= real_radii
        counts.append(inside.to(ones.dtype) @ ones)  # a product counts several times faster than a sum
        covered |= inside.any(0)
        recalled |= (distances <= block_radii[:, None]).any(0)
    return torch.cat(counts).double(), covered, recalled


def radii(x: Tensor, k: int) -> Tensor:
    """Return the distance of each sample of x [n, d] to its k-th nearest neighbor; infinity if n <= k."""
    if len(x) <= k:
        return x.new_full((len(x),), torch.inf)
    if x.shape[1] <= 3:  # few coordinates: a tree takes a tenth of the time
        from scipy.spatial import KDTree  # imported here, since it takes 0.1 s that images need not wait for

        points = x.detach().cpu().numpy()
        return torch.from_numpy(KDTree(points).query(points, [k + 1])[0][:, 0]).to(x)
    return torch.cat([_kth_distances(block, x, k) for block in tracked(x.split(BLOCK_ROWS), COMPARING)])


def _kth_distances(block: Tensor, x: Tensor, k: int) -> Tensor:
    """Return the distance of each sample to its k-th nearest neighbor in x; the nearest of all is the sample itself."""
    return torch.cdist(block, x).topk(k + 1, dim=1, largest=False).values[:, k]


def memorization(fake: Tensor, train: Tensor, test: Tensor) -> Scores:
    """Return the fakes' median distance to the nearest training sample over that to the nearest held-out sample.

    0 for copies of the training data. What new data score depends on how many samples either set has, so compare with
    `memorization_of_reals`.
    """
    if not all_usable(fake, train, test):
        return missing(["memorization"], "features are not finite")
    return _ratio_of_medians(_nearest_distances(fake, train), _nearest_distances(fake, test))


def memorization_of_reals(train: Tensor, test: Tensor) -> Scores:
    """Return the same ratio for the held-out samples, each compared with the other held-out ones."""
    if not all_usable(train, test):
        return missing(["memorization"], "features are not finite")
    return _ratio_of_medians(_nearest_distances(test, train), radii(test, 1))


def _nearest_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance of each of x [n, d] to the nearest of y [m, d]; distances lost in rounding become 0."""
    squares = y.square().sum(1)
    blocks = tracked(x.split(BLOCK_ROWS), COMPARING)
    nearest = [torch.addmm(squares, block, y.T, alpha=-2).amin(1) for block in blocks]  # |y|^2 - 2 x·y
    distances = (torch.cat(nearest) + x.square().sum(1)).clamp(min=0).sqrt()
    return torch.where(distances > 1e-6 * squares.max().sqrt(), distances, 0.0)


def _ratio_of_medians(to_train: Tensor, to_test: Tensor) -> Scores:
    test_median = float(to_test.median())
    if test_median == 0:
        return missing(["memorization"], "most samples are copies of held-out ones")
    return {"memorization": float(to_train.median()) / test_median}
