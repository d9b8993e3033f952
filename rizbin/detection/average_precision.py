"""Average precision by COCO's protocol, from the definition, in NumPy.

Source: Lin et al., "Microsoft COCO", arXiv 1405.0312, and cocodataset.org, "Detection evaluation". Boxes only. Equal to
pycocotools to 1e-6 (tests); it is here so that nothing has to be compiled to measure a detector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Thresholds of intersection over union at which a detection counts as right."""
RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision is read."""
MOST = 100
"""Detections of a class and image that count; COCO's maxDets."""
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Ranges of object sizes, in square pixels."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image: true ones, or detections with scores."""

    xyxy: Float[np.ndarray, "boxes 4"]
    """Pixels; left, top, right, bottom."""
    classes: Int[np.ndarray, " boxes"]
    scores: Float[np.ndarray, " boxes"] | None = None
    """Scores of detections; None for true boxes."""
    crowd: Bool[np.ndarray, " boxes"] | None = None
    """True boxes around groups of objects: detections in them are ignored and none is required; None: no crowds."""
    areas: Float[np.ndarray, " boxes"] | None = None
    """Areas of true objects in square pixels, where the mask's area counts; None takes the areas of the boxes."""


def average_precision(truths: Sequence[Boxes], detections: Sequence[Boxes]) -> dict[str, float]:
    """COCO's summary, 0 to 1, nan where no true box is of the kind.

    ap: mean over thresholds 0.5 to 0.95; ap50, ap75; ap_small, ap_medium, ap_large; recall: mean over thresholds with
    100 detections a class and image; recall_1, recall_10: with fewer; recall_small and so on.
    """
    classes = np.unique(np.concatenate([boxes.classes for boxes in truths] or [np.zeros(0, int)]))
    tables = {name: _tables(truths, detections, classes, name, MOST) for name in AREAS}
    precision, recall = tables["all"]
    numbers = {
        "ap": _mean(precision),
        "ap50": _mean(precision[:, 0]),
        "ap75": _mean(precision[:, 5]),
        "recall": _mean(recall),
        "recall_1": _mean(_tables(truths, detections, classes, "all", 1)[1]),
        "recall_10": _mean(_tables(truths, detections, classes, "all", 10)[1]),
    }
    for name in ("small", "medium", "large"):
        numbers |= {f"ap_{name}": _mean(tables[name][0]), f"recall_{name}": _mean(tables[name][1])}
    return numbers


def ap50_by_class(truths: Sequence[Boxes], detections: Sequence[Boxes]) -> Mapping[int, float]:
    """AP at 0.5 of each class that has a true box."""
    classes = np.unique(np.concatenate([boxes.classes for boxes in truths] or [np.zeros(0, int)]))
    precision, _ = _tables(truths, detections, classes, "all", MOST)
    return {int(name): float(np.mean(row[0])) for name, row in zip(classes, precision, strict=True)}


def iou_matrix(
    boxes: Float[np.ndarray, "ones 4"], other: Float[np.ndarray, "others 4"], crowd: Bool[np.ndarray, " others"]
) -> Float[np.ndarray, "ones others"]:
    """Intersection over union; over the first box's own area where the other is a crowd."""
    low, high = np.maximum(boxes[:, None, :2], other[None, :, :2]), np.minimum(boxes[:, None, 2:], other[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area, others = _area(boxes)[:, None], _area(other)[None]
    either = np.where(crowd[None], area, area + others - both)
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def _area(boxes: Float[np.ndarray, "boxes 4"]) -> Float[np.ndarray, " boxes"]:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _tables(
    truths: Sequence[Boxes], detections: Sequence[Boxes], classes: Int[np.ndarray, " classes"], area: str, most: int
) -> tuple[Float[np.ndarray, "classes thresholds recalls"], Float[np.ndarray, "classes thresholds"]]:
    """Precision at each recall, and the recall reached; rows of nan for classes without a true box in the range."""
    shape = (len(classes), len(THRESHOLDS))
    precision, recall = np.full((*shape, len(RECALLS)), np.nan), np.full(shape, np.nan)
    for row, name in enumerate(classes.tolist()):
        parts = [
            _matched(truth, boxes, name, AREAS[area], most) for truth, boxes in zip(truths, detections, strict=True)
        ]
        objects = sum(part[3] for part in parts)
        if not objects:
            continue
        scores = np.concatenate([part[0] for part in parts])
        order = np.argsort(-scores, kind="mergesort")
        hits = np.concatenate([part[1] for part in parts], axis=1)[:, order]
        ignored = np.concatenate([part[2] for part in parts], axis=1)[:, order]
        right = np.cumsum(hits & ~ignored, axis=1).astype(float)
        wrong = np.cumsum(~hits & ~ignored, axis=1).astype(float)
        for column in range(len(THRESHOLDS)):
            reached = right[column] / objects
            exact = right[column] / np.maximum(right[column] + wrong[column], np.spacing(1))
            best = np.maximum.accumulate(exact[::-1])[::-1]  # precision at this recall or any higher one
            places = np.searchsorted(reached, RECALLS, side="left")
            inside = places < len(best)
            precision[row, column] = 0.0
            precision[row, column, inside] = best[places[inside]]
            recall[row, column] = reached[-1] if len(reached) else 0.0
    return precision, recall


def _matched(
    truth: Boxes, detections: Boxes, name: int, area: tuple[float, float], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Scores [boxes], hits and ignored ones [thresholds boxes] of one class in one image, and its objects that count.

    Each detection, the best first, takes the free object that it overlaps most; one that counts before one that does
    not (crowds, and sizes out of the range). A detection without any is ignored when it is of another size itself.
    """
    assert detections.scores is not None  # detections have them
    mine, theirs = truth.classes == name, detections.classes == name
    order = np.argsort(-detections.scores[theirs], kind="mergesort")[:most]
    boxes, scores = detections.xyxy[theirs][order].astype(float), detections.scores[theirs][order]
    true = truth.xyxy[mine].astype(float)
    crowd = np.zeros(len(true), bool) if truth.crowd is None else truth.crowd[mine]
    sizes = _area(true) if truth.areas is None else truth.areas[mine]
    uncounted = crowd | (sizes < area[0]) | (sizes > area[1])
    # Those that count first, as the search below relies on.
    first = np.argsort(uncounted, kind="mergesort")
    true, crowd, uncounted = true[first], crowd[first], uncounted[first]
    overlaps = iou_matrix(boxes, true, crowd)
    hits, ignored = (np.zeros((len(THRESHOLDS), len(boxes)), bool) for _ in range(2))
    for row, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(true), bool)
        for place in range(len(boxes)):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for other in range(len(true)):
                if taken[other] and not crowd[other]:
                    continue
                if chosen > -1 and not uncounted[chosen] and uncounted[other]:
                    break  # it has one that counts
                if overlaps[place, other] < best:
                    continue
                best, chosen = overlaps[place, other], other
            if chosen > -1:
                taken[chosen], hits[row, place], ignored[row, place] = True, True, uncounted[chosen]
    outside = (_area(boxes) < area[0]) | (_area(boxes) > area[1])
    ignored |= ~hits & outside[None]
    return scores, hits, ignored, int((~uncounted).sum())


def _mean(values: Float[np.ndarray, "*shape"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
