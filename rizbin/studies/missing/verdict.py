"""The answer in sentences, each computed from the numbers."""

import math

from rizbin.studies.missing.answer import OVERLAPS, Predictor, Result, Row
from rizbin.studies.missing.ways import PLAIN, REPAIR

WANTED_LIFT = 15.0
"""Percentage points above plain drawing that a guidance should reach."""
WANTED_VERIFIED, WANTED_AGREEMENT = 95.0, 90.0
"""Percent of repaired images that the detector should verify, and of these that the second judge should confirm."""
CERTAIN = 0.05
"""p under which a difference counts."""
SPOKEN = {
    "intensity": "intensity",
    "spread": "spread",
    "iou": "IoU",
    "distance": "distance of centers",
    "kl": "symmetric KL divergence",
    "total_variation": "total variation",
}


def sentences(result: Result) -> list[str]:
    """The answer in sentences, the verdict first."""
    parts = [_guidances(result), _plain(result), _repair(result)]
    if result.predictors:
        parts.append(overlap(result.predictors))
    return [part for part in parts if part]


def _plain(result: Result) -> str:
    plain = result.row(PLAIN)
    assert plain is not None
    sentence = f"Drawn plainly, {plain.share} of {result.cases} images show all objects of their prompts"
    spread = f", {plain.spread:.1f} points of spread over {len(plain.runs)} runs" if len(plain.runs) > 1 else ""
    sentence += f"{spread}; of single objects {result.objects.percent:.1f} percent are there."
    if len(result.kinds) > 1:
        shares = ", ".join(f"{kind}: {plain.percent:.1f} percent" for kind, (plain, _) in result.kinds.items())
        sentence += f" By kind: {shares}."
    return sentence


def _guidances(result: Result) -> str:
    best = result.best
    if best is None:
        return ""
    lift = best.against_plain.lift
    if best.p >= CERTAIN:
        sentence = (
            f"No attention guidance helps beyond chance: the one with most complete images, {best.way}, has "
            f"{best.share.percent:.1f} percent, {lift:+.1f} points against plain drawing "
            f"(p {_p(best.p)} by McNemar and Holm)"
        )
    elif lift < 0:
        sentence = (
            f"No attention guidance helps: the one with most complete images, {best.way}, has "
            f"{best.share.percent:.1f} percent, {-lift:.1f} points fewer than plain drawing "
            f"(p {_p(best.p)} by McNemar and Holm)"
        )
    else:
        judgement = "as was asked" if lift >= WANTED_LIFT else f"less than the {WANTED_LIFT:g} that were asked for"
        sentence = (
            f"{best.way} helps most: {best.share.percent:.1f} percent of its images show all objects, {lift:.1f} "
            f"points more than plain ones, {judgement} (p {_p(best.p)} by McNemar and Holm)"
        )
    return f"{sentence}; {_rival(best)}."


def _rival(row: Row) -> str:
    """How a guidance compares with the best of as many plain images as its time allows for."""
    against = row.against_rival
    count = math.ceil(row.images)
    # Rounded up in the rival's favor.
    what = f"the best of {count} plain images, of which its time suffices for {row.images:.2f}"
    what = what if count > 1 else "one image"
    numbers = f"{row.rival.percent:.1f} percent, p {_p(against.p)}"
    if against.p >= CERTAIN:
        return f"it cannot be told from {what} ({numbers})"
    if against.lift > 0:
        return f"it beats {what} ({numbers})"
    return f"it is beaten by {what} ({numbers})"


def _repair(result: Result) -> str:
    row = result.row(REPAIR)
    assert row is not None
    drawn = sum(tried for tried, _ in result.stages.values())
    reached = "reaches" if row.share.percent >= WANTED_VERIFIED else "does not reach"
    sentence = (
        f"Repair ends with {row.share} verified, {drawn / max(result.cases, 1):.2f} images and {row.seconds:.2f} "
        f"seconds of one core each: it {reached} the {WANTED_VERIFIED:g} percent that were asked for"
    )
    if result.agreement.of:
        agreed = result.agreement.percent >= WANTED_AGREEMENT
        sentence += (
            f"; the second judge, which repair never asks, confirms {result.agreement.percent:.1f} percent of these "
            f"({'at least' if agreed else 'not'} the {WANTED_AGREEMENT:g} that were asked for)"
        )
    return sentence + "."


def overlap(predictors: list[Predictor]) -> str:
    """Whether overlap of attention predicts a missing object better than its intensity does."""
    by_name = {predictor.name: predictor for predictor in predictors}
    overlaps = [by_name[name] for name in OVERLAPS if name in by_name]
    faint = by_name["intensity"]
    if not overlaps:
        return ""
    above = [SPOKEN[predictor.name] for predictor in overlaps if predictor.beyond[0] > 0]
    below = [SPOKEN[predictor.name] for predictor in overlaps if predictor.beyond[1] < 0]
    if above and not below:
        verdict = f"holds here for {_and(above)}" + ("" if len(above) == len(overlaps) else ", the others undecided")
    elif below and not above:
        verdict = f"does not hold here: intensity predicts better than {_and(below)}"
    elif above:
        verdict = f"holds here for {_and(above)}, not for {_and(below)}"
    else:
        verdict = "is neither shown nor refuted here"
    areas = ", ".join(f"{SPOKEN[predictor.name]} {predictor.auc:.2f}" for predictor in overlaps)
    weak = (
        ""
        if max(predictor.interval[0] for predictor in predictors) > 0.5
        else " None of them is surely better than chance."
    )
    return (
        "That overlap of attention predicts a missing object better than faint attention does (arXiv 2410.20972) "
        f"{verdict} (area under the curve: intensity {faint.auc:.2f}, {areas}).{weak}"
    )


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "under 0.001"
