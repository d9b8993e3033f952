"""Masks from boxes: run lengths equal to pycocotools', outlines along pixels' edges, a small SAM 2 from end to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from rizbin.core.errors import RizbinError
from rizbin.data.coco_masks import decode_runs, fill_polygon
from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.masks import Segmenter, polygons, run_lengths, tinted
from rizbin.detection.search import Search, save, search
from tests.detection.toys import Shapes, save_sam, tiny, tokenizer


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((int(random.integers(1, 70)), int(random.integers(1, 70)))) < random.choice([0.02, 0.5, 0.98])
    ours = run_lengths(mask)
    theirs: Any = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert ours["size"] == list(theirs["size"]) and ours["counts"] == theirs["counts"].decode()
    assert (decode_runs(ours["counts"], *mask.shape) == mask).all()


def test_run_lengths_of_all_and_nothing() -> None:
    for mask in (np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        assert (decode_runs(run_lengths(mask)["counts"], 3, 4) == mask).all()


def test_outlines_run_along_the_edges_of_pixels() -> None:
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:5] = True
    mask[5, 8] = True
    found = sorted(polygons(mask), key=min)
    corners = [set(map(tuple, np.array(one).reshape(-1, 2).tolist())) for one in found]
    assert {(2, 1), (2, 4), (5, 4), (5, 1)} in corners and {(8, 5), (8, 6), (9, 6), (9, 5)} in corners
    filled = np.any([fill_polygon(np.array(one).reshape(-1, 2), 6, 9) for one in found], axis=0)
    assert (filled == mask).all()
    assert polygons(np.zeros((4, 4), bool)) == []


def test_a_round_mask_comes_back_from_its_outline() -> None:
    rows, columns = np.mgrid[:60, :60]
    mask = (rows - 30) ** 2 + (columns - 28) ** 2 < 300
    (outline,) = polygons(mask)
    filled = fill_polygon(np.array(outline).reshape(-1, 2), 60, 60)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.97


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM 2 with random weights."""
    path = tmp_path_factory.mktemp("sam2")
    save_sam(path)
    return path


def test_each_box_gets_a_mask_of_the_pictures_size(folder: Path) -> None:
    segmenter = Segmenter.from_pretrained(folder)
    picture = Shapes(size=96)[0].image[:80]
    boxes = np.array([[5, 5, 40, 40], [30, 20, 90, 70], [0, 0, 96, 80]], np.float32)
    masks, scores = segmenter.masks(picture, boxes)
    assert masks.shape == (3, 80, 96) and masks.dtype == bool and scores.shape == (3,)
    alone, _ = segmenter.masks(picture, boxes[1:2])
    assert (alone[0] == masks[1]).mean() > 0.999, "a box's mask does not depend on the others"
    none, empty = segmenter.masks(picture, boxes[:0])
    assert none.shape == (0, 80, 96) and len(empty) == 0


def test_masks_stand_in_cocos_json_and_in_the_drawing(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(Shapes(size=64)[0].image).save(pictures / "a.png")
    detector = Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))
    found = search(
        detector,
        [str(pictures)],
        ["red disc", "cat"],
        settings=Search(threshold=0.0),
        segmenter=Segmenter.from_pretrained(folder),
        draw=tmp_path / "drawn",
    )
    (path,) = save(found, tmp_path / "found.json")
    kept = json.loads(path.read_text())["annotations"]
    masks = found.images[0].masks
    assert masks is not None and len(kept) == len(masks) > 0
    for one, mask in zip(kept, masks, strict=True):
        assert (decode_runs(one["segmentation"]["counts"], 64, 64) == mask).all() and one["area"] == mask.sum()
    assert list((tmp_path / "drawn").iterdir())


def test_the_first_mask_is_on_top() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    masks = [np.array([[True, False], [False, False]]), np.array([[True, True], [False, False]])]
    shown = tinted(picture, masks, [(200, 0, 0), (0, 200, 0)], strength=1.0)
    assert shown.tolist() == [[[200, 0, 0], [0, 200, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_what_is_no_sam_2_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="could not be loaded"):
        Segmenter.from_pretrained(tmp_path)
    Detector(tiny(), tokenizer()).save(tmp_path / "detector")
    with pytest.raises(RizbinError, match="not a SAM 2"):
        Segmenter.from_pretrained(tmp_path / "detector")
