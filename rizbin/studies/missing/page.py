"""The page of the study: sentences, tables, curves and pairs of images."""

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
from rizbin.studies.missing.tuning import SCALES, Tuned
from rizbin.studies.missing.verdict import SPOKEN
from rizbin.studies.missing.ways import PLAIN, REPAIR, Case, DrawnCase, Plan, name_of

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHOWN = 6
"""Pairs of images shown of each kind."""
EXPLAINED = [
    (
        "whole",
        "Images in which the detector finds every object of the prompt, with Wilson's interval of 95 percent.",
    ),
    ("repaired, broken", "Images that are complete in this way and not plainly, and the reverse; same noise."),
    ("p", "Exact two-sided McNemar test on the changed images, corrected by Holm's rule over the guidances."),
    (
        "best of N",
        "The detector's choice among as many other seeds of the same prompt as can be drawn and verified in the "
        "guidance's time, rounded up. A guidance that does not beat it is not worth its time.",
    ),
    (
        "distance to true scenes",
        "Kernel distance of the second judge's features to those of true scenes with as many objects as the prompts "
        "name, or more, times 1000; 0 is the same kind of image. It shows guidances that damage images, and images "
        "that hold fewer objects.",
    ),
    ("edges", "Mean difference of neighboring pixels, as a share of true scenes': above 1 noisy, below 1 soft."),
    ("MB", "Peak memory of a drawing beyond what was used before it; what ran before moves it by a few."),
    ("seconds", "Of one core that is free; on a busy one they grow, and only their ratios hold."),
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
    plain, best, repaired = result.row(PLAIN), result.best, result.row(REPAIR)
    facts = [row for row in (plain, best, repaired) if row is not None]
    page.facts(
        [Fact(value=f"{row.share.percent:.1f} %", label=name_of(row.way), detail="complete images") for row in facts]
    )
    page.heading("Results")
    page.explained(EXPLAINED)
    _table(page, result, quality)
    _curves(page, drawn, plan)
    if len(result.kinds) > 1:
        page.heading("Kinds of prompts", level=3)
        rows: list[list[Cell]] = [
            [kind, _percent(plain.percent), _percent(repaired.percent), plain.of]
            for kind, (plain, repaired) in result.kinds.items()
        ]
        page.table(["Kind", "plain, %", "repair, %", "prompts"], [("", rows)])
    _stages(page, result)
    _attention(page, result)
    _images(page, result, drawn, cases, plan, folder)
    _judges(page, judges)


def show_scales(page: Page, tuned: Sequence[Tuned], plan: Plan) -> None:
    """What every guidance came to at every scale on the prompts of the choice."""
    if not tuned:
        return
    page.heading("Scales, chosen before", level=3)
    rows: list[list[Cell]] = [
        [choice.guidance, *(_percent(choice.shares[scale].percent) for scale in SCALES), f"{choice.chosen:g}"]
        for choice in tuned
    ]
    columns = ["Complete images, % at a scale of", *(f"{scale:g}" for scale in SCALES), "chosen"]
    page.table(columns, [("", rows)])
    page.note(f"Of {plan.tuning} cases, which the results below do not contain; of equals the smallest scale is taken.")


def _table(page: Page, result: Result, quality: dict[str, tuple[float, float]]) -> None:
    columns = ["Way", "whole, %", "interval", "", "± runs", "lift", "p", "repaired", "broken", "second judge, %"]
    columns += ["distance", "edges", "seconds", "MB", "passes with gradient"]
    page.table(columns, [("", [_row(row, result, quality) for row in result.rows])], legend=("plain",))
    page.heading("Against the best of as many plain images as its time allows", level=3)
    rows: list[list[Cell]] = []
    for row in (*result.guidances, *([repaired] if (repaired := result.row(REPAIR)) else [])):
        against = row.against_rival
        rows.append(
            [
                name_of(row.way),
                Number(f"{row.images:.2f}", row.images),
                math.ceil(row.images),
                _percent(row.share.percent),
                _percent(row.rival.percent),
                Number(f"{against.lift:+z.1f}", against.lift),
                _p(against.p),
            ]
        )
    page.table(["Way", "images in its time", "N", "whole, %", "best of N, %", "difference", "p"], [("", rows)])


def _row(row: Row, result: Result, quality: dict[str, tuple[float, float]]) -> list[Cell]:
    low, high = row.share.interval
    plain = result.row(PLAIN)
    distance, edges = quality.get(row.way, (math.nan, math.nan))
    is_plain = row.way == PLAIN
    against = row.against_plain
    return [
        name_of(row.way),
        _percent(row.share.percent),
        f"{low:.1f} to {high:.1f}",
        BarCell(value=row.share.percent, ticks=(("plain", plain.share.percent if plain else None),), high=100.0),
        _number(row.spread, 1),
        "" if is_plain else f"{against.lift:+z.1f}",
        "" if is_plain else _p(row.p).text,
        against.repaired,
        against.broken,
        _percent(row.second.percent),
        _number(1000 * distance, 1),
        _number(edges, 2),
        _number(row.seconds, 2),
        _number(row.megabytes, 0),
        _number(math.nan if row.way == REPAIR else row.passes, 1),  # repair's stages do not count theirs
    ]


def _curves(page: Page, drawn: Sequence[DrawnCase], plan: Plan) -> None:
    """Plain drawing, repair and the best guidances over the threshold; at most six lines, so that they can be read."""
    curves = swept(drawn, plan, THRESHOLDS)
    middle = THRESHOLDS.index(0.5)
    best = sorted(plan.guidances, key=lambda way: -curves[way][middle])[:4]
    lines = [
        Series(name=name_of(way), x=[100 * threshold for threshold in THRESHOLDS], y=curves[way], smooth=False)
        for way in (PLAIN, *best, REPAIR)
    ]
    page.curves("Complete images, percent", lines, x_label="probability from which an object counts as there, percent")
    page.note(
        f"Repair stops at a probability of {plan.strategy.threshold:g}, so its curve beyond is not what it would reach "
        "there."
        + (
            f" The guidances shown are the {len(best)} with most complete images at 50 percent."
            if len(best) < len(plan.guidances)
            else ""
        )
    )


def _stages(page: Page, result: Result) -> None:
    page.heading("Repair, stage by stage", level=3)
    rows: list[list[Cell]] = [
        [stage, tried, best, _percent(100 * best / tried if tried else math.nan)]
        for stage, (tried, best) in result.stages.items()
    ]
    page.table(["Stage", "drawn", "kept in the end", "of those drawn, %"], [("", rows)])


def _attention(page: Page, result: Result) -> None:
    if not result.predictors:
        return
    page.heading("Does attention predict missing objects?")
    page.text(
        "The plain images are drawn again and their attention is kept: the objects' maps, mean over the first half of "
        "the steps. The area under the curve is how often an image with a missing object has the worse value (0.5 is "
        "chance), with intervals by 2,000 bootstrap samples. Worse means faint, spread out, overlapping or near."
    )
    rows: list[list[Cell]] = [
        [
            SPOKEN[predictor.name],
            Number(f"{predictor.auc:.3f}", predictor.auc),
            f"{predictor.interval[0]:.3f} to {predictor.interval[1]:.3f}",
            Number(f"{predictor.beyond_intensity:+z.3f}", predictor.beyond_intensity),
            "" if predictor.name == "intensity" else f"{predictor.beyond[0]:+z.3f} to {predictor.beyond[1]:+z.3f}",
        ]
        for predictor in result.predictors
    ]
    page.table(["Number", "area under the curve", "interval", "beyond intensity", "interval of that"], [("", rows)])


def _images(
    page: Page, result: Result, drawn: Sequence[DrawnCase], cases: Sequence[Case], plan: Plan, folder: Path
) -> None:
    """Pairs from the same noise, plain drawing first; the first of the study, not chosen."""
    page.heading("Images")
    table = {(case.way, case.key): case for case in drawn if not case.other}
    texts = {case.key: case.prompt.text for case in cases}
    keys = [case.key for case in cases if all((way, case.key) in table for way in plan.ways)]
    at = plan.strategy.threshold
    best = result.best
    changes = [(best.way, "repaired", True), (best.way, "broken", False)] if best is not None else []
    groups = [("The first of the study", PLAIN, REPAIR, keys)]
    for way, word, then in (*changes, (REPAIR, "repaired", True)):
        some = [key for key in keys if table[way, key].whole(at) is then and table[PLAIN, key].whole(at) is not then]
        groups.append((f"{word.capitalize()} by {name_of(way)}", PLAIN, way, some))
    for title, above, below, some in groups:
        if not some:
            continue
        page.heading(f"{title}: {name_of(above)}, then {name_of(below)}", level=3)
        page.text(f"The first {min(SHOWN, len(some))} of {len(some)}.")
        shown = []
        for key in some[:SHOWN]:
            for way in (above, below):
                image, label = _labelled(table[way, key], texts[key], folder, at)
                shown.append(
                    PageImage(image=image, caption=f"{name_of(way)}: {label}", alt=f"{texts[key]}, {name_of(way)}")
                )
        page.pictures(shown)


def _labelled(case: DrawnCase, text: str, folder: Path, threshold: float) -> Labelled:
    missing = [name for name, value in case.found.items() if value < threshold]
    return read_image(case.file(folder)), f"no {', no '.join(missing)}" if missing else text


def _judges(page: Page, judges: Sequence[Accuracy]) -> None:
    if not judges:
        return
    page.heading("Accuracy of the judges")
    page.text("Measured on true scenes, whose objects are known and to which no judge was fitted.")
    rows: list[list[Cell]] = [
        [
            judge.name,
            Number(f"{judge.matthews:.3f}", judge.matthews),
            _percent(judge.recall),
            _percent(judge.invented),
            Number(f"{judge.whole:.1f} of {judge.scenes}", judge.whole),
            Number(f"{judge.crowded:.1f} of {judge.crowded_scenes}", judge.crowded),
        ]
        for judge in judges
    ]
    columns = [
        "Judge",
        "Matthews' correlation",
        "objects found, %",
        "absent objects reported, %",
        "scenes judged complete, %",
        "those of as many objects as the prompts name, %",
    ]
    page.table(columns, [("", rows)])


def _percent(value: float) -> Number:
    return _number(value, 1)


def _number(value: float, digits: int) -> Number:
    finite = math.isfinite(value)
    return Number(f"{value:.{digits}f}" if finite else "n/a", value if finite else None)


def _p(value: float) -> Number:
    return Number(f"{value:.3f}" if value >= 0.001 else "< 0.001", value)
