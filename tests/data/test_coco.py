"""COCO's JSON: captions, objects with masks from polygons, run lengths and boxes, and files that are none."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rizbin.core.errors import RizbinError
from rizbin.data.coco import open_coco
from rizbin.data.coco_masks import decode_runs, fill_polygon
from rizbin.data.sample import Refused
from tests.data.pictures import write

IMAGES = [{"id": number, "file_name": f"{number}.png", "width": 12, "height": 12} for number in range(3)]
CAPTIONS = [
    {"image_id": 0, "caption": "zero"},
    {"image_id": 0, "caption": " "},
    {"image_id": 0, "caption": "nothing"},
    {"image_id": 1, "caption": ""},
]
RUNS = [12 * 2 + 3, 4, 144 - 31]  # column 2, rows 3 to 6
OBJECTS = [
    {"image_id": 0, "category_id": 5, "segmentation": [[2, 3, 6, 3, 6, 7, 2, 7]], "bbox": [2, 3, 4, 4]},
    {"image_id": 0, "category_id": 9, "segmentation": {"counts": RUNS, "size": [12, 12]}},
    {"image_id": 0, "category_id": 9, "bbox": [8, 8, 40, 2]},
    {"image_id": 0, "category_id": 5, "bbox": [0, 0, 12, 12], "iscrowd": 1},
    {"image_id": 0, "category_id": 5, "bbox": [40, 40, 2, 2]},
]
CATEGORIES = [{"id": 5, "name": "Cat"}, {"id": 9, "name": "dog"}]


UNNAMED = '{"images": [], "annotations": [], "categories": [3]}'


def save(path: Path, **parts: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parts))
    return path


def test_captions(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png", number)
    path = save(tmp_path / "captions.json", images=IMAGES, annotations=CAPTIONS)
    source = open_coco(path, split="all")
    assert source[0].captions == ("zero", "nothing") and source[0].caption == "zero" and source[0].objects == ()
    with pytest.raises(Refused, match=r"1\.png is empty"):
        source[1]
    with pytest.raises(Refused, match=r"2\.png has no caption"):
        source[2]


def test_things_have_exact_masks(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0)
    path = save(tmp_path / "instances.json", images=IMAGES[:1], annotations=OBJECTS, categories=CATEGORIES)
    source = open_coco(path, split="all", size=64)
    things = source[0].objects
    assert [(thing.name, thing.box) for thing in things] == [
        ("cat", (2, 3, 6, 7)),
        ("dog", (2, 3, 3, 7)),
        ("dog", (8, 8, 12, 10)),
    ]
    assert [thing.area for thing in things] == [16, 4, 8]
    assert source.categories == ("cat", "dog") and source[0].names == {"cat", "dog"} and source[0].caption == ""


def test_annotations_of_unlisted_pictures_and_categories_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0)
    lost = [
        *({"image_id": number, "category_id": 5, "bbox": [0, 0, 4, 4]} for number in (70, 71, 70, 72, 73)),
        {"category_id": 5, "bbox": [0, 0, 4, 4]},
        {"image_id": 0, "category_id": 6, "bbox": [0, 0, 4, 4]},
    ]
    parts = {"images": IMAGES[:1], "categories": CATEGORIES}
    source = open_coco(save(tmp_path / "instances.json", annotations=OBJECTS + lost, **parts), split="all")
    assert source.notices == (
        "instances.json: 6 annotations are left out, for image_id 70, 71, 72 and 2 more are not among its images.",
        "instances.json: 1 annotation is left out, for category_id 6 is not among its categories.",
        "instances.json: 1 annotation is left out, for the object lies outside of its image, such as image_id 0.",
    )
    assert len(source[0].objects) == 3, "the others are there"
    assert open_coco(save(tmp_path / "whole.json", annotations=OBJECTS[:4], **parts), split="all").notices == ()
    said = [{"image_id": 9, "caption": "nine"}, *CAPTIONS[:1]]
    both = open_coco(save(tmp_path / "captions.json", images=IMAGES[:1], annotations=said), split="all")
    assert both.notices[0].startswith("captions.json with instances.json: 7 annotations are left out, for image_id 9, ")


def test_cocos_own_layout(tmp_path: Path) -> None:
    write(tmp_path / "val2017/0.png", 7)
    folder = tmp_path / "annotations"
    captions = save(folder / "captions_val2017.json", images=IMAGES[:1], annotations=CAPTIONS)
    instances = save(folder / "instances_val2017.json", images=IMAGES[:1], annotations=OBJECTS, categories=CATEGORIES)
    for path in (captions, instances):
        sample = open_coco(path, split="all")[0]
        assert sample.caption == "zero" and len(sample.objects) == 3 and sample.image[0, 0, 0] == 7


@pytest.mark.parametrize(
    "broken",
    [
        {"segmentation": {"counts": [5, 5], "size": [12, 12]}},
        {"segmentation": {"counts": "~~~"}},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": [[1, 2, "x", 4]]},
        {"segmentation": {}, "bbox": [1, 2]},
        {"bbox": [0, 0, 1e999, 5]},
        {},
    ],
)
def test_broken_annotations_refuse_their_picture(tmp_path: Path, broken: dict) -> None:
    write(tmp_path / "0.png", 0)
    annotations = [{"image_id": 0, "category_id": 5, **broken}]
    path = save(tmp_path / "a.json", images=IMAGES[:1], annotations=annotations, categories=CATEGORIES)
    with pytest.raises(Refused, match=r"0\.png has an annotation"):
        open_coco(path, split="all")[0]


def test_annotations_of_another_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0, side=20)
    path = save(tmp_path / "a.json", images=IMAGES[:1], annotations=OBJECTS, categories=CATEGORIES)
    with pytest.raises(Refused, match="20 x 20 pixels, its annotations are for 12 x 12"):
        open_coco(path, split="all")[0]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"images": [1], "annotations": []}', '{"images": 3}', "\xff", UNNAMED]
)
def test_other_json_is_explained(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RizbinError, match=r"is no JSON|is no COCO file"):
        open_coco(path, split="all")


def test_odd_numbers_of_records_spoil_nothing(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0)
    odd = [{"image_id": [0], "caption": "x"}, {"image_id": 0, "category_id": {}}, {"caption": "nobody's"}]
    categories = [{"id": [1], "name": "odd"}, {"id": 3}]
    path = save(
        tmp_path / "a.json", images=[*IMAGES[:1], {"id": {}}], annotations=CAPTIONS + odd, categories=categories
    )
    source = open_coco(path, split="all")
    assert source[0].caption == "zero" and source.categories == ()
    with pytest.raises(Refused, match="has no file_name"):
        source[1]


def instances(tmp_path: Path, *objects: dict, images: list[dict] | None = None, categories: list | None = None):
    for name in ("0.png", "1.png"):
        write(tmp_path / name, 0)
    records = [{"image_id": 0, "category_id": 5, **one} for one in objects]
    parts = {"images": images or IMAGES[:1], "annotations": records, "categories": categories or CATEGORIES}
    return open_coco(save(tmp_path / "a.json", **parts), split="all")


GOOD = {"bbox": [8, 8, 2, 2]}


def test_images_of_one_id_do_not_share_objects(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "0.png"}, {"id": 0, "file_name": "1.png"}]
    source = instances(tmp_path, GOOD, images=images)
    for index, name in enumerate(("0.png", "1.png")):
        with pytest.raises(Refused, match=rf"{name} shares the id 0 \(0\.png, 1\.png\)"):
            source[index]


def test_images_of_one_name_do_not_mix_objects(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": "0.png"}]
    source = instances(tmp_path, GOOD, {**GOOD, "image_id": 1}, images=images)
    assert len(source) == 1
    with pytest.raises(Refused, match=r"0\.png stands 2 times among the images, with the ids 0, 1"):
        source[0]


def test_an_image_listed_twice_alike_is_one(tmp_path: Path) -> None:
    source = instances(tmp_path, GOOD, images=[IMAGES[0], IMAGES[0]])
    assert len(source) == 1 and len(source[0].objects) == 1
    assert source.notices == ("a.json: 1 image is listed more than once, such as 0.png.",)


def test_a_category_listed_twice_names_nothing(tmp_path: Path) -> None:
    categories = [{"id": 5, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 6, "name": "owl"}]
    source = instances(tmp_path, GOOD, {**GOOD, "category_id": 6}, categories=categories)
    assert [thing.name for thing in source[0].objects] == ["owl"]
    assert "1 annotation is left out, for category_id 5 stands for cat and dog" in source.notices[0]


@pytest.mark.parametrize("image", [0, 0.0])
@pytest.mark.parametrize("annotation", [0, 0.0])
@pytest.mark.parametrize("category", [5, 5.0])
def test_ids_that_a_table_made_fractions_of_are_whole(tmp_path: Path, image, annotation, category) -> None:
    one = {**GOOD, "image_id": annotation, "category_id": category}
    source = instances(tmp_path, one, images=[{**IMAGES[0], "id": image}])
    assert [thing.name for thing in source[0].objects] == ["cat"] and source.notices == ()


def test_true_is_no_id(tmp_path: Path) -> None:
    source = instances(tmp_path, {**GOOD, "image_id": True}, images=[IMAGES[0], {**IMAGES[1], "id": True}, IMAGES[1]])
    assert "image_id true is not among" in source.notices[0]


@pytest.mark.parametrize("side", [12, 12.0, "12", " 12 "])
def test_sizes_may_be_written_as_text(tmp_path: Path, side: object) -> None:
    source = instances(tmp_path, GOOD, images=[{**IMAGES[0], "width": side, "height": side}])
    assert len(source[0].objects) == 1


@pytest.mark.parametrize("side", ["12 px", 12.5, [12], True])
def test_sizes_that_are_none_are_said(tmp_path: Path, side: object) -> None:
    with pytest.raises(Refused, match=r"0\.png has the width .* in its record; give whole pixels"):
        instances(tmp_path, GOOD, images=[{**IMAGES[0], "width": side}])[0]


@pytest.mark.parametrize("flag", [0, "0", False, None, 0.0])
def test_what_is_no_crowd_stays(tmp_path: Path, flag: object) -> None:
    assert len(instances(tmp_path, {**GOOD, "iscrowd": flag})[0].objects) == 1
    for crowd in (1, "1", True):
        assert not instances(tmp_path, {**GOOD, "iscrowd": crowd})[0].objects


def test_outlines_of_two_corners_are_taken_by_the_box(tmp_path: Path) -> None:
    source = instances(tmp_path, {"segmentation": [[8, 8, 10, 10]], "bbox": [8, 8, 2, 2]})
    assert [thing.box for thing in source[0].objects] == [(8, 8, 10, 10)]
    assert "1 object is taken by the box" in source.notices[0]


@pytest.mark.parametrize(
    "flat",
    [
        {"bbox": [3, 3, 0, 0]},
        {"bbox": [3, 3, 4, 0]},
        {"bbox": [3, 3, 4, 0], "segmentation": [[3, 3, 7, 3, 7, 3, 4, 3]]},
        {"bbox": [3, 3, 0, 4], "segmentation": [[3, 3, 3, 7]]},
        {"bbox": [40, 2, 3, 3]},
        {"bbox": [-9, 2, 3, 3]},
    ],
)
def test_objects_without_a_pixel_are_counted(tmp_path: Path, flat: dict) -> None:
    source = instances(tmp_path, flat, GOOD)
    assert [thing.box for thing in source[0].objects] == [(8, 8, 10, 10)]
    assert "1 annotation is left out, for the" in source.notices[0]


def test_a_good_outline_does_without_a_box(tmp_path: Path) -> None:
    source = instances(tmp_path, {"bbox": [0, 0, 0, 0], "segmentation": [[2, 3, 6, 3, 6, 7, 2, 7]]})
    assert [thing.box for thing in source[0].objects] == [(2, 3, 6, 7)] and source.notices == ()


def test_what_is_smaller_than_a_pixel_is_one_pixel(tmp_path: Path) -> None:
    source = instances(tmp_path, {"bbox": [3.6, 4.6, 0.2, 0.3]}, {"bbox": [11.9, 11.9, 5, 5]})
    assert [thing.box for thing in source[0].objects] == [(3, 4, 4, 5), (11, 11, 12, 12)]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"bbox": [8, 8, -3, 2]}, "a width of -3"),
        ({"bbox": [8, 8, 2, -3]}, "a height of -3"),
        ({"segmentation": {"counts": RUNS, "size": [12, 11]}}, r"size \[12, 11\] for an image of size \[12, 12\]"),
        ({"segmentation": {"counts": RUNS, "size": "12x12"}}, "12x12"),
        ({"bbox": [0, 0, 1e300, 5]}, "no place near"),
        ({"segmentation": [[0, 0, 1e300, 5, 6, 7]]}, "no place near"),
        ({"segmentation": [[0, 0, float("nan"), 5, 6, 7]]}, "no place near"),
    ],
)
def test_wrong_shapes_are_named(tmp_path: Path, broken: dict, words: str) -> None:
    with pytest.raises(Refused, match=words):
        instances(tmp_path, broken)[0]


def test_a_box_outside_of_a_picture_of_unknown_size_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="outside of the 12 x 12 pixels"):
        instances(tmp_path, {"bbox": [40, 40, 2, 2]}, images=[{"id": 0, "file_name": "0.png"}])[0]


def test_captions_left_out_beside_better_ones_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0)
    path = save(tmp_path / "captions.json", images=IMAGES[:1], annotations=CAPTIONS[:3])
    (notice,) = open_coco(path, split="all").notices
    assert notice == "captions.json: 1 caption is left out, such as the caption of 0.png is empty; write one."


def test_a_partner_of_other_images_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0)
    captions = save(tmp_path / "captions_a.json", images=IMAGES[:1], annotations=CAPTIONS[:1])
    other = [{**IMAGES[0], "file_name": "other.png"}]
    save(tmp_path / "instances_a.json", images=other, annotations=OBJECTS, categories=CATEGORIES)
    source = open_coco(captions, split="all")
    assert source[0].objects == () and source[0].caption == "zero"
    assert "instances_a.json is left out" in source.notices[0] and "0 (0.png, other.png)" in source.notices[0]


def test_too_many_masks_for_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rizbin.data.coco.MOST_MASKS", 144 * 3)
    assert len(instances(tmp_path, *[GOOD] * 3)[0].objects) == 3
    with pytest.raises(Refused, match="4 objects in 12 x 12 pixels"):
        instances(tmp_path, *[GOOD] * 4)[0]


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "\ud800.png", "a\0b.png", "../" * 2000 + "a.png"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    source = instances(tmp_path, GOOD, images=[{**IMAGES[0], "file_name": name}])
    with pytest.raises(Refused) as caught:
        source[0]
    str(caught.value).encode("utf-8")


def pack_runs(runs: list[int]) -> str:
    """COCO's compression, written from its description: the test's own other half of the round trip."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr((bits if done else bits | 32) + 48)
            if done:
                break
    return text


