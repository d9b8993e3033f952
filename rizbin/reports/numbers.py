"""The measured part of a report: a headline made from the numbers, and each number beside what it is read against."""

import math
import re
from collections.abc import Sequence

from rizbin.core.measurement import Measurement, Report
from rizbin.pages.charts import number
from rizbin.pages.page import Page
from rizbin.pages.pieces import BarCell, Cell, Fact, Number, Part, Strong

_WORDS = {
    "knn": "k-NN",
    "miou": "mIoU",
    "objects_miou": "mIoU on objects",
    "map": "mean average precision",
    "zero_shot": "zero-shot",
    "probe": "linear probe",
    "sizes": "by object size",
    "linear": "linear probe",
    "boundary_iou": "boundary IoU",
    "patch_accuracy": "patch accuracy on objects (among all names)",
    "patch_accuracy_present": "patch accuracy on objects (among the names in the image)",
    "pair_objects": "two objects, own word above the other's",
    "pair_both": "two objects, both right",
    "pair_patches": "two objects, patches of one of them",
    "present_objects": "own word best among the words in the image",
    "confused_pixels": "object pixels given to another present object's word",
    "low_frequency": "low spatial frequency",
    "middle_frequency": "middle spatial frequency",
    "high_frequency": "high spatial frequency",
    "hidden": "random half hidden",
    "psnr": "PSNR",
    "edge_energy": "gradient energy at true edges (1 is the truth's)",
    "std": "spread",
    "mcc": "Matthews' correlation",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP, small objects",
    "ap_medium": "AP, medium objects",
    "ap_large": "AP, large objects",
    "presence_among": "presence, among all names",
    "best_head_jaccard": "best head's Jaccard",
    "mean_jaccard": "mean Jaccard",
}
"""Parts of a measurement's name that the field writes in its own way."""
_GROUPS = {
    "zero_shot": "Zero-shot: naming what is in an image, untrained for it",
    "retrieval": "Retrieval: captions and images find each other",
    "knn": "k-NN: naming by the most alike training images",
    "probe": "Linear probe: naming from the frozen features",
    "segmentation": "Segmentation: naming each place",
    "grounding": "Grounding: which of the words in the image stands where",
    "sizes": "Recall by object size",
    "attention": "Where CLS looks, held against the objects",
    "tokens": "What the token filter keeps and hides",
    "boxes": "Boxes: finding what is named, by COCO's protocol",
    "presence": "Presence: is it there? Each name asked for alone, as rizbin verify asks",
    "presence_among": "Presence, all names asked for at once",
    "collapse": "Spread of the features, and over how many directions",
    "reconstruction": "Reconstruction, beside simple rules that need no network",
}
"""Headings of known groups of measurements."""
HEADLINE = (
    "zero_shot/top1",
    "retrieval/image_to_text/r1",
    "segmentation/zero_shot/patch_accuracy_present",
    "grounding/zero_shot/pair_objects",
    "grounding/zero_shot/pair_both",
    "segmentation/zero_shot/miou",
)
"""Numbers at the top of an image-text pair's report: what is in the image, and whether each word stands at its place.
Other networks show the first of each group."""
_NAMED = 4
"""Numbers worse than chance that the first sentence names; it counts them all."""
_SENTENCES = {
    "zero_shot/top1": ("asked to choose among all names, its first answer is right in ", ""),
    "retrieval/image_to_text/r1": ("the caption nearest to an image is a right one in ", ""),
    "retrieval/text_to_image/r1": ("the image nearest to a caption is a right one in ", ""),
    "boxes/ap50": ("its boxes have an average precision of ", " at half overlap (AP50)"),
    "presence/accuracy": ("asked whether one object is there, it is right in ", ""),
    "knn/top1": ("the most alike images name it rightly in ", ""),
    "segmentation/zero_shot/miou": ("colored by the words alone, places overlap the truth by ", " mIoU"),
    "attention/best_head_jaccard": ("the best head's attention overlaps the objects by ", " of their joint area"),
    "tokens/object_pixels_kept": ("its attention keeps ", " of all object pixels"),
}
"""What stands before and after the value of a well-known measurement in the sentence at the top."""


def shown(value: int | float | None, unit: str) -> str:
    """A measured value in words: "87.2 %", "place 3", "0.412"; "n/a" when there is none."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return {
        "percent": f"{value:.1f} %",
        "rank": f"place {number(value)}",
        "decibel": f"{value:.1f} dB",
    }.get(unit, f"{value:.3f}")


def label(name: str) -> str:
    """A measurement's path in words: "retrieval/text_to_image/r5" becomes "Retrieval: text to image, R@5"."""
    first, *rest = (_in_words(part) for part in name.split("/"))
    # "k-NN" is a name and keeps its small letter.
    first = first[:1].upper() + first[1:] if first.islower() else first
    return first + (f": {', '.join(rest)}" if rest else "")


def _in_words(part: str) -> str:
    """One part of a path as the field writes it."""
    part = re.sub(r"^top(\d+)$", r"top-\1", part)
    part = re.sub(r"^band(\d+)$", r"band \1", part)
    part = re.sub(r"^low_resolution_(\d+)$", r"input shrunk by \1", part)
    part = re.sub(r"^r(\d+)$", r"R@\1", part)
    return _WORDS.get(part, part.replace("_", " "))


