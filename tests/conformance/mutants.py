"""Deliberately wrong versions, most of them found in public code. The suite must catch every one of them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, relu, softplus

from ganbench import losses
from ganbench.metrics import frechet, inception_score, prdc
from ganbench.metrics.images import ImageMetric
from ganbench.penalties import Clip, interpolate, perturb, uniform_per_sample
from ganbench.penalties import none as no_penalty
from ganbench.training import updates
from ganbench.training.batches import CriticBatch
from ganbench.training.players import Players
from ganbench.training.updates import Objective, Terms

CAUGHT_BY = Path(__file__).with_name("caught_by.json")  # written and verified by test_mutants.py


class Mutant(NamedTuple):
    """A wrong version of an option or a metric, made from the option's settings."""

    defect: str
    shown_as: str  # the option whose known answers it is checked against
    make: Callable[[dict[str, Any]], Any]

    @property
    def id(self) -> str:
        return f"{self.shown_as}: {self.defect}"


def penalty(function: Callable[..., Tensor]) -> Callable[[dict[str, Any]], Callable[..., Tensor]]:
    """Make a penalty from `function(D, real, fake, rng)`, which has weight 1."""
    return lambda s: lambda D, real, fake, rng, weight=s["weight"]: weight * function(D, real, fake, rng)


def gradient(D, x: Tensor, create_graph: bool = True) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(D(x).sum(), x, create_graph=create_graph)[0]


def two_sided(norm: Tensor) -> Tensor:
    return (norm - 1).square().mean()


def norm_over_one_axis(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng)).norm(dim=1))


def norm_over_the_batch(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng)).norm())


def one_alpha_a_batch(D, real, fake, rng):
    return two_sided(gradient(D, real + torch.rand(1, generator=rng) * (fake - real)).flatten(1).norm(dim=1))


def one_alpha_a_pixel(D, real, fake, rng):
    alpha = torch.rand(real.shape, generator=rng, dtype=real.dtype)
    return two_sided(gradient(D, real + alpha * (fake - real)).flatten(1).norm(dim=1))


def alpha_beyond_the_line(D, real, fake, rng):
    return two_sided(gradient(D, real + uniform_per_sample(real, rng, -1, 1) * (fake - real)).flatten(1).norm(dim=1))


def bare_root(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng)).flatten(1).square().sum(1).sqrt())


def padded_root(D, real, fake, rng):
    return two_sided((gradient(D, interpolate(real, fake, rng)).flatten(1).square().sum(1) + 1e-4).sqrt())


def by_parameters(D, real, fake, rng):
    if not isinstance(D, nn.Module):  # only the input is left to differentiate by
        return two_sided(gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1))
    gradients = torch.autograd.grad(D(interpolate(real, fake, rng)).mean(), list(D.parameters()), create_graph=True)
    return two_sided(torch.cat([g.flatten() for g in gradients]).norm())


def no_graph(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng), create_graph=False).flatten(1).norm(dim=1))


def doubled_weight(D, real, fake, rng):
    return 2 * two_sided(gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1))


def on_sigmoid(D, real, fake, rng):
    return two_sided(gradient(lambda x: torch.sigmoid(D(x)), interpolate(real, fake, rng)).flatten(1).norm(dim=1))


def summed_over_the_batch(D, real, fake, rng):
    return (gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1) - 1).square().sum()


def of_the_mean_gradient(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng)).flatten(1).mean(0).norm())


def three_channels(D, real, fake, rng):
    alpha = torch.rand(len(real), 1, generator=rng, dtype=real.dtype).expand(-1, real[0].numel()).reshape(-1, 3, 5, 7)
    return two_sided(gradient(D, real + alpha * (fake - real)).flatten(1).norm(dim=1))


def squared_norm_of_one(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng)).flatten(1).square().sum(1))


def global_noise(D, real, fake, rng):
    alpha = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype)
    return two_sided(gradient(D, real + alpha * (fake - real)).flatten(1).norm(dim=1))


def two_sides(D, real, fake, rng):
    return two_sided(gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1))


def two_sided_as_one(D, real, fake, rng):
    return (1 - gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1)).relu().square().mean()


def full_r1(D, real, fake, rng):
    return gradient(D, real).flatten(1).square().sum(1).mean()


def r1_over_the_mean(D, real, fake, rng):
    return gradient(D, real).flatten(1).square().mean(1).mean() / 2


def r1_of_fakes(D, real, fake, rng):
    return gradient(D, fake).flatten(1).square().sum(1).mean() / 2


def r1_of_the_mean_gradient(D, real, fake, rng):
    return gradient(D, real).flatten(1).mean(0).square().sum() / 2


