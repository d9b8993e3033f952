"""Answers as files: read back by the tools that they are for, and drawn where they are."""

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools.coco import COCO

from rizbin.core.errors import RizbinError
from rizbin.core.outputs import overwriting
from rizbin.detection.detections import Detections
from rizbin.detection.draw import color_of, drawn
from rizbin.detection.write import ImageDetections, write

NAMES = ("cat", "remote & <control>", "bus")
ANSWER = Detections(
    np.array([[10, 20, 60, 80], [0, 0, 100.5, 50.25]], np.float32),
    np.array([2, 1]),
    np.array([0.9, 0.5]),
    NAMES,
    np.array([0, 3]),
)
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0), NAMES, np.zeros(0, int))
PICTURES = [ImageDetections("a.png", 200, 100, ANSWER), ImageDetections("b.jpg", 50, 50, NOTHING)]


def test_coco_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (path,) = write(PICTURES, NAMES, tmp_path / "deep/found.json")
    read: Any = COCO(str(path))
    assert {one["name"] for one in read.loadCats(read.getCatIds())} == set(NAMES)
    (first, second) = read.loadAnns(read.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [10, 20, 50, 60] and first["category_id"] == 3 and first["area"] == 3000
    assert second["score"] == 0.5 and read.getAnnIds(imgIds=[2]) == []
    # And by our own reader, as data to measure on or to learn from.
    from PIL import Image

    from rizbin.data.open import open_source

    for one in PICTURES:
        Image.new("RGB", (one.width, one.height), (200, 10, 10)).save(path.parent / one.file)
    sample = open_source(str(path), split="train", size=0)[0]
    assert {(thing.name, thing.box) for thing in sample.objects} >= {("bus", (10, 20, 60, 80))}


def test_yolo_voc_labelme_and_a_table(tmp_path: Path) -> None:
    files = write(PICTURES, NAMES, tmp_path / "yolo")
    assert [path.name for path in files] == ["a.txt", "b.txt", "classes.txt"]
    first = (tmp_path / "yolo/a.txt").read_text().splitlines()[0].split()
    assert first[0] == "2" and [float(one) for one in first[1:]] == pytest.approx([0.175, 0.5, 0.25, 0.6, 0.9])
    assert (tmp_path / "yolo/b.txt").read_text() == ""
    assert (tmp_path / "yolo/classes.txt").read_text().splitlines() == list(NAMES)

    write(PICTURES, NAMES, tmp_path / "voc", "voc")
    things = ElementTree.parse(tmp_path / "voc/a.xml").findall("object")
    assert [thing.findtext("name") for thing in things] == ["bus", "remote & <control>"]
    assert [things[0].findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")] == [
        "11",
        "21",
        "60",
        "80",
    ]

    write(PICTURES, NAMES, tmp_path / "labelme", "labelme")
    kept = json.loads((tmp_path / "labelme/a.json").read_text())
    assert kept["shapes"][0]["points"] == [[10, 20], [60, 80]] and kept["imageWidth"] == 200

    (path,) = write(PICTURES, NAMES, tmp_path / "found.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 2 and rows[1]["name"] == "remote & <control>" and float(rows[0]["right"]) == 60


def test_what_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="no form 'pdf'"):
        write(PICTURES, NAMES, tmp_path / "x", "pdf")
    twice = [PICTURES[0], ImageDetections("a.jpg", 9, 9, NOTHING)]
    with pytest.raises(RizbinError, match="Two images are called a"):
        write(twice, NAMES, tmp_path / "x", "voc")
    (tmp_path / "file").write_text("")
    with pytest.raises(RizbinError, match="cannot be written"):
        write(PICTURES, NAMES, tmp_path / "file/found.json")


def test_files_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    two = [ImageDetections("x/a.png", 200, 100, ANSWER), ImageDetections("y/a.png", 50, 50, NOTHING)]
    files = write(two, NAMES, tmp_path / "yolo")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "yolo/x/a.txt",
        "yolo/y/a.txt",
        "yolo/classes.txt",
    ]
    assert files[0].read_text() and not files[1].read_text()
    with pytest.raises(RizbinError, match="leads out of the folder"):
        write([ImageDetections("../a.png", 9, 9, NOTHING), PICTURES[0]], NAMES, tmp_path / "yolo")


def test_answers_never_go_over_what_somebody_made(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in ("a.txt", "classes.txt", "found.json", "found.csv")]
    for path in mine:
        path.write_text("mine")
    for target in (tmp_path, *mine[2:]):
        with pytest.raises(RizbinError, match="--overwrite"):
            write(PICTURES, NAMES, target)
    assert not (tmp_path / "b.txt").exists(), "nothing half written"
    assert all(path.read_text() == "mine" for path in mine)
    with overwriting():
        write(PICTURES, NAMES, tmp_path)
    assert mine[0].read_text().startswith("2 ")
    write(PICTURES, NAMES, tmp_path)  # by now they are ours


def test_frames_and_names_are_drawn_in_the_class_color() -> None:
    ground = np.full((100, 200, 3), 90, np.uint8)
    picture = drawn(ground, ANSWER)
    assert picture.shape == (400, 800, 3), "enlarged by a whole number"
    for number, edge in ((2, picture[200, 40:48]), (1, picture[100, 398:404])):
        assert (edge == np.array(color_of(number))).all(axis=-1).any()
    assert np.array_equal(drawn(ground, NOTHING, least=1), ground)
    assert len({color_of(number) for number in range(50)}) == 50


def test_names_do_not_cover_each_other() -> None:
    boxes = np.array([[50, 60, 90, 90], [52, 61, 92, 91], [51, 59, 91, 89]], np.float32)
    answer = Detections(boxes, np.array([0, 1, 2]), np.array([0.9, 0.8, 0.7]), NAMES, np.arange(3))
    picture = drawn(np.zeros((300, 400, 3), np.uint8), answer, least=1)
    fills = [(picture == np.array(color_of(number))).all(axis=-1).sum() for number in range(3)]
    assert min(fills) > 500, "each name stands on a ground of its own"
