"""Which tokens should meet the caption when captions leave objects out: all, half by attention, half by chance.

Papers: A-CLIP, arXiv 2212.08653; DetailCLIP, arXiv 2409.06809; FLIP, arXiv 2212.00794 (random removal).
"""

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from rizbin.data.open import open_source
from rizbin.evaluation.suite import Evaluation, evaluate
from rizbin.nets.dual import ImageTextPair
from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.branches import DELIVERED, KEPT_BY_CHANCE, show_kept
from rizbin.studies.lab import Numbers, Results, Study, Variant, beyond_chance, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
from rizbin.workflows.presets import Training, preset
from rizbin.workflows.runs import load_run

DISTRACTORS = (0, 4, 8)
"""Most objects in a scene that its caption never names."""
ALL, ATTENTION, RANDOM = "all tokens", "half, by attention", "half, at random"
UNTIL = "half, by attention, and all in the last third"
STEPS, START_STEPS = 250, 700
COLUMNS = {
    "zero_shot/top1": "zero-shot top-1",
    "retrieval/image_to_text/r1": "captions found, R@1",
    "segmentation/zero_shot/objects_miou": "objects mIoU",
    "grounding/zero_shot/pair_objects": "own word first (chance 50)",
    "tokens/object_pixels_kept": "object pixels kept by attention",
    "milliseconds": "ms of one core a step",
}


def name_of(how: str, distractors: int) -> str:
    """A row's name."""
    return f"{how}, up to {distractors} distractors" if distractors else f"{how}, no distractors"


def _world(distractors: int, seed: int = 0) -> str:
    return f"scenes:easy,distractors={distractors},seed={seed}"


def start() -> Training[Any]:
    """CLIP with the phrase term on all tokens, among some distractors: no branch then meets them for the first time."""
    training = preset("detailclip", "small")
    settings = replace(training.settings, selection="none", distillation=False, reconstruction=False, late_start=0.0)
    return replace(training, data=_world(4, seed=1), steps=START_STEPS, checkpoint_every=START_STEPS, settings=settings)


def variants() -> list[Variant]:
    """CLIP and phrases on what is kept; no other technique, so that the choice of tokens speaks alone."""
    begin, rows = start(), []
    ways = ((ALL, "none", 1.0), (ATTENTION, "attention", 1.0), (RANDOM, "random", 1.0))
    rows_wanted = [(distractors, way) for distractors in DISTRACTORS for way in ways]
    rows_wanted += [(distractors, (UNTIL, "attention", 2 / 3)) for distractors in DISTRACTORS]
    for distractors, (how, selection, share) in rows_wanted:
        settings = replace(
            begin.settings, selection=selection, selection_share=share, teacher_resolution="half", block=2
        )
        training = replace(begin, data=_world(distractors), steps=STEPS, checkpoint_every=10 * STEPS, settings=settings)
        group = f"Up to {distractors} distractors" if distractors else "No distractors"
        rows.append(Variant(name=name_of(how, distractors), training=training, group=group))
    return rows


def measure(folder: Path, images: int = 0) -> Numbers:
    """On scenes with as many distractors as the branch was trained with, of another world.

    images: how many of them; 0: as many as an evaluation takes.
    """
    run = load_run(folder)
    pair = run.encoder
    assert isinstance(pair, ImageTextPair)  # this study trains nothing else
    spec = run.training.data.replace("seed=0", "seed=2")
    test = open_source(spec, split="test", size=pair.image_size)
    settings = Evaluation.Settings(baseline=False, dense_images=0)
    settings = replace(settings, images=images) if images else settings
    report = evaluate(pair, test, settings=settings, look=run.method.look)
    return {measurement.name: measurement.value for measurement in report.measurements}


def gaps(results: Results, how: str, other: str, distractors: int, name: str) -> list[float]:
    """How far one way lies above the other, seed by seed."""
    return results.gaps(name_of(how, distractors), name_of(other, distractors), name)