def r1_as_squared_mean(D, real, fake, rng):
    return gradient(D, real).flatten(1).norm(dim=1).mean().square() / 2


def r2_of_the_first(D, real, fake, rng):
    return gradient(D, fake[:1]).flatten(1).square().sum() / 2


def over_violators_only(D, real, fake, rng):
    beyond = (gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1) - 1).relu()
    return beyond.square().sum() / (beyond > 0).sum().clamp(min=1)


def not_to_the_ends(D, real, fake, rng):
    x = real + uniform_per_sample(real, rng, 0.02, 0.98) * (fake - real)
    return two_sided(gradient(D, x).flatten(1).norm(dim=1))


def mean_for_max(D, real, fake, rng):
    return gradient(D, interpolate(real, fake, rng)).flatten(1).norm(dim=1).mean().square()


def dragan_of(point: Callable[..., Tensor]) -> Callable[[dict[str, Any]], Callable[..., Tensor]]:
    """Make DRAGAN at other points, given by point(real, fake, rng)."""

    def wrong(D, real, fake, rng):
        return two_sided(gradient(D, point(real, fake, rng)).flatten(1).norm(dim=1))

    return penalty(wrong)


BLOG = ((-1.0, 1.0), "uniform", 0.5)


def dragan_on_the_line(real, fake, rng):
    return interpolate(perturb(real, rng, *BLOG, clip=True), fake, rng)


def dragan_unclipped(real, fake, rng):
    return perturb(real, rng, *BLOG, clip=False)


def dragan_alpha_a_pixel(real, fake, rng):
    alpha, u = torch.rand(2, *real.shape, generator=rng, dtype=real.dtype)
    return (real + (2 * alpha - 1) * 0.5 * real.std(correction=0) * u).clamp(real.amin(), real.amax())


def dragan_std_a_pixel(real, fake, rng):
    u = torch.rand(real.shape, generator=rng, dtype=real.dtype)
    shift = uniform_per_sample(real, rng, -1, 1) * 0.5 * real.std(0, correction=0) * u
    return (real + shift).clamp(real.amin(), real.amax())


class LossOf:
    """A loss from two functions."""

    def __init__(self, d: Callable[..., Tensor], g: Callable[..., Tensor]):
        self._d, self._g = d, g

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._d(real, fake)

    def g(self, fake: Tensor) -> Tensor:
        return self._g(fake)


def loss(d: Callable[..., Tensor], g: Callable[..., Tensor]) -> Callable[[dict[str, Any]], LossOf]:
    return lambda s: LossOf(d, g)


def halved_gan(r, f):
    return (softplus(-r).mean() + softplus(f).mean()) / 2


def least_squares(r, f):
    return (r - 1).square().mean() + f.square().mean()


def hinge(r, f):
    return relu(1 - r).mean() + relu(1 + f).mean()


def tutorial_gan(r, f):
    """BCELoss clamps its logarithms at -100."""
    ones, zeros = torch.ones_like(r), torch.zeros_like(f)
    return binary_cross_entropy(r.sigmoid(), ones) + binary_cross_entropy(f.sigmoid(), zeros)


class DetachedRaGAN(losses.RaGAN):
    """The means do not carry the gradient."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake.mean().detach() - real).mean() + softplus(fake - real.mean().detach()).mean()


class UnpairedRpGAN(losses.RpGAN):
    """Compares means, and so loses all but the first moment of the logits."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake.mean() - real.mean())


class BlindRaGAN(losses.RaGAN):
    """The generator's half over reals is left out."""

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real.mean() - fake).mean()


class SwappedRpGAN(losses.RpGAN):
    """The arguments of g swapped."""

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(fake - real).mean()


