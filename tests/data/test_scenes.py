"""The embedded world tells the truth, repeats itself exactly, and keeps its splits apart."""

import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rizbin.core.errors import RizbinError
from rizbin.core.random import generator
from rizbin.data.sample import Sample, Source
from rizbin.data.scenes import CATEGORIES, CREDIT, Scenes
from rizbin.data.scenes.backgrounds import KINDS, background
from rizbin.data.scenes.compose import FEWEST_COVERED, FEWEST_PIXELS, MOST_HIDDEN, _paint, compose
from rizbin.data.scenes.source import WORLDS
from rizbin.data.scenes.vocabulary import CODES, HELD_OUT, held_out_pairs, is_held_out_pair

EASY = Scenes.Settings()
HARD = Scenes.Settings(preset="hard", categories=0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIZBIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def hard() -> Scenes:
    return Scenes(HARD)


def same(first: Sample, second: Sample) -> bool:
    """All that a sample holds, pixels and masks too."""
    return (
        (first.key, first.caption, first.label, first.relations)
        == (second.key, second.caption, second.label, second.relations)
        and np.array_equal(first.image, second.image)
        and [(thing.name, thing.box) for thing in first.objects]
        == [(thing.name, thing.box) for thing in second.objects]
        and all(np.array_equal(a.mask, b.mask) for a, b in zip(first.objects, second.objects, strict=True))
    )


def test_is_a_source() -> None:
    source = Scenes(EASY)
    assert isinstance(source, Source)
    assert source.endless and len(source) == 100_000
    assert source.name == "scenes:easy, train"
    assert source.categories == tuple(sorted(CATEGORIES[:32]))
    assert "OpenMoji" in CREDIT and "CC BY-SA 4.0" in CREDIT


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(-(2**70), 2**70), index=st.integers(0, 2**62 - 1), preset=st.sampled_from(["easy", "hard"]))
def test_a_scene_is_a_function_of_seed_and_index(seed: int, index: int, preset) -> None:
    source = Scenes(Scenes.Settings(preset=preset, seed=seed))
    first = source[index]
    source[index // 2]
    assert same(first, Scenes(source.settings)[index])
    assert first.names <= set(source.categories)


def test_random_access_equals_reading_in_order(hard: Scenes) -> None:
    in_order = [hard[i] for i in range(30)]
    shuffled = {i: hard[i] for i in np.random.default_rng(0).permutation(30).tolist()}
    assert all(same(sample, shuffled[i]) for i, sample in enumerate(in_order))


def test_index_and_seed_and_split_make_other_scenes() -> None:
    sources = [Scenes(replace(EASY, seed=seed, split=split)) for seed in (0, 1) for split in ("train", "test")]
    pictures = [source[i].image for source in sources for i in range(100)]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@pytest.mark.parametrize("index", [-1, 2**62])
def test_refuses_an_index_outside(hard: Scenes, index: int) -> None:
    with pytest.raises(IndexError, match="no"):
        hard[index]


def test_masks_are_disjoint_and_boxes_tight(hard: Scenes) -> None:
    for i in range(150):
        sample = hard[i]
        assert np.sum([thing.mask for thing in sample.objects], axis=0).max() == 1
        for thing in sample.objects:
            rows, columns = np.nonzero(thing.mask)
            assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert thing.area == len(rows)


def test_enough_of_every_object_is_seen() -> None:
    """Count anew, from each object's own pixels, what the objects placed later hide."""
    sprites = Scenes(HARD)._sprites
    crowded = 0
    for i in range(120):
        random = generator("overlap", i)
        cast = random.integers(0, len(sprites), 6).tolist()
        picture = compose(WORLDS["hard"], 64, [(category, sprites[category][0]) for category in cast], 1, random)
        assert picture is not None
        canvases = np.zeros((len(picture.placed), 64, 64), bool)
        for canvas, thing in zip(canvases, picture.placed, strict=True):
            height, width = thing.mask.shape
            canvas[thing.top : thing.top + height, thing.left : thing.left + width] = thing.mask
        for position, (canvas, thing) in enumerate(zip(canvases, picture.placed, strict=True)):
            seen = canvas & ~canvases[position + 1 :].any(0)
            assert np.array_equal(seen, picture.owner == position)
            assert seen.sum() == thing.visible >= (1 - MOST_HIDDEN) * canvas.sum()
            crowded += int(thing.visible < thing.full)
            over = [
                k for k in range(len(canvases)) if (canvas & (picture.owner == k)).sum() >= FEWEST_COVERED * thing.full
            ]
            assert thing.hidden_by == tuple(k for k in over if k != position)
    assert crowded > 50, "the test saw too little overlap to say anything"


def test_presets_keep_their_numbers_and_sizes() -> None:
    cases: list[tuple[Literal["easy", "hard"], int]] = [("easy", 128), ("hard", 256)]
    for preset, size in cases:
        world = WORLDS[preset]
        source = Scenes(Scenes.Settings(preset=preset, size=size))
        sides, counts = [], []
        for i in range(120):
            picture = source[i]
            counts.append(len(picture.objects))
            sides += [max(right - left, bottom - top) for left, top, right, bottom in (t.box for t in picture.objects)]
        assert set(counts) == set(range(world.objects[0], world.objects[1] + 1))
        assert max(sides) <= world.sides[1] * size + 1
        # Hidden parts make the visible box shorter.
        assert min(sides) >= 0.3 * max(FEWEST_PIXELS, world.sides[0] * size)
        assert np.percentile(sides, 90) / np.percentile(sides, 10) > (1.5 if preset == "easy" else 5)


def test_every_kind_of_background_is_painted() -> None:
    for kind in KINDS:
        pictures = [background(kind, 64, generator("ground", kind, i)).astype(float) for i in range(12)]
        assert np.std([picture.mean((0, 1)) for picture in pictures]) > 10, "scenes should differ"
        # Light grain everywhere: the difference of neighbors has its deviation, 5, times the square root of 2, or more.
        rough = [np.median(np.abs(np.diff(picture, axis=1))) * 1.4826 for picture in pictures]
        assert min(rough) > 5 and (kind not in ("plain", "gradient") or max(rough) < 10)
        assert min(picture.mean() for picture in pictures) > 60, "black outlines must stand out"


def test_painting_is_alpha_blending() -> None:
    random = np.random.default_rng(0)
    alpha = random.integers(0, 256, (40, 40, 1))
    color = random.integers(0, 256, (40, 40, 3))
    premultiplied = np.concatenate([np.rint(color * alpha / 255), alpha], -1).astype(np.uint8)
    below = random.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    expected = (color * alpha + below.astype(float) * (255 - alpha)) / 255
    _paint(below, premultiplied)
    assert np.abs(below - expected).max() <= 1, "two roundings of half a gray level each"


def test_objects_are_where_the_masks_say() -> None:
    """A picture differs from its own background on the masks, and nowhere far from them."""
    sprites = Scenes(EASY)._sprites
    for i in range(20):
        drawings = [(0, sprites[0][0]), (1, sprites[1][0])]
        picture = compose(WORLDS["easy"], 64, drawings, 2, generator("where", i))
        random = generator("where", i)
        random.random()
        assert picture is not None
        bare = background("gradient", 64, random)
        changed = (picture.image != bare).any(-1)
        assert changed[picture.owner >= 0].mean() > 0.97
        inside = np.zeros((66, 66), bool)
        for down, across in np.ndindex(3, 3):
            inside[down : down + 64, across : across + 64] |= picture.owner >= 0
        # Thin lines at small sizes cover less than half of any pixel.
        assert changed[~inside[1:-1, 1:-1]].sum() < 0.1 * changed.sum()


@pytest.mark.parametrize("size", [16, 37, 224, 512])
def test_any_size(size: int) -> None:
    for preset in ("easy", "hard"):
        sample = Scenes(Scenes.Settings(preset=preset, size=size, categories=8))[5]
        assert sample.image.shape == (size, size, 3)
        assert all(thing.mask.shape == (size, size) and thing.area >= 3 for thing in sample.objects)


def test_training_holds_no_held_out_category_or_pair() -> None:
    for preset in ("easy", "hard"):
        for split in ("train", "test"):
            source = Scenes(Scenes.Settings(preset=preset, split=split))
            together = 0
            for i in range(400):
                names = source[i].names
                assert names.isdisjoint(HELD_OUT)
                together += len(names) > 1
                assert not any(is_held_out_pair(a, b) for a, b in combinations(sorted(names), 2))
            assert together > 150


def test_held_out_splits_hold_only_what_is_held_out() -> None:
    heldout = Scenes(replace(HARD, split="heldout"))
    assert heldout.categories == tuple(sorted(HELD_OUT))
    assert all(heldout[i].names <= set(HELD_OUT) for i in range(200))
    pairs = Scenes(replace(EASY, split="pairs"))
    seen = {tuple(sorted(pairs[i].names)) for i in range(300)}
    assert all(len(names) == 2 and is_held_out_pair(*names) for names in seen)
    assert len(seen) > 15
    crowded = Scenes(replace(HARD, split="pairs", categories=32))
    assert all(is_held_out_pair(*sorted(crowded[i].names)) for i in range(100))


def test_vocabulary() -> None:
    assert len(CATEGORIES) >= 150
    assert len(set(CATEGORIES + HELD_OUT)) == len(set(CODES.values())) == len(CATEGORIES) + len(HELD_OUT)
    assert all(name == name.lower().strip() for name in CODES)
    pairs = held_out_pairs(CATEGORIES[:32])
    assert 30 < len(pairs) < 70, "about a tenth of 496"
    assert held_out_pairs(CATEGORIES[:7]) == ()
    assert is_held_out_pair("a", "b") == is_held_out_pair("b", "a")
    # More categories add pairs and take none away, so that a model of 32 can be tested beside one of 100.
    assert set(pairs) <= set(held_out_pairs(CATEGORIES))


def test_fingerprint_changes_with_all_that_matters() -> None:
    variants = [EASY, HARD, *(replace(EASY, **change) for change in
                ({"size": 48}, {"categories": 8}, {"seed": 1}, {"split": "test"}, {"preset": "hard"}))]  # fmt: skip
    assert len({Scenes(variant).fingerprint for variant in variants}) == len(variants)
    assert Scenes(EASY).fingerprint == Scenes(replace(EASY)).fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"categories": 1000}, "categories, not 1000"),
        ({"categories": -1}, "not -1"),
        ({"size": 8}, "8 pixels is too small"),
        ({"split": "pairs", "categories": 5}, "use more categories"),
    ],
)
def test_what_the_world_lacks_is_refused(change: dict, words: str) -> None:
    with pytest.raises(RizbinError, match=words) as caught:
        Scenes(replace(EASY, **change))
    assert "\n" not in str(caught.value)


