"""Ranks and precision against slow loops and scikit-learn; chance against simulation by full enumeration."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from rizbin.evaluation.ranks import average_precision, best_rank, chance_precision, chance_within, share_within


def scores_and_truth(seed: int, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(40, 7, generator=generator)
    if ties:
        scores = scores.round()
    right = torch.rand(40, 7, generator=generator) < 0.3
    right[0], right[:, 0] = False, True
    return scores, right


@pytest.mark.parametrize("ties", [False, True])
def test_rank_is_that_of_a_slow_loop_with_ties_against_the_network(ties: bool) -> None:
    scores, right = scores_and_truth(1, ties)
    for row, rank in enumerate(best_rank(scores, right).tolist()):
        # Sorted so that among equal scores the wrong ones come first.
        order = sorted(range(7), key=lambda answer: (-scores[row, answer].item(), bool(right[row, answer])))
        assert rank == 1 + next(place for place, answer in enumerate(order) if right[row, answer])


def test_a_query_without_a_right_answer_is_never_within() -> None:
    ranks = best_rank(torch.randn(3, 4), torch.zeros(3, 4, dtype=torch.bool))
    assert ranks.tolist() == [5, 5, 5]
    assert share_within(ranks, 4) == 0


def test_a_collapsed_network_is_not_perfect() -> None:
    right = torch.eye(5, dtype=torch.bool)
    assert share_within(best_rank(torch.ones(5, 5), right), 1) == 0


def test_worst_for_best_is_noticed() -> None:
    """The classic slip, argmin for argmax."""
    right = torch.eye(5, dtype=torch.bool)
    assert share_within(best_rank(right.float(), right), 1) == 1
    assert share_within(best_rank(-right.float(), right), 1) == 0


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_chance_is_the_mean_over_all_orders(k: int) -> None:
    right = [1, 3, 0]
    counted = [
        np.mean([any(place < count for place in order[:k]) for order in itertools.permutations(range(5))])
        for count in right
    ]
    assert chance_within(torch.tensor(right), 5, k) == pytest.approx(np.mean(counted), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn(ties: bool) -> None:
    scores, right = scores_and_truth(2, ties)
    found = average_precision(scores, right)
    for answer in range(7):
        expected = average_precision_score(right[:, answer].numpy(), scores[:, answer].numpy())
        assert found[answer].item() == pytest.approx(expected, abs=1e-9)


def test_average_precision_of_an_answer_that_is_right_nowhere_is_not_a_number() -> None:
    assert average_precision(torch.randn(4, 1), torch.zeros(4, 1, dtype=torch.bool)).isnan().all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_chance_precision_is_the_mean_over_all_orders(count: int) -> None:
    precisions = [
        average_precision_score(np.array(order) < count, -np.arange(5)) for order in itertools.permutations(range(5))
    ]
    assert chance_precision(torch.tensor([count]), 5).item() == pytest.approx(np.mean(precisions), abs=1e-12)
