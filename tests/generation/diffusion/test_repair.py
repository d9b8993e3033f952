"""The ladder: what it tries, when it stops, what it keeps, and the place where a missing object is drawn."""

from collections.abc import Sequence

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.repair import ObjectPresence, RepairStrategy, cut_out, free_place, repair, set_in
from rizbin.generation.diffusion.text_to_image import Sampling
from rizbin.generation.film import Pixels
from tests.generation.diffusion.small_painters import painter

QUICK = Sampling(steps=2, guidance_scale=2.0)
PROMPT = "a zebra and a frog"


class Scripted:
    """Says what it was told to say of the first, second, ... picture."""

    def __init__(self, *said: tuple[float, float], alone: ObjectPresence | None = None) -> None:
        self.said = list(said)
        self.alone = alone or ObjectPresence(0.1)
        self.seen: list[Pixels] = []

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        if len(phrases) == 1:  # what was drawn alone for a free place
            return [self.alone]
        assert list(phrases) == ["zebra", "frog"]
        self.seen.append(image)
        said = self.said[min(len(self.seen), len(self.said)) - 1]
        return [ObjectPresence(value, TAKEN if value >= 0.5 else None) for value in said]


def test_it_stops_when_all_is_there() -> None:
    verifier = Scripted((0.9, 0.8))
    made = repair(painter(), PROMPT, verifier, sampling=QUICK)
    assert made.whole and made.objects == ("zebra", "frog")
    assert [one.how for one in made.attempts] == ["draw"] and len(verifier.seen) == 1


def test_rungs_come_in_order_and_each_gets_its_tries() -> None:
    made = repair(painter(), PROMPT, Scripted((0.9, 0.1)), sampling=QUICK, strategy=RepairStrategy(seeds=2, places=1))
    assert [one.how for one in made.attempts] == ["draw", "attention", "place", "reseed", "reseed"]
    assert [one.seed for one in made.attempts] == [0, 0, 0, 1, 2]
    assert not made.whole
    only = repair(painter(), PROMPT, Scripted((0.9, 0.1)), sampling=QUICK, strategy=RepairStrategy(stages=()))
    assert [one.how for one in only.attempts] == ["draw"]


def test_the_best_is_kept_and_never_a_worse_one() -> None:
    """One there, then none, one again but surer, then one: the surer of equals is kept."""
    verifier = Scripted((0.9, 0.2), (0.3, 0.1), (0.6, 0.4), (0.9, 0.3))
    made = repair(painter(), PROMPT, verifier, sampling=QUICK, strategy=RepairStrategy(stages=("reseed",), seeds=3))
    assert made.best is made.attempts[2]
    np.testing.assert_array_equal(made.best.image, verifier.seen[2])
    record = made.record(0.5)
    assert [one["there"] for one in record] == [1, 0, 1, 1]
    assert [one["kept"] for one in record] == [False, False, True, False]
    first = repair(
        painter(),
        PROMPT,
        Scripted((0.9, 0.2), (0.9, 0.2)),
        sampling=QUICK,
        strategy=RepairStrategy(stages=("reseed",), seeds=1),
    )
    assert first.best is first.attempts[0]  # of equals the first


TAKEN = (0.0, 0.0, 16.0, 16.0)


def placed(verifier: Scripted) -> tuple[Pixels, Pixels, tuple[slice, slice]]:
    """The image before and after an object was set in, and the rows and columns of its place."""
    repair(painter(), PROMPT, verifier, sampling=QUICK, strategy=RepairStrategy(stages=("place",), places=1))
    before, after = verifier.seen
    left, top, right, bottom = (round(value) for value in free_place([TAKEN], 32, 32))
    return before, after, (slice(top, bottom), slice(left, right))


def test_a_free_place_is_drawn_anew_and_nothing_else() -> None:
    before, after, place = placed(Scripted((0.9, 0.1)))
    changed = (before != after).any(axis=-1)
    assert changed[place].mean() > 0.5
    changed[place] = False
    assert not changed.any()


