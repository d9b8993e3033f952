"""The scale of each guidance is chosen on other prompts, once, and the study draws with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.studies.missing.chances import Share
from rizbin.studies.missing.prompts import world
from rizbin.studies.missing.tuning import SCALES, Tuned, held_out, tune, tuned_plan
from rizbin.studies.missing.ways import Case, DrawnCase, Plan, Studio, cases_of

NAMES = ("zebra", "frog", "taxi", "panda", "pizza", "rocket")
PLAN = Plan(runs=2, seeds=5, guidances=("iou", "compose", "attend-and-excite"), tuning=7)


class Counted(Studio):
    """Draws nothing: iou is complete from a scale of 20 on, attend-and-excite never."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.plan = run, PLAN
        self.asked: list[tuple[str, float | None, int]] = []

    def draw(self, way: str, case: Case, scale: float | None = None) -> tuple[DrawnCase, Any]:
        self.asked.append((way, scale, case.number))
        complete = way == "iou" and scale is not None and scale >= 20
        return DrawnCase(way, *case.key, 0, {"zebra": 0.9 if complete else 0.1}, 1.0, 0.0, 1.0), None


def test_prompts_and_noises_are_others_than_the_studys() -> None:
    prompts = world(NAMES, 3)
    cases, apart = held_out(prompts, PLAN)
    own = cases_of(prompts, PLAN)
    assert apart and len(cases) == 7
    assert not {case.prompt.text for case in cases} & {case.prompt.text for case in own}
    assert not {case.seed for case in cases} & {case.seed for case in own}
    other, _ = held_out(prompts, replace(PLAN, seed=1))
    assert not {case.seed for case in cases} & {case.seed for case in other}
    few, apart = held_out(world(NAMES[:3]), PLAN)
    assert not apart and len(few) == 7, "a study that uses all prompts has no other ones"


def test_the_best_scale_is_taken_and_of_equals_the_smallest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create_or_resume({"study": "missing"})
    studio = Counted(run)
    cases, _ = held_out(world(NAMES, 3), PLAN)
    tuned = tune(studio, cases)
    assert [(choice.guidance, choice.chosen) for choice in tuned] == [("iou", 20.0), ("attend-and-excite", SCALES[0])]
    assert tuned[0].shares[5.0] == Share(0, 7) and tuned[0].shares[80.0] == Share(7, 7)
    assert len(studio.asked) == 2 * 7 * len(SCALES), "a composition has no scale"
    # The same study goes on: nothing is drawn again, but for what a kill took from the record.
    again = Counted(run)
    assert tune(again, cases) == tuned and not again.asked
    lines = (run.path / "tuning.jsonl").read_text().splitlines(keepends=True)
    (run.path / "tuning.jsonl").write_text("".join(lines[:-1]) + lines[-1][:9])
    assert tune(again, cases) == tuned and len(again.asked) == 1


def test_the_study_and_its_repair_draw_with_the_chosen_scales() -> None:
    chosen = Tuned("iou", {5.0: Share(1, 7), 40.0: Share(3, 7)})
    plan = tuned_plan(replace(PLAN, scales=(("kl", 60.0),)), [chosen])
    assert dict(plan.scales) == {"kl": 60.0, "iou": 40.0}
    expected = 40.0 if plan.strategy.guidance == "iou" else PLAN.strategy.scale
    assert plan.strategy.scale == expected
    with pytest.raises(RizbinError, match="-1 cases"):
        Plan(tuning=-1)
