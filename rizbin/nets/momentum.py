"""The teacher: a copy of networks that follows them slowly and never gets a gradient."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Settings of the teacher of an image tower and its head: what it is a copy of, what it sees, how slowly it
    follows."""

    teacher_resolution: Literal["full", "half"] = "full"
    """Images for the teacher at full or half the side; half costs a quarter (A-CLIP-eff)."""
    teacher_part: Literal["all", "head"] = "all"
    """What of the teacher is a moving average: image tower and head, or the head alone, the tower being the
    student's own (TIPSv2, arXiv 2604.12012), which saves a tower's memory."""
    momentum: float = 0.996
    """Share of itself that the teacher keeps at an update, at the start of the run."""
    final_momentum: float = 1.0
    """The same at the end, reached by a cosine. Below 1 the teacher keeps learning from the captions (SILC;
    paper: 1)."""


class Teacher(nn.ModuleDict):
    """Copies of the student's parts by name. Always in evaluation mode: no dropped paths.

    `norms`: batch norms evaluate with the student's running statistics, or ("batch") with those of the batch before
    them while the student trains, as BYOL's target and DINO's teacher do in their official code.
    Source: mean teachers, arXiv 1703.01780; as BYOL's target (arXiv 2006.07733) and DINO's teacher (arXiv 2104.14294).
    """

    def __init__(self, student: dict[str, nn.Module], *, norms: Literal["running", "batch"] = "running") -> None:
        super().__init__({name: copy.deepcopy(part) for name, part in student.items()})
        self.norms = norms
        self.requires_grad_(False)
        self.train(True)

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode, whatever the method does; its batch norms as `norms` says."""
        super().train(False)
        if mode and self.norms == "batch":
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(True)
        return self

    @torch.no_grad()
    def follow(self, student: dict[str, nn.Module], momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student, for parameters; buffers are copied, but
        for the statistics of norms that keep their own.

        One fused call for all tensors: a Python loop over parameters costs more than the arithmetic on small networks.
        """
        # Whole tensors, and those that FSDP shards: a fused call takes one kind at a time.
        moves: dict[bool, tuple[list[Tensor], list[Tensor]]] = {False: ([], []), True: ([], [])}
        for name, part in student.items():
            for own, other in zip(self[name].parameters(), part.parameters(), strict=True):
                if other.requires_grad:  # frozen ones are equal already; skipping them keeps them bit-equal
                    ours, theirs = moves[hasattr(own, "full_tensor")]
                    ours.append(own)
                    theirs.append(other.detach())
            for module, its in zip(self[name].modules(), part.modules(), strict=True):
                if self.norms == "batch" and isinstance(module, nn.modules.batchnorm._BatchNorm):
                    continue  # it saw batches of its own; the student's statistics are those of other weights
                for own, other in zip(module.buffers(recurse=False), its.buffers(recurse=False), strict=True):
                    own.copy_(other)
        # torch's own optimizers call it by this name; its type information leaves all such calls out of its exports.
        for ours, theirs in moves.values():
            if ours:
                torch._foreach_lerp_(ours, theirs, 1.0 - momentum)  # pyright: ignore[reportPrivateImportUsage]
