"""The measured part of a report: a headline made from the numbers, and each number beside what it is read against."""

import math
import re
from collections.abc import Sequence

from rizbin.core.charts import number
from rizbin.core.measurement import Measurement, Report
from rizbin.core.pages import Page
from rizbin.core.pieces import Bar, Cell, Fact, Number, Part, Strong

_WORDS = {
    "knn": "k-NN",
    "miou": "mIoU",
    "objects_miou": "mIoU on objects",
    "map": "mean average precision",
    "zero_shot": "zero-shot",
    "probe": "linear probe",
    "sizes": "by object size",
    "linear": "linear probe",
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
    "zero_shot": "Zero-shot: naming what is in a picture, untrained for it",
    "retrieval": "Retrieval: captions and pictures find each other",
    "knn": "k-NN: naming by the most alike training pictures",
    "probe": "Linear probe: naming from the frozen features",
    "segmentation": "Segmentation: naming each place",
    "sizes": "Recall of things by their size",
    "attention": "Where CLS looks, held against the objects",
    "tokens": "What the token filter keeps",
    "boxes": "Boxes: finding what is named, by COCO's protocol",
    "presence": "Presence: is it there? Each name asked for alone, as rizbin verify asks",
    "presence_among": "Presence, all names asked for at once",
    "collapse": "Spread of the features, and over how many directions",
    "reconstruction": "Error of the reconstruction, from coarse to fine detail",
}
"""Headings of known groups of measurements."""
_SENTENCES = {
    "zero_shot/top1": ("asked to choose among all names, its first answer is right in ", ""),
    "retrieval/image_to_text/r1": ("the caption nearest to a picture is a right one in ", ""),
    "retrieval/text_to_image/r1": ("the picture nearest to a caption is a right one in ", ""),
    "boxes/ap50": ("its boxes have an average precision of ", " at half overlap (AP50)"),
    "presence/accuracy": ("asked whether one thing is there, it is right in ", ""),
    "knn/top1": ("the most alike pictures name it rightly in ", ""),
    "segmentation/zero_shot/miou": ("colored by the words alone, places overlap the truth by ", " mIoU"),
    "attention/best_head_jaccard": ("the best head's attention overlaps the objects by ", " of their joint area"),
    "tokens/object_pixels_kept": ("its attention keeps ", " of all object pixels"),
}
"""What stands before and after the value of a well-known measurement in the sentence at the top."""


def shown(value: int | float | None, unit: str) -> str:
    """A measured value in words: "87.2 %", "place 3", "0.412"; "n/a" when there is none."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return {"percent": f"{value:.1f} %", "rank": f"place {number(value)}"}.get(unit, f"{value:.3f}")


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
    part = re.sub(r"^r(\d+)$", r"R@\1", part)
    return _WORDS.get(part, part.replace("_", " "))


def groups(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements by the first part of their name, in their order."""
    out: dict[str, list[Measurement]] = {}
    for one in measurements:
        out.setdefault(one.name.split("/")[0], []).append(one)
    return out


def better(one: Measurement) -> bool | None:
    """Whether the value beats random weights; None where that was not measured."""
    if one.baseline is None or not math.isfinite(one.baseline):
        return None
    return one.value > one.baseline if one.higher_is_better else one.value < one.baseline


def _beside(one: Measurement) -> str:
    """What the value must be read against."""
    parts = [f"random weights {shown(one.baseline, one.unit)}"] if one.baseline is not None else []
    parts += [f"chance {shown(one.chance, one.unit)}"] if one.chance is not None else []
    return ", ".join(parts)


def numbers(page: Page, evaluation: Report) -> None:
    """The headline, and every number in a table."""
    by_group = groups(evaluation.measurements)
    heads = [members[0] for members in by_group.values()]
    if heads:
        _headline(page, evaluation, [one for one in heads if one.name in _SENTENCES] or heads)
        page.facts(
            [Fact(value=shown(one.value, one.unit), label=label(one.name), detail=_beside(one)) for one in heads[:5]]
        )
    weak = [label(one.name) for one in evaluation.measurements if better(one) is False]
    if weak:
        page.warning(f"No better than the same network with random weights: {'; '.join(weak)}.")
    page.heading("What it can do")
    if not evaluation.measurements:
        page.text("Nothing was measured.")
    else:
        page.table(
            ["Measured", "Value", "Random weights", "Chance", "All three"],
            [(_GROUPS.get(name, label(name)), [_row(one) for one in members]) for name, members in by_group.items()],
            legend=("the same network with random weights", "chance"),
        )
        protocols = [(label(one.name), one.protocol) for one in evaluation.measurements]
        page.details("How each number was measured", protocols)
    if evaluation.left_out:
        page.details("What was not measured, and why", [(label(name), why) for name, why in evaluation.left_out])


def _headline(page: Page, evaluation: Report, heads: Sequence[Measurement]) -> None:
    """One sentence with the first numbers, made from them alone."""
    parts: list[Part] = [f"On {evaluation.images:,} pictures of {evaluation.source}: "]
    for index, one in enumerate(heads[:3]):
        before, after = _SENTENCES.get(one.name, (f"{label(one.name)} ", ""))
        against = f" ({_beside(one)})" if _beside(one) else ""
        parts += ["; " if index else "", before, Strong(shown(one.value, one.unit)), after + against]
    parts.append(".")
    compared = [one for one in evaluation.measurements if better(one) is not None]
    if compared:
        ahead = sum(better(one) is True for one in compared)
        parts.append(f" It beats the same network with random weights in {ahead} of {len(compared)} numbers.")
    page.lead(*parts)


def _row(one: Measurement) -> list[Cell]:
    """One line of the table of numbers."""
    name = ", ".join(_in_words(part) for part in one.name.split("/")[1:]) or label(one.name)
    top = 100.0 if one.unit == "percent" else max(one.value, one.baseline or 0.0, one.chance or 0.0, 1.0)
    ticks = (("random weights", one.baseline), ("chance", one.chance))
    return [
        name if one.higher_is_better else f"{name} (lower is better)",
        *(Number(shown(value, one.unit), value) for value in (one.value, one.baseline, one.chance)),
        Bar(value=one.value, ticks=ticks, high=top),
    ]
