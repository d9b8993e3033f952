"""Contrastive losses against the papers' formulas in slow float64 loops, against open_clip, and over two processes."""

import math
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.losses.contrast import clip_loss, contrast, contrast_of, nt_xent, sigmoid_loss
from tests.processes import run_in_processes


def pairs(batch: int = 6, dim: int = 5, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [F.normalize(torch.randn(batch, dim, dtype=torch.float64, generator=generator), dim=-1) for _ in range(2)]
    return made[0].to(dtype), made[1].to(dtype)


def slow_clip(images: Tensor, texts: Tensor, scale: float) -> float:
    total = 0.0
    for i in range(len(images)):
        rows = [math.exp(scale * float(images[i] @ texts[j])) for j in range(len(texts))]
        columns = [math.exp(scale * float(texts[i] @ images[j])) for j in range(len(images))]
        total += -(math.log(rows[i] / sum(rows)) + math.log(columns[i] / sum(columns))) / 2
    return total / len(images)


def slow_sigmoid(images: Tensor, texts: Tensor, scale: float, bias: float) -> float:
    total = 0.0
    for i in range(len(images)):
        for j in range(len(texts)):
            sign = 1 if i == j else -1
            total += -math.log(1 / (1 + math.exp(-sign * (scale * float(images[i] @ texts[j]) + bias))))
    return total / len(images)


def slow_nt_xent(a: Tensor, b: Tensor, temperature: float) -> float:
    # Siblings side by side, as in the paper.
    views = [row / row.norm() for pair in zip(a, b, strict=True) for row in pair]
    total = 0.0
    for i, view in enumerate(views):
        sibling = i + 1 if i % 2 == 0 else i - 1
        others = sum(math.exp(float(view @ views[j]) / temperature) for j in range(len(views)) if j != i)
        total += -math.log(math.exp(float(view @ views[sibling]) / temperature) / others)
    return total / len(views)


CASES = {
    "clip": (lambda a, b: clip_loss(a, b, a.new_tensor(14.3)), lambda a, b: slow_clip(a, b, 14.3)),
    "sigmoid": (
        lambda a, b: sigmoid_loss(a, b, a.new_tensor(10.0), a.new_tensor(-10.0)),
        lambda a, b: slow_sigmoid(a, b, 10.0, -10.0),
    ),
    "clip of fits": (
        lambda a, b: contrast_of(a @ parallel.gather(b).T, a.new_tensor(14.3), None),
        lambda a, b: slow_clip(a, b, 14.3),
    ),
    "sigmoid of fits": (
        lambda a, b: contrast_of(a @ parallel.gather(b).T, a.new_tensor(10.0), a.new_tensor(-10.0)),
        lambda a, b: slow_sigmoid(a, b, 10.0, -10.0),
    ),
    "nt_xent": (lambda a, b: nt_xent(3 * a, b, 0.1), lambda a, b: slow_nt_xent(3 * a, b, 0.1)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_losses_equal_the_papers_formula(name: str, dtype: torch.dtype) -> None:
    fast, slow = CASES[name]
    a, b = pairs(dtype=dtype)
    expected = slow(a.double(), b.double())
    # 1e-9 and 1e-5: the figures that the losses must meet.
    assert abs(float(fast(a, b)) - expected) <= (1e-9 if dtype == torch.float64 else 1e-5) * max(1.0, abs(expected))


@pytest.mark.parametrize("name", CASES)
def test_a_mutated_loss_is_told_from_the_formula(name: str) -> None:
    """The comparison has teeth.

    A shifted pairing, a wrong sign and a halved loss all miss it by far more than the tolerance.
    """
    fast, slow = CASES[name]
    a, b = pairs()
    expected = slow(a, b)
    for mutated in (fast(a, b.roll(1, 0)), fast(a, -b), fast(a, b) / 2):
        assert abs(float(mutated) - expected) > 1e-2


def test_clip_and_sigmoid_equal_open_clip() -> None:
    from open_clip.loss import ClipLoss, SigLipLoss

    a, b = pairs(dtype=torch.float32)
    scale, bias = torch.tensor(14.3), torch.tensor(-9.0)
    assert torch.allclose(clip_loss(a, b, scale), ClipLoss()(a, b, scale), atol=1e-6)
    assert torch.allclose(sigmoid_loss(a, b, scale, bias), SigLipLoss()(a, b, scale, bias), atol=1e-6)
    assert contrast(a, b, scale, None) == clip_loss(a, b, scale)
    assert contrast(a, b, scale, bias) == sigmoid_loss(a, b, scale, bias)


def _gradients(name: str, a: Tensor, b: Tensor) -> tuple[float, Tensor]:
    """Loss and tower gradient of this process's rows, averaged over processes as the trainer does."""
    tower = torch.nn.Linear(a.shape[1], 4, bias=False, dtype=a.dtype)
    with torch.no_grad():
        tower.weight.copy_(torch.linspace(-1, 1, tower.weight.numel()).view_as(tower.weight))
    rows = len(a) // parallel.world_size()
    own = slice(parallel.rank() * rows, (parallel.rank() + 1) * rows)
    loss = CASES[name][0](F.normalize(tower(a[own]), dim=-1), F.normalize(tower(b[own]), dim=-1))
    loss.backward()
    parallel.average_gradients(tower.parameters())
    assert tower.weight.grad is not None
    return float(parallel.mean(loss.detach())), tower.weight.grad


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str) -> None:
    a, b = pairs(batch=8)
    loss, gradient = _gradients(name, a, b)
    for other_loss, other_gradient in run_in_processes(_gradients, 2, name, a, b):
        assert abs(other_loss - loss) < 1e-9
        assert torch.allclose(other_gradient, gradient, rtol=1e-9, atol=1e-12)


def _without_gathered_gradient(name: str, a: Tensor, b: Tensor) -> tuple[float, Tensor]:
    whole = parallel.gather
    with patch.object(parallel, "gather", lambda rows: whole(rows).detach()):
        return _gradients(name, a, b)


def test_a_gather_without_gradient_is_found() -> None:
    a, b = pairs(batch=8)
    _, gradient = _gradients("clip", a, b)
    for _, other in run_in_processes(_without_gathered_gradient, 2, "clip", a, b):
        assert not torch.allclose(other, gradient, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_nt_xent_with_few_negatives_is_the_formula(count: int) -> None:
    """Those of the images that follow: first the other view of each, then the same view."""
    a, b = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    views = F.normalize(torch.stack([a, b]), dim=-1)
    losses = []
    for side in (0, 1):
        for place in range(6):
            order = [(1 - other if side else other, further) for further in range(1, 6) for other in (1, 0)][:count]
            chosen = [views[which, (place + further) % 6] for which, further in order]
            logits = torch.stack([views[1 - side, place], *chosen]) @ views[side, place] / 0.2
            losses.append(-torch.log_softmax(logits, dim=0)[0])
    assert nt_xent(a, b, 0.2, count=count).item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-12)
    assert (count == 10) == (abs(nt_xent(a, b, 0.2, count=count) - nt_xent(a, b, 0.2)).item() < 1e-12)
