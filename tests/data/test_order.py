"""The order of a finite source: every index once an epoch, in an order that looks like chance."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rizbin.data.order import index_at


@settings(deadline=None, max_examples=50)  # time is judged elsewhere
@given(seed=some.integers(0, 2**64), length=some.integers(1, 300), epoch=some.integers(0, 2**40))
def test_every_epoch_is_a_permutation(seed: int, length: int, epoch: int) -> None:
    assert sorted(index_at(seed, epoch * length + i, length) for i in range(length)) == list(range(length))


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(index_at(seed, epoch * 50 + i, 50) for i in range(50)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_all_orders_of_four_are_about_equally_frequent() -> None:
    counts = Counter(tuple(index_at(seed, i, 4) for i in range(4)) for seed in range(2400))
    assert set(counts) <= set(permutations(range(4)))
    # 23 degrees of freedom: chi square over 70 has a chance of one in a million. The seeds are fixed.
    expected = 100
    assert sum((counts[order] - expected) ** 2 / expected for order in permutations(range(4))) < 70


@pytest.mark.parametrize("length", [1000, 1024, 1025])
def test_neighbors_are_scattered(length: int) -> None:
    gaps = [abs(index_at(1, i, length) - index_at(1, i + 1, length)) for i in range(length - 1)]
    # Two independent uniform indices are a third of the length apart on average, give or take 0.24 / sqrt(1000).
    assert abs(sum(gaps) / len(gaps) / length - 1 / 3) < 0.04


def test_large_sources_need_no_memory() -> None:
    assert 0 <= index_at(3, 10**15, 10**10) < 10**10


def test_the_order_never_changes() -> None:
    # A run that resumes on a newer version reads on where it stopped: these numbers are a promise.
    assert [index_at(0, i, 10) for i in range(12)] == [0, 1, 2, 9, 8, 3, 4, 7, 6, 5, 6, 5]


def test_an_empty_source_has_no_order() -> None:
    with pytest.raises(ValueError, match="empty"):
        index_at(0, 0, 0)
