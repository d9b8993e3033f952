"""Why a box: on a network whose answers are known, and on the one that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rizbin import zoo
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.explain import OCCLUDED, _about, _most, _Pass, explain
from rizbin.reports.explanations import write_explanations
from tests.detection.toys import Shapes, tiny, tokenizer


def test_the_parts_of_an_explanation_fit_each_other() -> None:
    detector = Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))
    picture = Shapes(size=64)[0].image
    found = explain(detector, picture, ["red disc", "cat"], threshold=0.0, most=2)
    assert len(found) == 2 and found[0].score >= found[1].score
    for one in found:
        assert one.score == pytest.approx(np.mean([value for _, value in one.words]), abs=1e-5)
        assert " ".join(word for word, _ in one.words) == one.name
        assert one.similarity.shape == (64, 64) and 0 <= one.similarity.min() <= one.similarity.max() <= 1
        # Two layers, four heads, three levels, four points.
        assert one.points.shape == (2 * 4 * 3 * 4, 3) and one.points[:, 2].sum() == pytest.approx(1, abs=1e-4)
        assert (np.diff(one.points[:, 2]) <= 1e-7).all(), "the heaviest first"
        assert one.honest == (one.without < one.elsewhere)
        assert one.attention.shape[1:] == (64, 64) and one.attention.mean(axis=(1, 2)) == pytest.approx(1, rel=1e-4)
    unchecked = explain(detector, picture, ["cat"], threshold=0.0, most=1, check=False)[0]
    assert np.isnan(unchecked.without) and not unchecked.honest
    with pytest.raises(RizbinError, match="most is 0"):
        explain(detector, picture, ["cat"], most=0)
    assert explain(detector, picture, ["cat"], threshold=1.0) == []


def test_rivals_take_boxes_and_are_not_explained() -> None:
    detector = Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))
    picture = Shapes(size=64)[0].image
    both = explain(detector, picture, ["red disc", "cat"], threshold=0.0, most=10, check=False)
    alone = explain(detector, picture, ["red disc"], rivals=["cat"], threshold=0.0, most=10, check=False)
    assert [one.box for one in alone] == [one.box for one in both if one.name == "red disc"]
    assert {one.name for one in both} >= {one.name for one in alone}


def test_the_boxes_are_those_of_detect() -> None:
    detector = Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))
    picture = Shapes(size=64)[3].image
    answer = detector.detect([picture], ["red disc", "cat"])[0].choose(0.0)
    explained = explain(detector, picture, ["red disc", "cat"], threshold=0.0, most=3, check=False)
    for number, one in enumerate(explained):
        assert one.box == pytest.approx(answer.boxes[number].tolist(), abs=1e-3)
        assert one.name == answer.labels[number]


def test_boxes_of_tiles_are_explained_where_they_were_found() -> None:
    """The same boxes as `detect` gives, with maps and points within the tile that found them."""
    detector = Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))
    one, two, three, four = (Shapes(size=64)[number].image for number in (3, 4, 5, 6))
    picture = np.vstack([np.hstack([one, two]), np.hstack([three, four])])  # of four, so that no two tiles tie
    answer = detector.detect([picture], ["red disc", "cat"], tile=64)[0].choose(0.0)
    explained = explain(detector, picture, ["red disc", "cat"], threshold=0.0, most=len(answer), tile=64, check=False)
    assert len(explained) == len(answer) > 3
    apart = 0
    for number, found in enumerate(explained):
        assert found.box == pytest.approx(answer.boxes[number].tolist(), abs=1e-3)
        assert found.name == answer.labels[number] and found.similarity.shape == (128, 128)
        rows, columns = np.nonzero(found.similarity)
        apart += len(rows) == 64 * 64
        if len(rows) == 64 * 64:  # seen in a tile: its points lie about there too, as offsets of a young network go
            center = found.points[:, :2].mean(axis=0)
            assert np.abs(center - (columns.mean(), rows.mean())).max() < 64
    assert apart > 0, "no box came from a tile"
    checked = explain(detector, picture, ["red disc"], threshold=0.0, most=1, tile=64)
    assert np.isfinite([checked[0].without, checked[0].elsewhere]).all()


def test_a_tenth_is_marked_and_only_boxes_about_the_place_count() -> None:
    marked = _most(np.arange(100, dtype=np.float32).reshape(10, 10))
    assert marked.sum() == 100 * OCCLUDED and marked[9].all()
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.2], [0.4], [0.9]], np.float32)
    made = _Pass(boxes, boxes / 60, scores, torch.zeros(3, 1), torch.zeros(1, 1), [], np.zeros((3, 1, 3), np.float32))
    assert _about(np.array([0, 0, 10, 10], np.float32), made, 0) == pytest.approx(0.4)
    assert _about(np.array([20, 20, 30, 30], np.float32), made, 0) == 0


def test_the_maps_of_the_detector_that_ships_are_honest(tmp_path: Path) -> None:
    detector = Detector.from_pretrained(zoo.folder_of("detector-mini"))
    source = open_source("scenes:several", split="test", size=96)
    explained, inside = [], []
    for index in range(10):
        sample = source[index]
        reasons = explain(detector, sample.image, sorted(sample.names), most=2)
        explained.append((f"scene {index}", sample.image, reasons))
        for one in reasons:
            left, top, right, bottom = one.box
            x, y, share = one.points.T
            inside.append(float(share[(x > left - 8) & (x < right + 8) & (y > top - 8) & (y < bottom + 8)].sum()))
    found = [one for _, _, reasons in explained for one in reasons]
    assert len(found) >= 10
    assert sum(one.honest for one in found) >= 0.9 * len(found)
    assert np.mean([one.score - one.without for one in found]) > 3 * np.mean(
        [one.score - one.elsewhere for one in found]
    )
    assert np.mean(inside) > 0.6, "the query looks at the box it makes"
    page = write_explanations(explained, tmp_path / "explained.html").read_text()
    assert "shows what matters" in page and "scene 9" in page and "Words, layer 2" in page
