"""Captions split into noun phrases: exactly where the truth is known, sensibly on captions of people."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from rizbin.data.phrases import MAX_CHARACTERS, MAX_PHRASES, MAX_WORDS, phrases, phrases_with_spans
from rizbin.data.scenes import Scenes
from rizbin.data.scenes.captions import describe, plural, relations
from rizbin.data.scenes.source import WORLDS
from rizbin.data.scenes.vocabulary import CODES

NAMES = {name: name for name in CODES} | {plural(name): name for name in CODES}
PIECES = [
    "a",
    "two",
    "red",
    "cat",
    "and",
    ",",
    "of",
    "on",
    "the",
    "top",
    "left",
    "men",
    "ing",
    "running",
    "\n",
    "glass",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIZBIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a pizza and a zebra", ["a pizza", "a zebra"]),
        (
            "two small cats at the top left, a cup and a red car",
            ["two small cats", "a cup", "a red car"],
        ),
        ("a pizza left of a cat", ["a pizza", "a cat"]),
        ("here we see an egg to the right of a frying pan", ["an egg", "a frying pan"]),
        ("a picture of a traffic light", ["a traffic light"]),
        ("a scene with three loaves of bread in the center", ["three loaves of bread"]),
        ("A man riding a horse on the beach next to two dogs.", ["a man", "a horse", "the beach", "two dogs"]),
        ("A black and white cat sitting on top of a wooden table.", ["a black and white cat", "a wooden table"]),
        ("A woman stands in front of a mirror taking a selfie", ["a woman", "a mirror", "a selfie"]),
        ("Two men stand near a parked car.", ["two men", "a parked car"]),
        ("A car parked on the side of the road", ["a car", "the road"]),
        ("A bathroom with a sink, toilet, and bath tub", ["a bathroom", "a sink", "toilet", "bath tub"]),
        ("a small, furry dog runs across the green field", ["a small, furry dog", "the green field"]),
        ("a close up of a plate of food with broccoli", ["a plate of food", "broccoli"]),
        ("a group of three zebras", ["three zebras"]),
        ("a group of people standing on skis", ["a group of people", "skis"]),
        ("One of the men is wearing a hat", ["the men", "a hat"]),
        ("three teddy bears, each a different color", ["three teddy bears", "a different color"]),
        ("a few dogs chasing all the cats of his two neighbors", ["a few dogs", "all the cats", "his two neighbors"]),
        ("an orange in a glass", ["an orange", "a glass"]),
        ("a building at night", ["a building", "night"]),
        ("Golden retriever puppy playing on grass", ["golden retriever puppy", "grass"]),
        ("actor attends the premiere of film", ["actor", "the premiere of film"]),
        (
            "Sunset at the beach. Taken in Maui with my Canon EOS. https://example.org/a #sea DSC_0001.jpg",
            ["sunset", "the beach", "maui", "my canon eos"],
        ),
    ],
)
def test_what_captions_name(caption: str, expected: list[str]):
    assert phrases(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "",
        " .,;",
        "IMG_1234.jpg",
        "#sunset #beach",
        "Red Sofa Ikea",
        "cat, dog, horse",
        "Ein Hund spielt im Park",
        "El perro corre en la playa",
        "Un gato negro",
        "一只猫在桌子上",
        "گربه‌ای روی میز",
        "кошка на столе",
        "on the left",
        "in black and white",
    ],
)
def test_what_is_not_understood_gives_nothing(caption: str):
    assert phrases(caption) == []


def names_in(result: list[str]) -> list[str]:
    """The category that each phrase names, without its determiner and its size."""
    return [
        NAMES[" ".join(word for word in phrase.split(" ")[1:] if word not in ("small", "large"))] for phrase in result
    ]


def test_captions_of_the_embedded_world_are_split_exactly():
    """2,000 captions of every grammar that a preset uses, over all categories, by the function that writes them."""
    random = np.random.default_rng(0)
    for plain in sorted({world.plain for world in WORLDS.values()}):
        for _ in range(2000):
            names = random.choice(sorted(CODES), size=int(random.integers(1, 7))).tolist()
            corners = random.integers(0, 48, (len(names), 2))
            sides = random.integers(4, 40, (len(names), 2))
            boxes = [(int(x), int(y), int(x + w), int(y + h)) for (x, y), (w, h) in zip(corners, sides, strict=True)]
            related = relations(boxes, [()] * len(names), 64)
            caption = describe(names, boxes, related, 64, random, plain)
            assert Counter(names_in(phrases(caption))) == Counter(set(names)), caption


@pytest.mark.parametrize("preset", sorted(WORLDS))
def test_scenes_of_every_preset(preset: str):
    source = Scenes(Scenes.Settings(preset=preset, size=32, seed=3))  # pyright: ignore[reportArgumentType]
    for index in range(50):
        sample = source[index]
        assert Counter(names_in(phrases(sample.caption))) == Counter(sample.names), sample.caption


@given(some.text() | some.lists(some.sampled_from(PIECES)))
def test_phrases_are_pieces_of_the_caption_in_order(caption: str | list[str]):
    caption = caption if isinstance(caption, str) else " ".join(caption)
    lowered, before = caption.lower(), 0
    result = phrases_with_spans(caption)
    assert len(result) <= MAX_PHRASES
    for phrase in result:
        assert phrase.start >= before and phrase.text == lowered[phrase.start : phrase.end]
        assert phrase.text == phrase.text.strip() != ""
        before = phrase.end
    assert phrases(caption) == [phrase.text for phrase in result]


def test_long_captions_are_read_in_part():
    endless = "a cat and a dog, " * 10_000
    assert len(phrases(endless)) == MAX_PHRASES
    assert all(phrase.end <= MAX_CHARACTERS for phrase in phrases_with_spans(endless))
    assert phrases("the " + " ".join(["garden"] * (MAX_WORDS + 1)) + " on a hill") == ["a hill"]
    assert phrases("word" * MAX_CHARACTERS) == []