def test_what_is_found_alone_iscut_out_and_fills_its_place() -> None:
    """A judge that finds a small box gives another image than one that finds nothing; the square around the box."""
    whole = placed(Scripted((0.9, 0.1)))
    cut = placed(Scripted((0.9, 0.1), alone=ObjectPresence(0.9, (4.0, 4.0, 10.0, 10.0))))
    np.testing.assert_array_equal(whole[0], cut[0])
    assert (whole[1] != cut[1]).any()
    image = np.arange(32 * 32 * 3, dtype=np.uint16).reshape(32, 32, 3).astype(np.uint8)
    np.testing.assert_array_equal(cut_out(image, (10.0, 12.0, 20.0, 18.0)), image[8:21, 8:21])
    np.testing.assert_array_equal(cut_out(image, (0.0, 0.0, 10.0, 4.0)), image[:13, :13])
    np.testing.assert_array_equal(cut_out(image, (-2.0, 0.0, 32.0, 32.0)), image)


def test_what_isset_in_takes_the_ground_of_its_place() -> None:
    """A black spot on a ground 40 gray levels off: the ground fits, the spot keeps its contrast, no frame is left."""
    image = np.full((64, 64, 3), 160, np.uint8)
    drawn = np.full((48, 48, 3), 120, np.uint8)
    drawn[16:32, 16:32] = 20
    mixed = set_in(image, (8, 8, 32, 32), drawn)
    spot = (mixed != 160).any(axis=-1)
    assert np.flatnonzero(spot.any(axis=0)).tolist() == list(range(16, 24)) == np.flatnonzero(spot.any(axis=1)).tolist()
    assert (mixed[16:24, 16:24] == 60).all()
    with_neighbor = image.copy()
    with_neighbor[8:32, 30:40] = 0  # an object that reaches into the place does not sway the ground
    assert (set_in(with_neighbor, (8, 8, 32, 32), drawn)[10:14, 10:14] == 160).all()


def test_free_places_avoid_what_is_there() -> None:
    left = free_place([(32.0, 0.0, 64.0, 64.0)], 64, 64)
    assert left[2] <= 32 and left[2] - left[0] == pytest.approx(32, abs=6.5)
    everywhere = free_place([], 64, 64)
    assert everywhere[2] - everywhere[0] == pytest.approx(0.75 * 64, abs=3)
    wide = free_place([(0.0, 0.0, 60.0, 64.0)], 64, 128)
    assert wide[0] >= 60 and wide[3] <= 64


def test_prompts_without_objects_are_drawn_once() -> None:
    def never(image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        raise AssertionError("nothing is to be looked for")

    made = repair(painter(), "", never, sampling=QUICK)
    assert made.whole and len(made.attempts) == 1 and "No object was found" in made.notes[0]


def test_one_object_has_no_pair_to_be_parted_and_says_so() -> None:
    def absent(image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        return [ObjectPresence(0.1) for _ in phrases]

    made = repair(
        painter(),
        "a zebra",
        absent,
        sampling=QUICK,
        strategy=RepairStrategy(stages=("attention",), guidance="center-distance"),
    )
    assert [one.how for one in made.attempts] == ["draw", "attention"]
    assert any("attend-and-excite guides in place of center-distance" in note for note in made.notes)


def test_every_object_beyond_the_first_gets_its_tries_of_a_place() -> None:
    def absent(image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        return [ObjectPresence(0.1) for _ in phrases]

    strategy = RepairStrategy(stages=("place",), places=2)
    for prompt, tries in (("a zebra", 2), (PROMPT, 2), ("a zebra, a frog and a fox", 4)):
        made = repair(painter(), prompt, absent, sampling=QUICK, strategy=strategy)
        assert [attempt.how for attempt in made.attempts] == ["draw", *["place"] * tries]


def test_a_verifier_that_miscounts_is_our_fault() -> None:
    with pytest.raises(ValueError, match="zip"):
        repair(painter(), PROMPT, lambda image, phrases: [ObjectPresence(1.0)], sampling=QUICK)


def test_settings_are_errors_in_words() -> None:
    with pytest.raises(RizbinError, match="0 steps draw nothing"):
        repair(painter(), PROMPT, Scripted((1.0, 1.0)), sampling=Sampling(steps=0))
