"""ARO's order sets on made miniatures: ready files in both forms, permutations made here, and ties."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.evaluation.benchmarks import orders
from rizbin.workflows.load import load_encoder

CAPTION = "A small red fox, next to a dog's blue bowl, isn't far from two cats."


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    source = open_source("scenes:easy", split="test", size=64, seed=0)
    return [source[number] for number in range(12)]


def images(scenes: list[Any], root: Path) -> None:
    (root / "val2014").mkdir()
    for number, sample in enumerate(scenes):
        Image.fromarray(sample.image).save(root / f"val2014/{number}.jpg", quality=95)


def run(name: Any, root: Path, **options: Any) -> Any:
    return rizbin.evaluate("detailclip-mini", benchmark=name, root=root, quiet=True, **options)


@pytest.mark.parametrize("form", ["caption_options", "hard_text"])
def test_the_ready_file_gives_the_published_number(scenes: list[Any], tmp_path: Path, form: str) -> None:
    """Against ARO's own formula, the first of the greatest scores, in a plain loop."""
    images(scenes, tmp_path)
    encoder = load_encoder("detailclip-mini")
    cases, won, alone = [], [], [[] for _ in range(4)]
    for number, sample in enumerate(scenes):
        other = scenes[(number + 5) % 12].caption
        words = sample.caption.split()
        options = [sample.caption, " ".join(words[::-1]), other, sample.caption, " ".join(words[1:] + words[:1])]
        if form == "caption_options":
            cases.append({"image": f"val2014/{number}.jpg", "caption_options": options})
        else:
            hard = {f"hard_text_{place}": text for place, text in enumerate(options[1:], 1)}
            cases.append({"image": f"val2014/{number}.jpg", "correct_caption": options[0], **hard})
        with Image.open(tmp_path / f"val2014/{number}.jpg") as image:
            scores = [encoder.similarity(image.convert("RGB"), [text])[0, 0].item() for text in options]
        won.append(int(np.argmax(scores)) == 0)
        for place in range(4):
            alone[place].append(scores[0] > scores[1 + place])
    (tmp_path / "coco_order.json").write_text(json.dumps(cases))
    report = run("aro-coco-order", tmp_path)
    assert 0 < np.mean(won) < 1
    assert report["aro-coco-order/precision_at_1"].value == pytest.approx(100 * np.mean(won))
    # The third permutation is the caption itself and no wrong one: four options are left.
    assert report["aro-coco-order/precision_at_1"].chance == pytest.approx(25.0)
    for place in (0, 1, 3):
        number = report[f"aro-coco-order/{orders.PERMUTATIONS[place]}"]
        assert number.value == pytest.approx(100 * np.mean(alone[place])) and number.chance == 50
    assert "aro-coco-order/within_trigrams" not in report
    assert run("aro-coco-order", tmp_path, limit=3).images == 3


def test_from_captions_alone_two_permutations_are_made(scenes: list[Any], tmp_path: Path) -> None:
    images(scenes, tmp_path)
    records = [
        {"image": f"val2014/{number}.jpg", "caption": [sample.caption, CAPTION]} for number, sample in enumerate(scenes)
    ]
    (tmp_path / "flickr30k_test.json").write_text(json.dumps(records))
    report = run("aro-flickr30k-order", tmp_path)
    assert {number.name for number in report.measurements} == {
        "aro-flickr30k-order/within_trigrams",
        "aro-flickr30k-order/trigrams",
    }
    # Short captions may come out as they were, and then count for nothing.
    counted = int(report["aro-flickr30k-order/trigrams"].items.split()[0])
    assert 12 < counted <= 24 and report.images == 12
    assert ("aro-flickr30k-order/precision_at_1" in dict(report.left_out)) and "tagger" in dict(report.left_out)[
        "aro-flickr30k-order/precision_at_1"
    ]


def test_permutations_keep_the_words_and_change_their_order() -> None:
    threes = orders._threes(CAPTION)
    split = [word for three in threes for word in three]
    assert [len(words) for words in threes] == [3] * 6 + [2]
    assert split[:9] == ["A", "small", "red", "fox", ",", "next", "to", "a", "dog"]
    assert {"'s", "is", "n't", "."} <= set(split)
    for number in range(20):
        within, whole = orders.within_trigrams(CAPTION, number), orders.trigrams(CAPTION, number)
        assert sorted(within.split()) == sorted(whole.split()) == sorted(split)
        words = within.split()
        assert [sorted(words[start : start + 3]) for start in range(0, 20, 3)] == [sorted(three) for three in threes]
        assert all(" ".join(three) in whole for three in threes)
        assert within == orders.within_trigrams(CAPTION, number), "the same for the same number"
    assert len({orders.within_trigrams(CAPTION, number) for number in range(20)}) > 15


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("A Dog.  And (a) cat!\n", "a dog and a cat"),
        ("it's a t-shirt, no?", "it's a t-shirt, no?"),
        (" ".join(["word"] * 40), " ".join(["word"] * 30)),
    ],
)
def test_captions_are_cleaned_as_published(caption: str, cleaned: str) -> None:
    assert orders.clean(caption) == cleaned


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "is no list of cases"),
        ([{"image": "a.jpg", "caption_options": ["a", "b"]}], "no five captions"),
        ([{"image": "a.jpg", "caption_options": [" ", "b", "c", "d", "e"]}], "no five captions"),
        ([{"caption_options": ["a", "b", "c", "d", "e"]}], "no image"),
        ([{"image": "../a.jpg", "caption_options": ["a", "b", "c", "d", "e"]}], "lies outside"),
    ],
)
def test_files_that_are_none_are_one_sentence(tmp_path: Path, content: Any, says: str) -> None:
    (tmp_path / "coco_order.json").write_text(json.dumps(content))
    with pytest.raises(RizbinError, match=says):
        orders.read_order(tmp_path, "coco")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match=r"aro-coco-order needs .*coco_order.json.*coco_karpathy_test.json"):
        orders.read_order(tmp_path, "coco")
    (tmp_path / "coco_karpathy_test.json").write_text(json.dumps([{"image": "a.jpg"}]))
    with pytest.raises(RizbinError, match="has no caption"):
        orders.read_order(tmp_path, "coco")
