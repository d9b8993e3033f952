"""Measuring a detector: on one that sees everything, one that sees nothing, and one that is taken in by names."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Refused, Sample
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.measure import DetectionSettings, before_and_after, calibrated, measure, random_like
from rizbin.detection.phrases import read_phrases
from rizbin.detection.presence import Calibration
from tests.detection.toys import Shapes, tiny, tokenizer

NAMES = Shapes.categories
PLAIN = DetectionSettings(images=24, baseline=False)


class Sees(Detector):
    """Finds what is true of the pictures of `Shapes`, as far as `score` lets it."""

    has_network = False

    def __init__(self, score: Callable[[str, bool], float]) -> None:
        self.score, self.name = score, "sees"
        self.truth = {Shapes()[index].image.tobytes(): Shapes()[index].objects for index in range(200)}

    def detect(self, pictures: Sequence[Any], phrases: Sequence[Any], **others: Any) -> list[Proposals]:
        read = read_phrases(list(phrases))
        found = []
        for picture in pictures:
            things = self.truth[picture.tobytes()]
            boxes = np.array([thing.box for thing in things], np.float32).reshape(-1, 4)
            scores = np.array(
                [[self.score(phrase.name, phrase.name == thing.name) for phrase in read] for thing in things],
                np.float32,
            ).reshape(-1, len(read))
            found.append(Proposals(96, 96, boxes, scores, read))
            others.get("advance", lambda done: None)(1)
        return found


def test_who_sees_everything_has_everything_and_who_sees_nothing_has_nothing() -> None:
    perfect = measure(Sees(lambda name, right: 0.9 if right else 0.1), Shapes(), settings=PLAIN)
    for name in ("boxes/ap50", "boxes/ap", "boxes/recall", "presence/accuracy"):
        assert perfect[name].value == pytest.approx(100), name
    assert perfect["presence/mcc"].value == 1 and perfect["presence/calibration_error"].value < 0.1
    assert perfect["presence_among/mcc"].value == 1
    assert perfect.images == 24 and "boxes/ap_large" not in perfect, "nothing is that large"
    blind = measure(Sees(lambda name, right: 0.3), Shapes(), settings=PLAIN)
    assert blind["boxes/ap50"].value < 30 and blind["presence/accuracy"].value == pytest.approx(50)
    assert blind["presence/mcc"].value == 0


def test_who_finds_something_for_every_name_fails_at_presence_alone() -> None:
    """The known bias: boxes are ranked rightly, yet a name that is not there gets a high score too."""
    names = {name: 0.5 + 0.04 * place for place, name in enumerate(NAMES)}
    taken_in = measure(Sees(lambda name, right: names[name] + (0.01 if right else 0.0)), Shapes(), settings=PLAIN)
    assert taken_in["boxes/ap50"].value > 30 and taken_in["presence/mcc"].value < 0.4


def test_a_calibration_of_its_own_is_used_on_all_pictures() -> None:
    sees = Sees(lambda name, right: 0.3 if right else 0.1)
    strict = measure(sees, Shapes(), calibration=Calibration(threshold=0.5), settings=PLAIN)
    assert strict["presence/accuracy"].value == pytest.approx(50), "everything is called absent"
    fitted = calibrated(sees, Shapes(), settings=PLAIN)
    assert 0.1 < fitted.threshold < 0.3
    assert measure(sees, Shapes(), calibration=fitted, settings=PLAIN)["presence/mcc"].value == 1


def test_absent_names_are_asked_as_often_as_those_there() -> None:
    asked: list[tuple[str, bool]] = []

    def score(name: str, right: bool) -> float:
        return 0.5

    class Noting(Sees):
        def detect(self, pictures: Sequence[Any], phrases: Sequence[Any], **others: Any) -> list[Proposals]:
            if len(phrases) == 1:
                for picture in pictures:
                    things = {thing.name for thing in self.truth[picture.tobytes()]}
                    asked.append((phrases[0].name, phrases[0].name in things))
            return super().detect(pictures, phrases, **others)

    measure(Noting(score), Shapes(), settings=PLAIN)
    assert len(asked) > 60 and sum(there for _, there in asked) * 2 == len(asked)
    asked.clear()
    only_boxes = measure(Noting(score), Shapes(), settings=DetectionSettings(images=5, presence=0, baseline=False))
    assert not asked and only_boxes.left_out[0][0] == "presence"


def test_random_weights_stand_beside_and_leave_the_network_alone() -> None:
    detector = Detector(tiny(), tokenizer())
    detector.preparation = type(detector.preparation)(shorter=64, longer=128)
    before = {name: value.clone() for name, value in detector.model.state_dict().items()}
    told: list[int] = []

    class Bar:
        def __init__(self, total: int, label: str) -> None:
            self.total = total

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            assert told[-1] == self.total

        def update(self, done: int) -> None:
            told.append(done)

    found = measure(detector, Shapes(), settings=DetectionSettings(images=4), bar=Bar)
    assert all(one.baseline is not None for one in found.measurements)
    assert all((value == before[name]).all() for name, value in detector.model.state_dict().items())
    other = random_like(detector, 1)
    assert not (other.model.model.level_embed == detector.model.model.level_embed).all()


def test_what_was_kept_is_told_by_group_of_names() -> None:
    good, bad = Sees(lambda name, right: 0.9 * right), Sees(lambda name, right: 0.9 * (right and name[0] == "r"))
    rows = before_and_after(good, bad, Shapes(), {"red": NAMES[6:9], "rest": NAMES[:6], "nothing": ("unicorn",)}, PLAIN)
    assert [row[0] for row in rows] == ["red", "rest"]
    assert rows[0][1:] == pytest.approx((100, 100)) and rows[1][1] == pytest.approx(100) and rows[1][2] < 50


def test_a_source_without_objects_is_refused_in_a_sentence() -> None:
    class Bare(Shapes):
        def __getitem__(self, index: int) -> Sample:
            if index == 0:
                raise Refused("the first is broken.")
            return Sample("a", super().__getitem__(index).image, "")

    with pytest.raises(RizbinError, match=r"no image with objects.*the first is broken"):
        measure(Sees(lambda name, right: 0.5), Bare(), settings=PLAIN)
    with pytest.raises(RizbinError, match="no image with objects"):
        calibrated(Sees(lambda name, right: 0.5), Bare(), settings=PLAIN)
