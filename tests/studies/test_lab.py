"""The laboratory: cells are kept, equal and resumed; verdicts follow from the numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.pages.page import Page
from rizbin.studies import lab, questions, study
from rizbin.studies.compare import comparison
from rizbin.studies.lab import Cell, Numbers, Results, Variant, beyond_chance, interval, judged
from rizbin.studies.questions import batches, collapse, crops, reconstruction, repulsion, robustness
from rizbin.studies.study import write_study
from rizbin.studies.verdict import KINDS, NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict, publish
from rizbin.workflows.presets import preset
from tests.toys import tiny


def quick(name: str, batch: int = 8) -> Variant:
    """A variant that trains in a second."""
    training = replace(preset(name, "nano"), settings=tiny(name), batch=batch, steps=4, checkpoint_every=4)
    return Variant(name=f"{name} {batch}", training=training)


def steps_of(folder: Path) -> Numbers:
    return {"knn": float(json.loads((folder / "finished.json").read_text())["steps"])}


def test_cells_are_kept_equal_and_go_on(tmp_path: Path) -> None:
    variants = [quick("simclr"), quick("simclr", 4), quick("byol")]
    found = lab.run(variants, tmp_path, steps_of, seeds=2, steps=3, jobs=1, quiet=True)
    assert len(found.cells) == 6 and found.steps == 3
    assert [found.mean(one.name, "knn") for one in variants] == [3, 6, 3], "equal pictures, whatever the batch"
    assert found.cells[0].history and found.minutes > 0
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/numbers.json")}
    (tmp_path / "02-1" / "numbers.json").unlink()
    RunFolder(tmp_path / "02-1").metrics.append({"step": 3, "images": 24, "seconds": 3600.0})
    again = lab.run(variants, tmp_path, steps_of, seeds=2, steps=3, jobs=1, quiet=True)
    assert again.mean("byol 8", "knn") == 3
    assert again.minutes > 60, "what another process trained counts"
    changed = {path.parent.name for path, at in stamps.items() if path.stat().st_mtime_ns != at}
    assert changed == {"02-1"}
    with pytest.raises(RizbinError, match="holds a study with other settings"):
        lab.run(variants[:2], tmp_path, steps_of, seeds=2, steps=3, jobs=1, quiet=True)


def test_a_study_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """A plan written before settings got a field means that field's value of then, and other settings still count."""
    variants = [Variant(name="clip", training=preset("clip", "small"))]
    plan = tmp_path / "plan.json"

    def planned() -> int:
        return lab._planned(variants, tmp_path, steps_of, seeds=1, budget=0.0, steps=7, jobs=1, start=None, quiet=True)

    steps = planned()
    stored = json.loads(plan.read_text())
    del stored["variants"]["clip"]["settings"]["pair"]["tuning"]
    plan.write_text(json.dumps(stored))
    assert planned() == steps == 7
    stored["variants"]["clip"]["settings"]["pair"]["embedding"] = 17
    plan.write_text(json.dumps(stored))
    with pytest.raises(RizbinError, match="holds a study with other settings"):
        planned()


def test_a_budget_becomes_steps_once(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match=r"minutes are \d+ steps a cell.*give \d+ minutes"):
        lab.run([quick("simclr")], tmp_path / "a", steps_of, seeds=1, budget=0.001, jobs=1, quiet=True)
    with pytest.raises(RizbinError, match="seeds is 0"):
        lab.run([quick("simclr")], tmp_path / "b", steps_of, seeds=0, jobs=1)


@pytest.mark.parametrize(("jobs", "gained"), [(1, 1.0), (2, 1.3)])
def test_a_budget_is_not_planned_to_its_last_minute(
    jobs: int, gained: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "_cell", lambda folder, training, measure: (folder / "cell").mkdir())
    monkeypatch.setattr("rizbin.workflows.runs.seconds_a_step", lambda training: 0.5)
    variants = [quick("simclr"), quick("byol")]
    timing = outputs.claim_folder(tmp_path / "timing")
    steps = lab._steps_within(30.0, variants, timing, steps_of, seeds=3, jobs=jobs)
    minutes = steps * 3 * 2 * 0.5 / gained / 60
    assert 0.8 * 30 < minutes <= 0.86 * 30
    assert not (tmp_path / "timing").exists()


