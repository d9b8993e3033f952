"""The page: sentences, tables, curves and pairs of pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

from rizbin.data.image_io import read_image
from rizbin.generation.film import Labelled
from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import BarCell, Cell, Fact, Number, PageImage
from rizbin.studies.missing.answer import Result, Row, swept
from rizbin.studies.missing.second import Accuracy
from rizbin.studies.missing.verdict import SPOKEN
from rizbin.studies.missing.ways import LADDER, PLAIN, Case, DrawnCase, Plan

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHOWN = 6
"""Pairs of pictures of a kind."""
EXPLAINED = [
    (
        "whole",
        "Pictures in which the detector finds everything that was asked for, with Wilson's interval of 95 percent.",
    ),
    ("repaired, broken", "Pictures that are whole with the way and not plainly, and the other way round; same noise."),
    ("p", "Exact two-sided McNemar on the changed pictures, raised by Holm's rule over the cures."),
    (
        "best of N",
        "So many other seeds of the same prompt as can be drawn and looked at in the cure's time, rounded up in "
        "their favor; the detector's choice. A cure that does not beat it is not worth its time.",
    ),
    (
        "distance to true scenes",
        "Kernel distance of the second judge's features to those of true scenes with two things or more, times 1000; "
        "0 is the same kind of picture. It notices cures that spoil pictures.",
    ),
    ("edges", "Mean difference of neighboring pixels, as a share of true scenes': above 1 noisy, below 1 soft."),
    ("MB", "The most memory a drawing took beyond what there was before."),
]


def show(
    page: Page,
    result: Result,
    drawn: Sequence[DrawnCase],
    cases: Sequence[Case],
    plan: Plan,
    folder: Path,
    quality: dict[str, tuple[float, float]],
    judges: Sequence[Accuracy],
) -> None:
    """Adds everything that follows the answer. quality: of each way distance and edges; judges: on true scenes."""
    plain, best, ladder = result.row(PLAIN), result.best, result.row(LADDER)
    facts = [one for one in (plain, best, ladder) if one is not None]
    page.facts([Fact(value=f"{one.share.percent:.1f} %", label=one.way, detail="whole pictures") for one in facts])
    page.heading("What came out")
    page.explained(EXPLAINED)
    _table(page, result, quality)
    _curves(page, drawn, plan)
    if len(result.kinds) > 1:
        page.heading("Kinds of prompts", level=3)
        rows: list[list[Cell]] = [
            [kind, _percent(plain.percent), _percent(ladder.percent), plain.of]
            for kind, (plain, ladder) in result.kinds.items()
        ]
        page.table(["Kind", "plain, %", "ladder, %", "prompts"], [("", rows)])
    _ladder(page, result)
    _attention(page, result)
    _images(page, result, drawn, cases, plan, folder)
    _judges(page, judges)


def _table(page: Page, result: Result, quality: dict[str, tuple[float, float]]) -> None:
    columns = ["Way", "whole, %", "interval", "", "± runs", "lift", "p", "repaired", "broken", "second judge, %"]
    columns += ["distance", "edges", "seconds", "MB", "passes with gradient"]
    page.table(columns, [("", [_row(one, result, quality) for one in result.rows])], legend=("plain",))
    page.heading("Against the best of as many pictures as its time allows", level=3)
    rows: list[list[Cell]] = []
    for one in (*result.guidances, *([ladder] if (ladder := result.row(LADDER)) else [])):
        against = one.against_rival
        rows.append(
            [
                one.way,
                Number(f"{one.images:.2f}", one.images),
                math.ceil(one.images),
                _percent(one.share.percent),
                _percent(one.rival.percent),
                Number(f"{against.lift:+.1f}", against.lift),
                _p(against.p),
            ]
        )
    page.table(["Way", "pictures in its time", "N", "whole, %", "best of N, %", "difference", "p"], [("", rows)])


def _row(one: Row, result: Result, quality: dict[str, tuple[float, float]]) -> list[Cell]:
    low, high = one.share.interval
    plain = result.row(PLAIN)
    distance, edges = quality.get(one.way, (math.nan, math.nan))
    is_plain = one.way == PLAIN
    against = one.against_plain
    return [
        one.way,
        _percent(one.share.percent),
        f"{low:.1f} to {high:.1f}",
        BarCell(value=one.share.percent, ticks=(("plain", plain.share.percent if plain else None),), high=100.0),
        _number(one.spread, 1),
        "" if is_plain else f"{against.lift:+.1f}",
        "" if is_plain else _p(one.p).text,
        against.repaired,
        against.broken,
        _percent(one.second.percent),
        _number(1000 * distance, 1),
        _number(edges, 2),
        _number(one.seconds, 2),
        _number(one.megabytes, 0),
        _number(one.passes, 1),
    ]


def _curves(page: Page, drawn: Sequence[DrawnCase], plan: Plan) -> None:
    """Plain, ladder and the cures over the threshold; six lines at most, or none can be followed."""
    found = swept(drawn, plan, THRESHOLDS)
    middle = THRESHOLDS.index(0.5)
    cures = sorted(plan.guidances, key=lambda way: -found[way][middle])[:4]
    lines = [
        Series(name=way, x=[100 * one for one in THRESHOLDS], y=found[way], smooth=False)
        for way in (PLAIN, *cures, LADDER)
    ]
    page.curves("Whole pictures, percent", lines, x_label="probability from which a thing counts as there, percent")
    page.note(
        f"The ladder stops at {plan.ladder.threshold:g}, so its curve beyond is not what it would reach there. The "
        "cures shown are the four with most whole pictures at 50 percent."
    )


def _ladder(page: Page, result: Result) -> None:
    page.heading("The ladder, rung by rung", level=3)
    rows: list[list[Cell]] = [
        [rung, tried, kept, _percent(100 * kept / tried if tried else math.nan)]
        for rung, (tried, kept) in result.rungs.items()
    ]
    page.table(["Rung", "drawn", "kept in the end", "of those drawn, %"], [("", rows)])


def _attention(page: Page, result: Result) -> None:
    if not result.predictors:
        return
    page.heading("Does attention tell?")
    page.text(
        "Plain drawings again with their attention kept: the objects' maps, mean over the first half of the steps. How "
        "often a picture with a missing object has the worse number (0.5 is a coin), with intervals by 2,000 "
        "bootstraps of the pictures. Worse is what the paper calls worse: faint, spread out, overlapping, near."
    )
    rows: list[list[Cell]] = [
        [
            SPOKEN[one.name],
            Number(f"{one.auc:.3f}", one.auc),
            f"{one.interval[0]:.3f} to {one.interval[1]:.3f}",
            Number(f"{one.beyond_intensity:+.3f}", one.beyond_intensity),
            "" if one.name == "intensity" else f"{one.beyond[0]:+.3f} to {one.beyond[1]:+.3f}",
        ]
        for one in result.predictors
    ]
    page.table(["Number", "area under the curve", "interval", "beyond intensity", "interval of that"], [("", rows)])


def _images(
    page: Page, result: Result, drawn: Sequence[DrawnCase], cases: Sequence[Case], plan: Plan, folder: Path
) -> None:
    """Pairs of the same noise, plain first; the first of the study, not chosen."""
    page.heading("Pictures")
    table = {(one.way, one.key): one for one in drawn if not one.other}
    texts = {case.key: case.prompt.text for case in cases}
    keys = [case.key for case in cases if all((way, case.key) in table for way in plan.ways)]
    at = plan.ladder.threshold
    best = result.best
    asked = [(best.way, "repaired", True), (best.way, "broken", False)] if best is not None else []
    groups = [("The first of the study", PLAIN, LADDER, keys)]
    for way, word, then in (*asked, (LADDER, "repaired", True)):
        some = [key for key in keys if table[way, key].whole(at) is then and table[PLAIN, key].whole(at) is not then]
        groups.append((f"{word.capitalize()} by {way}", PLAIN, way, some))
    for title, above, below, some in groups:
        if not some:
            continue
        page.heading(f"{title}: {above}, then {below}", level=3)
        page.text(f"The first {min(SHOWN, len(some))} of {len(some)}.")
        shown = []
        for key in some[:SHOWN]:
            for way in (above, below):
                image, said = _labelled(table[way, key], texts[key], folder, at)
                shown.append(PageImage(image=image, caption=f"{way}: {said}", alt=f"{texts[key]}, {way}"))
        page.pictures(shown)


def _labelled(one: DrawnCase, text: str, folder: Path, threshold: float) -> Labelled:
    missing = [name for name, value in one.found.items() if value < threshold]
    return read_image(one.file(folder)), f"no {', no '.join(missing)}" if missing else text


def _judges(page: Page, judges: Sequence[Accuracy]) -> None:
    if not judges:
        return
    page.heading("How far the judges are to be believed")
    page.text("On true scenes, whose things are known and which no judge was fitted to.")
    rows: list[list[Cell]] = [
        [
            one.name,
            Number(f"{one.matthews:.3f}", one.matthews),
            _percent(one.found),
            _percent(one.invented),
            _percent(one.whole),
        ]
        for one in judges
    ]
    columns = ["Judge", "Matthews' correlation", "things found, %", "absent ones seen, %", "scenes called whole, %"]
    page.table(columns, [("", rows)])


def _percent(value: float) -> Number:
    return _number(value, 1)


def _number(value: float, digits: int) -> Number:
    finite = math.isfinite(value)
    return Number(f"{value:.{digits}f}" if finite else "n/a", value if finite else None)


def _p(value: float) -> Number:
    return Number(f"{value:.3f}" if value >= 0.001 else "< 0.001", value)
