"""From pictures' records to numbers and sentences: what is there, what it cost, what follows. No sentence is typed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np

from rizbin.studies.missing.chances import Paired, Share, auc, holm, middle, paired, resampled
from rizbin.studies.missing.ways import (
    LADDER,
    PLAIN,
    WATCHED,
    Case,
    DrawnCase,
    Plan,
    best_of,
    images_in,
    mean_seconds,
)

SIGNS = {"intensity": -1, "spread": 1, "iou": 1, "distance": -1, "kl": -1, "total_variation": -1}
"""Whether an object is said to be missing when the number is high (1) or low (arXiv 2410.20972)."""
OVERLAPS = ("iou", "distance", "kl", "total_variation")
"""Numbers that say how much two objects' attention overlaps."""

Key = tuple[int, int]
Verdicts = dict[tuple[str, Key], bool]
"""Way and case -> whether the second judge sees all."""


@dataclass(frozen=True)
class Row:
    """A way of drawing in numbers."""

    way: str
    share: Share
    """Whole pictures, by the detector."""
    runs: tuple[float, ...]
    """Percent, run by run."""
    against_plain: Paired
    p: float
    """Of the difference to plain, raised by Holm's rule among the cures."""
    second: Share
    """Whole by the second judge; of none where there is no such judge."""
    seconds: float
    """Of one core, a picture."""
    megabytes: float
    passes: float
    """With gradient, a picture."""
    images: float
    """How many pictures, drawn and looked at, take as long."""
    rival: Share
    """Best of that many, rounded up."""
    against_rival: Paired

    @property
    def spread(self) -> float:
        """Standard deviation over the runs; nan of one."""
        return stdev(self.runs) if len(self.runs) > 1 else math.nan


@dataclass(frozen=True)
class Predictor:
    """How well a number about attention tells a picture with a missing object from a whole one."""

    name: str
    auc: float
    interval: tuple[float, float]
    beyond_intensity: float
    """Its area less intensity's."""
    beyond: tuple[float, float]
    """Interval of that, by the same bootstrap."""


@dataclass(frozen=True)
class Result:
    """All that was found."""

    rows: list[Row]
    predictors: list[Predictor]
    agreement: Share
    """Of the ladder's verified pictures, those of which the second judge sees all."""
    rungs: dict[str, tuple[int, int]]
    """Rung of the ladder -> how often tried, how often its picture was kept."""
    kinds: dict[str, tuple[Share, Share]]
    """Kind of prompt -> plain and ladder."""
    cases: int
    things: Share
    """Single things of plain pictures, by the detector."""
    looking: float
    """Seconds of one core that the detector takes for a picture."""

    def row(self, way: str) -> Row | None:
        return next((one for one in self.rows if one.way == way), None)

    @property
    def guidances(self) -> list[Row]:
        return [one for one in self.rows if one.way not in (PLAIN, LADDER)]

    @property
    def best(self) -> Row | None:
        """The cure with most whole pictures; of equals the quicker one."""
        return max(self.guidances, key=lambda one: (one.share.hits, -one.seconds), default=None)


