"""Every caption, read back word by word by a parser of its own, is true of the picture."""

import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from rizbin.data.sample import LabeledObject, Sample
from rizbin.data.scenes import CATEGORIES, Scenes
from rizbin.data.scenes.captions import OPPOSITE, article, place_words, plural, relations, size_word
from rizbin.data.scenes.vocabulary import CODES

COUNTS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
PLACES = ["left", "right", "top", "bottom"]
NOUNS = {name: (name, 1) for name in CODES} | {plural(name): (name, 2) for name in CODES}
# "two sheep": the plural is the singular
SAME = {name for name in CODES if plural(name) == name}
ITEM = re.compile(
    rf"(?P<count>{'|'.join(COUNTS)}) (?:(?P<size>small|large) )?"
    rf"(?P<noun>{'|'.join(sorted(map(re.escape, {*NOUNS, *CODES}), key=len, reverse=True))})\b"
    r"(?: (?P<place>in the center|on the (?:left|right)|at the (?:top|bottom)(?: left| right)?))?"
)
RELATION = re.compile(r" (?:to the )?(left of|right of|above|below|in front of|behind) $")
BETWEEN = re.compile(r", with | and |, | (?:to the )?(?:left of|right of|above|below|in front of|behind) ")
BEGINNING = re.compile(r"^(?:a picture of |a scene with |here we see )?")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIZBIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def parse(caption: str) -> tuple[list[dict[str, str]], list[str]]:
    """The noun phrases, and what stands between them."""
    start = BEGINNING.match(caption)
    assert start is not None
    at, items, between = start.end(), [], []
    while True:
        found = ITEM.match(caption, at)
        assert found, f"cannot read {caption!r} from {caption[at:]!r}"
        items.append(found.groupdict())
        at = found.end()
        if at == len(caption):
            return items, between
        following = BETWEEN.match(caption, at)
        assert following, f"cannot read {caption!r} from {caption[at:]!r}"
        between.append(following.group())
        at = following.end()


