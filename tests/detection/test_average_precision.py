"""Average precision against pycocotools, and on cases whose answer is known."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rizbin.detection.average_precision import Boxes, ap50_by_class, average_precision

NAMES = {
    "ap": 0,
    "ap50": 1,
    "ap75": 2,
    "ap_small": 3,
    "ap_medium": 4,
    "ap_large": 5,
    "recall_1": 6,
    "recall_10": 7,
    "recall": 8,
    "recall_small": 9,
    "recall_medium": 10,
    "recall_large": 11,
}
"""Where each stands in the twelve numbers of pycocotools."""


def random_case(seed: int, pictures: int, most: int) -> tuple[list[Boxes], list[Boxes]]:
    """Boxes near the true ones, elsewhere, of wrong classes, twice, with equal scores; crowds; areas of masks."""
    random = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(pictures):
        count = int(random.integers(0, most))
        corner, side = random.uniform(0, 200, (count, 2)), random.uniform(4, 150, (count, 2))
        true = np.concatenate([corner, corner + side], axis=1)
        classes = random.integers(0, 4, count)
        crowd = random.random(count) < 0.15
        areas = np.prod(side, axis=1) * random.uniform(0.3, 1, count)
        truths.append(Boxes(true, classes, crowd=crowd, areas=areas))
        near = np.repeat(true, 2, axis=0) + random.normal(0, 6, (2 * count, 4))
        far = random.uniform(0, 200, (5, 2))
        far = np.concatenate([far, far + random.uniform(1, 150, (5, 2))], axis=1)
        boxes = np.concatenate([near, far])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        named = np.concatenate([np.repeat(classes, 2), random.integers(0, 5, 5)])
        wrong = random.random(len(named)) < 0.2
        named[wrong] = random.integers(0, 5, int(wrong.sum()))
        found.append(Boxes(boxes, named, scores=random.integers(0, 30, len(named)) / 30))
    return truths, found


def by_pycocotools(truths: list[Boxes], found: list[Boxes]) -> list[float]:
    def box(one: np.ndarray) -> list[float]:
        return [*one[:2].tolist(), *(one[2:] - one[:2]).tolist()]

    annotations: list[dict[str, Any]] = []
    for image, truth in enumerate(truths, 1):
        assert truth.crowd is not None and truth.areas is not None
        for one, name, crowd, area in zip(truth.xyxy, truth.classes, truth.crowd, truth.areas, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(name),
                    "bbox": box(one),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    results = []
    for image, boxes in enumerate(found, 1):
        assert boxes.scores is not None
        results += [
            {"image_id": image, "category_id": int(name), "bbox": box(one), "score": float(score)}
            for one, name, score in zip(boxes.xyxy, boxes.classes, boxes.scores, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()  # typed for JSON files alone
        coco.dataset = {
            "images": [{"id": image} for image in range(1, len(truths) + 1)],
            "annotations": annotations,
            "categories": [{"id": name, "name": str(name)} for name in range(5)],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


@pytest.mark.parametrize(("seed", "pictures", "most"), [(0, 12, 6), (1, 30, 3), (2, 3, 40), (3, 8, 10)])
def test_it_is_pycocotools_to_a_millionth(seed: int, pictures: int, most: int) -> None:
    truths, found = random_case(seed, pictures, most)
    theirs = by_pycocotools(truths, found)
    ours = average_precision(truths, found)
    assert set(ours) == set(NAMES)
    for name, place in NAMES.items():
        expected = theirs[place]
        assert ours[name] == pytest.approx(np.nan if expected == -1 else expected, abs=1e-6, nan_ok=True), name
    assert 0.05 < ours["ap"] < 0.95, "the case says something"


def one(boxes: list[list[float]], classes: list[int], scores: list[float] | None = None) -> Boxes:
    return Boxes(
        np.array(boxes, float).reshape(-1, 4),
        np.array(classes, int),
        scores=None if scores is None else np.array(scores, float),
    )


def test_known_cases() -> None:
    truth = [one([[0, 0, 10, 10], [20, 20, 40, 40]], [1, 1])]
    right = [one([[0, 0, 10, 10], [20, 20, 40, 40]], [1, 1], [0.9, 0.8])]
    assert average_precision(truth, right)["ap"] == pytest.approx(1)
    assert average_precision(truth, [one([], [], [])])["ap"] == 0
    half = [one([[0, 0, 10, 10]], [1], [0.9])]
    # Recall reaches 0.5: precision is 1 at 51 of 101 recalls.
    assert average_precision(truth, half)["ap50"] == pytest.approx(51 / 101)
    wrong_first = [one([[50, 50, 60, 60], [0, 0, 10, 10], [20, 20, 40, 40]], [1, 1, 1], [0.95, 0.9, 0.8])]
    assert average_precision(truth, wrong_first)["ap50"] == pytest.approx(2 / 3)
    twice = [one([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]], [1, 1, 1], [0.9, 0.85, 0.8])]
    assert average_precision(truth, twice)["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    other_class = [one([[0, 0, 10, 10], [20, 20, 40, 40]], [1, 2], [0.9, 0.8])]
    assert average_precision(truth, other_class)["ap50"] == pytest.approx(51 / 101)
    assert ap50_by_class(truth, right) == {1: pytest.approx(1)}


def test_nothing_true_is_no_number() -> None:
    nothing = [one([], [])]
    assert np.isnan(average_precision(nothing, [one([[0, 0, 9, 9]], [1], [0.5])])["ap"])
    assert np.isnan(average_precision([], [])["ap"])