def result_of(drawn: Sequence[DrawnCase], cases: Sequence[Case], plan: Plan, second: Verdicts) -> Result:
    """Numbers over all cases that every way was drawn for."""
    threshold = plan.ladder.threshold
    table = {(one.way, one.key): one for one in drawn if not one.other}
    keys = [case.key for case in cases if all((way, case.key) in table for way in plan.ways)]
    kept = [one for one in drawn if one.key in set(keys)]
    whole = {way: [table[way, key].whole(threshold) for key in keys] for way in plan.ways}
    guidances: list[str] = list(plan.guidances)
    raised = dict(zip(guidances, holm([paired(whole[PLAIN], whole[way]).p for way in guidances]), strict=True))
    rows = [
        _row(way, kept, keys, whole, table, second, threshold, raised.get(way)) for way in (PLAIN, *guidances, LADDER)
    ]
    ladder = [table[LADDER, key] for key in keys]
    kinds: dict[str, tuple[Share, Share]] = {}
    for kind in sorted({case.prompt.kind for case in cases}):
        mine = {case.key for case in cases if case.prompt.kind == kind}
        places = [place for place, key in enumerate(keys) if key in mine]
        both = [Share(sum(whole[way][one] for one in places), len(places)) for way in (PLAIN, LADDER)]
        kinds[kind] = (both[0], both[1])
    plain = [table[PLAIN, key] for key in keys]
    verified = [second[LADDER, one.key] for one in ladder if one.whole(threshold) and (LADDER, one.key) in second]
    values = [value >= threshold for one in plain for value in one.found.values()]
    return Result(
        rows,
        predictors([table[WATCHED, key] for key in keys], whole[PLAIN]),
        Share(sum(verified), len(verified)),
        {
            rung: (sum(one.tried.count(rung) for one in ladder), sum(one.kept == rung for one in ladder))
            for rung in ("draw", *dict.fromkeys(plan.ladder.rungs))
        },
        kinds,
        len(keys),
        Share(sum(values), len(values)),
        float(np.mean([one.looking for one in plain])) if plain else math.nan,
    )


def _row(
    way: str,
    drawn: Sequence[DrawnCase],
    keys: Sequence[Key],
    whole: dict[str, list[bool]],
    table: dict[tuple[str, Key], DrawnCase],
    second: Verdicts,
    threshold: float,
    p: float | None,
) -> Row:
    mine = [table[way, key] for key in keys]
    runs = sorted({run for run, _ in keys})
    by_run = [[said for said, (run, _) in zip(whole[way], keys, strict=True) if run == one] for one in runs]
    seconds = mean_seconds(mine, way)
    count = images_in(drawn, seconds) if keys else math.nan
    rivals = best_of(drawn, math.ceil(count), threshold) if keys else {}
    rival = [rivals[key].whole(threshold) for key in keys]
    against = paired(whole[PLAIN], whole[way])
    seen = [second[way, key] for key in keys if (way, key) in second]
    memory = [one.megabytes for one in mine if math.isfinite(one.megabytes)]
    return Row(
        way,
        Share(sum(whole[way]), len(keys)),
        tuple(100 * sum(some) / len(some) for some in by_run),
        against,
        against.p if p is None else p,
        Share(sum(seen), len(seen)),
        seconds,
        max(memory, default=math.nan),
        float(np.mean([one.passes for one in mine])) if mine else math.nan,
        count,
        Share(sum(rival), len(rival)),
        paired(rival, whole[way]),
    )


def predictors(watched: Sequence[DrawnCase], whole: Sequence[bool]) -> list[Predictor]:
    """Each number's area under the curve, as the claim has its sign, best first; none without pairs of objects."""
    known = [(one.statistics, said) for one, said in zip(watched, whole, strict=True) if one.statistics]
    names = [name for name in SIGNS if known and all(name in statistics for statistics, _ in known)]
    missing = np.array([not said for _, said in known], bool)
    if not names or missing.all() or not missing.any():
        return []
    scores = {name: np.array([SIGNS[name] * numbers[name] for numbers, _ in known], np.float64) for name in names}

    def areas(places: np.ndarray) -> list[float]:
        return [auc(scores[name][places], missing[places]) for name in names]

    found, draws = areas(np.arange(len(known))), resampled(areas, len(known))
    faint = names.index("intensity")
    made = [
        Predictor(
            name,
            found[place],
            middle(draws[:, place]),
            found[place] - found[faint],
            middle(draws[:, place] - draws[:, faint]),
        )
        for place, name in enumerate(names)
    ]
    return sorted(made, key=lambda one: -one.auc)


def swept(drawn: Sequence[DrawnCase], plan: Plan, thresholds: Sequence[float]) -> dict[str, list[float]]:
    """Percent of whole pictures at each threshold, for every way."""
    found = {}
    for way in (PLAIN, *plan.guidances, LADDER):
        mine = [one for one in drawn if one.way == way]
        found[way] = [Share(sum(one.whole(at) for one in mine), len(mine)).percent for at in thresholds]
    return found
