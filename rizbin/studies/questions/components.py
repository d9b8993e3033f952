"""What each technique of DetailCLIP is good for: all eight subsets of the three, from one shared start.

Paper: DetailCLIP, arXiv 2409.06809, whose ablations are of 25 epochs of 15 million images.
"""

from dataclasses import replace
from itertools import product
from statistics import mean
from typing import Any

from rizbin.pages.page import Page
from rizbin.studies.lab import Results, Study, Variant, beyond_chance
from rizbin.studies.pairs import COLUMNS, apart, measure_pair, table
from rizbin.workflows.presets import Training, preset

REMOVAL, DISTILLATION, RECONSTRUCTION = "token removal", "self-distillation", "reconstruction"
CLIP, PHRASES = "CLIP alone", "CLIP and phrases"
LONGER = "CLIP and phrases, for as long as all three"
PAPER = "the paper's setting"
CLASSIFIER = "a classifier of the names"
STEPS, START_STEPS = 200, 700
"""Of a branch and of the start, in batches of 32: the start names 9 scenes of 10, so that a teacher has something to
teach."""
_PARTS: dict[str, dict[str, Any]] = {
    # What meets the caption is what the teacher, seeing half the resolution, attends to.
    REMOVAL: {"selection": "attention", "teacher_resolution": "half"},
    DISTILLATION: {"distillation": True},
    RECONSTRUCTION: {"reconstruction": True},
}
_NONE: dict[str, Any] = {"selection": "none", "distillation": False, "reconstruction": False, "late_start": 0.0}
EQUAL_TIME = 2.5
"""How many times the steps of the start's recipe take as long as one with all three techniques; the page shows what
they took."""


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
    rows.append(row(LONGER, "No technique", EQUAL_TIME))
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
)


def factor(results: Results, part: str, name: str) -> list[float]:
    """By how much the four branches with `part` lie above the four without it, the mean of each seed."""
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


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    sentences = []
    for part in _PARTS:
        effects = []
        for name in MEASURED:
            if gaps := factor(results, part, name):
                beyond = "beyond" if beyond_chance(gaps) else "within"
                effects.append(f"{mean(gaps):+.1f} {COLUMNS[name]} ({beyond} the spread)")
        listed = "; ".join(effects) or "not measured"
        sentences.append(f"{part.capitalize()}, over the four pairs of branches that differ in it: {listed}.")
    gains = {part: factor(results, part, "segmentation/linear/miou") for part in _PARTS}
    clear = [part for part in _PARTS if beyond_chance(gains[part]) and mean(gains[part]) > 0]
    verdict = (
        f"Of the three techniques, {' and '.join(clear)} raise{'s' if len(clear) == 1 else ''} linear mIoU beyond the "
        "spread of seeds at this length."
        if clear
        else "None of the three techniques raises linear mIoU beyond the spread of seeds at this length."
    )
    everything = name_of(tuple(_PARTS))
    phrase = ", ".join(f"{apart(results, PHRASES, CLIP, name)} {COLUMNS[name]}" for name in MEASURED)
    cost = results.mean(everything, "milliseconds") / max(results.mean(PHRASES, "milliseconds"), 1e-9)
    longer = ", ".join(f"{apart(results, everything, LONGER, name)} {COLUMNS[name]}" for name in MEASURED)
    paper = ", ".join(f"{apart(results, PAPER, CLIP, name)} {COLUMNS[name]}" for name in MEASURED)
    return [
        verdict,
        f"The phrase term, against CLIP for as many steps: {phrase}.",
        *sentences,
        f"A step with all three costs {cost:.1f} times one without; against {EQUAL_TIME:g} times the steps without "
        f"them: {longer}.",
        f"The paper's setting, against CLIP: {paper}.",
        classifier(results),
        *delivered(results),
    ]


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
    for name in (name_of((DISTILLATION,)), name_of((RECONSTRUCTION,)), PAPER):
        hidden, chance = results.mean(name, "hidden/object_pixels"), results.mean(name, "hidden/chance")
        arrived = hidden >= chance / 2
        sentences.append(
            f"{'Delivered' if arrived else 'Not delivered'}: {name.removeprefix('and ')} hides {hidden:.0f} percent of "
            f"the object pixels (of all patches {chance:.0f})"
            + ("." if arrived else ", so nothing can be concluded about predicting objects.")
        )
    for name in (name_of((DISTILLATION,)), PAPER):
        target = results.mean(name, "target/objects")
        if target == target:
            sentences.append(
                f"What the patch target of {name.removeprefix('and ')} tells apart: {target:.1f} nats on hidden "
                f"objects, {results.mean(name, 'target/ground'):.1f} on hidden ground."
            )
    return sentences


def show(page: Page, results: Results) -> None:
    table(page, variants(), results)


STUDY = Study(
    question="What is each technique of DetailCLIP good for?",
    design=f"One start a seed: CLIP with the phrase term for {START_STEPS} steps. From its weights, branches of "
    f"{STEPS} steps: all eight subsets of token removal, self-distillation and reconstruction; CLIP alone; as long as "
    "all three take; and the paper's setting. Branches of a seed see the same scenes in the same order, so differences "
    "are taken within a seed. A supervised classifier stands beside them. Measured on scenes of another world, and on "
    "the hard preset, on which nothing was trained. First what was hidden, what the target says and where the gradient "
    "goes, then what followed.",
    variants=variants,
    measure=measure_pair,
    answer=answer,
    show=show,
    start=start,
)
