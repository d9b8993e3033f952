"""The verdict and the answer in sentences, each computed from the numbers."""

import math

from rizbin.studies.missing.answer import OVERLAPS, Predictor, Result, Row
from rizbin.studies.missing.chances import Paired, Z
from rizbin.studies.missing.ways import PLAIN, REPAIR
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, Kind, StudyVerdict

WANTED_LIFT = 15.0
"""Percentage points above plain drawing that a guidance should reach."""
WANTED_VERIFIED, WANTED_AGREEMENT = 95.0, 90.0
"""Percent of repaired images that the detector should verify, and of these that the second judge should confirm."""
CERTAIN = 0.05
"""p under which a difference counts."""
ROOM = 10.0
"""Points that plain drawing has to leave to be gained; with less there is nothing to repair."""
FLOOR = 5.0
"""Percent of complete images under which a model does not draw what is asked: no guidance could show anything."""
SPOKEN = {
    "intensity": "intensity",
    "spread": "spread",
    "iou": "IoU",
    "distance": "distance of centers",
    "kl": "symmetric KL divergence",
    "total_variation": "total variation",
}


def answer(result: Result) -> StudyVerdict:
    """The claim is that attention guidance helps and is worth its time; without any, that repair does."""
    reason, *more = sentences(result)
    if result.best is None:
        row, plain = result.row(REPAIR), result.row(PLAIN)
        assert row is not None and plain is not None
        tried = sum(count for stage, (count, _) in result.stages.items() if stage != "draw")
        delivered = f"{'Delivered' if tried else 'Not delivered'}: beyond the first drawing, {tried} more were tried."
        helped = row.against_plain.p < CERTAIN and row.against_plain.lift > 0
        return StudyVerdict(SHOWN if helped else NOT_TESTABLE, reason, delivered, tuple(more))
    best = result.best
    return StudyVerdict(_kind(result, best), reason, _delivered(result, best), tuple(more))


def _kind(result: Result, best: Row) -> Kind:
    plain = result.row(PLAIN)
    assert plain is not None
    if not _moved(result, best):
        return NOT_TESTABLE
    if best.p < CERTAIN and best.against_plain.lift > 0:
        rival = best.against_rival
        return REFUTED if rival.p < CERTAIN and rival.lift < 0 else SHOWN
    if 100 - plain.share.percent < ROOM:
        return NOT_TESTABLE
    return REFUTED if _most(best.against_plain) < WANTED_LIFT else NOT_TESTABLE


def _most(against: Paired) -> float:
    """Upper end of the 95 percent interval of the lift of paired cases, in points (Wald's, for paired shares)."""
    changed, gained = against.repaired + against.broken, against.repaired - against.broken
    if not against.of:
        return math.inf
    return against.lift + 100 * Z * math.sqrt(max(changed - gained**2 / against.of, 0.0)) / against.of


def _moved(result: Result, best: Row) -> bool:
    """Whether the guidance changed images of a model that at least sometimes draws all objects."""
    plain = result.row(PLAIN)
    assert plain is not None
    return bool(_changed(best)) and max(plain.share.percent, best.share.percent) >= FLOOR


def _changed(best: Row) -> int:
    """Images that the guidance changed from whole to not whole or back."""
    return best.against_plain.repaired + best.against_plain.broken


def _delivered(result: Result, best: Row) -> str:
    plain = result.row(PLAIN)
    assert plain is not None
    at_floor = max(plain.share.percent, best.share.percent) < FLOOR
    reason = (
        f"under {FLOOR:g} percent of its images and of plain ones are complete, and at this floor no guidance could "
        "show anything"
        if at_floor
        else f"plain drawing leaves {100 - plain.share.percent:.1f} points to be gained"
    )
    return (
        f"{'Delivered' if _moved(result, best) else 'Not delivered'}: {best.way} repaired "
        f"{best.against_plain.repaired} "
        f"images and broke {best.against_plain.broken} of {result.cases}, with {best.passes:.1f} passes with "
        f"gradient for each; {reason}."
    )


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
        untold = _kind(result, best) == NOT_TESTABLE
        begins = (
            "Whether an attention guidance helps cannot be told"
            if untold
            else "No attention guidance helps beyond chance"
        )
        sentence = (
            f"{begins}: {_leading(result, best)}, {best.way}, has "
            f"{best.share.percent:.1f} percent, {lift:+z.1f} points against plain drawing "
            f"(p {_p(best.p)} by McNemar and Holm)"
        )
    elif lift < 0:
        sentence = (
            f"No attention guidance helps: {_leading(result, best)}, {best.way}, has "
            f"{best.share.percent:.1f} percent, {-lift:.1f} points fewer than plain drawing "
            f"(p {_p(best.p)} by McNemar and Holm)"
        )
    else:
        judgement = "as was asked" if lift >= WANTED_LIFT else f"less than the {WANTED_LIFT:g} that were asked for"
        sentence = (
            f"{best.way} helps most: {best.share.percent:.1f} percent of its images show all objects, {lift:.1f} "
            f"points more than plain ones, {judgement} (p {_p(best.p)} by McNemar and Holm)"
        )
    plain = result.row(PLAIN)
    if plain is not None and plain.second.of and best.second.of:
        sentence += (
            f"; the second judge, which no way asks, sees all in {best.second.percent:.1f} percent of these and in "
            f"{plain.second.percent:.1f} of plain ones"
        )
    return f"{sentence}; {_rival(best)}."


def _leading(result: Result, best: Row) -> str:
    """What makes this guidance the one that is judged: most complete images, or of several with as many the time."""
    equals = sum(row.share.hits == best.share.hits for row in result.guidances)
    return (
        "the one with most complete images" if equals == 1 else f"of {equals} with as many complete images the fastest"
    )


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