LOSSES = [
    Mutant("LSGAN on sigmoid outputs", "lsgan", loss(
        lambda r, f: least_squares(r.sigmoid(), f.sigmoid()), lambda f: (f.sigmoid() - 1).square().mean())),
    Mutant("LSGAN with one wrong sign", "lsgan", loss(
        lambda r, f: -(r - 1).square().mean() + f.square().mean(), lambda f: -(f - 1).square().mean())),
    Mutant("LSGAN summed over the batch", "lsgan", loss(
        lambda r, f: (r - 1).square().sum() + f.square().sum(), lambda f: (f - 1).square().sum())),
    Mutant("LSGAN without Pearson's targets", "lsgan_pearson", loss(
        least_squares, lambda f: (f - 1).square().mean())),
    Mutant("hinge for the generator, too (hinge_v1)", "hinge", loss(hinge, lambda f: relu(1 - f).mean())),
    Mutant("hinge with margin 0", "hinge", loss(
        lambda r, f: relu(-r).mean() + relu(f).mean(), lambda f: -f.mean())),
    Mutant("Wasserstein sign wrong for both players", "wgan", loss(
        lambda r, f: r.mean() - f.mean(), lambda f: f.mean())),
    Mutant("Wasserstein sign wrong for the generator only", "wgan", loss(
        lambda r, f: f.mean() - r.mean(), lambda f: f.mean())),
    Mutant("GAN loss halved for the critic only", "gan", loss(halved_gan, lambda f: softplus(-f).mean())),
    Mutant("GAN loss with smoothed labels", "gan", loss(
        lambda r, f: (softplus(-r) + 0.25 * r).mean() + softplus(f).mean(), lambda f: softplus(-f).mean())),
    Mutant("GAN loss as the log of a sigmoid", "gan", loss(
        lambda r, f: -r.sigmoid().log().mean() - (1 - f.sigmoid()).log().mean(), lambda f: -f.sigmoid().log().mean())),
    Mutant("minimax instead of the non-saturating loss", "gan", loss(
        lambda r, f: softplus(-r).mean() + softplus(f).mean(), lambda f: -softplus(f).mean())),
    Mutant("loss per sample instead of the mean", "gan", loss(
        lambda r, f: softplus(-r) + softplus(f), lambda f: softplus(-f))),
    Mutant("loss without a gradient", "gan", loss(
        lambda r, f: (softplus(-r) + softplus(f)).mean().detach(), lambda f: softplus(-f).mean())),
    Mutant("GAN loss as BCELoss of a sigmoid", "gan", loss(
        tutorial_gan, lambda f: binary_cross_entropy(f.sigmoid(), torch.ones_like(f)))),
    Mutant("right value, doubled gradient", "wgan", loss(
        lambda r, f: f.mean() - 2 * r.mean() + r.detach().mean(), lambda f: -f.mean())),
    Mutant("relativistic average with detached means", "ragan", lambda s: DetachedRaGAN()),
    Mutant("relativistic pairs of means", "rpgan", lambda s: UnpairedRpGAN()),
    Mutant("relativistic pairs with swapped arguments", "rpgan", lambda s: SwappedRpGAN()),
    Mutant("relativistic average over fake samples only", "ragan", lambda s: BlindRaGAN()),
]  # fmt: skip

PENALTIES = [
    Mutant("norm over one axis", "gp", penalty(norm_over_one_axis)),
    Mutant("norm over the whole batch", "gp", penalty(norm_over_the_batch)),
    Mutant("norm of the batch mean of the gradient", "gp", penalty(of_the_mean_gradient)),
    Mutant("one α per batch", "gp", penalty(one_alpha_a_batch)),
    Mutant("α per pixel", "gp", penalty(one_alpha_a_pixel)),
    Mutant("α beyond the line", "gp", penalty(alpha_beyond_the_line)),
    Mutant("plain sqrt, with a NaN gradient at 0", "gp", penalty(bare_root)),
    Mutant("1e-4 inside the sqrt", "gp", penalty(padded_root)),
    Mutant("gradient in the parameters instead of the input", "gp", penalty(by_parameters)),
    Mutant("missing create_graph", "gp", penalty(no_graph)),
    Mutant("doubled weight", "gp", penalty(doubled_weight)),
    Mutant("penalty on the sigmoid of the logit", "gp", penalty(on_sigmoid)),
    Mutant("penalty on the sigmoid of the logit", "dragan", penalty(on_sigmoid)),
    Mutant("sum over the batch instead of the mean", "gp", penalty(summed_over_the_batch)),
    Mutant("hard-coded three channels", "gp", penalty(three_channels)),
    Mutant("squared norm instead of the norm", "gp", penalty(squared_norm_of_one)),
    Mutant("noise from the global random state", "gp", penalty(global_noise)),
    Mutant("one-sided on the wrong side", "lp", penalty(two_sided_as_one)),
    Mutant("two-sided instead of one-sided", "lp", penalty(two_sides)),
    Mutant("R1 without the factor 1/2", "r1", penalty(full_r1)),
    Mutant("R1 as the mean over pixels", "r1", penalty(r1_over_the_mean)),
    Mutant("R1 at fake samples", "r1", penalty(r1_of_fakes)),
    Mutant("R1 of the mean gradient", "r1", penalty(r1_of_the_mean_gradient)),
    Mutant("R1 as the square of the mean gradient norm", "r1", penalty(r1_as_squared_mean)),
    Mutant("R2 at the first sample only", "r2", penalty(r2_of_the_first)),
    Mutant("mean over violators only", "lp", penalty(over_violators_only)),
    Mutant("α never near 0 or 1", "gp", penalty(not_to_the_ends)),
    Mutant("mean instead of the maximum", "maxgp", penalty(mean_for_max)),
    Mutant("DRAGAN towards the fake samples", "dragan", dragan_of(dragan_on_the_line)),
    Mutant("DRAGAN without clipping to the data range", "dragan", dragan_of(dragan_unclipped)),
    Mutant("DRAGAN with α per pixel", "dragan", dragan_of(dragan_alpha_a_pixel)),
    Mutant("DRAGAN with a std per pixel", "dragan", dragan_of(dragan_std_a_pixel)),
]  # fmt: skip


