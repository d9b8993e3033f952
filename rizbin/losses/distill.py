"""Self-distillation: the student predicts what a slowly following teacher says."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.precision import wide


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
