"""What each technique of DetailCLIP is good for: all eight subsets of the three, from one shared start.

Paper: DetailCLIP, arXiv 2409.06809, whose ablations are of 25 epochs of 15 million images.
"""

import math
from dataclasses import replace
from itertools import product
from statistics import mean
from typing import Any

from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.branches import DELIVERED, KEPT_BY_CHANCE, show_painted, show_words
from rizbin.studies.lab import Results, Study, Variant, beyond_chance, interval, judged
from rizbin.studies.pairs import COLUMNS, WORLD, measure_pair, table
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
from rizbin.workflows.presets import Training, preset

REMOVAL, DISTILLATION, RECONSTRUCTION = "token removal", "self-distillation", "reconstruction"
CLIP, PHRASES = "CLIP alone", "CLIP and phrases"
PAPER = "the paper's setting"
CLASSIFIER = "a classifier of the names"
STEPS, START_STEPS = 200, 700
"""Steps of a branch and of the start, in batches of 32: the start names 9 scenes of 10, so that a teacher has
something to teach."""
_PARTS: dict[str, dict[str, Any]] = {
    # What meets the caption is what the teacher, seeing half the resolution, attends to.
    REMOVAL: {"selection": "attention", "teacher_resolution": "half"},
    DISTILLATION: {"distillation": True},
    RECONSTRUCTION: {"reconstruction": True},
}
_NONE: dict[str, Any] = {"selection": "none", "distillation": False, "reconstruction": False, "late_start": 0.0}
HIDDEN_ERROR = "reconstruction/hidden/object_patches"
"""Error on hidden object patches; a flat patch of the right color has 1."""
MORE_STEPS = 2.5
"""Times the steps that the recipe of the start gets beside one with all three techniques, which costs 2.2 times as
much a step; the page shows what they took."""
LONGER = f"CLIP and phrases, {MORE_STEPS:g} times the steps"


def name_of(parts: tuple[str, ...]) -> str:
    """A row's name."""
    return f"and {', '.join(parts)}" if parts else PHRASES


def start() -> Training[Any]:
    """CLIP with the phrase term, no technique yet, on scenes that no branch sees again."""
    training = preset("detailclip", "small")
    return replace(
        training,
        data=f"{training.data},seed=1",
        steps=START_STEPS,
        checkpoint_every=START_STEPS,
        settings=replace(training.settings, **_NONE),
    )


def variants() -> list[Variant]:
    """Branches of equal length."""

    def row(name: str, group: str, length: float = 1.0, **changes: Any) -> Variant:
        training = preset("detailclip", "small")
        settings = replace(training.settings, **{**_NONE, **changes})
        training = replace(training, steps=STEPS, checkpoint_every=10 * STEPS, settings=settings)
        return Variant(name=name, training=training, group=group, length=length)

    rows = [row(CLIP, "No technique", phrase_weight=0.0), row(PHRASES, "No technique")]
    rows.append(row(LONGER, "No technique", MORE_STEPS))
    for chosen in product((False, True), repeat=3):
        parts = tuple(part for part, on in zip(_PARTS, chosen, strict=True) if on)
        if parts:
            changes = {key: value for part in parts for key, value in _PARTS[part].items()}
            rows.append(row(name_of(parts), f"CLIP, phrases, and {'one' if len(parts) == 1 else 'several'}", **changes))
    published = preset("detailclip", "paper").settings
    weights = {name: getattr(published, name) for name in ("cls_weight", "patch_weight", "reconstruction_weight")}
    rows.append(
        row(
            PAPER,
            "The paper's",
            **{"distillation": True, "reconstruction": True, "selection": "attention", "hide": "removed"},
            **{"contrast_view": "masked", "view_count": 2, "visible_weight": 0.0, "phrase_weight": 0.0, **weights},
            **{"block": 2, "low_resolution": 1},
        )
    )
    rows.append(
        Variant(
            name=CLASSIFIER,
            training=replace(preset("supervised", "small"), steps=STEPS, checkpoint_every=10 * STEPS),
            group="Without captions",
            # It has no words, so no weights of the start: it sees as many images as start and branch together.
            length=(START_STEPS + STEPS) / STEPS,
            fresh=True,
        )
    )
    return rows


MEASURED = (
    "grounding/zero_shot/pair_objects",
    "segmentation/zero_shot/objects_miou",
    "segmentation/zero_shot/boundary_iou",
    "segmentation/linear/miou",
    "zero_shot/top1",
    "retrieval/image_to_text/r1",
    "small/grounding/zero_shot/pair_objects",
    "small/sizes/small/localized",
)
"""What the sentences tell of every technique: where objects are, names, captions, and small and crowded scenes."""


