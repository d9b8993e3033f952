"""Drawing in every way: the same pairs for all, one line a picture, going on where it stopped, equal time."""

import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.generation.diffusion.repair import ObjectPresence, RepairStrategy
from rizbin.generation.diffusion.text_to_image import Sampling
from rizbin.generation.film import Pixels
from rizbin.studies.missing.prompts import world
from rizbin.studies.missing.ways import (
    MOST_OTHERS,
    OTHER,
    PLAIN,
    REPAIR,
    WATCHED,
    DrawnCase,
    Plan,
    Studio,
    best_of,
    cases_of,
    images_in,
    most_images,
    read_drawn,
)
from tests.generation.diffusion.small_painters import painter

PROMPTS = world(("zebra", "frog", "taxi"))
PLAN = Plan(
    runs=2,
    seeds=2,
    guidances=("center-distance", "compose"),
    sampling=Sampling(steps=2, guidance_scale=2.0),
    strategy=RepairStrategy(seeds=1, places=1),
)


class ByPixels:
    """Says something different, and always the same, of every picture and phrase; counts what it is asked."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.asked, self.stop_after = 0, stop_after

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        self.asked += 1
        if self.asked > self.stop_after:
            raise KeyboardInterrupt
        values = [zlib.crc32(image.tobytes() + one.encode()) % 1000 / 999 for one in phrases]
        return [ObjectPresence(value, (0.0, 0.0, 16.0, 16.0) if value >= 0.5 else None) for value in values]


def studio(folder: Path, verifier: ByPixels, plan: Plan = PLAN) -> Studio:
    run = RunFolder(folder)
    run.create_or_resume({"plan": str(plan)})
    return Studio(painter(), verifier, run, plan, cases_of(PROMPTS, plan))


def found(drawn: Sequence[DrawnCase]) -> dict[tuple, dict[str, float]]:
    return {(one.way, *one.key, one.other): one.found for one in drawn}


def test_every_prompt_comes_equally_often_and_every_case_has_its_own_noise() -> None:
    plan = replace(PLAN, runs=3, seeds=8)
    cases = cases_of(PROMPTS, plan)
    assert len(cases) == 24 == len({case.seed for case in cases}) and cases == cases_of(PROMPTS, plan)
    texts = [case.prompt.text for case in cases]
    assert {texts.count(one.text) for one in PROMPTS} == {4}
    assert [case.key for case in cases[7:9]] == [(0, 7), (1, 0)]
    seeds = sorted(case.seed for case in cases)
    assert min(b - a for a, b in itertools.pairwise(seeds)) > MOST_OTHERS
    other = cases_of(PROMPTS, replace(plan, seed=1))
    assert not {case.seed for case in other} & {case.seed for case in cases}
    with pytest.raises(RizbinError, match="give 1 or more"):
        Plan(seeds=0)


def test_all_ways_draw_the_same_pairs_and_a_stopped_study_goes_on(tmp_path: Path) -> None:
    whole = studio(tmp_path / "whole", ByPixels()).work()
    for way in PLAN.ways:
        assert len([one for one in whole if one.way == way]) == 4
    table = {(one.way, one.key): one for one in whole if not one.other}
    for case in cases_of(PROMPTS, PLAN):
        plain, watched, ladder = (table[way, case.key] for way in (PLAIN, WATCHED, REPAIR))
        assert plain.found == watched.found, "watching changes nothing"
        assert watched.statistics is not None and watched.statistics["iou"] <= 0.5
        assert set(plain.found) == set(case.prompt.objects)
        assert ladder.tried[0] == "draw" and (len(ladder.tried) == 1) == plain.whole(0.5)
        assert table["center-distance", case.key].passes >= 1 and plain.passes == 0
        assert plain.seconds > 0 and plain.file(tmp_path / "whole").is_file()
    # Stopped in the middle of a way, with a torn line, and started again: the same pictures, none of them twice.
    stopped = studio(tmp_path / "stopped", ByPixels(stop_after=7))
    with pytest.raises(KeyboardInterrupt):
        stopped.work()
    lines = (tmp_path / "stopped" / "metrics.jsonl").read_text()
    assert 4 <= lines.count("\n") < 20
    with (tmp_path / "stopped" / "metrics.jsonl").open("a") as file:
        file.write('{"way": "plain", "run": 1')
    again = studio(tmp_path / "stopped", ByPixels())
    assert len(again.drawn) == lines.count("\n")
    both = found(again.work()), found(whole)
    # How many other seeds are drawn follows from time, which is never the same; what is drawn is.
    assert all(both[0][key] == both[1][key] for key in both[0].keys() & both[1].keys())
    assert {key for key in both[0] if key[0] != OTHER} == {key for key in both[1] if key[0] != OTHER}
    kept = [
        json.loads(line) for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines() if "}" in line
    ]
    assert len(kept) == len(again.drawn) == len(read_drawn(again.run))
    count = ByPixels()
    studio(tmp_path / "stopped", count).work()
    assert count.asked == 0, "a finished study draws nothing"


def made(way: str, number: int, seconds: float, *values: float, other: int = 0) -> DrawnCase:
    names = ("zebra", "frog")
    return DrawnCase(way, 0, number, other, dict(zip(names, map(float, values), strict=True)), seconds, 0.5, 1.0)


def test_equal_time_counts_looking_and_is_rounded_up() -> None:
    drawn = [made(PLAIN, 0, 0.5, 1, 1), made(PLAIN, 1, 1.5, 1, 0), made("iou", 0, 3.1, 1, 1), made("kl", 0, 1.0, 1, 1)]
    assert images_in(drawn, 3.1) == pytest.approx(3.1 / 1.5)
    assert images_in(drawn, 0.1) == 1, "one picture is drawn at least"
    assert most_images(drawn, ("iou", "kl")) == 3
    assert most_images([*drawn, made("compose", 0, 1e6, 1, 1)], ("compose",)) == MOST_OTHERS


def test_the_best_of_n_is_the_detector_s_choice_among_the_first_n() -> None:
    drawn = [
        made(PLAIN, 0, 1.0, 0.9, 0.1),
        made(OTHER, 0, 1.0, 0.4, 0.4, other=1),
        made(OTHER, 0, 1.0, 0.6, 0.6, other=2),
        made("iou", 0, 1.0, 0.9, 0.9),
    ]
    assert best_of(drawn, 1, 0.5)[0, 0].other == 0
    assert best_of(drawn, 2, 0.5)[0, 0].other == 0, "one thing there is more than none"
    assert best_of(drawn, 3, 0.5)[0, 0].other == 2
    assert np.isclose(best_of(drawn, 3, 0.5)[0, 0].least, 0.6)
