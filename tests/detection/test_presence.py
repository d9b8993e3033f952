"""Presence: verdicts on matrices whose answer is known, calibration and its measures against other ways to them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef

from rizbin.core.errors import RizbinError
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import PhraseLike, read_phrases
from rizbin.detection.presence import Calibration, calibrate, calibration_error, judge, matthews, verify

RANGE = (0.35, 0.65)


def found(names: list[str], boxes: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]) -> Proposals:
    table = np.array(scores, np.float32).reshape(-1, len(names))
    return Proposals(100, 100, np.array(boxes, np.float32).reshape(-1, 4), table, read_phrases(names))


def test_three_answers_and_a_count() -> None:
    boxes = [[0, 0, 20, 20], [1, 1, 20, 20], [50, 50, 90, 90]]
    two = judge(found(["cat"], boxes, [[0.9], [0.8], [0.7]]), unsure=RANGE)
    assert (two.state, two.count, two.name) == ("present", 2, "cat")
    assert two.boxes[0] == (0, 0, 20, 20) and two.score == pytest.approx(0.9)
    assert judge(found(["cat"], boxes, [[0.1], [0.2], [0.05]]), unsure=RANGE).state == "absent"
    assert judge(found(["cat"], boxes, [[0.1], [0.5], [0.05]]), unsure=RANGE).state == "unsure"
    nothing = judge(found(["cat"], [], []), unsure=RANGE)
    assert (nothing.state, nothing.count, nothing.score) == ("absent", 0, 0.0)


def test_a_rival_takes_the_box_also_by_another_query() -> None:
    boxes = [[0, 0, 20, 20], [0, 0, 20, 21], [50, 50, 90, 90]]
    scores = [[0.8, 0.1], [0.2, 0.9], [0.7, 0.3]]
    verdict = judge(found(["cat", "toy cat"], boxes, scores), unsure=RANGE)
    assert verdict.count == 1 and verdict.boxes[0] == (50, 50, 90, 90) and verdict.score == pytest.approx(0.7)
    alone = judge(found(["cat", "toy cat"], boxes[:2], scores[:2]), unsure=RANGE)
    assert (alone.state, alone.count) == ("absent", 0)
    direct = judge(found(["cat", "toy cat"], boxes[:1], [[0.8, 0.9]]), unsure=RANGE)
    assert direct.rival == "toy cat"
    near = found(["cat", "toy cat"], boxes[2:], scores[2:])
    assert judge(near, margin=0.3, unsure=RANGE).count == 1
    assert judge(near, margin=0.5, unsure=RANGE).state == "absent"


def test_each_phrase_has_a_pass_of_its_own_with_the_rivals() -> None:
    class Sees:
        def __init__(self) -> None:
            self.asked: list[list[str]] = []

        def detect(self, images: Sequence, phrases: Sequence[PhraseLike]) -> list[Proposals]:
            read = read_phrases(list(phrases))
            self.asked.append([one.name for one in read])
            scores = np.array([[0.9 if one.name == "cat" else 0.05 for one in read]], np.float32)
            return [Proposals(9, 9, np.array([[0, 0, 5, 5]], np.float32), scores, read)]

    sees = Sees()
    verdicts = verify(sees, np.zeros((9, 9, 3), np.uint8), ["cat", "dog=a dog"], rivals=["dog", "toy"])
    assert [(one.name, one.state) for one in verdicts] == [("cat", "present"), ("dog", "absent")]
    assert sees.asked == [["cat", "dog", "toy"], ["dog", "toy"]]
    with pytest.raises(RizbinError, match=r"unsure is 0\.9 to 0\.1"):
        verify(sees, np.zeros((9, 9, 3), np.uint8), ["cat"], unsure=(0.9, 0.1))


def test_what_the_network_does_not_know_is_unsure() -> None:
    unknown = replace(found(["zeppelin", "cat"], [[0, 0, 20, 20]], [[np.nan, 0.9]]), unasked=(0,), notes=("why",))
    verdict = judge(unknown, unsure=RANGE)
    assert (verdict.state, verdict.probability, verdict.count, verdict.notes) == ("unsure", 0.0, 0, ("why",))
    rival = replace(found(["cat", "toy cat"], [[0, 0, 20, 20]], [[0.9, np.nan]]), unasked=(1,))
    assert judge(rival, unsure=RANGE).state == "present", "what was not asked for takes no box away"


@pytest.mark.parametrize("margin", [float("nan"), -0.1, 2.0])
def test_a_margin_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(RizbinError, match="give a share from 0 to 1"):
        verify(Detector.__new__(Detector), np.zeros((9, 9, 3), np.uint8), ["cat"], margin=margin)


def cases(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose true probability is known: the sigmoid of 2 logit + 1."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.02, 0.98, count)
    truth = 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) + 1)))
    return scores, random.random(count) < truth


def test_calibration_is_logistic_regression() -> None:
    scores, there = cases(4000)
    made = calibrate(scores, there)
    x = np.log(scores / (1 - scores))[:, None]
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(x, there)
    assert made.slope == pytest.approx(theirs.coef_[0, 0], rel=0.02)
    assert made.offset == pytest.approx(theirs.intercept_[0], rel=0.02, abs=0.02)
    assert calibration_error(made.probability(scores), there) < 0.03 < calibration_error(scores, there)
    # log odds 0 where 2 logit + 1 = 0
    assert made.threshold == pytest.approx(1 / (1 + np.exp(0.5)), abs=0.06)


def test_cases_without_a_fault_have_a_finite_slope_and_the_middle_threshold() -> None:
    made = calibrate(np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True]))
    assert made.threshold == pytest.approx(0.45) and 0 < made.slope < 20
    for there in (True, False):
        with pytest.raises(RizbinError, match="one kind"):
            calibrate(np.array([0.2, 0.4]), np.array([there, there]))


def test_the_measures_are_what_others_measure() -> None:
    scores, there = cases(500, seed=1)
    assert matthews(scores > 0.5, there) == pytest.approx(matthews_corrcoef(there, scores > 0.5))
    assert matthews(np.ones(500, bool), there) == 0
    # Two bins: 0.2 with half present, 0.9 with all.
    probabilities, truth = np.array([0.2, 0.2, 0.9, 0.9]), np.array([True, False, True, True])
    assert calibration_error(probabilities, truth, bins=2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)


def test_a_calibration_is_kept(tmp_path: Path) -> None:
    made = Calibration(slope=2.0, offset=-0.5, threshold=0.4)
    made.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == made
    (tmp_path / "other.json").write_text('{"slope": 1, "color": 2}')
    with pytest.raises(RizbinError, match="no calibration"):
        Calibration.load(tmp_path / "other.json")