def test_a_budget_that_the_steps_alone_exceed_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after minutes of silence: nothing is measured for it, and what is timed is shown."""
    monkeypatch.setattr(lab, "_cell", lambda *_: pytest.fail("a cell was trained and measured"))
    monkeypatch.setattr("rizbin.workflows.runs.seconds_a_step", lambda training: 0.5)
    with pytest.raises(RizbinError, match="too few to show anything; give 3 minutes or more"):
        lab._steps_within(1.0, [quick("simclr"), quick("byol")], tmp_path, steps_of, seeds=3, jobs=1)
    assert "timing the variants" in capsys.readouterr().err


def test_a_budget_that_measuring_alone_exceeds_is_refused_while_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the measurement: what two runs cannot have of half a second, nobody waits for."""

    def endless(folder: Path, training: object, measure: object) -> None:
        (folder / "cell").mkdir()
        while True:
            pass

    monkeypatch.setattr(lab, "_cell", endless)
    monkeypatch.setattr("rizbin.workflows.runs.seconds_a_step", lambda training: 1e-4)
    timing = outputs.claim_folder(tmp_path / "timing")
    with pytest.raises(
        RizbinError, match=r"takes more than 0\.3 seconds, so 2 do not fit into 0\.01 minutes; give more"
    ):
        lab._steps_within(0.01, [quick("simclr"), quick("byol")], timing, steps_of, seeds=1, jobs=1, quiet=True)
    assert not timing.exists()


def results(numbers: Callable[[str, int], Numbers], names: list[str], flagged: tuple[str, ...] = ()) -> Results:
    """Made cells of three seeds."""
    cells = []
    for name in names:
        for seed in range(3):
            line = {"step": 10, "feature_std": 1.0, **numbers(name, seed)}
            line |= {"alarm": "constant"} if name in flagged else {}
            curves = {
                "local_local": 0.5,
                "local_other": 0.1,
                "local_global": 0.6,
                "global_global": 0.7,
                "affinity/right": 0.5,
            }
            cells.append(Cell(name, seed, numbers(name, seed), [line | curves | {"eigen_alignment": 0.9}]))
    return Results(tuple(cells), 3, 10, 1.0)


def made(name: str, seed: int) -> Numbers:
    base = {"knn_random": 20.0, "knn_pixels": 22.0, "projection_std": 0.7, "projection_rank": 20.0, "color_chance": 1.0}
    base |= {"zero_shot/top1": 50.0 + seed, "milliseconds": 300.0, "localized/all": 50.0 + seed}
    base |= {"partners_color": 60.0, "partners_network": 40.0}
    base |= {"hidden/object_pixels": 48.0, "hidden/chance": 47.0, "tokens/object_pixels_kept": 80.0}
    base |= {f"localized/{kind}/{side}": 50.0 for kind in reconstruction.KINDS for side in ("high", "low")}
    return base | {"knn": 50.0 + seed, "color_shortcut": 20.0 + 5 * ("no color" in name)}


def test_spread_means_and_flags() -> None:
    found = results(made, ["a", "b"], flagged=("b",))
    assert found.mean("a", "knn") == 51 and found.spread("a", "knn") == 1
    assert found.shown("a", "knn") == "51.0 ± 1.0" and found.shown("a", "nothing") == "n/a"
    assert found.flagged("a") == 0 and found.flagged("b") == 3
    assert found.curve("a", "knn") == ([10.0], [51.0])


def test_seeds_are_compared_one_by_one_with_students_t() -> None:
    def numbers(name: str, seed: int) -> Numbers:
        return {"knn": 30.0 * seed + (seed % 2 + 2.0) * (name == "b")}

    found = results(numbers, ["a", "b"])
    assert found.gaps("b", "a", "knn") == [2, 3, 2] and found.gaps("b", "a", "nothing") == []
    assert beyond_chance([2.0, 3.0, 2.0]), "the spread between seeds, 30 here, is none of the comparison's"
    # Mean 1, deviation 0.5, so 3.46 standard errors: beyond two of them, within Student's 4.3 for three seeds.
    assert not beyond_chance([0.5, 1.0, 1.5]) and beyond_chance([0.5, 1.0, 1.5] * 2)
    assert not beyond_chance([5.0]) and not beyond_chance([5.0, 6.1, -7.0]) and not beyond_chance([])