BESIDE = {
    UNTIL: "Seeing all tokens in the last third of the branch, as at inference (FLIP's unmasked tuning), against all "
    "of them from the start",
    RANDOM: "Half of them by attention, against half at random",
}
"""Way -> how the sentence about it begins."""
OTHERS = ("grounding/zero_shot/pair_objects", "retrieval/image_to_text/r1", "segmentation/zero_shot/objects_miou")
"""What beside top-1 removal might give."""
WORTH = 1.0
"""Points of zero-shot top-1 under which a choice of tokens would be worth nothing."""


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that the attended half beats all tokens."""
    trained = [number for number in DISTRACTORS if results.trained(name_of(ALL, number), name_of(ATTENTION, number))]
    few, most = trained[0], trained[-1]
    top1 = "zero_shot/top1"

    def apart(how: str, other: str, distractors: int) -> str:
        return _apart(results, how, other, distractors, top1)

    kept_pixels = {number: results.mean(name_of(ATTENTION, number), "tokens/object_pixels_kept") for number in trained}
    delivered = all(value > DELIVERED for value in kept_pixels.values())
    growth = [
        b - a
        for a, b in zip(
            gaps(results, ATTENTION, ALL, few, top1), gaps(results, ATTENTION, ALL, most, top1), strict=True
        )
    ]
    costs = {how: mean(results.mean(name_of(how, n), "milliseconds") for n in trained) for how in (ALL, ATTENTION)}
    gains = mean(gaps(results, ATTENTION, ALL, most, top1)) >= 0
    kind = judged(gaps(results, ATTENTION, ALL, most, top1), delivered=delivered, least=WORTH)
    begins = {
        SHOWN: "Leaving out what is least attended to raises top-1",
        REFUTED: "Leaving out half of the tokens does not raise top-1, even where attention chooses",
        NOT_TESTABLE: "Whether leaving out what is least attended to raises top-1 cannot be told from these seeds"
        if delivered
        else "Attention did not choose objects",
    }[kind]
    reason = (
        f"{begins}: against all tokens, half of them by attention gives {apart(ATTENTION, ALL, few)} top-1 "
        f"{_with(few)} and {apart(ATTENTION, ALL, most)} {_with(most)}; the {'gain' if gains else 'loss'} "
        + (
            f"{'grows' if (mean(growth) > 0) == gains else 'shrinks'} with distractors beyond the spread."
            if beyond_chance(growth)
            else "does not change with distractors beyond the spread."
        )
    )
    pairs = {UNTIL: (UNTIL, ALL), RANDOM: (ATTENTION, RANDOM)}
    sentences = [
        f"{says}: {apart(*pairs[how], few)} top-1 {_with(few)}, {apart(*pairs[how], most)} {_with(most)}."
        for how, says in BESIDE.items()
        if results.trained(name_of(how, few), name_of(how, most))
    ]
    return StudyVerdict(
        kind,
        reason,
        f"{'Delivered' if delivered else 'Not delivered'}: the half that attention keeps holds "
        + ", ".join(f"{value:.0f} percent of the object pixels {_with(n)}" for n, value in kept_pixels.items())
        + f" (of those that captions name); as many tokens by chance would hold {KEPT_BY_CHANCE:.0f}.",
        (
            *sentences,
            *_others(results, few, most),
            f"A step on half of the tokens by attention costs {costs[ATTENTION] / max(costs[ALL], 1e-9):.2f} of one on "
            "all, at 64 pixels, where the convolutional stem and the text tower work on all tokens; at 224 pixels see "
            "benchmarks/step.py.",
        ),
    )


def _apart(results: Results, how: str, other: str, distractors: int, name: str) -> str:
    values = gaps(results, how, other, distractors, name)
    return f"{mean(values):+z.1f} ({'beyond' if beyond_chance(values) else 'within'} the spread)" if values else "n/a"


def _others(results: Results, few: int, most: int) -> list[str]:
    """What removal moves beside top-1, as far as it was measured."""
    moved = "; ".join(
        f"{COLUMNS[name]} {_apart(results, ATTENTION, ALL, few, name)} {_with(few)}, "
        f"{_apart(results, ATTENTION, ALL, most, name)} {_with(most)}"
        for name in OTHERS
        if gaps(results, ATTENTION, ALL, few, name)
    )
    return [f"Half of the tokens by attention, against all, in other numbers: {moved}."] if moved else []


def _with(distractors: int) -> str:
    return f"with up to {distractors} distractors" if distractors else "without distractors"


def show(page: Page, results: Results) -> None:
    groups: dict[str, list[list[Cell]]] = {}
    for variant in variants():
        if not results.trained(variant.name):
            continue
        numbers = [Number(results.shown(variant.name, name), results.mean(variant.name, name)) for name in COLUMNS]
        groups.setdefault(variant.group, []).append([variant.name, *numbers])
    page.table(
        ["Variant", *COLUMNS.values()],
        list(groups.items()),
        caption=f"Percent, mean ± standard deviation over {results.seeds} seeds",
    )
    lines = [
        Series(
            name=how,
            x=[float(number) for number in DISTRACTORS],
            y=[results.mean(name_of(how, number), "zero_shot/top1") for number in DISTRACTORS],
        )
        for how in (ALL, ATTENTION, RANDOM, UNTIL)
        if results.trained(name_of(how, DISTRACTORS[-1]))
    ]
    page.curves("Zero-shot top-1 by distractors, percent", lines, x_label="most distractors in a scene")
    for folder in results.runs(name_of(ATTENTION, DISTRACTORS[-1])).values():
        show_kept(page, folder, _world(DISTRACTORS[-1], seed=2))


STUDY = Study(
    question="Which tokens should meet the caption, when it leaves objects out?",
    design=f"One start a seed: CLIP with the phrase term for {START_STEPS} steps on easy scenes with up to 4 objects "
    f"that captions never name. From its weights, branches of {STEPS} steps on scenes with none, up to 4 and up to 8 "
    "such distractors: all tokens meet the caption, the half that a slowly following teacher attends to (which sees "
    "half resolution), or a random half; in a fourth row all come back in the last third, since an encoder is used on "
    "whole images. A scene holds the same named objects in the same places however many distractors there are. "
    "Measured on whole images of another world with as many distractors.",
    variants=variants,
    measure=measure,
    answer=answer,
    show=show,
    start=start,
)