def _and(names: list[str]) -> str:
    """The names as one subject."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def factor(results: Results, part: str, name: str) -> list[float]:
    """How far the four branches with `part` lie above the four without it, the mean of each seed."""
    gaps: dict[int, list[float]] = {}
    others = [other for other in _PARTS if other != part]
    for chosen in product((False, True), repeat=2):
        rest = {other for other, on in zip(others, chosen, strict=True) if on}
        having = tuple(other for other in _PARTS if other in rest or other == part)
        lacking = tuple(other for other in _PARTS if other in rest)
        with_part, without = results.by_seed(name_of(having), name), results.by_seed(name_of(lacking), name)
        for seed, value in with_part.items():
            if seed in without:
                gaps.setdefault(seed, []).append(value - without[seed])
    return [mean(values) for values in gaps.values()]


WORTH = 1.0
"""Points of linear mIoU under which nobody would pay for a technique."""
DECIDES = "segmentation/linear/miou"


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers."""
    everything = name_of(tuple(_PARTS))
    parts = [part for part in _PARTS if factor(results, part, DECIDES)]
    arrived = {part: has_arrived(results, part) for part in parts}
    kinds = {part: judged(factor(results, part, DECIDES), delivered=arrived[part], least=WORTH) for part in parts}
    together = results.gaps(everything, PHRASES, DECIDES)
    if not parts:  # a small size, without all subsets: the three together against none of them
        arrived = {part: has_arrived(results, part) for part in _PARTS if results.trained(everything)}
        kinds = {"all three together": judged(together, delivered=all(arrived.values()), least=WORTH)}
    raising = [part for part, kind in kinds.items() if kind == SHOWN]
    kind = SHOWN if raising else NOT_TESTABLE if NOT_TESTABLE in kinds.values() else REFUTED
    effects = {part: factor(results, part, DECIDES) for part in parts} or {"all three together": together}
    ranges = ", ".join(
        f"{part} {mean(gaps):+z.1f} ({interval(gaps)[0]:+z.1f} to {interval(gaps)[1]:+z.1f})"
        if len(gaps) > 1
        else f"{part} {mean(gaps):+z.1f} (one seed)"
        for part, gaps in effects.items()
        if gaps
    )
    missing = [part for part, here in arrived.items() if not here]
    refuted = [part for part, kind in kinds.items() if kind == REFUTED]
    open_ = [part for part, kind in kinds.items() if kind == NOT_TESTABLE and part not in missing]
    clauses = [
        f"{' and '.join(missing)} did not arrive" if missing else "",
        f"{_and(refuted)} {'do' if len(refuted) > 1 else 'does'} not raise linear mIoU by a point" if refuted else "",
        f"whether {_and(open_)} {'do' if len(open_) > 1 else 'does'}, these seeds cannot tell" if open_ else "",
    ]
    ends = {
        SHOWN: f"{' and '.join(raising)}: linear mIoU rises beyond the spread of seeds",
        REFUTED: "None of the techniques raises linear mIoU by as much as a point at this length",
        NOT_TESTABLE: f"At this length {'; '.join(clause for clause in clauses if clause)}",
    }
    reason = (
        f"{ends[kind][:1].upper()}{ends[kind][1:]}: {ranges or 'not measured'}, in points with 95 percent intervals."
    )
    checks = delivered(results) or ["Not delivered: nothing that could be hidden was measured."]
    more = [*checks[1:], *_effects(results, everything)]
    return StudyVerdict(kind, reason, checks[0], tuple(more))


def has_arrived(results: Results, part: str) -> bool:
    """Whether a technique did what it is for: objects were hidden and predicted, or what was kept holds them."""
    name = name_of((part,)) if results.trained(name_of((part,))) else name_of(tuple(_PARTS))
    if part == REMOVAL:
        return results.mean(name, "tokens/object_pixels_kept") > DELIVERED
    hidden, chance = results.mean(name, "hidden/object_pixels"), results.mean(name, "hidden/chance")
    # Pixels that a flat patch predicts as well were hidden, but not predicted.
    predicted = part != RECONSTRUCTION or not results.mean(name, HIDDEN_ERROR) >= 1
    return hidden >= chance / 2 and predicted


def differences(results: Results) -> dict[str, dict[str, list[float]]]:
    """What each technique, and their company, moved in each number, seed by seed; only where its rows were trained."""
    everything = name_of(tuple(_PARTS))
    pairs = {
        "the phrase term kept, against CLIP alone": (PHRASES, CLIP),
        f"all three, against {MORE_STEPS:g} times the steps without": (everything, LONGER),
        "the paper's setting, against CLIP alone": (PAPER, CLIP),
    }
    moved = {
        says: {name: results.gaps(row, other, name) for name in MEASURED}
        for says, (row, other) in pairs.items()
        if results.trained(row, other)
    }
    moved |= {f"{part}, over the pairs that differ in it": _of_part(results, part) for part in _PARTS}
    return {says: numbers for says, numbers in moved.items() if any(numbers.values())}


def _of_part(results: Results, part: str) -> dict[str, list[float]]:
    return {name: factor(results, part, name) for name in MEASURED}


