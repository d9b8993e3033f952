"""Each loss against its formula in slow float64 loops, its gradient, and the extremes that are known."""

import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion import attention_losses as losses

Numbers = list[list[float]]


def maps(count: int = 3, rows: int = 5, columns: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, rows, columns, dtype=torch.float64, generator=generator) ** 3


def attention(seed: int = 0) -> Tensor:
    """Shares of seven tokens at 5x4 cells; so even that the second softmax is not saturated."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(5, 4, 7, dtype=torch.float64, generator=generator) / 5).softmax(dim=-1)


def shares(one: Numbers) -> Numbers:
    total = sum(sum(row) for row in one)
    return [[value / total for value in row] for row in one]


def cells(one: Numbers) -> list[tuple[int, int, float]]:
    return [(r, c, value) for r, row in enumerate(one) for c, value in enumerate(row)]


def center(one: Numbers) -> tuple[float, float]:
    return sum(v * r for r, _, v in cells(shares(one))), sum(v * c for _, c, v in cells(shares(one)))


def slow_pairs(given: Tensor, value: Callable[[Numbers, Numbers], float]) -> float:
    found = [value(a, b) for a, b in combinations(given.tolist(), 2)]
    return sum(found) / len(found)


def both(a: Numbers, b: Numbers) -> list[tuple[float, float]]:
    return [(x, y) for (_, _, x), (_, _, y) in zip(cells(shares(a)), cells(shares(b)), strict=True)]


def slow_distance(given: Tensor) -> float:
    return slow_pairs(given, lambda a, b: math.dist(center(a), center(b)))


def slow_iou(given: Tensor) -> float:
    return slow_pairs(given, lambda a, b: sum(x * y / (x + y) for x, y in both(a, b) if x + y > 0))


def slow_kl(given: Tensor) -> float:
    def one_way(p: list[float], q: list[float]) -> float:
        return sum(x * (math.log(max(x, 1e-8)) - math.log(max(y, 1e-8))) for x, y in zip(p, q, strict=True))

    def value(a: Numbers, b: Numbers) -> float:
        p, q = [x for x, _ in both(a, b)], [y for _, y in both(a, b)]
        return (one_way(p, q) + one_way(q, p)) / 2

    return slow_pairs(given, value)


def slow_total_variation(given: Tensor) -> float:
    """Half the sum of differences, by way of the compactness: mean over cells of the larger, times cells, minus 1."""
    return slow_pairs(given, lambda a, b: sum(max(x, y) for x, y in both(a, b)) - 1)


def slow_contrastive(now: Tensor, before: Tensor, temperature: float = 0.5) -> float:
    rows = [one.flatten().tolist() for one in (*now, *before)]
    owners = [*range(len(now)), *range(len(before))]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    total = 0.0
    for i, row in enumerate(rows):
        weight = {j: math.exp(cosine(row, other) / temperature) for j, other in enumerate(rows) if j != i}
        (own,) = [j for j in weight if owners[j] == owners[i]]
        total -= math.log(weight[own] / sum(weight.values()))
    return total / len(rows)


def slow_peaks(given: Tensor, tokens: list[tuple[int, ...]], end: int) -> list[float]:
    """Tokens 1 to end (exclusive) sharpened, the mean over an object's tokens, smoothed by hand, the highest."""
    rows, columns, _ = given.shape
    sharp: dict[tuple[int, int], dict[int, float]] = {}
    for r in range(rows):
        for c in range(columns):
            raised = {t: math.exp(100 * float(given[r, c, t])) for t in range(1, end)}
            sharp[r, c] = {t: value / sum(raised.values()) for t, value in raised.items()}

    def mirrored(place: int, side: int) -> int:
        return -place if place < 0 else 2 * (side - 1) - place if place >= side else place

    found = []
    for own in tokens:
        highest = 0.0
        for r in range(rows):
            for c in range(columns):
                total = weights = 0.0
                for dr in (-1, 0, 1):
                    for dc in (-1, 0, 1):
                        # The released kernel: exp(-(x / (2 * 0.5))^2) in both directions.
                        weight = math.exp(-((dr / 1.0) ** 2)) * math.exp(-((dc / 1.0) ** 2))
                        values = sharp[mirrored(r + dr, rows), mirrored(c + dc, columns)]
                        total += weight * sum(values[t] for t in own) / len(own)
                        weights += weight
                highest = max(highest, total / weights)
        found.append(highest)
    return found


CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], float]]] = {
    "distance": (losses.center_distance, lambda given: -slow_distance(given) / 10),
    "iou": (losses.iou, slow_iou),
    "kl": (losses.kl, lambda given: -slow_kl(given)),
    "total variation": (losses.total_variation, lambda given: -slow_total_variation(given)),
    "contrastive": (
        lambda given: losses.contrastive(given, maps(len(given), seed=9)),
        lambda given: slow_contrastive(given, maps(len(given), seed=9)),
    ),
    "floor": (
        lambda given: losses.intensity_floor(given, 0.95),
        lambda given: sum(max(0.0, 0.95 - float(one.max())) for one in given) / len(given),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_losses_equal_their_formulas(name: str, count: int) -> None:
    fast, slow = CASES[name]
    given = maps(count)
    expected = slow(given)
    assert abs(float(fast(given)) - expected) <= 1e-9 * max(1.0, abs(expected))
    # Teeth: a moved map, a wrong sign and a halved loss are far off.
    moved = torch.cat([given[:1].flip(1).roll(1, 2) * 0.7, given[1:]])
    for mutated in (fast(moved), -fast(given), fast(given) / 2):
        assert abs(float(mutated) - expected) > 1e-4


@pytest.mark.parametrize("end", [None, 5])
def test_attend_and_excite_equals_its_formula(end: int | None) -> None:
    given, tokens = attention(), [(2,), (3, 4)]
    expected = slow_peaks(given, tokens, 6 if end is None else end)
    assert losses.peaks(given, tokens, end).tolist() == pytest.approx(expected, abs=1e-9)
    assert float(losses.attend_and_excite(given, tokens, end)) == pytest.approx(1 - min(expected), abs=1e-9)
    assert len({round(float(losses.attend_and_excite(given, tokens, cut)), 6) for cut in (None, 5)}) == 2


def test_a_word_at_the_border_stays_in() -> None:
    given = attention()
    assert float(losses.peaks(given, [(6,)])[0]) > 0 and float(losses.peaks(given, [(0,), (5,)])[0]) > 0
    # With the last position in, the softmax is over tokens 1 to 6.
    assert losses.peaks(given, [(6,)]).tolist() == pytest.approx(slow_peaks(given, [(6,)], 7), abs=1e-9)


@pytest.mark.parametrize("name", [*CASES, "attend and excite"])
def test_gradients(name: str) -> None:
    if name == "attend and excite":
        given, fast = attention(), lambda one: losses.attend_and_excite(one, [(2,), (3, 4)])
    else:
        # Not near zero, where the logarithm bends too much for finite differences.
        given, fast = maps() + 0.05, CASES[name][0]
    assert torch.autograd.gradcheck(fast, (given.clone().requires_grad_(),))


def corners() -> Tensor:
    """Two objects in opposite corners of 5x4 cells."""
    given = torch.zeros(2, 5, 4, dtype=torch.float64)
    given[0, 0, 0] = given[1, 4, 3] = 0.3
    return given


def test_extremes() -> None:
    apart, same = corners(), maps(1).expand(2, -1, -1)
    assert float(losses.iou(apart)) == 0 and float(losses.iou(same)) == pytest.approx(0.5, abs=1e-12)
    assert float(losses.total_variation(apart)) == -1 and float(losses.total_variation(same)) == 0
    assert float(losses.center_distance(apart)) == pytest.approx(-0.5, abs=1e-12)  # 5 cells: 4 down, 3 aside
    assert float(losses.center_distance(same)) == pytest.approx(0, abs=1e-6)
    assert float(losses.kl(same)) == 0 and float(losses.kl(apart)) == pytest.approx(math.log(1e-8), abs=1e-9)
    told, confused = losses.contrastive(apart, apart), losses.contrastive(same, same)
    assert float(told) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)), abs=1e-9)
    assert float(confused) == pytest.approx(math.log(3), abs=1e-9)
    assert float(losses.intensity_floor(apart, 0.2)) == 0
    assert float(losses.intensity_floor(apart, 0.5)) == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("given", [corners(), torch.zeros(2, 5, 4).double(), torch.ones(2, 5, 4).double()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_numbers_where_maps_are_empty_equal_or_disjoint(
    name: str, given: Tensor, dtype: torch.dtype
) -> None:
    given = given.to(dtype).requires_grad_()
    loss = CASES[name][0](given) if name != "contrastive" else losses.contrastive(given, given)
    (gradient,) = torch.autograd.grad(loss, given)
    assert math.isfinite(float(loss.detach())) and bool(gradient.isfinite().all())


def test_the_step_before_gets_no_gradient() -> None:
    now, before = maps().requires_grad_(), maps(seed=9).requires_grad_()
    losses.contrastive(now, before).backward()
    assert now.grad is not None and before.grad is None


def test_statistics() -> None:
    given = maps()
    found = losses.statistics(given)
    spreads = []
    for one in given.tolist():
        r0, c0 = center(one)
        spreads.append(sum(v * ((r - r0) ** 2 + (c - c0) ** 2) for r, c, v in cells(shares(one))))
    expected = {
        "intensity": min(float(one.mean()) for one in given),
        "spread": sum(spreads) / len(spreads),
        "iou": slow_iou(given),
        "distance": slow_distance(given),
        "kl": slow_kl(given),
        "total_variation": slow_total_variation(given),
    }
    assert found == {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()}
    assert set(losses.statistics(given[:1])) == {"intensity", "spread"}


def test_one_object_has_no_pair() -> None:
    for loss in (losses.center_distance, losses.iou, losses.kl, losses.total_variation):
        with pytest.raises(RizbinError, match="two or more"):
            loss(maps(1))
    with pytest.raises(RizbinError, match="two or more"):
        losses.contrastive(maps(1), maps(1))
    with pytest.raises(RizbinError, match="No object"):
        losses.maps_of(attention(), [])
    with pytest.raises(RizbinError, match="No object"):
        losses.attend_and_excite(attention(), [])
