"""The order of a finite source: every index once an epoch, in an order that looks like chance."""

from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rizbin.data import order
from rizbin.data.order import index_at, positions_of


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


SAMPLES, RANKS, BATCH = 10**10, 1024, 65_536
"""Ten billion samples over 1,024 processes; the epoch has 152,587 steps and a part of one."""


def position_of(seed: int, epoch: int, index: int, length: int) -> int:
    """The inverse of `index_at` within an epoch: the rounds of the Feistel network in reverse, cycles walked back."""
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    low_bits = (1 << half) - 1
    key = order._mix(order._mix(seed) ^ epoch)
    keys = [order._mix(key + number) for number in range(order._ROUNDS)]
    while True:
        left, right = index >> half, index & low_bits
        for round_key in reversed(keys):
            left, right = right ^ (order._mix(left ^ round_key) & low_bits), left
        index = left << half | right
        if index < length:
            return epoch * length + index


@settings(deadline=None, max_examples=200)
@given(seed=some.integers(0, 2**64 - 1), epoch=some.integers(0, 5), place=some.integers(0, SAMPLES - 1))
def test_ten_billion_samples_come_once_an_epoch_each(seed: int, epoch: int, place: int) -> None:
    """The order can be undone: each sample has one position in an epoch, and each position one sample."""
    index = index_at(seed, epoch * SAMPLES + place, SAMPLES)
    assert 0 <= index < SAMPLES and position_of(seed, epoch, index, SAMPLES) == epoch * SAMPLES + place
    position = position_of(seed, epoch, place, SAMPLES)
    assert position // SAMPLES == epoch and index_at(seed, position, SAMPLES) == place


def covered(worlds: dict[int, int], steps: int, batch: int) -> list[tuple[int, int]]:
    """First and last of the positions of a run in which `worlds` says from which step on how many processes there are.

    Ranges that follow one another are joined, so that a run without loss or repetition is one range, whatever its size.
    """
    joined: list[tuple[int, int]] = []
    starts = [*sorted(worlds), steps]
    for first, last in pairwise(starts):
        # The slices of a step are joined here; those of steps with the same number of processes differ by a multiple of
        # the batch, so the first and the last step stand for all.
        for step in sorted({first, last - 1}):
            for rank in range(worlds[first]):
                part = positions_of(step, batch, rank, worlds[first])
                if joined and joined[-1][1] == part.start:
                    joined[-1] = (joined[-1][0], part.stop)
                else:
                    joined.append((part.start, part.stop))
        if last - first > 1 and joined[-1] == ((last - 1) * batch, last * batch):
            assert joined[-2][1] == (first + 1) * batch
            joined[-2:] = [(joined[-2][0], last * batch)]
    return joined


@pytest.mark.parametrize("world", [1, 96, 512, 1024, 2048])
def test_a_resume_with_another_number_of_processes_loses_and_repeats_nothing(world: int) -> None:
    """1,024 processes for 100,000 steps, then `world` processes to beyond the end of the epoch."""
    batch = BATCH if BATCH % world == 0 else BATCH // 1024 * 1024 * 3  # 96 divides three times as much
    steps = SAMPLES // batch + 10
    changed = min(100_000, steps // 2)
    assert covered({0: RANKS, changed: world, changed + 7: RANKS}, steps, batch) == [(0, steps * batch)]
    # Around the change, sample by sample: as many different ones as positions, and the epoch's border is one, too.
    for step, processes in ((changed - 1, RANKS), (changed, world)):
        first = positions_of(step, batch, processes - 1, processes)
        assert len({index_at(5, position, SAMPLES) for position in first}) == batch // processes
    border = SAMPLES // batch
    parts = [positions_of(border, batch, rank, world) for rank in range(world)]
    assert sum(map(len, parts)) == batch and any(SAMPLES in part or part.stop == SAMPLES for part in parts)


def test_a_share_that_is_not_even_is_refused() -> None:
    for step, batch, rank, world in ((0, 10, 0, 4), (0, 8, 4, 4), (0, 8, -1, 4), (0, 0, 0, 1)):
        with pytest.raises(ValueError, match="no even share"):
            positions_of(step, batch, rank, world)


def test_the_order_never_changes() -> None:
    # A run that resumes on a newer version reads on where it stopped: these numbers are a promise.
    assert [index_at(0, i, 10) for i in range(12)] == [0, 1, 2, 9, 8, 3, 4, 7, 6, 5, 6, 5]


def test_an_empty_source_has_no_order() -> None:
    with pytest.raises(ValueError, match="empty"):
        index_at(0, 0, 0)