def test_one_category_is_a_world_too() -> None:
    source = Scenes(replace(HARD, categories=1))
    assert {source[i].label for i in range(20)} == {CATEGORIES[0]}


def test_label_is_given_when_there_is_one_category(hard: Scenes) -> None:
    for i in range(60):
        sample = hard[i]
        assert sample.label == (next(iter(sample.names)) if len(sample.names) == 1 else "")


def test_is_fast_enough_not_to_slow_training(hard: Scenes) -> None:
    """A loose bound, as type checks are on here; benchmarks/scenes.py measures."""
    hard[0]
    began = time.thread_time()
    for i in range(100):
        hard[i]
    assert time.thread_time() - began < 2


def test_needs_no_drawings_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIZBIN_CACHE", str(tmp_path))
    first = Scenes(EASY)[3]
    monkeypatch.setattr("rizbin.data.scenes.sprites._rasterize", None)
    assert same(first, Scenes(EASY)[3])


def test_single_scenes_hold_one_thing_on_white_and_tinted_ones_in_any_color() -> None:
    single, tinted = (Scenes(Scenes.Settings(size=32, categories=4, preset=preset)) for preset in ("single", "tinted"))
    for i in range(20):
        one, other = single[i], tinted[i]
        assert len(one.objects) == len(other.objects) == 1
        ground = one.image[~one.objects[0].mask]
        assert abs(float(ground.mean()) - 235) < 12, "the same bright ground in every scene"
        # Brightness of the largest channel and shape stay; hue does not.
        assert np.array_equal(one.objects[0].mask, other.objects[0].mask)
        assert abs(one.image.max(-1).astype(int) - other.image.max(-1)).max() <= 2
    hues = [tinted[i].image[tinted[i].objects[0].mask].mean(0) for i in range(60)]
    assert np.std(np.stack(hues) - np.stack(hues).mean(1, keepdims=True), axis=0).min() > 5
