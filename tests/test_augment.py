"""Augmentations against second implementations, one image at a time, and what holds for each of them."""

from collections.abc import Callable

import pytest
import torch
from conftest import settings
from torch import Tensor
from torchvision.transforms import functional

from ganbench import augment
from ganbench.config.compose import build
from ganbench.errors import Refused
from ganbench.interfaces import Augment
from ganbench.training.batches import CriticBatch, GeneratorBatch
from ganbench.training.players import make_players
from ganbench.training.preflight import check_augment
from ganbench.training.updates import Objective, critic_update, generator_update

N = 400
EACH: dict[str, Augment] = {
    "flip": augment.flip,
    **augment.POLICIES,
    "diffaug": build(settings("augment=diffaug").augment),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = N, height: int = 16, width: int = 12, channels: int = 3) -> Tensor:
    """Images without a zero in them, so that a zero comes from an augmentation."""
    return torch.rand(n, channels, height, width, generator=seeded(1)) * 0.8 + 0.1


def draws(n: int, count: int) -> list[list[float]]:
    """What `count` draws of a number for each of n images are, as the augmentations make them, one after the other."""
    rng = seeded()
    return [torch.rand(n, generator=rng).tolist() for _ in range(count)]


def test_flips_are_torchvisions() -> None:
    x = images()
    (mirrored,) = draws(N, 1)
    expected = [functional.hflip(image) if u < 0.5 else image for image, u in zip(x, mirrored, strict=True)]
    assert torch.equal(augment.flip(x, seeded()), torch.stack(expected))
    assert 150 < sum(u < 0.5 for u in mirrored) < 250


def test_colors_are_those_of_numpy_written_out() -> None:
    x = images()
    expected = []
    for image, *u in zip(x.double().numpy(), *draws(N, 3), strict=True):
        bright = image + (u[0] - 0.5)
        gray = bright.mean(axis=0, keepdims=True)
        saturated = gray + 2 * u[1] * (bright - gray)
        expected.append(torch.tensor(saturated.mean() + (u[2] + 0.5) * (saturated - saturated.mean())))
    torch.testing.assert_close(augment.color(x, seeded()), torch.stack(expected).float(), rtol=1e-5, atol=1e-5)


def test_translations_are_torchvisions() -> None:
    """By up to 2 of 16 rows and 2 of 12 columns (1.5, rounded up), in every combination; zeros come in."""
    x = images()
    seen = set()
    moved = augment.translation(x, seeded())
    for image, was, u, v in zip(moved, x, *draws(N, 2), strict=True):
        down, right = int(u * 5) - 2, int(v * 5) - 2
        expected = functional.affine(was, angle=0, translate=[right, down], scale=1.0, shear=[0.0])
        assert torch.equal(image, expected)
        seen.add((down, right))
    assert len(seen) == 25


def test_a_hole_of_half_the_sides_lies_around_any_pixel() -> None:
    x = images()
    cut = augment.cutout(x, seeded())
    for image, was, u, v in zip(cut, x, *draws(N, 2), strict=True):
        top, left = int(u * 17) - 4, int(v * 13) - 3
        expected = functional.erase(
            was,
            max(top, 0),
            max(left, 0),
            min(top + 8, 16) - max(top, 0),
            min(left + 6, 12) - max(left, 0),
            torch.tensor(0.0),
        )
        assert torch.equal(image, expected)
    shares = (cut == 0).float().mean((1, 2, 3))
    assert shares.max() == 0.25 and shares.min() >= 1 / 16  # a quarter of it at the least, in a corner


def test_an_odd_side_is_rounded_up() -> None:
    cut = augment.cutout(images(height=9, width=9), seeded())
    heights = {int((image[0] == 0).any(1).sum()) for image in cut}
    assert max(heights) == 5 and min(heights) == 3


@pytest.mark.parametrize("name", EACH)
def test_an_image_is_changed_by_its_own_draw_only(name: str) -> None:
    x = images(64)
    changed = EACH[name](x, seeded())
    others = x.clone()
    others[1:] = 0.3
    assert torch.equal(EACH[name](others, seeded())[0], changed[0])
    assert torch.equal(EACH[name](x, seeded()), changed)
    assert not torch.equal(EACH[name](x, seeded(1)), changed)
    same = EACH[name](x[:1].expand_as(x), seeded())
    assert len({tuple(image.flatten().tolist()) for image in same}) > (1 if name == "flip" else 10)


@pytest.mark.parametrize("name", EACH)
def test_the_gradient_is_that_of_small_differences(name: str) -> None:
    x = images(3, 8, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: EACH[name](x, seeded()), x)


@pytest.mark.parametrize("name", EACH)
def test_gray_images_and_innermost_channels_give_the_same(name: str) -> None:
    x = images(8)
    innermost = EACH[name](x.to(memory_format=torch.channels_last), seeded())
    torch.testing.assert_close(innermost, EACH[name](x, seeded()), rtol=1e-5, atol=1e-6)
    gray = images(8, channels=1)
    assert EACH[name](gray, seeded()).shape == gray.shape


@pytest.mark.parametrize("loss", ["wgan-gp", "rpgan"])
def test_both_updates_see_reals_and_fakes_through_one_call(loss: str) -> None:
    cfg = settings(f"loss={loss}", "model.width=8")
    calls = []

    def watching(x: Tensor, rng: torch.Generator) -> Tensor:
        calls.append((len(x), rng.initial_seed()))
        return augment.flip(x, rng)

    players = make_players(cfg, torch.device("cpu"))
    objective = Objective(build(cfg.loss), build(cfg.penalty), augment=watching)
    real, z = images(4, 32, 32, 1), torch.randn(4, cfg.model.z_dim, generator=seeded())
    critic_update(players, CriticBatch(real, z, seeded(), when={}, augment_rng=seeded(5)), objective)
    generator_update(players, GeneratorBatch(real, z, augment_rng=seeded(6)), objective)
    assert calls == [(8, 5), (8 if loss == "rpgan" else 4, 6)]


BAD: dict[str, tuple[Callable[..., object], str]] = {
    "smaller": (lambda x, rng: x[:, :, 1:], "of the shape"),
    "a number": (lambda x, rng: 3, "of the shape"),
    "half": (lambda x, rng: x.half(), "float32"),
    "detached": (lambda x, rng: x.detach() * 2, "no gradient"),
    "unseeded": (
        lambda x, rng: x * torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 2**31)),
        "rng only",
    ),
    "fails": (lambda x, rng: x @ x.new_ones(5, 5), "augment mine fails for samples"),
}


@pytest.mark.parametrize("fault", BAD)
def test_one_that_does_not_fit_is_refused(fault: str) -> None:
    function, message = BAD[fault]
    with pytest.raises(Refused, match=message):
        check_augment(function, "mine", images(4))  # type: ignore[arg-type]
    check_augment(augment.flip, "flip", images(4))
