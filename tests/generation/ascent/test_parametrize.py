"""What pictures are made of: starts come back, gradients are right in float64, coarse things are cheap."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.parametrize import (
    Fourier,
    Latent,
    MultiResolution,
    Pixels,
    Strokes,
    bounded,
    enlarging,
    parametrized,
    sides_of,
    squashed,
    unsquashed,
)
from tests.generation.diffusion.small_painters import painter

START = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.8 + 0.1
MADE: dict[str, Any] = {
    "pixels": lambda start: Pixels(start),
    "fourier": lambda start: Fourier(start),
    "all resolutions": lambda start: MultiResolution(start, resolutions="all"),
    "powers": lambda start: MultiResolution(start, resolutions="powers", decay=0.5),
    "apart": lambda start: MultiResolution(start, resolutions="powers", decay=-0.5, apart=True),
    "a list": lambda start: MultiResolution(start, resolutions=(1, 3, 8)),
    "strokes": lambda start: Strokes(start, strokes=3, generator=torch.Generator().manual_seed(1)),
}
every_form = pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))


@every_form
def test_the_gradient_is_right(make: Any) -> None:
    made: nn.Module = make(START)
    names = list(dict(made.named_parameters()))
    generator = torch.Generator().manual_seed(2)
    values = [
        (value.detach() + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)).requires_grad_()
        for value in made.parameters()
    ]

    def picture(*given: Tensor) -> Tensor:
        return functional_call(made, dict(zip(names, given, strict=True)), ())

    assert torch.autograd.gradcheck(picture, values, fast_mode=True)


@every_form
def test_it_begins_with_the_start_and_stays_between_black_and_white(make: Any) -> None:
    made: nn.Module = make(START)
    with torch.no_grad():
        faint = 0.12 if isinstance(made, Strokes) else 1e-6
        assert (made() - START).abs().max() < faint
        for value in made.parameters():
            value.add_(3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3), dtype=value.dtype))
        assert made().shape == START.shape and made().min() >= 0 and made().max() <= 1


@every_form
def test_pictures_do_not_know_each_other(make: Any) -> None:
    made: nn.Module = make(START)
    made()[0].square().sum().backward()
    for value in made.parameters():
        assert value.grad is not None
        assert value.grad[0].any() and not value.grad[1].any()


def test_enlarging_is_torchs_bicubic() -> None:
    for side, size in ((2, 8), (3, 7), (5, 12)):
        small = torch.rand(1, 2, side, side, dtype=torch.float64)
        matrix = enlarging(side, size).double()
        wide = F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False)
        assert torch.allclose(matrix @ small @ matrix.T, wide, atol=1e-6)
    assert torch.equal(enlarging(1, 4), torch.ones(4, 1))


def test_one_coarse_value_gathers_what_all_pixels_ask_for() -> None:
    """The prior: of one plain step, most moves the coarsest component."""
    made = MultiResolution(START, resolutions="all")
    made().sum().backward()
    asked = [float(level.grad.abs().mean()) for level in made.levels if level.grad is not None]
    assert asked == sorted(asked, reverse=True) and asked[0] > 20 * asked[-1]


def test_resolutions_are_named() -> None:
    assert sides_of("all", 5) == (1, 2, 3, 4, 5)
    assert sides_of("powers", 96) == (1, 2, 4, 8, 16, 32, 64, 96) and sides_of("powers", 64)[-2:] == (32, 64)
    assert sides_of((8, 2, 2), 8) == (2, 8)
    for wrong, words in (((), "none"), ((9,), "does not fit a canvas of 8")):
        with pytest.raises(RizbinError, match=words):
            sides_of(wrong, 8)


def test_a_strong_stroke_is_seen_where_it_lies() -> None:
    made = Strokes(torch.full((1, 3, 20, 20), 0.5), strokes=1)
    with torch.no_grad():
        made.points.copy_(torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]]).view(1, 1, 3, 2))
        made.widths.fill_(-2.0)
        made.opacity.fill_(8.0)
        made.colors.copy_(torch.tensor([4.0, -4.0, -4.0]).view(1, 1, 3))
        picture = made()[0]
    assert picture[0, 9:11, 5:15].min() > 0.9 and picture[1, 9:11, 5:15].max() < 0.1
    assert (picture[:, :5] - 0.5).abs().max() < 0.01


def test_components_are_summed_as_torch_enlarges_them() -> None:
    start = START.float()  # no square
    made = MultiResolution(start, resolutions=(1, 3, 8), decay=-0.5)
    slow = unsquashed(start)
    with torch.no_grad():
        for side, level in zip(made.sides, made.levels, strict=True):
            level.normal_(generator=torch.Generator().manual_seed(side))
            wide = F.interpolate(level, size=(6, 8), mode="bicubic", align_corners=False)
            slow = slow + (side / 8) ** 0.5 * wide
        assert torch.allclose(made(), squashed(slow), atol=1e-5)


@pytest.mark.parametrize("sides", [(4, 16), (3, 8), (7, 16)])
def test_components_apart_hold_only_what_coarser_ones_cannot(sides: tuple[int, int]) -> None:
    coarse, fine = sides
    start = torch.full((1, 3, fine, fine), 0.5)
    made = MultiResolution(start, resolutions=(1, coarse, fine), apart=True)
    generator = torch.Generator().manual_seed(0)
    blurred = torch.randn(1, 3, coarse, coarse, generator=generator)
    with torch.no_grad():
        made.levels[2].copy_(F.interpolate(blurred, size=(fine, fine), mode="bicubic", align_corners=False))
        made.levels[1].fill_(0.7)
        assert (made() - start).abs().max() < 1e-5, "what the coarser one can show, and one color, are not theirs"
        made.levels[2].normal_(generator=generator)
        shown = unsquashed(made())
        assert shown.std() > 0.1 and abs(float(shown.mean())) < 1e-4
        made.levels[0][:, 0] = 1.0
        red, green, blue = (unsquashed(made()) - shown).mean(dim=(0, 2, 3))
        assert 0.5 < red < 0.6 and abs(float(green - red)) < 0.05 and abs(float(blue - red)) < 0.05, "gray comes first"


def test_the_gradient_through_an_autoencoder_is_right() -> None:
    start = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 0.5 + 0.25
    made = Latent(start, autoencoder=deepcopy(painter().pipeline.vae).double())

    def picture(latents: Tensor) -> Tensor:
        return functional_call(made, {"latents": latents}, ())

    assert made().min() > 0 and made().max() < 1, "the ends of the range have no slope"
    assert torch.autograd.gradcheck(picture, made.latents.detach().clone().requires_grad_(), fast_mode=True)


def test_latents_follow_the_autoencoder() -> None:
    start = torch.full((2, 3, 16, 16), 0.5)
    made = parametrized("latent", start, autoencoder=painter().pipeline.vae)
    made()[0].mean().backward()
    (latents,) = made.parameters()
    assert made().shape == start.shape and latents.grad is not None
    assert latents.grad[0].any() and not latents.grad[1].any()
    with pytest.raises(RizbinError, match="need an autoencoder"):
        parametrized("latent", start)
    with pytest.raises(RizbinError, match="canvas of 17x17"):
        parametrized("latent", torch.full((1, 3, 17, 17), 0.5), autoencoder=painter().pipeline.vae)()


def test_what_may_not_change_does_not() -> None:
    start, other = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    mask = torch.zeros(1, 4, 4)
    mask[:, :, 2:] = 1
    mixed = bounded(other, start, mask=mask)
    assert torch.equal(mixed[..., :2], start[..., :2]) and torch.allclose(mixed[..., 2:], other[..., 2:])
    assert (bounded(other, start, change=0.1) - start).abs().max() < 0.1001
    assert bounded(other, start) is other
