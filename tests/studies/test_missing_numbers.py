"""Shares, paired comparisons and areas against values known from elsewhere; prompts by their counts."""

import math
from pathlib import Path

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.studies.missing.chances import Paired, Share, auc, holm, middle, paired, resampled
from rizbin.studies.missing.prompts import (
    COLORS,
    attend_and_excite,
    chained,
    colored,
    from_file,
    geneval,
    listed,
    prompts_named,
    similar,
    tiam,
    world,
)

NAMES = ("banana", "eggplant", "fox", "frog", "mushroom", "panda", "penguin", "pineapple")


def test_wilson_s_interval_is_the_known_one() -> None:
    """8 of 10: 49.0 to 94.3; 0 of 20: 0 to 16.1 (Brown, Cai and DasGupta 2001)."""
    assert Share(8, 10).interval == pytest.approx((49.02, 94.33), abs=0.01)
    low, high = Share(0, 20).interval
    assert low == 0 and high == pytest.approx(16.11, abs=0.01)
    assert Share(0, 0).interval == (0.0, 100.0) and math.isnan(Share(0, 0).percent)
    assert str(Share(8, 10)) == "80.0 percent (49.0 to 94.3; 8 of 10)"


def test_mcnemar_equals_scipy_s_binomial_test() -> None:
    from scipy.stats import binomtest

    for repaired, broken in ((12, 3), (5, 5), (0, 7), (1, 0), (40, 22), (300, 240)):
        expected = binomtest(repaired, repaired + broken, 0.5).pvalue
        assert Paired(repaired, broken, 600).p == pytest.approx(expected, rel=1e-9)
    assert Paired(0, 0, 600).p == 1
    found = paired([False, False, True, True], [True, True, False, True])
    assert found == Paired(2, 1, 4) and found.lift == pytest.approx(25)


def test_holm_raises_in_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_area_counts_pairs() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, 40).astype(np.float64)
    yes = random.random(40) < 0.4
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in scores[yes] for b in scores[~yes]])
    assert auc(scores, yes) == pytest.approx(expected)
    assert auc(scores, np.ones(40, bool)) != auc(scores, np.ones(40, bool)), "nan"
    assert auc(np.arange(4.0), np.array([False, False, True, True])) == 1
    low, high = middle(resampled(lambda places: [auc(scores[places], yes[places])], 40, draws=200)[:, 0])
    assert low < expected < high
    assert math.isnan(middle(np.full(3, math.nan))[0]) and middle(np.array([math.nan, 2.0])) == (2, 2)


def test_attend_and_excite_s_prompts_are_276() -> None:
    prompts = attend_and_excite()
    kinds = [one.kind for one in prompts]
    assert len(prompts) == len({one.text for one in prompts}) == 276
    assert [kinds.count(kind) for kind in dict.fromkeys(kinds)] == [66, 144, 66]
    assert prompts[0].text == "a cat and a dog" and prompts == attend_and_excite()
    for one in prompts:
        assert all(thing in one.text for thing in one.objects) and len(one.queries) == 2
    glasses = [one for one in prompts if "glasses" in one.queries]
    assert glasses and not any(f"a {color} glasses" in one.text for one in glasses for color in COLORS)


def test_templates_speak_as_their_benchmarks() -> None:
    assert listed(["zebra", "eggplant", "taxi"]) == "a zebra, an eggplant and a taxi"
    assert chained(["zebra", "eggplant", "taxi"]) == "a zebra and an eggplant and a taxi"
    pairs = world(NAMES)
    assert len(pairs) == 8 * 7 and len({one.text for one in pairs}) == 56
    assert {one.kind for one in pairs} == {"never seen together in training", "pairs of the kind seen in training"}
    assert [len(world(NAMES, count)) for count in (1, 3, 4)] == [8, 56, 70]
    assert geneval(NAMES)[0].text == "a photo of a banana and an eggplant"
    assert tiam(NAMES, 3)[0].text == "a photo of a banana and an eggplant and a fox"
    tinted = colored(NAMES)[0]
    assert tinted.queries == ("banana", "eggplant") and tinted.objects[0].endswith(" banana")
    assert all(len({thing.split()[0] for thing in one.objects}) == 2 for one in colored(NAMES)), "no color twice"
    assert len(similar()) == 30


def test_prompts_come_from_files_too(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red car next to a dog\n\na still life\tapple, pear\n")
    first, second = prompts_named(str(file), ())
    assert first.objects == ("red car", "dog") and first.queries == ("car", "dog")
    assert second.objects == ("apple", "pear") == second.queries
    file.write_text(", and .\n")
    with pytest.raises(RizbinError, match="names nothing; add what to look for"):
        from_file(file)
    file.write_text("\n")
    with pytest.raises(RizbinError, match="holds no prompt"):
        from_file(file)
    with pytest.raises(RizbinError, match="cannot be read"):
        from_file(tmp_path)
    with pytest.raises(RizbinError, match="There are no prompts 'worlds'"):
        prompts_named("worlds", NAMES)
    with pytest.raises(RizbinError, match="cannot be made of 8 names"):
        prompts_named("world", NAMES, 9)
    assert len(prompts_named("attend-and-excite", ())) == 276 and len(prompts_named("similar", ())) == 30
