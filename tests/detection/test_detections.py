"""Choosing answers from a matrix of scores whose right choice is known."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.detection.detections import Proposals
from rizbin.detection.phrases import Phrase

CAT, DOG, CUP = (Phrase(name, (name,)) for name in ("cat", "dog", "cup"))


def found(boxes: list[list[float]], scores: list[list[float]]) -> Proposals:
    return Proposals(
        100, 80, np.array(boxes, np.float32).reshape(-1, 4), np.array(scores).reshape(-1, 3), (CAT, DOG, CUP)
    )


CASE = found(
    [[0, 0, 50, 50], [1, 0, 50, 50], [60, 10, 90, 70], [60, 10, 90, 69]],
    [[0.9, 0.2, np.nan], [0.8, 0.1, np.nan], [0.5, 0.55, np.nan], [np.nan, np.nan, 0.4]],
)


def test_each_box_answers_for_its_best_phrase_once() -> None:
    answer = CASE.choose(0.3)
    assert answer.labels == ["cat", "dog", "cup"]
    assert answer.rows.tolist() == [0, 2, 3] and answer.classes.tolist() == [0, 1, 2]
    assert answer.scores.tolist() == pytest.approx([0.9, 0.55, 0.4])
    assert CASE.choose(0.3, nms_iou=1.0).rows.tolist() == [0, 1, 2, 3]
    assert CASE.choose(0.95).labels == [] and len(CASE.choose(0.95)) == 0


def test_a_name_may_have_its_own_threshold() -> None:
    assert CASE.choose(0.3, thresholds={"cup": 0.45}).labels == ["cat", "dog"]
    assert CASE.choose(0.3, thresholds={"dog": 0.6}).labels == ["cat", "cat", "cup"], "the box falls to the next name"
    assert CASE.choose(0.3, several=True).labels == ["cat", "dog", "cat", "cup"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 1.2}, "threshold is 1.2"),
        ({"nms_iou": -1.0}, "nms_iou is -1"),
        ({"thresholds": {"cow": 0.3}}, "cow, which was not looked for; there are cat, dog, cup"),
        ({"thresholds": {"cat": 7.0}}, "cat is 7"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(changes: dict, words: str) -> None:
    with pytest.raises(RizbinError, match=words):
        CASE.choose(**changes)


def test_nothing_found_is_an_answer_too() -> None:
    nothing = found([], [])
    assert len(nothing.choose()) == 0 and len(nothing.pairs().classes) == 0


def test_pairs_are_the_best_of_the_matrix() -> None:
    pairs = CASE.pairs(4)
    assert pairs.scores is not None
    assert pairs.scores.tolist() == pytest.approx([0.9, 0.8, 0.55, 0.5])
    assert pairs.classes.tolist() == [0, 0, 1, 0]
    assert len(CASE.pairs().classes) == 7, "what was not asked for is no pair"


def test_supervision_gets_the_same_boxes_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = CASE.choose(0.3)
    # A stand-in: the package is large and nothing else here needs it.
    made = SimpleNamespace(Detections=lambda **fields: SimpleNamespace(**fields))
    monkeypatch.setitem(sys.modules, "supervision", made)
    detections = answer.to_supervision()
    assert detections.xyxy.shape == (3, 4) and detections.xyxy.dtype == np.float32
    assert detections.class_id.tolist() == [0, 1, 2] and detections.confidence.tolist() == pytest.approx(
        [0.9, 0.55, 0.4]
    )
    assert detections.data["class_name"].tolist() == ["cat", "dog", "cup"]
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RizbinError, match="pip install supervision"):
        answer.to_supervision()
