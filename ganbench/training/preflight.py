"""Refuse a loss, a penalty or a net that is not what a comparison needs, before the first update.

Each function raises Refused with one sentence. `python -m ganbench.conformance` asks the same and much more.
"""

import copy
import inspect
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.gpu import refuse_random_kernels
from ganbench.interfaces import Augment, Loss, Metric, Penalty
from ganbench.metrics.protocol import Protocol
from ganbench.models.layers import eval_mode
from ganbench.randomness import generator, seed_globals

REAL_LOGITS = [0.5, -0.5, 2.0, 0.1]
FAKE_LOGITS = [0.3, -1.0, 0.2, -0.4]
MOVES = ((0.05, 0), (0.2, 1), (0.5, 2), (1.0, 3), (1.0, 4), (1.0, 5))  # scales and seeds of weights that are moved
FEW, MANY = 3, 64  # samples asked of a generator: evaluations and probes want other numbers than a batch of training
SIGNS = {-1: "negative", 1: "positive"}


def check_data(data: object, name: str, shape: Sequence[int]) -> None:
    """Refuse a dataset that is not training and held-out samples [N, *shape], bytes or finite numbers."""
    if not isinstance(data, Data):
        raise Refused(f"dataset {name} must return a ganbench.datasets.Data(train, test); got a {type(data).__name__}.")
    for part, x in (("train", data.train), ("test", data.test)):
        what = f"dataset {name}: {part}"
        if not isinstance(x, Tensor):
            raise Refused(f"{what} must be a tensor; got a {type(x).__name__}.")
        if not x.numel() or list(x.shape[1:]) != list(shape):
            asked = ", ".join(map(str, ["N", *shape]))
            raise Refused(f"{what} must have the shape [{asked}], as dataset.shape says; got {list(x.shape)}.")
        if x.dtype not in (torch.uint8, torch.float32):
            raise Refused(f"{what} must be uint8 for images and float32 for points; got {x.dtype}.")
        # Extremes take no memory, unlike x.isfinite().
        if x.is_floating_point() and not all(extreme.isfinite() for extreme in x.aminmax()):
            raise Refused(f"{what} has numbers that are not finite; leave their samples out.")


def check_weights(net: nn.Module, player: str) -> None:
    """Refuse a net that has no weights to train, or some without a shape yet."""
    name = f"{player} {type(net).__name__}"
    if any(is_lazy(w) for w in net.parameters()):
        raise Refused(
            f"{name} has lazy layers, whose weights are drawn at the first batch rather than from the seed; give "
            "their sizes, as in nn.Linear(in_features, out_features)."
        )
    if not any(w.requires_grad for w in net.parameters()):
        raise Refused(f"{name} has no weights to train; assign its layers in __init__, as attributes of the module.")


def check_generator(G: nn.Module, z_dim: int, x: Tensor) -> None:
    """Refuse a generator that does not map z [n, z_dim], whatever n, to samples such as the data x [N, ...].

    It is asked with perturbed weights, so that nothing hides behind a layer that starts at zero.
    """
    name = f"generator {type(G).__name__}"
    z = torch.randn(MANY, z_dim, generator=generator(0, "preflight")).to(x.device)
    for n in (FEW, MANY):
        with _asking(f"{name} fails for z of shape [{n}, {z_dim}]", x.device):
            fake = _perturbed(G)(z[:n])
        _check_samples(fake, [n, *x.shape[1:]], name)
    _check_signs(G, z, x, name)


def _check_samples(fake: Tensor, shape: list[int], name: str) -> None:
    if not isinstance(fake, Tensor):
        raise Refused(f"{name} must return a tensor of samples; got a {type(fake).__name__}.")
    if list(fake.shape) != shape:
        raise Refused(f"{name} must return samples of shape {shape}, as z and dataset ask; got {list(fake.shape)}.")
    if fake.dtype != torch.float32:
        raise Refused(
            f"{name} must return float32, not {str(fake.dtype).removeprefix('torch.')}; use precision=... for others."
        )
    if not fake.requires_grad:
        raise Refused(f"{name} gives no gradient to its weights; is something detached in it?")


def _check_signs(G: nn.Module, z: Tensor, x: Tensor, name: str) -> None:
    """Refuse samples that are never negative, or never positive, with whatever weights, where data are both."""
    missing = [sign for sign in SIGNS if (sign * x).max() > 0]
    for move in MOVES:
        fake = _perturbed(G, *move)(z)
        missing = [sign for sign in missing if (sign * fake).max() <= 0]
        if not missing:
            return
    raise Refused(
        f"{name} returns no {SIGNS[missing[0]]} values, and data reach from {float(x.min()):.3g} to "
        f"{float(x.max()):.3g}; end it with a function that has their range, such as tanh for images."
    )


