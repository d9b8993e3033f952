"""ODVG lines: both kinds of record, images elsewhere, and what is said of broken ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rizbin.core.errors import RizbinError
from rizbin.data.open import notices_of, open_source
from rizbin.data.sample import Refused

DETECTION: dict[str, Any] = {
    "filename": "a.png",
    "height": 40,
    "width": 60,
    "detection": {"instances": [{"bbox": [10, 5, 30, 25], "label": 0, "category": "Cat"}]},
}
GROUNDING = {
    "filename": "b.png",
    "height": 40,
    "width": 60,
    "grounding": {
        "caption": "two dogs and a cat",
        "regions": [
            {"bbox": [[0, 0, 10, 10], [20, 0, 30, 10]], "phrase": "two dogs"},
            {"bbox": [40, 0, 60, 40], "phrase": ["a cat"]},
        ],
    },
}


def written(folder: Path, *records: object, pictures: str = "") -> Path:
    (folder / pictures).mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / pictures / name)
    path = folder / "boxes.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n", encoding="utf-8")
    return path


def test_both_kinds_of_record_become_things(tmp_path: Path) -> None:
    source = open_source(str(written(tmp_path, DETECTION, GROUNDING)), split="all")
    assert source.categories == ("a cat", "cat", "two dogs")
    things = {sample.key: sample.objects for sample in (source[index] for index in range(len(source)))}
    ((name, box),) = [(thing.name, thing.box) for thing in things["a.png"]]
    assert (name, box) == ("cat", (10, 5, 30, 25))
    assert [(thing.name, thing.box) for thing in things["b.png"]] == [
        ("two dogs", (0, 0, 10, 10)),
        ("two dogs", (20, 0, 30, 10)),
        ("a cat", (40, 0, 60, 40)),
    ]


def test_lines_about_one_picture_add_up(tmp_path: Path) -> None:
    again = {**GROUNDING, "filename": "a.png"}
    source = open_source(str(written(tmp_path, DETECTION, again)), split="all")
    assert len(source) == 1
    assert [thing.name for thing in source[0].objects] == ["cat", "two dogs", "two dogs", "a cat"]


def test_pictures_may_lie_in_a_folder_named_beside(tmp_path: Path) -> None:
    path = written(tmp_path, DETECTION, pictures="elsewhere")
    assert open_source(f"{path}@{tmp_path / 'elsewhere'}", split="all")[0].objects[0].name == "cat"
    with pytest.raises(RizbinError, match=r"no folder .*nowhere.* for the images of"):
        open_source(f"{path}@{tmp_path / 'nowhere'}", split="all")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match=r"Line 2 of .*boxes\.jsonl is no ODVG record"):
        open_source(str(written(tmp_path, DETECTION, {"filename": "b.png", "detection": {}})))
    empty = {"filename": "b.png", "grounding": {"regions": [{"bbox": [], "phrase": "a cat"}]}}
    for record in ([1, 2], empty):
        with pytest.raises(RizbinError, match="Line 2 of"):
            open_source(str(written(tmp_path, DETECTION, record)))
    path = written(tmp_path, DETECTION)
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(RizbinError, match="Line 3 of"):
        open_source(str(path))


def changed(**instance: object) -> dict:
    first = {**DETECTION["detection"]["instances"][0], **instance}
    return {**DETECTION, "detection": {"instances": [first]}}


@pytest.mark.parametrize("box", [[25, 20, 15, 15], [25, 20, 30, 15], [1, 2, 3], [1, 2, 3, "x"], {}, None])
def test_boxes_that_are_no_corners_are_refused(tmp_path: Path, box: object) -> None:
    with pytest.raises(RizbinError, match="Line 2 of"):
        open_source(str(written(tmp_path, DETECTION, changed(bbox=box))))


@pytest.mark.parametrize("name", ["", None, ["a"], "\ud800"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: object) -> None:
    for record in (changed(category=name), {**DETECTION, "filename": name}):
        with pytest.raises(RizbinError, match="Line 2 of"):
            open_source(str(written(tmp_path, DETECTION, record)))


def test_boxes_without_an_area_are_counted(tmp_path: Path) -> None:
    source = open_source(str(written(tmp_path, DETECTION, changed(bbox=[5, 5, 5, 9]))), split="all")
    assert [thing.box for thing in source[0].objects] == [(10, 5, 30, 25)]
    assert notices_of(source) == ("boxes.jsonl: 1 box is left out for having no area, such as cat of a.png, line 2.",)


@pytest.mark.parametrize(
    ("width", "words"), [(61, "is 60 x 40"), ("x", "the width"), (60.0, ""), ("60", ""), (None, "")]
)
def test_sizes_are_compared_however_they_are_written(tmp_path: Path, width: object, words: str) -> None:
    source = open_source(str(written(tmp_path, {**DETECTION, "width": width})), split="all")
    if words:
        with pytest.raises(Refused, match=words):
            source[0]
    else:
        assert len(source[0].objects) == 1


def test_lines_of_different_sizes_refuse_their_picture(tmp_path: Path) -> None:
    source = open_source(str(written(tmp_path, DETECTION, {**DETECTION, "width": 600})), split="all")
    with pytest.raises(Refused, match="lines with different sizes"):
        source[0]


def test_a_table_of_captions_stays_a_table(tmp_path: Path) -> None:
    path = written(tmp_path, {"image": "a.png", "caption": "a cat"})
    assert open_source(str(path), split="all")[0].caption == "a cat"
