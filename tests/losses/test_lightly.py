"""The same numbers as lightly 1.6, on the same inputs: losses, k-NN and the spread of embeddings."""

import math

import pytest
import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.utils.benchmarking.knn import knn_predict
from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor
from torch.nn import functional as F

from rizbin.evaluation.collapse import normalized_std
from rizbin.evaluation.knn import vote
from rizbin.losses.contrast import nt_xent
from rizbin.losses.distill import Center, cross_entropy, regression, teacher_distribution


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent(temperature: float) -> None:
    a, b = gaussian(8, 5, seed=1).requires_grad_(), gaussian(8, 5, seed=2).requires_grad_()
    ours, theirs = nt_xent(a, b, temperature), NTXentLoss(temperature=temperature)(a, b)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    for mine, reference in zip(gradients(ours, a, b), gradients(theirs, a, b), strict=True):
        assert torch.allclose(mine, reference, rtol=0, atol=1e-6)
    assert nt_xent(a, b, 2 * temperature).item() != pytest.approx(theirs.item(), abs=1e-2)


def test_regression_is_byols_two_minus_two_cosines() -> None:
    prediction, target = gaussian(8, 5, seed=3).requires_grad_(), gaussian(8, 5, seed=4)
    ours, theirs = regression(prediction, target), 2 + 2 * NegativeCosineSimilarity()(prediction, target)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(*gradients(ours, prediction), *gradients(theirs, prediction), rtol=0, atol=1e-6)


SHARP, SOFT = 0.0625, 0.1
"""Temperatures of teacher and student; lightly holds the teacher's in float32, where a power of 2 is the same."""


def dino(teacher: list[Tensor], student: list[Tensor], center: Center, *, skip_own: bool = True) -> Tensor:
    """DINO's loss of our parts: the mean over pairs of a teacher's and a student's view that are not the same view."""
    told = [teacher_distribution(view, center.value, SHARP) for view in teacher]
    pairs = [(t, s) for t in range(len(teacher)) for s in range(len(student)) if t != s or not skip_own]
    loss = torch.stack([cross_entropy(student[s], told[t], SOFT).mean() for t, s in pairs]).mean()
    center.update(torch.cat(teacher))
    return loss


def test_dino_and_its_center_over_three_steps() -> None:
    prototypes = 7
    center, lightly = (
        Center(prototypes, momentum=0.9).double(),
        DINOLoss(
            prototypes, warmup_teacher_temp=SHARP, teacher_temp=SHARP, student_temp=SOFT, center_momentum=0.9
        ).double(),
    )
    for step in range(3):
        # A mean that is not 0, so that the center moves.
        teacher = [gaussian(5, prototypes, seed=10 * step + view).tanh() + 0.3 for view in range(2)]
        student = [gaussian(5, prototypes, seed=100 + 10 * step + view).tanh().requires_grad_() for view in range(4)]
        # Planted mistakes: a teacher's view against the same view of the student; no center.
        uncentered, own = Center(prototypes).double(), Center(prototypes).double()
        own.load_state_dict(center.state_dict())
        wrong = dino(teacher, student, own, skip_own=False), dino(teacher, student, uncentered)
        ours, theirs = dino(teacher, student, center), lightly(teacher, student)
        # Our center takes the batch mean in float32 (1e-8 here), and the temperature magnifies that by 16.
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
        assert torch.allclose(center.value, lightly.center.flatten(), rtol=0, atol=1e-7)
        for mine, reference in zip(gradients(ours, *student), gradients(theirs, *student), strict=True):
            assert torch.allclose(mine, reference, rtol=0, atol=1e-6)
        assert wrong[0].item() != pytest.approx(theirs.item(), abs=1e-3)
        if step:  # the first step has no center
            assert wrong[1].item() != pytest.approx(theirs.item(), abs=1e-3)


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (200, 0.1)])
def test_knn(k: int, temperature: float) -> None:
    kinds = torch.arange(300) % 5
    # So noisy that the vote is often close: a quarter and more are told wrong.
    memory = F.normalize(torch.eye(5, 12, dtype=torch.float64)[kinds] + 0.8 * gaussian(300, 12, seed=5), dim=1)
    queries = F.normalize(torch.eye(5, 12, dtype=torch.float64)[kinds] + 0.8 * gaussian(300, 12, seed=6), dim=1)
    votes = vote(queries, memory, F.one_hot(kinds, 5).bool(), k=k, temperature=temperature)
    theirs = knn_predict(queries, memory.T, kinds, num_classes=5, knn_k=k, knn_t=temperature)
    assert torch.equal(votes.argmax(dim=1), theirs[:, 0])
    assert 0.3 < (theirs[:, 0] == kinds).double().mean() < 0.75
    # Planted mistake: an unweighted vote.
    flat = vote(queries, memory, F.one_hot(kinds, 5).bool(), k=k, temperature=1e6)
    assert not torch.equal(flat.argmax(dim=1), theirs[:, 0])


def test_the_deviation_of_unit_rows_is_lightlys_with_the_populations_divisor() -> None:
    rows = gaussian(20, 6) + 0.5
    theirs = std_of_l2_normalized(rows).item() * math.sqrt(6)
    # Theirs divides by n - 1, ours by n: each channel's deviation, and so their mean, differs by exactly this.
    assert normalized_std(rows) == pytest.approx(theirs * math.sqrt(19 / 20), abs=1e-12)
    assert normalized_std(rows) != pytest.approx(theirs, abs=1e-3)
