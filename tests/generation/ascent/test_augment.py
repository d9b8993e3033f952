"""Copies: gradients right in float64, draws that depend on nothing but their key, the paper's sizes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.augment import Augment, draw, fitted
from rizbin.generation.ascent.settings import paper

ALL = {
    "shift": Augment(shift=0.25, noise=0.0, crop=1.0),
    "noise": Augment(shift=0.0, noise=0.05, crop=1.0),
    "color": Augment(shift=0.0, noise=0.0, crop=1.0, color=0.05),
    "flip": Augment(shift=0.0, noise=0.0, crop=1.0, flip=1.0),
    "crop": Augment(shift=0.0, noise=0.0, crop=0.5),
    "everything": Augment(shift=0.25, noise=0.05, color=0.05, flip=1.0, crop=0.7, clip=False),
}
every_change = pytest.mark.parametrize("settings", ALL.values(), ids=list(ALL))


@every_change
def test_the_gradient_is_right(settings: Augment) -> None:
    pictures = (torch.rand(2, 3, 12, 10, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    made = draw(settings, (12, 10), 8, 1, 2, 3)

    def copied(given: Tensor) -> Tensor:
        return made.apply(given)

    assert torch.autograd.gradcheck(copied, (pictures,), fast_mode=True)


@every_change
def test_a_draw_is_its_key_alone(settings: Augment) -> None:
    pictures = torch.rand(3, 3, 12, 12)
    one, again, other = (draw(settings, (12, 12), 8, 1, 2, copy).apply(pictures) for copy in (3, 3, 5))
    assert torch.equal(one, again)
    assert torch.equal(one[1:2], draw(settings, (12, 12), 8, 1, 2, 3).apply(pictures[1:2])), "whoever is beside it"
    if settings.flip < 1 or settings.crop < 1:
        assert not torch.equal(one, other)


def test_the_papers_sizes() -> None:
    settings = paper().augment
    made = draw(settings, (336, 336), 224, 0, 0, 0)
    assert made.box == (56, 56, 224, 224) and abs(made.down) <= 56 and abs(made.across) <= 56
    drawn = [draw(settings, (336, 336), 224, 0, 0, copy).down for copy in range(200)]
    assert min(drawn) < -50 and max(drawn) > 50 and abs(sum(drawn) / 200) < 8
    small = draw(settings, (224, 224), 224, 0, 0, 0)
    assert small.box == (0, 0, 224, 224), "nothing is cut off a canvas of the encoder's side"


def test_what_is_placed_lies_as_the_copy_does() -> None:
    pictures = torch.rand(1, 3, 12, 12)
    made = draw(Augment(noise=0.0, flip=1.0, crop=0.7), (12, 12), 8, 0, 0, 1)
    assert torch.equal(made.placed(pictures), made.apply(pictures))


def test_noise_stays_within_and_is_centered() -> None:
    gray = torch.full((1, 3, 64, 64), 0.5)
    copy = draw(Augment(shift=0.0, noise=0.2, crop=1.0), (64, 64), 64, 0, 0, 0).apply(gray) - 0.5
    assert copy.abs().max() <= 0.2 and abs(float(copy.mean())) < 0.01 and copy.abs().mean() > 0.08
    assert draw(Augment(noise=0.2), (64, 64), 64, 0, 0, 0).apply(gray * 0).min() == 0, "clipped"


def test_a_larger_picture_is_averaged() -> None:
    checks = (torch.arange(16) % 2).float().expand(1, 3, 16, 16)
    assert (fitted(checks, 8)[..., 1:-1] - 0.5).abs().max() < 0.01
    assert fitted(checks, 16) is checks


def test_shares_are_checked() -> None:
    wrongs: list[dict[str, Any]] = [{"crop": 0.0}, {"noise": 1.5}, {"shift": -0.1}]
    for wrong in wrongs:
        with pytest.raises(RizbinError, match="give"):
            Augment(**wrong)
