"""Self-distillation against DINO's and iBOT's formulas, and centers over processes."""

import math

import pytest
import torch
from torch import Tensor

from rizbin.core import parallel
from rizbin.losses.distill import Center, cross_entropy, regression, teacher_distribution
from tests.processes import run_in_processes


def slow_cross_entropy(student: Tensor, teacher: Tensor, center: Tensor, hot: float, sharp: float) -> float:
    """DINO, equation 2: -sum over prototypes of P_teacher log P_student, mean over tokens."""
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        told = [math.exp((value - middle) / sharp) for value, middle in zip(t, center.tolist(), strict=True)]
        said = [math.exp(value / hot) for value in s]
        total -= sum(p / sum(told) * math.log(q / sum(said)) for p, q in zip(told, said, strict=True))
    return total / len(student)


def scores(seed: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).mul(2).sub(1).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_cross_entropy_equals_the_papers_formula(dtype: torch.dtype, tolerance: float) -> None:
    student, teacher, center = scores(0, dtype), scores(1, dtype), scores(2, dtype)[0] / 10
    told = teacher_distribution(teacher, center, 0.07)
    ours = float(cross_entropy(student, told, 0.1).mean())
    expected = slow_cross_entropy(student.double(), teacher.double(), center.double(), 0.1, 0.07)
    assert abs(ours - expected) <= tolerance * max(1.0, expected)
    # Planted mistakes: temperatures swapped, the center added, student and teacher exchanged.
    for mutated in (
        cross_entropy(student, teacher_distribution(teacher, center, 0.1), 0.07),
        cross_entropy(student, teacher_distribution(teacher, -center, 0.07), 0.1),
        cross_entropy(teacher, teacher_distribution(student, center, 0.07), 0.1),
    ):
        assert abs(float(mutated.mean()) - expected) > 1e-3


def test_center_follows_the_mean_with_its_momentum_even_under_bf16() -> None:
    center = Center(7, momentum=0.9)
    first, second = scores(3, torch.float32), scores(4, torch.float32)
    center.update(first)
    center.update(second.bfloat16())
    expected = 0.9 * 0.1 * first.mean(0) + 0.1 * second.mean(0)
    assert center.value.dtype == torch.float32
    assert torch.allclose(center.value, expected, atol=1e-3)  # bf16 keeps 8 bits
    assert "value" in center.state_dict()


def _center(rows: Tensor) -> Tensor:
    center = Center(7)
    count = len(rows) // parallel.world_size()
    center.update(rows[parallel.rank() * count : (parallel.rank() + 1) * count])
    return center.value


def test_center_is_the_same_over_two_processes() -> None:
    rows = scores(5, torch.float32)[:4]
    alone = _center(rows)
    for other in run_in_processes(_center, 2, rows):
        assert torch.allclose(other, alone, atol=1e-7)


def test_regression_is_two_minus_two_cosines_and_stops_the_target() -> None:
    a, b = scores(6, torch.float64).requires_grad_(), scores(7, torch.float64).requires_grad_()
    loss = regression(a, b)
    expected = sum(
        2 - 2 * float(x @ y) / float(x.norm() * y.norm()) for x, y in zip(a.detach(), b.detach(), strict=True)
    ) / len(a)
    assert abs(float(loss.detach()) - expected) < 1e-12
    loss.backward()
    assert a.grad is not None and b.grad is None