def middle(thing: LabeledObject) -> tuple[float, float]:
    rows, columns = np.nonzero(thing.mask)
    return (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2


def beyond(first: LabeledObject, second: LabeledObject, axis: int) -> bool:
    """First is left of (axis 0) or above (axis 1) second: mostly along this axis, and no middle inside the other."""
    a, b = middle(first), middle(second)
    return (
        b[axis] > a[axis]
        and b[axis] - a[axis] >= abs(b[1 - axis] - a[1 - axis])
        and a[axis] < second.box[axis]
        and b[axis] > first.box[axis + 2]
    )


def holds(first: LabeledObject, word: str, second: LabeledObject, sample: Sample) -> bool:
    if word in ("left of", "above"):
        return beyond(first, second, ("left of", "above").index(word))
    if word in ("right of", "below"):
        return beyond(second, first, ("right of", "below").index(word))
    front, back = (first, second) if word == "in front of" else (second, first)
    order = [id(thing) for thing in sample.objects]
    (l1, t1, r1, b1), (l2, t2, r2, b2) = front.box, back.box
    # The hidden part lies outside the visible box of the back one, at most at its border.
    touching = l1 <= r2 and l2 <= r1 and t1 <= b2 and t2 <= b1
    return order.index(id(front)) > order.index(id(back)) and touching


def check(sample: Sample) -> tuple[int, int, int]:
    """Everything that the caption says; how many sizes, places and relations that was."""
    side = len(sample.image)
    items, between = parse(sample.caption)
    told = Counter()
    read = []
    for item in items:
        count = COUNTS[item["count"]]
        name, number = NOUNS[item["noun"]]
        assert number == min(count, 2) or name in SAME, sample.caption
        told[name] += count
        things = [thing for thing in sample.objects if thing.name == name]
        read.append(things)
        for thing in things:
            left, top, right, bottom = thing.box
            longer = max(right - left, bottom - top) / side
            assert item["size"] != "small" or longer <= 0.3, sample.caption
            assert item["size"] != "large" or longer >= 0.45, sample.caption
            x, y = (place / side for place in middle(thing))
            words = (item["place"] or "").split()
            assert "left" not in words or x <= 0.36, sample.caption
            assert "right" not in words or x >= 0.64, sample.caption
            assert "top" not in words or y <= 0.36, sample.caption
            assert "bottom" not in words or y >= 0.64, sample.caption
            assert "center" not in words or (abs(x - 0.5) <= 0.1 and abs(y - 0.5) <= 0.1), sample.caption
    assert told == Counter(thing.name for thing in sample.objects), sample.caption
    spoken = 0
    for place, words in enumerate(between):
        if relation := RELATION.match(words):
            assert place == 0 and len(read[0]) == len(read[1]) == 1, sample.caption
            assert holds(read[0][0], relation.group(1), read[1][0], sample), sample.caption
            spoken += 1
    assert " and " not in between[:-1], sample.caption
    return sum(bool(item["size"]) for item in items), sum(bool(item["place"]) for item in items), spoken


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_captions_are_true(preset) -> None:
    source = Scenes(Scenes.Settings(preset=preset, categories=0, seed=11))
    told = np.zeros(3, int)
    captions = []
    for i in range(600):
        sample = source[i]
        told += check(sample)
        captions.append(sample.caption)
    if preset == "easy":
        assert not told.any(), "the easy preset's captions only name"
    else:
        assert (told > 60).all(), f"too few sizes, places, relations to say anything: {told}"
    assert max(len(caption.split()) for caption in captions) <= 45
    assert min(len(caption.split()) for caption in captions) <= 3


def test_the_check_sees_lies() -> None:
    """Swap a word for another in true captions: the check must refuse nearly all of them."""
    source = Scenes(Scenes.Settings(preset="hard", categories=0, seed=12))
    swaps = [("left", "right"), ("top", "bottom"), ("above", "below"), ("small", "large"), ("two", "three")]
    swaps += [("in front of", "behind")]
    samples = [source[i] for i in range(600)]
    for old, new in swaps:
        lies = caught = 0
        for sample in samples:
            if old not in sample.caption or new in sample.caption:
                continue
            lies += 1
            told = Sample(sample.key, sample.image, sample.caption.replace(old, new), objects=sample.objects)
            try:
                check(told)
            except AssertionError:
                caught += 1
        assert lies >= 5, old
        assert caught == lies, f"{old} for {new}: {lies - caught} of {lies} lies believed"


def test_relations_are_complete_and_go_both_ways() -> None:
    source = Scenes(Scenes.Settings(preset="hard", seed=13))
    seen = Counter()
    for i in range(200):
        sample = source[i]
        for first, word, second in sample.relations:
            assert holds(sample.objects[first], word, sample.objects[second], sample)
            assert (second, OPPOSITE[word], first) in sample.relations
            seen[word] += 1
        assert len(set(sample.relations)) == len(sample.relations)
        for first, second in permutations(range(len(sample.objects)), 2):
            a, b = sample.objects[first], sample.objects[second]
            gap = 0.03 * 64 + 0.01
            clear = middle(a)[0] + gap <= b.box[0] and middle(b)[0] >= a.box[2] + gap
            if clear and beyond(a, b, 0):
                assert (first, "left of", second) in sample.relations
    assert set(seen) == set(OPPOSITE) and min(seen.values()) > 20


def test_relations_of_made_boxes() -> None:
    left, right, below = (0, 10, 10, 20), (40, 12, 50, 22), (2, 50, 12, 60)
    found = set(relations([left, right, below], [(), (), ()], 64))
    assert found == {(0, "left of", 1), (1, "right of", 0), (0, "above", 2), (2, "below", 0),
                     (1, "right of", 2), (2, "left of", 1)}  # fmt: skip
    assert relations([(0, 0, 30, 30), (10, 10, 40, 40)], [(), ()], 64) == (), "middles inside each other"
    small = (27, 27, 37, 37)
    for other in (
        (18, 0, 64, 64),
        (0, 18, 64, 64),
        (0, 0, 46, 64),
        (0, 0, 64, 46),
    ):  # The small one's middle lies inside the other, whose middle lies beyond the small one.
        assert relations([small, other], [(), ()], 64) == relations([other, small], [(), ()], 64) == ()
    assert relations([(0, 0, 30, 30), (10, 10, 40, 40)], [(1,), ()], 64) == ((1, "in front of", 0), (0, "behind", 1))


def test_words_of_made_boxes() -> None:
    assert size_word((0, 0, 19, 5), 64) == "small" and size_word((0, 0, 5, 29), 64) == "large"
    assert size_word((0, 0, 24, 24), 64) == ""
    assert place_words((0, 0, 10, 10), 64) == "at the top left"
    assert place_words((27, 27, 37, 37), 64) == "in the center"
    assert place_words((50, 27, 60, 37), 64) == "on the right"
    assert place_words((27, 50, 37, 60), 64) == "at the bottom"
    assert place_words((20, 27, 30, 37), 64) == ""


def test_plurals() -> None:
    expected = {
        "cat": "cats", "bus": "buses", "fox": "foxes", "box of fries": "boxes of fries", "cherry": "cherries",
        "monkey": "monkeys", "mouse": "mice", "sheep": "sheep", "wolf": "wolves", "loaf of bread": "loaves of bread",
        "bunch of grapes": "bunches of grapes", "maple leaf": "maple leaves", "octopus": "octopuses",
        "potato": "potatoes", "sweet potato": "sweet potatoes", "rhino": "rhinos", "peach": "peaches", "fish": "fish",
        "pufferfish": "pufferfish", "fire engine": "fire engines", "mango": "mangoes", "red ox": "red oxen",
        "glass of milk": "glasses of milk", "baby bottle": "baby bottles", "cactus": "cactuses",
        "wine glass": "wine glasses", "butterfly": "butterflies",
    }  # fmt: skip
    assert {name: plural(name) for name in expected} == expected
    assert len({plural(name) for name in CODES}) == len(CODES)


def test_articles() -> None:
    expected = [
        "an apple",
        "a unicorn",
        "an octopus",
        "an umbrella",
        "a used car",
        "an hourglass",
        "a horse",
        "an ice cream",
    ]
    assert [article(words.split(" ", 1)[1]) for words in expected] == expected
    assert {article(name)[:2] for name in CATEGORIES if name[0] not in "aeiou"} == {"a "}
    assert all(article(name).startswith("an ") for name in CODES if name[0] in "aeiou" and name != "unicorn")
    assert article("small apple") == "a small apple"
