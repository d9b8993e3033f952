"""Weighted k-nearest-neighbor classification (Wu et al., arXiv 1805.01978; DINO, arXiv 2104.14294)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
from rizbin.evaluation.zero_shot import rank_measurements

_ROWS = 1000
"""Queries at once: 25,000 training images then cost 100 MB."""


def vote(
    queries: Float[Tensor, "queries dim"],
    memory: Float[Tensor, "memory dim"],
    right: Bool[Tensor, "memory categories"],
    *,
    k: int,
    temperature: float,
) -> Float[Tensor, "queries categories"]:
    """The share of the k nearest neighbors' weight, 0 to 1, that votes for each category.

    A neighbor at cosine s weighs exp(s / temperature) and votes for every category in its image.
    """
    k = min(k, len(memory))
    memory = F.normalize(memory, dim=-1)
    votes = []
    for start in range(0, len(queries), _ROWS):
        near, places = (F.normalize(queries[start : start + _ROWS], dim=-1) @ memory.T).topk(k, dim=1)
        # Softmax is exp(s / temperature) brought to sum 1: same order of categories, no overflow.
        weights = (near / temperature).softmax(dim=1)
        votes.append((weights.unsqueeze(-1) * right[places].to(weights.dtype)).sum(dim=1))
    return torch.cat(votes)


def measure(
    queries: Float[Tensor, "queries dim"],
    right: Bool[Tensor, "queries categories"],
    memory: Float[Tensor, "memory dim"],
    memory_right: Bool[Tensor, "memory categories"],
    *,
    k: int,
    temperature: float,
) -> list[Measurement]:
    """Top-1 and its kin of the vote; images without a name neither vote nor count."""
    known, voting = right.any(dim=1), memory_right.any(dim=1)
    memory, memory_right = memory[voting], memory_right[voting]
    scores = vote(queries[known], memory, memory_right, k=k, temperature=temperature)
    how = (
        f"the {min(k, len(memory))} nearest of {len(memory)} training images by cosine of pooled features before the "
        f"projection vote for all categories in their images with weight exp(cosine / {temperature:g})"
    )
    return rank_measurements("knn", scores, right[known], how)