def check_critic(D: nn.Module, x: Tensor) -> None:
    """Refuse a critic without one logit per sample of x [N >= 2, ...], without a gradient, or that mixes samples.

    Batch statistics in a critic make a per-sample gradient, and so every gradient penalty, meaningless. The critic is
    asked with perturbed weights, so that nothing hides behind a layer that starts at zero.
    """
    name = type(D).__name__
    perturbed = _perturbed(D)
    x = x.detach().requires_grad_()
    with _asking(f"critic {name} fails for samples of shape {list(x.shape)}", x.device):
        logits = _reproducible_logits(perturbed, x)
    if not isinstance(logits, Tensor):
        raise Refused(f"critic {name} must return a tensor of logits; got a {type(logits).__name__}.")
    if logits.shape != (len(x),):
        raise Refused(f"critic {name} must return one logit per sample, shape [{len(x)}]; got {list(logits.shape)}.")
    if not logits.requires_grad:
        raise Refused(f"critic {name} gives no gradient to its samples; is something detached in it?")
    if _depends_on_others(perturbed, x, logits):
        raise Refused(
            f"critic {name} mixes the samples of a batch (does it contain a BatchNorm?); it must judge each sample "
            "alone, so use layer, instance or spectral norm, or none."
        )


def check_loss(loss: Loss, name: str) -> None:
    """Refuse a loss whose d or g is not a scalar tensor with a gradient."""
    if not (callable(getattr(loss, "d", None)) and callable(getattr(loss, "g", None))):
        raise Refused(f"loss {name}: {type(loss).__name__} needs d(real, fake) and g(fake) or g(fake, real).")
    parameters = inspect.signature(loss.g).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    takes_fake = bool(by_position) and len(required) <= 1 + is_relativistic(loss)
    if not takes_fake or (is_relativistic(loss) and by_position[1:2] != ["real"]):
        raise Refused(f"loss {name}: g must take (fake) or (fake, real); it takes ({', '.join(required)}).")
    _check_untrained(loss, f"loss {name}")
    for n in (len(REAL_LOGITS), len(REAL_LOGITS) - 1):
        for player in ("d", "g"):
            value = _ask_loss(loss, name, player, n)
            _check_scalar(value, f"loss {name}: {player}")
            if not value.requires_grad:
                raise Refused(
                    f"loss {name}: {player} gives no gradient; is something detached, or not made of tensors?"
                )


def _ask_loss(loss: Loss, name: str, player: str, n: int) -> Tensor:
    """Return the loss of a player for n logits of each kind. Asks a copy, and refuses one that remembers it."""
    loss = copy.deepcopy(loss)
    real = torch.tensor(REAL_LOGITS[:n], requires_grad=True)
    fake = torch.tensor(FAKE_LOGITS[:n], requires_grad=True)

    def ask(real: Tensor, fake: Tensor) -> Tensor:
        with _asking(f"loss {name}: {player} fails for logits of shape [{n}]", real.device):
            return loss.d(real, fake) if player == "d" else generator_loss(loss, fake, real)

    value = ask(real, fake)
    ask(fake, real)
    _check_remembers_nothing(value, ask(real, fake), f"loss {name}: {player}")
    return value


