"""The teacher: a copy of a network that follows it slowly and never gets a gradient."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def teacher_of(student: nn.Module) -> nn.Module:
    """A copy of `student` without gradients, to be moved by `follow`."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, for parameters; buffers are copied.

    One fused call for all tensors: a Python loop over parameters costs more than the arithmetic on small networks.
    """
    ours, theirs = _moving(teacher.parameters(), student.parameters())
    torch._foreach_lerp_(ours, theirs, 1.0 - momentum)
    for own, other in zip(teacher.buffers(), student.buffers(), strict=True):
        own.copy_(other)


def _moving(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    # Frozen parameters (a fixed patch embedding) are equal already; skipping them keeps them bit-equal.
    pairs = [(own, other) for own, other in zip(ours, theirs, strict=True) if other.requires_grad]
    return [own for own, _ in pairs], [other.detach() for _, other in pairs]