class Unclipped(Clip):
    def project(self, D: nn.Module) -> None:
        pass


class ClippedFirst(Clip):
    @torch.no_grad()
    def project(self, D: nn.Module) -> None:
        next(D.parameters()).clamp_(-self.c, self.c)


PENALTIES.append(Mutant("weights not clipped", "clip", lambda s: Unclipped(s["c"])))
PENALTIES.append(Mutant("only the first layer's weights clipped", "clip", lambda s: ClippedFirst(s["c"])))


def mixing_critic() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(4 * 256, 1),
        nn.Flatten(0),
    )


class HiddenMixing(nn.Module):
    """A BatchNorm in a branch that starts at zero."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1), nn.Flatten(0))
        self.branch = mixing_critic()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + self.gate * self.branch(x)


class DetachedMixing(nn.Module):
    """The batch's mean taken off without a gradient."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1), nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x - x.mean(0).detach())


def two_column_critic() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 1))


class Normed(nn.Module):
    """Spectral norm taken off the last layer."""

    def __init__(self):
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.body = nn.Sequential(nn.Flatten(), spectral(nn.Linear(1024, 8)), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


CRITICS = [
    Mutant("BatchNorm in the critic", "dcgan/none", lambda s: mixing_critic()),
    Mutant("BatchNorm in a branch that starts at zero", "dcgan/none", lambda s: HiddenMixing()),
    Mutant("batch mean subtracted from the samples", "dcgan/none", lambda s: DetachedMixing()),
    Mutant("logits of shape [N, 1]", "dcgan/none", lambda s: two_column_critic()),
    Mutant("no spectral norm in the last layer", "dcgan/spectral", lambda s: Normed()),
]


def own_step_for_the_penalty(players: Players, batch: CriticBatch, objective: Objective) -> Terms:
    """Adam's moments mixed, the weight without a meaning."""
    terms = updates.critic_update(players, batch, Objective(objective.loss, no_penalty))
    players.opt_d.zero_grad()
    with torch.no_grad():
        fake = players.G(batch.z)
    objective.penalty(players.D, batch.real, fake, batch.rng).backward()
    players.opt_d.step()
    return terms


def penalty_under_autocast(players: Players, batch: CriticBatch, objective: Objective) -> Terms:
    def inside(*arguments):
        with objective.autocast():
            return objective.penalty(*arguments)

    return updates.critic_update(players, batch, dataclasses.replace(objective, penalty=inside))


def augments_only_the_reals(players: Players, batch: CriticBatch, objective: Objective) -> Terms:
    """Seen by the critic as a difference between the two, and soon by the samples (Zhao et al. 2020, section 3)."""
    augment = objective.augment or (lambda x, rng: x)
    alone = dataclasses.replace(objective, augment=None)
    return updates.critic_update(players, batch._replace(real=augment(batch.real, batch.augment_rng)), alone)


def penalty_without_augmentation(players: Players, batch: CriticBatch, objective: Objective) -> Terms:
    with torch.no_grad():
        fake = players.G(batch.z)

    def at_the_samples(D, augmented_real, augmented_fake, rng):
        return objective.penalty(D, batch.real, fake, rng)

    return updates.critic_update(players, batch, dataclasses.replace(objective, penalty=at_the_samples))


def through_the_generator(players: Players, batch: CriticBatch, objective: Objective) -> None:
    """The fakes not detached, and G's optimizer run by the critic's gradient."""
    D, G = players.D, players.G
    fake = G(batch.z)
    value = objective.loss.d(*D(torch.cat([batch.real, fake])).chunk(2))
    value = value + objective.penalty(D, batch.real, fake.detach(), batch.rng)
    players.opt_d.zero_grad()
    value.backward()
    players.opt_d.step()
    with torch.no_grad():
        for w in G.parameters():
            w -= 0.1 * w.grad


STEPS = [
    Mutant("separate optimizer step for the penalty", "wgan-gp", lambda s: own_step_for_the_penalty),
    Mutant("penalty inside autocast", "wgan-gp", lambda s: penalty_under_autocast),
    Mutant("critic's update also moves G", "wgan-gp", lambda s: through_the_generator),
    Mutant("augments the reals and not the fakes", "wgan-gp", lambda s: augments_only_the_reals),
    Mutant("penalty at samples that are not augmented", "wgan-gp", lambda s: penalty_without_augmentation),
]


def frechet_without_means(a, b, root_a=None):
    return frechet.distance(a._replace(mean=b.mean), b, root_a)


def frechet_by_trace_of_roots(a, b, root_a=None):
    """tr (A^(1/2) B^(1/2)) for tr (A B)^(1/2): the same only where A and B commute."""
    cross = (frechet.root(a.cov) @ frechet.root(b.cov)).trace()
    return float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross)


