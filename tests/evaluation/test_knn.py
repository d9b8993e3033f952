"""The vote against scikit-learn and a slow loop."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from rizbin.evaluation.knn import measure, vote


def clusters(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around three directions, and which."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(rows) % 3
    return torch.eye(3)[kind] * 3 + torch.randn(rows, 3, generator=generator), kind


def test_the_vote_is_that_of_scikit_learn() -> None:
    memory, kind = clusters(90, 1)
    queries, _ = clusters(40, 2)

    def weights(distance: np.ndarray) -> Any:
        return np.exp((1 - distance) / 0.07)

    reference = KNeighborsClassifier(20, metric="cosine", weights=cast(Any, weights), algorithm="brute")
    reference.fit(memory.numpy(), kind.numpy())
    found = vote(queries, memory, F.one_hot(kind, 3).bool(), k=20, temperature=0.07)
    np.testing.assert_allclose(found.numpy(), reference.predict_proba(queries.numpy()), atol=1e-4)


def test_a_neighbor_votes_for_all_categories_in_its_picture() -> None:
    memory = torch.tensor([[1.0, 0], [0.8, 0.6], [0, 1]])
    right = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()
    weights = [math.exp(1 / 0.5), math.exp(0.8 / 0.5)]
    found = vote(torch.tensor([[5.0, 0]]), memory, right, k=2, temperature=0.5)[0]
    assert found.tolist() == pytest.approx([weights[0] / sum(weights), 1.0, 0.0], abs=1e-6)


def test_more_neighbors_than_memory_use_all_and_say_so() -> None:
    memory, kind = clusters(12, 1)
    right = F.one_hot(kind, 3).bool()
    found = measure(memory, right, memory, right, k=50, temperature=0.07)
    assert "the 12 nearest of 12" in found[0].protocol


def test_separate_kinds_are_told_apart_and_a_shift_by_one_is_noticed() -> None:
    features = torch.eye(3).repeat(30, 1)
    right = torch.eye(3).repeat(30, 1).bool()
    assert measure(features, right, features, right, k=20, temperature=0.07)[0].value == 100
    assert measure(features, right, features, right.roll(1, dims=0), k=20, temperature=0.07)[0].value == 0
