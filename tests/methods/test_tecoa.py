"""TeCoA: where its pictures lie, and what they do to the loss."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.losses.contrast import contrast
from rizbin.methods.tecoa import TeCoA
from rizbin.training.method import Batch, Progress
from tests.toys import batch_for, build

DEVIATION = torch.tensor(STD)[:, None, None]
WHITE = (1 - torch.tensor(MEAN)[:, None, None]) / DEVIATION
BLACK = -torch.tensor(MEAN)[:, None, None] / DEVIATION


def made(**settings: Any) -> tuple[TeCoA, Batch]:
    """A tiny one in training and a batch of pictures between black and white."""
    method = build("tecoa", settings)
    assert isinstance(method, TeCoA)
    batch = batch_for(method)
    batch.views[0].clamp_(BLACK, WHITE)
    return method.train(), batch


def loss_of(method: TeCoA, images: Tensor, batch: Batch) -> float:
    pair = method.pair
    assert batch.texts is not None
    with torch.no_grad():
        seen = pair.embed(pair.vision(images, track=False))
        return float(contrast(seen, pair.encode_texts(batch.texts), pair.scale, pair.logit_bias))


def misled(method: TeCoA, batch: Batch, change: float) -> Tensor:
    assert batch.texts is not None
    return method._misleading(
        batch.views[0], method.pair.encode_texts(batch.texts).detach(), change, Progress(3, 10, seed=1)
    )


@pytest.mark.parametrize("moves", [1, 3])
def test_pictures_stay_within_the_bound_and_mislead_more_than_noise_of_that_size(moves: int) -> None:
    method, batch = made(moves=moves)
    change = 0.05
    images, found = batch.views[0], misled(method, batch, change)
    apart = (found - images).abs() * DEVIATION
    # A thousandth of the bound for rounding of normalized values of up to 2.6.
    assert apart.max() <= change * 1.001 and (found >= BLACK - 1e-6).all() and (found <= WHITE + 1e-6).all()
    inside = (images > BLACK + 0.3) & (images < WHITE - 0.3)
    assert (apart[inside] > 0.99 * change).float().mean() > 0.5, "most values are where the bound lets them be"
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy = (images + signs * change / DEVIATION).clamp(BLACK, WHITE)
    plain, chance, worst = (loss_of(method, one, batch) for one in (images, noisy, found))
    assert worst > plain and worst - plain > 5 * abs(chance - plain)


def test_more_moves_mislead_at_least_as_well() -> None:
    one, batch = made(moves=1)
    three, _ = made(moves=3)
    assert loss_of(three, misled(three, batch, 0.05), batch) >= loss_of(one, misled(one, batch, 0.05), batch) - 1e-4


@pytest.mark.parametrize(
    ("settings", "fraction", "expected"), [({}, 0.25, 0.02), ({}, 0.8, 0.04), ({"growth": 0.0}, 0.0, 0.04)]
)
def test_the_bound_grows(settings: dict[str, float], fraction: float, expected: float) -> None:
    method, batch = made(change=0.04, **settings)
    (wish,) = method.step(batch, Progress(round(100 * fraction), 100))
    assert wish.records["change"] == pytest.approx(expected)


def test_without_change_it_is_clip() -> None:
    method, batch = made(change=0.0)
    clip = build("clip")
    clip.load_state_dict(method.state_dict())
    losses = [next(iter(one.step(batch, Progress(50, 100)))).loss.item() for one in (method, clip.train())]
    assert losses[0] == losses[1]


def test_searching_leaves_gradients_and_norms_alone() -> None:
    method, batch = made(growth=0.0)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    misled(method, batch, 0.05)
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "word"), [({"change": 1.5}, "change"), ({"change": -0.1}, "change"), ({"moves": 0}, "moves")]
)
def test_settings_that_mislead_nobody_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(RizbinError, match=word):
        build("tecoa", settings)
