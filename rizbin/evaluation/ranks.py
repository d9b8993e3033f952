"""Ranks and precision from scores, and what guessing would give. Ties always count against the network.

A collapsed network gives everything the same score; were ties broken by position it could look perfect.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def best_rank(
    scores: Float[Tensor, "queries answers"], right: Bool[Tensor, "queries answers"]
) -> Int[Tensor, "queries"]:
    """The rank, from 1, of each query's best right answer: 1 + the wrong answers that score at least as high.

    A query without a right answer gets answers + 1.
    """
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    rank = 1 + ((scores >= best) & ~right).sum(dim=1)
    return torch.where(right.any(dim=1), rank, scores.shape[1] + 1)


def share_within(ranks: Int[Tensor, "queries"], k: int) -> float:
    """The share of queries, 0 to 1, whose rank is at most k."""
    return (ranks <= k).double().mean().item()


def chance_within(right: Int[Tensor, "queries"], answers: int, k: int) -> float:
    """The expected `share_within` k of a random order, when query i has right[i] right answers among `answers`."""
    k = min(k, answers)
    missed = [math.comb(answers - count, k) / math.comb(answers, k) for count in range(answers + 1)]
    return 1 - torch.tensor(missed, dtype=torch.double)[right.long()].mean().item()


def average_precision(
    scores: Float[Tensor, "queries answers"], right: Bool[Tensor, "queries answers"]
) -> Float[Tensor, "answers"]:
    """The average precision of each answer over the queries, 0 to 1; nan for an answer that is right nowhere.

    The mean over right queries of the precision at their score; equal scores enter together.
    """
    order = scores.argsort(dim=0, descending=True)
    ranked, hits = scores.gather(0, order).T, right.gather(0, order).T.double()
    # The last place of each run of equal scores: precision is read there.
    last = torch.searchsorted(-ranked.contiguous(), -ranked.contiguous(), right=True)
    precision = hits.cumsum(dim=1).gather(1, last - 1) / last
    return (precision * hits).sum(dim=1) / hits.sum(dim=1)


def chance_precision(right: Int[Tensor, "answers"], queries: int) -> Float[Tensor, "answers"]:
    """The expected average precision of a random order of `queries`, of which right[i] are right for answer i.

    The query at place k is right with probability r/n; given that, (k-1)(r-1)/(n-1) of those before it are expected
    right. Averaged over places: H/n + (r-1)/(n-1) (1 - H/n), with H the n-th harmonic number.
    """
    first = sum(1 / place for place in range(1, queries + 1)) / queries
    return first + (right.double() - 1) / max(queries - 1, 1) * (1 - first)