def _check_remembers_nothing(value: Tensor, again: Tensor, what: str) -> None:
    """Refuse two answers to one question, with another one asked in between."""
    if isinstance(value, Tensor) and not torch.allclose(value, again, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise Refused(
            f"{what} returns another value when it is asked again, so it keeps a state, such as a counter or a running "
            "mean, that no checkpoint saves; let it depend on its arguments only."
        )


def _check_untrained(part: object, what: str) -> None:
    """Refuse a loss or a penalty with weights: no optimizer has them."""
    named = part.named_parameters() if isinstance(part, nn.Module) else getattr(part, "__dict__", {}).items()
    if names := [name for name, w in named if isinstance(w, Tensor) and w.requires_grad]:
        raise Refused(
            f"{what} has weights ({', '.join(names)}) that no optimizer trains and no checkpoint saves; use numbers "
            "instead, or make them part of a net."
        )


def check_penalty(penalty: Penalty, name: str, D: nn.Module, real: Tensor, fake: Tensor) -> None:
    """Refuse a penalty that is not a scalar, or not zero and without a gradient for D's weights. Asks copies."""
    if not callable(penalty):
        raise Refused(f"penalty {name}: {type(penalty).__name__} must be callable as penalty(D, real, fake, rng).")
    _check_untrained(penalty, f"penalty {name}")
    D = copy.deepcopy(D)
    penalty = copy.deepcopy(penalty)

    def ask(real: Tensor, fake: Tensor) -> Tensor:
        # In eval mode, as in training: power iterations are a state of the critic's, which checkpoints do save.
        with _asking(f"penalty {name} fails for samples of shape {list(real.shape)}", real.device), eval_mode(D):
            return penalty(D, real, fake, torch.Generator(real.device).manual_seed(0))

    value = ask(real, fake)
    _check_scalar(value, f"penalty {name}")
    ask(fake, 2 * real)
    _check_remembers_nothing(value, ask(real, fake), f"penalty {name}")
    if value.isnan():
        raise Refused(f"penalty {name} is nan for samples of shape {list(real.shape)} and new weights of the critic.")
    with _asking(f"penalty {name} fails where it is differentiated", real.device):
        has_gradient = value.requires_grad and _has_weight_gradient(value, D)
    if value != 0 and not has_gradient:
        raise Refused(
            f"penalty {name} gives no gradient to the critic's weights; is create_graph=True missing where the "
            "critic is differentiated?"
        )


def check_augment(augment: Augment, name: str, x: Tensor) -> None:
    """Refuse an augmentation that changes the shape or type of samples x [N, ...], or gives them no gradient."""
    x = x.detach().requires_grad_()
    with _asking(f"augment {name} fails for samples of shape {list(x.shape)}", x.device):
        seen = augment(x, torch.Generator(x.device).manual_seed(0))
        again = augment(x, torch.Generator(x.device).manual_seed(0))
    if not isinstance(seen, Tensor) or seen.shape != x.shape or seen.dtype != x.dtype:
        raise Refused(f"augment {name} must return float32 samples of the shape that it is given, {list(x.shape)}.")
    if not seen.requires_grad:
        raise Refused(f"augment {name} gives no gradient to its samples; is something detached in it?")
    with _asking(f"augment {name} fails where it is differentiated", x.device):
        torch.autograd.grad(seen.sum(), x)
    if not torch.equal(seen, again):
        raise Refused(f"augment {name} does not draw its noise from rng only, or keeps a state; let it do so.")


def check_rankable(metric: Metric, name: str) -> None:
    """Refuse a metric whose score no generator can have with these numbers of samples."""
    reason = getattr(metric, "cannot_rank", None)
    if reason:
        raise Refused(
            f"metric={name}: no run can have a score, since {reason}; use metric=kid, which needs no such number, or "
            "more real images to compare with and a higher metric.n_fake."
        )


def check_metric(metric: Metric, name: str) -> None:
    """Refuse a metric that does not say how many samples it takes, or what real data score under its own name."""
    if not isinstance(getattr(metric, "n_fake", None), int):
        raise Refused(f"metric {name}: {type(metric).__name__} needs n_fake, the number of samples that it takes.")
    reference = getattr(metric, "real_reference", None)
    if getattr(metric, "name", None) != name or not isinstance(reference, dict) or name not in reference:
        raise Refused(
            f"metric {name}: {type(metric).__name__} needs name={name} and real_reference, a dict with the score of "
            f"real data under {name}."
        )
    if not isinstance(getattr(metric, "protocol", None), Protocol | None):
        raise Refused(
            f"metric {name}: the protocol of {type(metric).__name__} must be a ganbench.metrics.protocol.Protocol, or "
            "left out."
        )


def is_relativistic(loss: Loss) -> bool:
    """Tell whether the generator's loss is g(fake, real) rather than g(fake)."""
    return "real" in inspect.signature(loss.g).parameters


def generator_loss(loss: Loss, fake: Tensor, real: Tensor) -> Tensor:
    """Return the generator's loss of logits [N], for both kinds of loss."""
    return loss.g(fake, real) if is_relativistic(loss) else loss.g(fake)


@contextmanager
def _asking(failure: str, device: torch.device) -> Iterator[None]:
    """Ask a user's component inside, under a fixed seed; any error there is a refusal that begins with `failure`."""
    seed_globals(0, device)
    try:
        with refuse_random_kernels():
            yield
    except (Refused, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise Refused(f"{failure}: {_place(error)}: {type(error).__name__}: {reason}") from error


def _place(error: Exception) -> str:
    """Return the file and line outside of torch that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    torchs = Path(torch.__file__).parent
    last = [frame for frame in frames if torchs not in Path(frame.filename).parents][-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def _perturbed(net: nn.Module, scale: float = 0.05, seed: int = 0) -> nn.Module:
    """Copy a net and move all its weights by normal noise of this scale."""
    net = copy.deepcopy(net)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in net.parameters():
            w.add_(scale * torch.randn(w.shape, generator=rng, dtype=w.dtype).to(w.device))
    return net


def _reproducible_logits(D: nn.Module, x: Tensor) -> Tensor:
    """Ask a copy of D under a fixed seed, so that power iterations and dropout are the same each time."""
    seed_globals(0, x.device)
    return copy.deepcopy(D)(x)


def _depends_on_others(D: nn.Module, x: Tensor, logits: Tensor) -> bool:
    """Tell whether the first logit changes with the other samples, in value or in gradient."""
    others_moved = torch.cat([x[:1], x[1:] + 1]).detach()
    if not torch.allclose(_reproducible_logits(D, others_moved)[0], logits[0], rtol=1e-4, atol=1e-6):
        return True
    (gradient,) = torch.autograd.grad(logits[0], x, allow_unused=True)
    return gradient is not None and bool(gradient[1:].abs().max() > 0)


def _check_scalar(value: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise Refused(f"{what} must return a scalar tensor; got a {type(value).__name__}.")
    if value.dim() > 0:
        raise Refused(f"{what} must return a scalar; got shape {list(value.shape)}, so take the mean over the batch.")


def _has_weight_gradient(value: Tensor, D: nn.Module) -> bool:
    weights = [w for w in D.parameters() if w.requires_grad]  # some may be frozen
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    return any(g is not None and bool(g.abs().max() > 0) for g in gradients)
