"""Shares with their intervals, paired comparisons, and how well a number tells two groups apart."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Z = 1.959963985
"""95 percent of the normal distribution lie within as many deviations."""
DRAWS = 2000
"""Draws of the bootstrap: its percentiles of 2.5 and 97.5 then stand on 50 draws each."""


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    hits: int
    of: int

    @property
    def percent(self) -> float:
        """nan of none."""
        return 100 * self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of 95 percent, in percent; 0 to 100 of none.

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Source: Wilson 1927.
        """
        if not self.of:
            return 0.0, 100.0
        p, n = self.hits / self.of, self.of
        middle, scale = p + Z**2 / (2 * n), 1 + Z**2 / n
        wide = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return 100 * max(0.0, (middle - wide) / scale), 100 * min(1.0, (middle + wide) / scale)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.percent:.1f} percent ({low:.1f} to {high:.1f}; {self.hits} of {self.of})"


@dataclass(frozen=True)
class Paired:
    """What became of the same cases under two ways."""

    repaired: int
    """Wrong with the first, right with the second."""
    broken: int
    of: int

    @property
    def lift(self) -> float:
        """Percent points."""
        return 100 * (self.repaired - self.broken) / self.of if self.of else math.nan

    @property
    def p(self) -> float:
        """Exact two-sided McNemar: how often a fair coin parts the changed cases at least so unevenly."""
        changed = self.repaired + self.broken
        less = min(self.repaired, self.broken)
        tail = sum(math.comb(changed, count) for count in range(less + 1)) / 2**changed
        return min(1.0, 2 * tail)


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Counts of the cases that changed."""
    both = list(zip(before, after, strict=True))
    return Paired(sum(b and not a for a, b in both), sum(a and not b for a, b in both), len(both))


def holm(values: Sequence[float]) -> list[float]:
    """p of several questions at once, each raised by Holm's rule (1979), in their order."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    out, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        out[place] = highest
    return out


def auc(scores: Float[np.ndarray, " cases"], yes: Bool[np.ndarray, " cases"]) -> float:
    """How often a case that is so has a higher score than one that is not, 0 to 1; ties count half. nan of one kind."""
    first, second = scores[yes], np.sort(scores[~yes])
    if not len(first) or not len(second):
        return math.nan
    below = np.searchsorted(second, first, side="left") + np.searchsorted(second, first, side="right")
    return float(below.sum() / (2 * len(first) * len(second)))


def resampled(
    values: Callable[[np.ndarray], Sequence[float]], cases: int, *, seed: int = 0, draws: int = DRAWS
) -> Float[np.ndarray, "draws values"]:
    """The bootstrap of some values: they are asked for positions of the cases, drawn with replacement."""
    random = np.random.default_rng(seed)
    return np.array([values(random.integers(0, cases, cases)) for _ in range(draws)], np.float64)


def middle(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """The interval of the middle 95 percent; nan where no draw is a number."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