@settings(deadline=None, max_examples=100)
@given(some.data())
def test_run_lengths_come_back(data: some.DataObject) -> None:
    height, width = data.draw(some.integers(1, 70)), data.draw(some.integers(1, 70))
    mask = np.random.default_rng(data.draw(some.integers(0, 99))).random((height, width)) < data.draw(some.floats(0, 1))
    flat = np.concatenate([[False], mask.T.ravel()])
    runs = np.diff(np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]), [height * width]])).tolist()
    assert np.array_equal(decode_runs(runs, height, width), mask)
    assert np.array_equal(decode_runs(pack_runs(runs), height, width), mask)


def test_a_polygon_of_many_corners_is_filled_at_once() -> None:
    angle = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    radius = 200 + 3 * np.sin(20_000 * angle)
    corners = np.stack([320 + radius * np.cos(angle), 240 + radius * np.sin(angle)], axis=1)
    begin = time.process_time()
    mask = fill_polygon(corners, 480, 640)
    assert time.process_time() - begin < 1
    assert abs(mask.sum() / (np.pi * 200**2) - 1) < 0.01
    wild = np.random.default_rng(0).random((200_000, 2)) * 1000
    begin = time.process_time()
    with pytest.raises(ValueError, match="200000 corners that crosses the rows"):
        fill_polygon(wild, 1000, 1000)
    assert fill_polygon(wild[:20_000], 100, 100).any()
    assert time.process_time() - begin < 2


def test_polygons_are_filled_as_pixel_centers_say() -> None:
    # Against the definition, slowly: inside is where a ray to the left crosses the outline an odd number of times.
    random = np.random.default_rng(0)
    for _ in range(20):
        corners = random.random((6, 2)) * 24 - 4
        expected = np.zeros((16, 16), bool)
        for row in range(16):
            for column in range(16):
                x, y = column + 0.5, row + 0.5
                for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
                    if (y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x:
                        expected[row, column] ^= True
        assert np.array_equal(fill_polygon(corners, 16, 16), expected)