def test_the_verdict_on_collapse_follows_the_numbers() -> None:
    names = [one.name for one in collapse.variants()]
    falls = tuple(one.name for one in collapse.variants() if one.collapses)
    said = collapse.answer(results(made, names, flagged=falls))
    assert said.kind == SHOWN and said.delivered.startswith("Delivered: what something is taken away from has learned")
    assert said.reason.startswith("SimCLR needs its negatives") and "3 of 3 seeds" in said.reason
    assert said.sentences[0].startswith("BYOL does without negatives: 51.0") and "collapsed" in said.sentences[0]
    assert said.sentences[1].startswith("DINO names 51.0 ± 1.0 percent with centering")
    agreed = sum(one.collapses is not None for one in collapse.variants())
    assert said.sentences[-1] == f"{agreed} of {agreed} rows agree with the papers about collapse."
    other = collapse.answer(results(made, names, flagged=("BYOL",)))
    assert other.kind == REFUTED and other.reason.startswith("SimCLR was not shown to need")
    assert other.sentences[0].startswith("BYOL did not do without")
    assert "otherwise at this scale: BYOL," in other.sentences[-1]
    # Where nothing was learned, nothing can collapse that was worth having.
    dull = collapse.answer(results(lambda name, seed: made(name, seed) | {"knn": 23.0 + seed}, names, flagged=falls))
    assert dull.kind == NOT_TESTABLE and dull.reason.startswith("Too little was learned to say what holds SimCLR")
    assert dull.delivered.startswith("Not delivered")


def test_a_small_size_is_judged_by_the_rows_that_it_has() -> None:
    rows = [collapse.SIMCLR, collapse.NO_NEGATIVES]
    negatives = collapse.answer(results(made, rows, flagged=(collapse.NO_NEGATIVES,)))
    assert negatives.kind == SHOWN and "BYOL" not in " ".join(negatives.sentences)
    guards = [collapse.BYOL, collapse.FIXED, collapse.LINEAR, *collapse.GUARDS]
    byol = collapse.answer(results(made, guards, flagged=(*collapse.GUARDS, collapse.LINEAR)))
    assert byol.kind == SHOWN and byol.reason.startswith("BYOL does without negatives")
    assert "BYOL has +0.0 points, which lies within" in byol.sentences[0], "a random target is as good"
    assert "this does not show that it is what holds BYOL" in byol.sentences[1]
    half = collapse.answer(results(made, guards, flagged=collapse.GUARDS[:1]))
    assert half.kind == REFUTED and "did not collapse within the run, unlike in the paper" in half.reason


def test_a_gain_is_judged_by_its_interval() -> None:
    assert judged([2.0, 3.0, 2.0], delivered=True, least=1.0) == SHOWN
    assert judged([-2.0, -3.0, -2.0], delivered=True, least=1.0) == REFUTED
    assert judged([0.1, -0.1, 0.05], delivered=True, least=1.0) == REFUTED, "a gain of 1 is beyond the interval"
    assert judged([3.0, -3.0, 2.0], delivered=True, least=1.0) == NOT_TESTABLE
    assert judged([2.0, 3.0, 2.0], delivered=False, least=1.0) == NOT_TESTABLE
    assert judged([5.0], delivered=True, least=1.0) == judged([], delivered=True, least=1.0) == NOT_TESTABLE
    low, high = interval([2.0, 3.0, 2.0])
    assert low == pytest.approx(7 / 3 - 4.30 / 3) and high == pytest.approx(7 / 3 + 4.30 / 3)


