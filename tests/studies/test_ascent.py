"""The study of ascent: sentences follow the numbers, what was drawn is not drawn again, and one page comes out."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rizbin import cli
from rizbin.data.open import open_source
from rizbin.generation.ascent.settings import AscentSettings
from rizbin.generation.ascent.targets import TextTarget
from rizbin.generation.diffusion.repair import ObjectPresence
from rizbin.generation.film import Pixels
from rizbin.pages.charts import Series
from rizbin.studies import ascent
from rizbin.studies import ascent_runs as ascent_cells
from rizbin.studies.ascent import (
    AscentVariant,
    Measured,
    Rebuilt,
    StudySize,
    answer,
    answer_changes,
    answer_rebuilt,
    answer_rival,
    gap,
    margin,
    pace,
    percent,
)
from rizbin.studies.ascent_runs import AscentImage, Judged, draw_variant, questions
from tests.generation.ascent.toy_encoders import toy
from tests.generation.diffusion.small_painters import painter


def finds(image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
    """A detector that sees everything in a picture that is not gray."""
    return [ObjectPresence(0.9 if image.std() > 5 else 0.1, None) for _ in phrases]


def seen(right: int, of: int, cosine: float) -> Judged:
    return Judged(np.arange(of) < right, np.full(of, cosine))


def said(right: int, own: float, judge: float, of: int = 50) -> Measured:
    harmed = {"JPEG 75": 50.0, "blur": 20.0}
    return Measured(seen(of, of, own), seen(right, of, judge), harmed, detected=60.0, slope=-2.0, variation=0.1)


def test_the_answer_follows_the_numbers() -> None:
    real, good, bad = said(48, 0.9, 0.8), said(35, 0.9, 0.7), said(1, 0.98, 0.0)
    assert percent(good.held_out) == 70 and 10 < margin(good.held_out) < 14
    assert abs(gap(good, real) - 0.1) < 1e-9 and abs(gap(bad, real) - 0.88) < 1e-9
    names = ("a", "b", "c", "plain pixels", "paper", "paper, faster")
    verdict = answer(dict(zip(names, (good, good, good, bad, good, good), strict=True)), real)
    sentences = verdict.sentences
    assert verdict.kind == "shown" and "a cosine of 0.90 with their prompts, and real scenes 0.90" in verdict.delivered
    assert verdict.reason.startswith("Yes: of 100 prompts the held-out judge names the right one for 70 percent")
    assert "a detector finds 60 percent of the named objects (60 in real scenes)" in verdict.reason
    assert "2 percent of plain pixels" in verdict.reason and "96 percent of real" in verdict.reason
    assert "gap to the judge is 0.88 and 0.10" in sentences[0] and "blur costs the default most: 20" in sentences[2]
    assert "of real scenes, at worst, 20" in sentences[2]
    rival = answer_rival("detail", [bad, said(5, 0.95, 0.0)], good)
    assert "detail has 2 percent" in rival and "-68 points" in rival
    assert rival.endswith("a cosine of 0.95, 10 percent are right.")
    poor = answer({**dict.fromkeys(names, good), "a": bad}, real)
    assert poor.kind == "refuted here" and poor.reason.startswith("Hardly")
    idle = answer({**dict.fromkeys(names, good), "a": said(35, 0.2, 0.7)}, real)
    assert idle.kind == "not testable here" and idle.delivered.startswith("Not delivered")


def test_only_what_is_surely_moved_is_told() -> None:
    base = said(35, 0.9, 0.7)
    told = answer_changes({"as it is": base, "no noise": said(2, 0.9, 0.1), "8 copies": said(36, 0.9, 0.7)})
    assert told[0].endswith("in points: no noise -66.") and "70 percent" in told[0]
    assert "none moves" in answer_changes({"as it is": base, "8 copies": said(36, 0.9, 0.7)})[0]


def test_who_keeps_more_is_told_when_it_is_sure() -> None:
    def again(name: str, likeness: list[float]) -> Rebuilt:
        return Rebuilt(name, [], np.array(likeness), blind=0.5, other=0.5, detected=20.0)

    one, other = again("a", [0.5, 0.6, 0.7]), again("b", [0.1, 0.3, 0.3])
    assert "keep more of" in answer_rebuilt([one, other])[0] and "keep less of" in answer_rebuilt([other, one])[0]
    assert "neither surely" in answer_rebuilt([one, again("b", [0.9, 0.1, 0.7])])[0]
    assert "neither surely" in answer_rebuilt([again("a", [0.9]), again("b", [0.1])])[0]


def test_prompts_differ_and_are_true_of_their_pictures() -> None:
    asked = questions(open_source("scenes:easy,categories=0", split="test", size=32), 12)
    assert len({one.text for one in asked}) == 12 and all(1 <= len(one.names) <= 2 for one in asked)
    assert all(name.split()[0] in one.text for one in asked for name in one.names)


def test_the_pace_is_that_of_the_prompts_that_both_drew() -> None:
    asked = questions(open_source("scenes:easy", split="test", size=16), 3)
    blank = np.zeros((16, 16, 3), np.uint8)
    judge = toy(3)
    best = asked[0].real
    order = sorted((blank, best), key=lambda one: float(ascent_cells.judged_by(judge, [one], [0], asked).cosine[0]))
    worse, better = order

    def climbing(name: str, seconds: float, frames: list[Pixels]) -> AscentImage:
        variant = AscentVariant(name=name, settings=AscentSettings(steps=2), prompts=1, seeds=1)
        return AscentImage(variant, [frames[-1]], [0], [1.0], [(1, frames[:1]), (2, frames[1:])], seconds)

    compared = {
        "default": climbing("default", 1.0, [worse, better]),
        **{name: climbing(name, 1.0, [worse, worse]) for name in ("b", "c", "d")},
        "paper": climbing("paper", 20.0, [worse, better]),
    }
    told, lines = pace(compared, asked, judge)
    assert "ends with a held-out cosine of" in told and told.endswith("5 percent of the time.")
    assert [line.name for line in lines] == ["default", "paper"]
    # Where the default ends lower, its own end is what both reach: the paper's has it at its first frame.
    never = pace({**compared, "default": climbing("default", 1.0, [worse, worse])}, asked, judge)
    assert "the default has after 0.5 seconds and paper after 10.0: 5 percent" in never[0]


def test_a_line_is_crossed_between_its_points() -> None:
    line = Series(name="a", x=[1.0, 3.0, 5.0], y=[0.1, 0.5, 0.4])
    assert ascent._reached(line, 0.3) == pytest.approx(2.0) and ascent._reached(line, 0.5) == pytest.approx(3.0)
    assert ascent._reached(line, 0.0) == 1.0 and ascent._reached(line, 0.9) == 5.0


def test_what_was_drawn_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = AscentVariant(name="few", settings=AscentSettings(steps=3, copies=1), prompts=2, seeds=2)
    wishes = [[TextTarget(text="a fox")], [TextTarget(text="a bee")], [TextTarget(text="a bus")]]
    made = draw_variant(toy(), variant, wishes, tmp_path, quiet=True)
    assert len(made.images) == 4 and made.which == [0, 1, 0, 1] and len(made.frames[0][1]) == 2
    monkeypatch.setattr(ascent_cells, "ascend", None)
    again = draw_variant(toy(), variant, wishes, tmp_path, quiet=True)
    assert np.array_equal(np.stack(again.images), np.stack(made.images))
    assert (again.climbed, again.which, again.seconds) == (made.climbed, made.which, made.seconds)
    with pytest.raises(TypeError):
        draw_variant(toy(), replace(variant, seeds=3), wishes, tmp_path, quiet=True)


def test_another_autoencoder_draws_again(tmp_path: Path) -> None:
    variant = AscentVariant(
        name="latent", settings=AscentSettings(parametrization="latent", steps=1, copies=1), prompts=1, seeds=1
    )
    one = deepcopy(painter().pipeline.vae)
    other = deepcopy(one)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    made = [
        draw_variant(toy(size=64), variant, [[TextTarget(text="a fox")]], tmp_path, autoencoder=which, quiet=True)
        for which in (one, other, one)
    ]
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert made[0].climbed == made[2].climbed != made[1].climbed


def test_one_page_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = AscentSettings(steps=2, copies=1)
    monkeypatch.setattr(ascent, "PRESETS", dict.fromkeys(("default", "paper", "adversarial"), lambda: quick))
    monkeypatch.setattr(ascent, "AMONG", 4)
    source = open_source("scenes:easy", split="test", size=64)
    page = ascent.write_study(
        toy(0, size=64),
        toy(1, size=64),
        finds,
        source,
        tmp_path / "ascent.html",
        rival=toy(5, size=64),
        rebuild=[toy(3, size=64), toy(4, size=64)],
        autoencoder=painter().pipeline.vae,
        blind=toy(2, reads=False),
        run=tmp_path / "run",
        size=StudySize(prompts=2, seeds=1, few=1, paper=1, rebuilt=2),
        quiet=True,
    )
    text = page.read_text(encoding="utf-8")
    for words in (
        "Parametrizations",
        "failures among them",
        "What of the default matters",
        "How fast",
        "OpenMoji",
    ):
        assert words in text
    assert "http-equiv" in text and text.count("<figure") == 21, "fourteen climbed, six drawn again or real, one chart"


def test_the_command_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "ascent", "--help"]) == 0
    assert "--judge" in capsys.readouterr().out
    assert cli.main(["study", "ascend"]) == 2
    assert "did you mean 'ascent'" in capsys.readouterr().err
