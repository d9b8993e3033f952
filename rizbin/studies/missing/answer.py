"""Computes the numbers of the study from the records of its images: objects present, cost, comparisons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np

from rizbin.studies.missing.chances import Paired, Share, auc, holm, middle, paired, resampled
from rizbin.studies.missing.ways import (
    PLAIN,
    REPAIR,
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
"""Way and case -> whether the second judge confirms all objects."""


@dataclass(frozen=True)
class Row:
    """The numbers of one way of drawing."""

    way: str
    share: Share
    """Images with all their objects, by the detector."""
    runs: tuple[float, ...]
    """The same in percent, run by run."""
    against_plain: Paired
    p: float
    """p value of the difference from plain drawing, corrected by Holm's rule over the guidances."""
    second: Share
    """Images with all their objects, by the second judge; 0 of 0 where there is no second judge."""
    seconds: float
    """Seconds of one core for an image."""
    megabytes: float
    passes: float
    """Passes of the network with gradient for an image."""
    images: float
    """How many plain images can be drawn and verified in the same time."""
    rival: Share
    """Best of that many plain images, rounded up."""
    against_rival: Paired

    @property
    def spread(self) -> float:
        """Standard deviation over the runs; nan where there is only one run."""
        return stdev(self.runs) if len(self.runs) > 1 else math.nan


@dataclass(frozen=True)
class Predictor:
    """How well a statistic of attention predicts that an object is missing."""

    name: str
    auc: float
    interval: tuple[float, float]
    beyond_intensity: float
    """Its area under the curve minus that of intensity."""
    beyond: tuple[float, float]
    """Interval of that difference, by the same bootstrap."""


@dataclass(frozen=True)
class Result:
    """All numbers of the study."""

    rows: list[Row]
    predictors: list[Predictor]
    agreement: Share
    """Share of the images verified by repair whose objects the second judge confirms too."""
    stages: dict[str, tuple[int, int]]
    """Stage of repair -> how often it was tried, how often its image was kept."""
    kinds: dict[str, tuple[Share, Share]]
    """Kind of prompt -> plain drawing and repair."""
    cases: int
    objects: Share
    """Objects of plain images that are there, by the detector."""
    looking: float
    """Seconds of one core that the detector takes for an image."""

    def row(self, way: str) -> Row | None:
        return next((row for row in self.rows if row.way == way), None)

    @property
    def guidances(self) -> list[Row]:
        return [row for row in self.rows if row.way not in (PLAIN, REPAIR)]

    @property
    def best(self) -> Row | None:
        """The guidance with most complete images; of equals the faster one."""
        return max(self.guidances, key=lambda row: (row.share.hits, -row.seconds), default=None)


def result_of(drawn: Sequence[DrawnCase], cases: Sequence[Case], plan: Plan, second: Verdicts) -> Result:
    """Numbers over all cases that were drawn in every way."""
    threshold = plan.strategy.threshold
    table = {(case.way, case.key): case for case in drawn if not case.other}
    keys = [case.key for case in cases if all((way, case.key) in table for way in plan.ways)]
    complete = [case for case in drawn if case.key in set(keys)]
    whole = {way: [table[way, key].whole(threshold) for key in keys] for way in plan.ways}
    guidances: list[str] = list(plan.guidances)
    raised = dict(zip(guidances, holm([paired(whole[PLAIN], whole[way]).p for way in guidances]), strict=True))
    rows = [
        _row(way, complete, keys, whole, table, second, threshold, raised.get(way))
        for way in (PLAIN, *guidances, REPAIR)
    ]
    repaired = [table[REPAIR, key] for key in keys]
    kinds: dict[str, tuple[Share, Share]] = {}
    for kind in sorted({case.prompt.kind for case in cases}):
        mine = {case.key for case in cases if case.prompt.kind == kind}
        places = [place for place, key in enumerate(keys) if key in mine]
        both = [Share(sum(whole[way][place] for place in places), len(places)) for way in (PLAIN, REPAIR)]
        kinds[kind] = (both[0], both[1])
    plain = [table[PLAIN, key] for key in keys]
    verified = [second[REPAIR, case.key] for case in repaired if case.whole(threshold) and (REPAIR, case.key) in second]
    values = [value >= threshold for case in plain for value in case.found.values()]
    return Result(
        rows,
        predictors([table[WATCHED, key] for key in keys], whole[PLAIN]),
        Share(sum(verified), len(verified)),
        {
            stage: (sum(case.tried.count(stage) for case in repaired), sum(case.kept == stage for case in repaired))
            for stage in ("draw", *dict.fromkeys(plan.strategy.stages))
        },
        kinds,
        len(keys),
        Share(sum(values), len(values)),
        float(np.mean([case.looking for case in plain])) if plain else math.nan,
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
    by_run = [[hit for hit, (run, _) in zip(whole[way], keys, strict=True) if run == run_number] for run_number in runs]
    seconds = mean_seconds(mine, way)
    count = images_in(drawn, seconds) if keys else math.nan
    rivals = best_of(drawn, math.ceil(count), threshold) if keys else {}
    rival = [rivals[key].whole(threshold) for key in keys]
    against = paired(whole[PLAIN], whole[way])
    seen = [second[way, key] for key in keys if (way, key) in second]
    memory = [case.megabytes for case in mine if math.isfinite(case.megabytes)]
    return Row(
        way,
        Share(sum(whole[way]), len(keys)),
        tuple(100 * sum(some) / len(some) for some in by_run),
        against,
        against.p if p is None else p,
        Share(sum(seen), len(seen)),
        seconds,
        max(memory, default=math.nan),
        float(np.mean([case.passes for case in mine])) if mine else math.nan,
        count,
        Share(sum(rival), len(rival)),
        paired(rival, whole[way]),
    )


FEWEST = 5
"""Complete images, and incomplete ones, under which an area under the curve is that of single images."""


def predictors(watched: Sequence[DrawnCase], whole: Sequence[bool]) -> list[Predictor]:
    """Each number's area under the curve, as the claim has its sign, best first; none without pairs of objects."""
    known = [(case.statistics, is_whole) for case, is_whole in zip(watched, whole, strict=True) if case.statistics]
    names = [name for name in SIGNS if known and all(name in statistics for statistics, _ in known)]
    missing = np.array([not is_whole for _, is_whole in known], bool)
    if not names or min(missing.sum(), (~missing).sum()) < FEWEST:
        return []
    scores = {name: np.array([SIGNS[name] * numbers[name] for numbers, _ in known], np.float64) for name in names}

    def areas(places: np.ndarray) -> list[float]:
        return [auc(scores[name][places], missing[places]) for name in names]

    observed, draws = areas(np.arange(len(known))), resampled(areas, len(known))
    faint = names.index("intensity")
    made = [
        Predictor(
            name,
            observed[place],
            middle(draws[:, place]),
            observed[place] - observed[faint],
            middle(draws[:, place] - draws[:, faint]),
        )
        for place, name in enumerate(names)
    ]
    return sorted(made, key=lambda predictor: -predictor.auc)


def swept(drawn: Sequence[DrawnCase], plan: Plan, thresholds: Sequence[float]) -> dict[str, list[float]]:
    """Percent of whole images at each threshold, for every way."""
    curves = {}
    for way in (PLAIN, *plan.guidances, REPAIR):
        mine = [case for case in drawn if case.way == way]
        curves[way] = [Share(sum(case.whole(at) for case in mine), len(mine)).percent for at in thresholds]
    return curves