def test_a_verdict_is_one_of_three_and_the_first_thing_on_its_page(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="proven"):
        StudyVerdict("proven", "x", "y")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs its reason"):
        StudyVerdict(SHOWN, "It holds.", "")
    verdict = StudyVerdict(NOT_TESTABLE, "Too little <was> learned.", "Not delivered: nothing.", ("More.",))
    page = Page("Why?")
    verdict.show(page, small="A small size.")
    text = publish(page, verdict, tmp_path / "study.html", small="A small size.").read_text()
    assert 'class="verdict tone-open" data-verdict="not testable here"' in text, "told by words, not by color alone"
    assert text.index("Too little &lt;was&gt; learned.") < text.index("A small size.") < text.index("Not delivered")
    kept = json.loads((tmp_path / "study.json").read_text())
    assert kept == {"question": "Why?", **verdict.to_dict(), "small": "A small size."}
    assert kept["verdict"] == "not testable here" and kept["sentences"] == ["More."]


def test_the_verdict_on_robustness_follows_the_numbers() -> None:
    names = [one.name for one in robustness.variants()]

    def numbers(name: str, seed: int) -> Numbers:
        lost = 20.0 if name == "SimCLR, crop only" else 5.0 if name.endswith("crop only") else 0.0
        return made(name, 0) | {"knn": 60 - lost + 0.1 * seed}

    said = robustness.answer(results(numbers, names))
    assert said.kind == SHOWN
    assert said.reason.startswith("SimCLR depends more on its augmentations: SimCLR loses 20.0 points")
    assert "color alone, untrained, picks 60 and 60 percent of partners rightly" in said.sentences[0]
    assert '"crop only" costs both most' in said.sentences[1] and "is taken more" in said.sentences[1]
    alike = robustness.answer(results(made, names))
    assert alike.kind == REFUTED and alike.reason.startswith("The two lose alike")
    assert "none costs either of them anything" in alike.sentences[1]
    one_loses = robustness.answer(
        results(lambda name, seed: made(name, seed) | {"knn": 50.0 - 9 * (name == "BYOL, no flip")}, names)
    )
    assert '"no flip" costs BYOL most (9.0) and none costs SimCLR anything' in one_loses.sentences[1]
    few = robustness.answer(results(made, [one for one in names if "crop" in one or "," not in one]))
    assert len(few.sentences) == 1 and "no color" not in few.sentences[0], "what was not trained is not spoken of"
    gains = robustness.answer(
        results(lambda name, seed: made(name, seed) | {"knn": 50.0 + 9 * ("only" in name)}, names)
    )
    assert gains.kind == REFUTED and gains.reason.startswith(
        "Unlike in the paper, both gain when crops alone are left, on drawings whose colors name nothing: SimCLR gains "
        "9.0 points (beyond the spread)"
    )


def test_what_has_learned_nothing_shows_nothing_of_augmentations() -> None:
    """BYOL with all of them named 20.0 percent, raw pixels 18.7."""
    names = [one.name for one in robustness.variants()]
    said = robustness.answer(results(lambda name, seed: made(name, seed) | {"knn": 24.0 + seed}, names))
    assert said.kind == NOT_TESTABLE and said.delivered.startswith("Not delivered")
    assert said.reason.startswith(
        "Too little was learned to say what augmentations are worth: with all of them SimCLR stands"
    )


def test_the_verdict_on_batches_follows_the_numbers() -> None:
    rows = batches.variants()
    names = [row.name for row in rows]
    assert {row.training.batch * row.training.steps for row in rows} == {600 * 64}, "equal images"

    def numbers(name: str, seed: int, lost: float = 9.0) -> Numbers:
        small = name.endswith("batch 8")
        knn = 60 + 0.1 * seed - (lost if small and "SimCLR" in name else 1.0 if small else 0.0)
        return {"knn": knn, "knn_pixels": 30.0, "knn_random": 25.0}

    verdict = batches.answer(results(numbers, names))
    assert verdict.kind == SHOWN and "SimCLR loses 9.0 points" in verdict.reason and "BYOL loses 1.0" in verdict.reason
    assert "8: 51.1 ± 0.1" in verdict.sentences[0] and "14 in batches of 8" in verdict.sentences[-1]
    assert batches.answer(results(lambda name, seed: numbers(name, seed, 1.0), names)).kind == REFUTED
    little = batches.answer(results(lambda name, seed: numbers(name, seed) | {"knn": 31.0 + seed}, names))
    assert little.kind == NOT_TESTABLE and little.delivered.startswith("Not delivered")
    assert "3.6 and 0.7 from 4,096 to 256, and 5.1 and 12.1 more from there to 64" in verdict.reason
    assert study._length(rows, 600) == "38,400 images each"
    assert study._length(collapse.variants(), 400) == "400 steps of 64 images"


