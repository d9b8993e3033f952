"""Self-distillation: the student predicts the outputs of an EMA teacher."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.precision import wide


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """Settings of self-distillation of CLS and patches: weights of the terms, prototypes, temperatures."""

    distillation: bool = True
    """Predict the teacher's CLS and patches. Off: one of the three techniques is gone."""
    cls_weight: float = 1.0
    """Weight a1 of the CLS term (paper: 1)."""
    patch_weight: float = 1.0
    """Weight a2 of the patch term on hidden places (paper: 1)."""
    visible_weight: float = 0.0
    """Weight of a patch term on visible places, taken from the encoder itself and normalized on its own (iBOT++ of
    TIPSv2, arXiv 2604.12012; paper: 0)."""
    patch_target: Literal["prototypes", "features"] = "prototypes"
    """The teacher's target for a patch: a distribution over prototypes (iBOT; paper), or its features themselves,
    normalized, predicted by a linear layer (as data2vec, arXiv 2202.03555), which teaches from the first step,
    where a young head says nearly the same of every patch."""
    prototypes: int = 8192
    """How many prototypes CLS and patches are compared with (paper: 8192, shared)."""
    head_hidden: int = 2048
    """Width of the prototype head's two hidden layers."""
    head_bottleneck: int = 256
    """Size of the unit vectors that are compared with the prototypes."""
    head_norm: bool = False
    """Batch norm in the prototype head. Without it the head of a young network says the same of everything for
    some hundred steps (paper: none)."""
    student_temperature: float = 0.1
    """Temperature of the student's distribution."""
    teacher_temperature: float = 0.04
    """Temperature of the teacher's CLS distribution: lower is sharper."""
    patch_temperature: float = 0.07
    """Temperature of the teacher's patch distribution after its warm-up."""
    patch_temperature_start: float = 0.04
    """Temperature of the teacher's patch distribution during the warm-up."""
    patch_temperature_warmup: float = 0.04
    """Share of the run that the warm-up takes (paper's code: 1 epoch of 25)."""

    def patch_temperature_at(self, fraction: float) -> float:
        """Temperature of the teacher's patch distribution at this part of the run."""
        return self.patch_temperature_start if fraction < self.patch_temperature_warmup else self.patch_temperature


class Center(nn.Module):
    """A running mean of the teacher's scores, subtracted from them so that no prototype wins always.

    Source: DINO, arXiv 2104.14294, section 3.1. A buffer, so that it stands in every checkpoint: the originals lost it
    at resume.
    """

    value: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))

    @torch.no_grad()
    def update(self, scores: Float[Tensor, "tokens prototypes"]) -> None:
        """Moves towards the mean score of this batch over all processes (which must hold equally many tokens)."""
        # Wide: under bf16 autocast the teacher's scores are bf16, and a running mean of small steps would stand still.
        self.value.lerp_(parallel.mean(wide(scores).mean(dim=0)).to(self.value.dtype), 1 - self.momentum)

    @torch.no_grad()
    def distribution(
        self, scores: Float[Tensor, "tokens prototypes"], temperature: float
    ) -> Float[Tensor, "tokens prototypes"]:
        """`teacher_distribution` of the scores with the center as it is; after that it moves towards them."""
        targets = teacher_distribution(scores, self.value, temperature)
        self.update(scores)
        return targets


def teacher_distribution(
    scores: Float[Tensor, "tokens prototypes"], center: Float[Tensor, " prototypes"], temperature: float
) -> Float[Tensor, "tokens prototypes"]:
    """softmax((scores - center) / temperature).

    Centered against one prototype for all, sharpened against all prototypes for each.
    """
    return (scores.to(center.dtype) - center).div_(temperature).softmax(dim=-1)  # in place: these tensors are large


def cross_entropy(
    student: Float[Tensor, "tokens prototypes"], teacher: Float[Tensor, "tokens prototypes"], temperature: float
) -> Float[Tensor, " tokens"]:
    """-sum_k teacher_k log softmax(student / temperature)_k for each token.

    `student` are scores, `teacher` a distribution.
    Source: DINO, arXiv 2104.14294, equation 2; iBOT, arXiv 2111.07832, equation 2 for patches.
    """
    return -(teacher * F.log_softmax(student.to(teacher.dtype) / temperature, dim=-1)).sum(dim=-1)


def regression(
    prediction: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"], *, stop_gradient: bool = True
) -> Float[Tensor, ""]:
    """BYOL's loss: mean of 2 - 2 cosine, in [0, 4]. Source: arXiv 2006.07733, equation 2.

    `target` gets no gradient, unless an experiment asks what happens without that.
    """
    target = target.detach() if stop_gradient else target
    return (2 - 2 * F.cosine_similarity(prediction, target, dim=-1)).mean()