def _effects(results: Results, everything: str) -> list[str]:
    """What moved beyond the spread of seeds, and what it costs; the rest stands in a table."""
    sentences = []
    for says, numbers in differences(results).items():
        certain = [f"{mean(gaps):+z.1f} {COLUMNS[name]}" for name, gaps in numbers.items() if beyond_chance(gaps)]
        what = ", ".join(certain) if certain else "nothing"
        sentences.append(f"{says[0].upper()}{says[1:]}: {what} beyond the spread of the seeds.")
    cost = results.mean(everything, "milliseconds") / max(results.mean(PHRASES, "milliseconds"), 1e-9)
    if results.trained(everything, LONGER):
        sentences.append(
            f"A step with all three costs {cost:.1f} times one without, so {MORE_STEPS:g} times the steps without them "
            f"take {MORE_STEPS / cost:.1f} times as long."
        )
    if results.trained(CLASSIFIER, PHRASES):
        sentences.append(classifier(results))
    return sentences


def _show_differences(page: Page, results: Results) -> None:
    """The table behind these sentences."""
    rows: list[list[Cell]] = []
    for says, numbers in differences(results).items():
        cells: list[Cell] = [says]
        for name in MEASURED:
            gaps = numbers[name]
            cells.append(
                Number(f"{mean(gaps):+z.1f}{' *' if beyond_chance(gaps) else ''}", mean(gaps)) if gaps else "n/a"
            )
        rows.append(cells)
    if rows:
        page.table(
            ["What differs", *(COLUMNS[name] for name in MEASURED)],
            [("", rows)],
            caption="What each moves, points, mean over the seeds; * beyond their spread",
        )


def classifier(results: Results) -> str:
    """What a network misses that was taught names alone."""
    pairs = {
        COLUMNS[name]: [results.mean(row, name) for row in (CLASSIFIER, PHRASES)]
        for name in ("probe/top1", "segmentation/linear/miou", "small/segmentation/linear/miou")
    }
    numbers = "; ".join(f"{title} {own:.1f} against {other:.1f}" for title, (own, other) in pairs.items())
    return (
        "A classifier of the names, from random weights, after as many images as the start and a branch together, "
        f"against {PHRASES}: {numbers}. It has no words, so nothing can be found with it by caption."
    )


def delivered(results: Results) -> list[str]:
    """Whether each treatment arrived, in sentences."""
    sentences = []
    everything = name_of(tuple(_PARTS))
    for name in (name_of((DISTILLATION,)), name_of((RECONSTRUCTION,)), everything, PAPER):
        if not results.trained(name):
            continue
        hidden, chance = results.mean(name, "hidden/object_pixels"), results.mean(name, "hidden/chance")
        arrived = hidden >= chance / 2
        error = results.mean(name, HIDDEN_ERROR) if RECONSTRUCTION in name else math.nan
        predicts = (
            f", and predicts hidden object patches with an error of {error:.1f} (flat: 1)" if error == error else ""
        )
        arrived = arrived and not error >= 1
        sentences.append(
            f"{'Delivered' if arrived else 'Not delivered'}: the row with {_row(name)} hides {hidden:.0f} percent of "
            f"the object pixels (of all patches {chance:.0f}){predicts}"
            + ("." if arrived else ", so nothing can be concluded about predicting objects.")
        )
    for name in (name_of((REMOVAL,)), everything):
        value = results.mean(name, "tokens/object_pixels_kept")
        if value == value:
            arrived = "Delivered" if value > DELIVERED else "Not delivered"
            sentences.append(
                f"{arrived}: what the attention of the row with {_row(name)} keeps holds {value:.0f} percent of the "
                f"object pixels (as many by chance: {KEPT_BY_CHANCE:.0f})."
            )
    for name in (name_of((DISTILLATION,)), PAPER):
        target = results.mean(name, "target/objects")
        if target == target:
            sentences.append(
                f"What the teacher's patch target of the row with {_row(name)} says of hidden patches (entropy of the "
                f"mean target less the mean entropy; 0: the same of all): {target:.1f} nats on objects, "
                f"{results.mean(name, 'target/ground'):.1f} on ground."
            )
    return sentences


def _row(name: str) -> str:
    """A row's name inside a sentence."""
    return "all three" if name == name_of(tuple(_PARTS)) else name.removeprefix("and ")


def show(page: Page, results: Results) -> None:
    _show_differences(page, results)
    table(page, variants(), results)
    everything = name_of(tuple(_PARTS))
    show_words(page, results.runs(CLIP, PHRASES, LONGER, everything), WORLD)
    show_painted(page, results.runs(name_of((RECONSTRUCTION,)), everything), WORLD)


STUDY = Study(
    question="What is each technique of DetailCLIP good for?",
    design=f"One start a seed: CLIP with the phrase term for {START_STEPS} steps. From its weights, branches of "
    f"{STEPS} steps: all eight subsets of token removal, self-distillation and reconstruction; CLIP alone; "
    f"{MORE_STEPS:g} times the steps without any; and the paper's setting. Branches of a seed see the same scenes in "
    "the same order, so differences are taken within a seed. A supervised classifier stands beside them. Measured on "
    "scenes of another world, and on the hard preset, on which no encoder was trained: what was hidden, what the "
    "target says, where the gradient goes, and what followed.",
    variants=variants,
    measure=measure_pair,
    answer=answer,
    show=show,
    start=start,
)