def test_the_verdict_on_repulsion_follows_the_numbers() -> None:
    names = [row.name for row in repulsion.variants()]
    dose = repulsion.of_bound(repulsion.BOUNDS[0])

    def numbers(name: str, seed: int, gained: float = 0.6) -> Numbers:
        apart = name.startswith("cosine repels")
        cosines = {"all": 0.7, "same": 0.9, "different": 0.8, "other": 0.4}
        falls = {"all": 0.2, "same": 0.1, "different": 0.2, "other": 0.3}
        return {
            **made(name, seed),
            "probe/map": 40.0 + seed + (gained + 0.1 * seed if name == dose else 0.0),
            "pairs/different": 49.0,
            **{f"cosine/{kind}": value - falls[kind] * apart for kind, value in cosines.items()},
        }

    verdict = repulsion.answer(results(numbers, names))
    assert (
        verdict.kind == SHOWN
        and "+0.7 points, 95 percent interval +0.5 to +0.9 over 3 seeds; 1 would" in verdict.reason
    )
    assert verdict.reason.startswith("Repelling small crops helps, by less than would matter (decided by")
    much = repulsion.answer(results(lambda name, seed: numbers(name, seed, 2.0), names))
    assert much.kind == SHOWN and much.reason.startswith("Repelling small crops helps (decided by")
    assert "the three fall by 0.100, 0.200 and 0.300" in " ".join(verdict.sentences)
    none = repulsion.answer(results(lambda name, seed: numbers(name, seed, -0.2), names))
    assert none.kind == REFUTED and none.reason.startswith("Repelling small crops does not help")


def test_the_verdict_on_crops_follows_the_numbers() -> None:
    names = [one.name for one in crops.variants()]
    undelivered = crops.answer(results(made, names))
    assert undelivered.kind == NOT_TESTABLE and undelivered.delivered.startswith("Not delivered: ")
    assert undelivered.reason.startswith("Nothing can be concluded about repelling small crops")

    def repelled(numbers: Callable[[str, int], Numbers]) -> Results:
        """Small crops of what repels them end apart."""
        found = results(numbers, names)
        apart = {crops.NONE: 0.8}
        cells = (
            replace(cell, history=[line | {"local_local": apart.get(cell.variant, 0.5)} for line in cell.history])
            for cell in found.cells
        )
        return replace(found, cells=tuple(cells))

    alike = crops.answer(repelled(made))
    assert alike.kind == REFUTED and "is worth less than 1 point: k-NN in percent is 51.0" in alike.reason
    harmed = crops.answer(repelled(lambda name, seed: made(name, seed) | {"knn": 40.0 + 9 * (name == crops.NONE)}))
    assert harmed.kind == REFUTED and "harms: k-NN in percent is 40.0" in harmed.reason
    assert harmed.delivered.startswith("Delivered: ")
    pair = [cell for cell in repelled(made).cells if cell.variant in (crops.LEARNED, crops.NONE)]
    assert crops.answer(replace(repelled(made), cells=tuple(pair))).sentences == ()


@pytest.mark.parametrize("name", questions.names())
def test_every_study_shows_itself(name: str, tmp_path: Path) -> None:
    asked = questions.find(name)
    assert asked.question.endswith("?")
    # The study of tokens varies what else stands in the scenes.
    data = {one.training.data for one in asked.variants()}
    assert len(data) == (3 if name == "tokens" else 1), "equal data"
    found = results(made, [one.name for one in asked.variants()])
    page = Page(asked.question)
    verdict = asked.answer(found)
    assert verdict.kind in KINDS and verdict.delivered.startswith(("Delivered: ", "Not delivered: "))
    verdict.show(page)
    asked.show(page, found)
    text = page.write(tmp_path / "page.html").read_text()
    assert "51.0 ± 1.0" in text and "http" not in text.replace("http-equiv", "")