def groups(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements by the first part of their name, in their order."""
    out: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        out.setdefault(measurement.name.split("/")[0], []).append(measurement)
    return out


def better(measurement: Measurement) -> bool | None:
    """Whether the value beats random weights; None where that was not measured."""
    if measurement.baseline is None or measurement.higher_is_better is None or not math.isfinite(measurement.baseline):
        return None
    return (
        measurement.value > measurement.baseline
        if measurement.higher_is_better
        else measurement.value < measurement.baseline
    )


def _beside(measurement: Measurement) -> str:
    """What the value must be read against."""
    parts = (
        [f"random weights {shown(measurement.baseline, measurement.unit)}"] if measurement.baseline is not None else []
    )
    parts += (
        [f"chance {shown(measurement.chance, measurement.unit)}"]
        if measurement.chance is not None and not measurement.references
        else []
    )
    parts += [f"{name} {shown(value, measurement.unit)}" for name, value in measurement.references]
    return ", ".join(parts)


def worse_than_chance(measurements: Sequence[Measurement]) -> str:
    """A sentence that counts them: "2 of 41 numbers are worse than chance: ..."; empty when none has a chance."""
    compared = [each for each in measurements if each.worse_than_chance is not None]
    worse = [label(each.name) for each in compared if each.worse_than_chance]
    numbers = f"{len(compared)} number{'s' * (len(compared) != 1)}"
    if not compared:
        return ""
    if not worse:
        return f"None of {numbers} is worse than chance."
    named = "; ".join(worse[:_NAMED]) + (f"; and {len(worse) - _NAMED} more" if len(worse) > _NAMED else "")
    return f"{len(worse)} of {numbers} {'is' if len(worse) == 1 else 'are'} worse than chance: {named}."


def numbers(page: Page, evaluation: Report) -> None:
    """The headline, and every number in a table."""
    by_group = groups(evaluation.measurements)
    heads = [members[0] for members in by_group.values()]
    if heads:
        _headline(page, evaluation, [measurement for measurement in heads if measurement.name in _SENTENCES] or heads)
        chosen = [evaluation[name] for name in HEADLINE if name in evaluation]
        page.facts(
            [
                Fact(
                    value=shown(measurement.value, measurement.unit),
                    label=label(measurement.name),
                    detail=_detail(evaluation, measurement),
                )
                for measurement in (chosen if len(chosen) > 1 else heads[:5])
            ]
        )
    weak = [label(measurement.name) for measurement in evaluation.measurements if better(measurement) is False]
    if weak:
        page.warning(f"No better than the same network with random weights: {'; '.join(weak)}.")
    page.heading("What it can do")
    if not evaluation.measurements:
        reasons = "; ".join(why for _, why in evaluation.left_out)
        page.warning(f"Nothing was measured. {reasons}")
    else:
        page.table(
            ["Measured", "Value", "Random weights", "Chance", "All three", "Measured on"],
            [
                (_GROUPS.get(name, label(name)), [_row(evaluation, measurement) for measurement in members])
                for name, members in by_group.items()
            ],
            legend=("the same network with random weights", "chance"),
        )
        protocols = [(label(measurement.name), measurement.protocol) for measurement in evaluation.measurements]
        page.details("How each number was measured", protocols)
    if evaluation.left_out:
        page.details("What was not measured, and why", [(label(name), why) for name, why in evaluation.left_out])
    if evaluation.refused:
        count = len(evaluation.refused)
        page.details(f"{count} image{'s' * (count != 1)} that could not be used, and why", evaluation.refused)


def _headline(page: Page, evaluation: Report, heads: Sequence[Measurement]) -> None:
    """One sentence with the first numbers, made from them alone."""
    counted = worse_than_chance(evaluation.measurements)
    images = f"{evaluation.images:,} image{'s' * (evaluation.images != 1)}"
    parts: list[Part] = [f"{counted} " if counted else "", f"On {images} of {evaluation.source}: "]
    for index, measurement in enumerate(heads[:3]):
        before, after = _SENTENCES.get(measurement.name, (f"{label(measurement.name)} ", ""))
        against = f" ({_beside(measurement)})" if _beside(measurement) else ""
        parts += ["; " if index else "", before, Strong(shown(measurement.value, measurement.unit)), after + against]
    parts.append(".")
    compared = [measurement for measurement in evaluation.measurements if better(measurement) is not None]
    if compared:
        ahead = sum(better(measurement) is True for measurement in compared)
        parts.append(f" It beats the same network with random weights in {ahead} of {len(compared)} numbers.")
    page.lead(*parts)


def _detail(evaluation: Report, measurement: Measurement) -> str:
    """What a fact is read against, and on how many images it was measured."""
    return "; ".join(part for part in (_beside(measurement), f"on {evaluation.behind(measurement)}") if part)


def _row(evaluation: Report, measurement: Measurement) -> list[Cell]:
    """One line of the table of numbers."""
    name = ", ".join(_in_words(part) for part in measurement.name.split("/")[1:]) or label(measurement.name)
    side = {True: "", False: " (lower is better)", None: " (neither is better)"}[measurement.higher_is_better]
    top = (
        100.0
        if measurement.unit == "percent"
        else max(measurement.value, measurement.baseline or 0.0, measurement.chance or 0.0, 1.0)
    )
    ticks = (("random weights", measurement.baseline), ("chance", measurement.chance))
    count = evaluation.images if measurement.images is None else measurement.images
    return [
        name + side,
        *(
            Number(shown(value, measurement.unit), value)
            for value in (measurement.value, measurement.baseline, measurement.chance)
        ),
        BarCell(value=measurement.value, ticks=ticks, high=top),
        Number(evaluation.behind(measurement), count),
    ]