def kernel_with_diagonals(x, y):
    """The biased estimate: every sample is compared with itself, too."""
    k = lambda a, b: ((a @ b.T / a.shape[1] + 1) ** 3).mean()  # noqa: E731
    return float(k(x, x) + k(y, y) - 2 * k(x, y))


def swapped(real, fake, k):
    return prdc.diversity(fake, real, k)


def coverage_by_balls_of_fakes(real, fake, k):
    scores = prdc.diversity(real, fake, k)
    return scores | {"coverage": scores["recall"]}


def memorization_upside_down(fake, train, test):
    return prdc.memorization(fake, test, train)


def memorization_by_means(fake, train, test):
    near, far = (torch.cdist(fake, kind).amin(1).mean() for kind in (train, test))
    return {"memorization": float(near / far)}


def inception_score_without_parts(logits):
    return inception_score.inception_score(logits, splits=1)


def inception_score_of_entropy(logits):
    """exp of the marginal's entropy alone: how sure the samples are is left out."""
    marginal = logits.double().softmax(1).mean(0)
    return {"inception_score": float((-torch.special.xlogy(marginal, marginal)).sum().exp())}


def swapped_references(*args, reference, data, **kwargs):
    """Held-out images where training images are asked for, and the reverse."""
    swapped = {"train": "held_out", "held_out": "train", "all": "all"}
    return ImageMetric(*args, reference=swapped[reference], data=data, **kwargs)


def swapped_sets(*args, data, **kwargs):
    """The right distance for one reference only, and memorization of held-out images."""
    return ImageMetric(*args, data=data._replace(train=data.test, test=data.train), **kwargs)


def density_of_reals(real, fake, k):
    return prdc.diversity(real, fake, k) | {"density": prdc.diversity(fake, real, k)["density"]}


METRICS = [
    Mutant("Inception Score of all samples at once", "inception", lambda s: inception_score_without_parts),
    Mutant("Inception Score from the marginal only", "inception", lambda s: inception_score_of_entropy),
    Mutant("training for held-out images as reference", "references", lambda s: swapped_references),
    Mutant("training and held-out images exchanged", "references", lambda s: swapped_sets),
    Mutant("Fréchet distance without the means", "frechet", lambda s: frechet_without_means),
    Mutant("Fréchet distance from the product of roots", "frechet", lambda s: frechet_by_trace_of_roots),
    Mutant("KID with the diagonals (biased)", "kid", lambda s: kernel_with_diagonals),
    Mutant("real and generated samples swapped", "prdc", lambda s: swapped),
    Mutant("coverage from balls around fake samples", "prdc", lambda s: coverage_by_balls_of_fakes),
    Mutant("density of real among fake samples", "prdc", lambda s: density_of_reals),
    Mutant("training and held-out data swapped", "memorization_ratio", lambda s: memorization_upside_down),
    Mutant("memorization from mean distances", "memorization_ratio", lambda s: memorization_by_means),
]


FOOTING = [  # made as overrides of the default configuration
    Mutant("loss that also sets the critic's norm", "wgan-gp", lambda s: ("loss=wgan-gp", "model.critic_norm=none")),
]

ALL = {
    "loss": LOSSES,
    "penalty": PENALTIES,
    "critic": CRITICS,
    "step": STEPS,
    "metric": METRICS,
    "footing": FOOTING,
}


def markdown_table() -> str:
    """List all wrong versions and the check that catches each."""
    caught_by = json.loads(CAUGHT_BY.read_text(encoding="utf-8"))
    lines = ["| wrong version | shown as | caught by |", "| --- | --- | --- |"]
    for mutants in ALL.values():
        lines += [f"| {mutant.defect} | {mutant.shown_as} | {caught_by[mutant.id]} |" for mutant in mutants]
    return "\n".join(lines)
