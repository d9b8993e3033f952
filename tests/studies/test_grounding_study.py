"""The study of asking: counts on answers that are known, and a verdict that follows the numbers."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.detection.detections import Proposals
from rizbin.detection.measure import Cases
from rizbin.detection.phrases import read_phrases
from rizbin.studies.grounding import Counted, answer, best, by_size, counted, write_study
from tests.detection.test_measure import Sees
from tests.detection.toys import Shapes

NAMES = Shapes.categories


def perfect(samples: list, score: float) -> list[Proposals]:
    read = read_phrases(list(NAMES))
    found = []
    for sample in samples:
        boxes = np.array([thing.box for thing in sample.objects], np.float32).reshape(-1, 4)
        scores = np.zeros((len(boxes), len(NAMES)), np.float32)
        for row, thing in enumerate(sample.objects):
            scores[row, NAMES.index(thing.name)] = score
        found.append(Proposals(96, 96, boxes, scores, read))
    return found


def test_counts_follow_the_threshold() -> None:
    samples = [Shapes()[index] for index in range(10)]
    things = sum(len(sample.objects) for sample in samples)
    found = perfect(samples, 0.6)
    assert counted(samples, found, NAMES, 0.5) == Counted(0.5, things, things, things)
    assert counted(samples, found, NAMES, 0.7) == Counted(0.7, 0, 0, things)
    twice = [
        Proposals(96, 96, np.tile(one.boxes, (2, 1)) + 0.0, np.tile(one.scores, (2, 1)), one.phrases) for one in found
    ]
    assert counted(samples, twice, NAMES, 0.5).right == things, "a thing is found once"
    assert [row[2] for row in by_size(samples, found, NAMES, 0.5)] == [100] * 4
    sizes = by_size(samples, found, NAMES, 0.5)
    assert sum(row[3] for row in sizes) == things and all(a[1] <= b[0] for a, b in itertools.pairwise(sizes))
    assert (
        best([Counted(0.1, 1, 4, 4), Counted(0.2, 3, 4, 4), Counted(0.3, 3, 4, 4), Counted(0.4, 3, 4, 4)]).threshold
        == 0.3
    )


def test_the_answer_follows_the_numbers() -> None:
    there = np.arange(40) % 2 == 0
    pictures = np.arange(40) // 4
    good = Cases(np.where(there, 0.6, 0.1), there, pictures)
    bad = Cases(np.where(np.arange(40) % 3 == 0, 0.6, 0.1), there, pictures)
    counts = {"all names at once": [Counted(0.3, 9, 10, 10)], "one name a pass": [Counted(0.5, 8, 10, 10)]}
    sizes = [(4.0, 9.0, 50.0, 5), (20.0, 30.0, 99.0, 5)]
    precision = {"all names at once": 70.0, "one name a pass": 80.0}
    said = answer(counts, precision, {"all names at once": good, "one name a pass": bad}, sizes)
    assert said.kind == "shown" and said.reason.startswith("Ask for all names at once: of the ")
    assert "Delivered: 20 questions" in said.delivered and "50 percent of them" in said.delivered
    assert "0.3 is best when all names" in said.sentences[0] and "0.5 when each has a pass" in said.sentences[0]
    assert said.sentences[1].startswith("Asking for one name a pass has the higher AP50, 80.0 against 70.0")
    assert "Matthews' correlation with the truth is 1.00 against 0.00" in said.reason
    # Scores of 0.6 and 0.1 whose objects are always and never there are off by 0.4 and 0.1.
    assert "off by 25 points on average with all names at once, calibrated on other images by 8." in said.sentences[2]
    assert "4 to 9 pixels of side, 50 percent" in said.sentences[3]
    other = answer(counts, precision, {"all names at once": bad, "one name a pass": good}, sizes)
    assert other.kind == "refuted here" and other.reason.startswith("Ask for each name in a pass of its own")
    same = answer(counts, precision, {"all names at once": good, "one name a pass": good}, sizes)
    assert same.kind == "not testable here" and same.delivered.startswith("Not delivered")


def test_the_page_shows_both_ways_of_asking(tmp_path: Path) -> None:
    page = write_study(Sees(lambda name, right: 0.9 if right else 0.1), Shapes(), tmp_path / "page.html", images=12)
    text = page.read_text()
    for words in ("Thresholds", "Together or one by one", "Recall by object size", "Calibration"):
        assert words in text
    with pytest.raises(RizbinError, match="not two images"):
        write_study(Sees(lambda name, right: 0.9), Shapes(), tmp_path / "none.html", images=1)