def test_a_comparison_end_to_end(tmp_path: Path) -> None:
    asked = comparison(["simclr", "byol"])
    assert "Preset nano" in asked.design and "Preset small" in comparison(["simclr", "clip"]).design
    quickly = replace(asked, variants=lambda: [replace(quick(one.name), name=one.name) for one in asked.variants()])
    page = write_study(quickly, tmp_path, seeds=1, steps=2, jobs=1, precision="bf16", quiet=True).read_text()
    assert "images, bf16 ·" in page
    assert '"precision": "bf16"' in (tmp_path / "00-0/settings.json").read_text()
    kept = json.loads((tmp_path / "study.json").read_text())
    assert kept["verdict"] == "not testable here" and kept["reason"].startswith("k-NN: top-1: ")
    assert "k-NN: top-1: " in page and "one seed cannot tell" in page and "OpenMoji" in page
    with pytest.raises(RizbinError, match="two methods or more"):
        comparison(["simclr", "simclr"])
    with pytest.raises(RizbinError, match="they share small"):
        comparison(["simclr", "clip"], preset="nano")
    with pytest.raises(RizbinError, match="no study 'tables'"):
        questions.find("tables")


def test_texture_and_thinness_tell_what_they_say() -> None:
    mask = np.zeros((64, 64), bool)
    mask[10:50, 10:50] = True
    flat = np.full((64, 64, 3), 90, np.uint8)
    striped = flat.copy()
    striped[:, ::2] = 200
    dotted = flat.copy()
    dotted[::4, ::4] = 200
    assert reconstruction.texture(flat, mask) == 0 < reconstruction.texture(dotted, mask)
    line = np.zeros((64, 64), bool)
    line[30, 5:60] = True
    assert reconstruction.thinness(line) == 1 > 0.2 > reconstruction.thinness(mask) > 0


def test_reconstruction_is_measured_by_kind_of_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rizbin.workflows.runs import train

    monkeypatch.setattr(reconstruction, "IMAGES", 40)
    training = replace(preset("detailclip", "small"), settings=tiny("detailclip"), batch=4, steps=2, checkpoint_every=2)
    numbers = reconstruction.measure(train(training, tmp_path / "run", quiet=True))
    thirds = {
        f"localized/{what}"
        for what in ("all", *(f"{kind}/{side}" for kind in reconstruction.KINDS for side in ("low", "high")))
    }
    assert thirds <= set(numbers) and all(0 <= numbers[name] <= 100 for name in thirds)
    assert {"hidden/object_pixels", "gradient/pixels", "reconstruction/hidden/object_patches"} <= set(numbers)


def test_variants_go_on_from_one_start(tmp_path: Path) -> None:
    """Each seed has a start of its own; a stopped study keeps it, and a longer variant sees more images."""
    begin = replace(quick("simclr").training, steps=2, checkpoint_every=2)
    variants = [quick("simclr"), replace(quick("byol"), length=2.0)]
    found = lab.run(variants, tmp_path, steps_of, seeds=2, steps=3, jobs=1, start=begin, quiet=True)
    assert found.seeds == 2 and {path.name for path in tmp_path.glob("start-*")} == {"start-0", "start-1"}
    for seed in (0, 1):
        for number, steps in ((0, 3), (1, 6)):
            kept = json.loads((tmp_path / f"{number:02d}-{seed}" / "settings.json").read_text())
            assert kept["steps"] == steps and Path(kept["start"]) == tmp_path / f"start-{seed}"
    other = replace(begin, steps=4)
    with pytest.raises(RizbinError, match="holds a study with other settings"):
        lab.run(variants, tmp_path, steps_of, seeds=2, steps=3, jobs=1, start=other, quiet=True)
