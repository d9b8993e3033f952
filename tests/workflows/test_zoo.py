"""The models that come along: they load by name everywhere, and their cards say what their weights do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import rizbin
from rizbin import zoo
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.detection import measure as detection
from rizbin.evaluation.stills import HARMS
from rizbin.evaluation.suite import Evaluation, evaluate
from rizbin.generation.ascent.ascend import ascend
from rizbin.generation.ascent.settings import AscentSettings
from rizbin.generation.ascent.targets import TextTarget
from rizbin.studies.ascent_runs import judged_by, questions
from rizbin.workflows import bundled_models as recipes
from rizbin.workflows import evaluate_diffusion as drawn
from rizbin.workflows.bundle import load_published
from rizbin.workflows.catalogue import find
from rizbin.workflows.load import calibration_of, load_detector, load_encoder
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import training_from
from tests.toys import tiny

HEADLINE = {
    "clip": "zero_shot/top1",
    "tecoa": "zero_shot/top1",
    "detailclip": "zero_shot/top1",
    "dino": "attention/best_head_jaccard",
    "detector": "boxes/ap50",
    "diffusion": "drawing/single",
}
"""What a model of a method ships for."""
BETTER = {
    "clip": lambda random: 4 * random,
    "tecoa": lambda random: 4 * random,
    "detailclip": lambda random: 4 * random,
    "dino": lambda random: random + 10,
}
"""By how much it must beat random weights there."""

every_model = pytest.mark.parametrize("name", zoo.names())
every_encoder = pytest.mark.parametrize(
    "name", [name for name in zoo.names() if zoo.card_of(name).method not in ("detector", "diffusion")]
)


def test_every_recipe_has_its_model_and_every_model_its_recipe() -> None:
    assert set(zoo.names()) == set(recipes.RECIPES)


@every_model
def test_the_card_is_whole_and_the_files_are_small(name: str) -> None:
    card, folder = zoo.card_of(name), zoo.folder_of(name)
    assert card.name == name and set(card.figures) == set(recipes.RECIPES[name].measured_on)
    training = recipes.RECIPES[name].training()
    assert (card.method, card.data, card.seed) == (training.method, training.data, training.seed)
    assert card.steps == training.steps and card.pictures == training.steps * training.batch
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    assert size < (20 if card.method == "diffusion" else 10) and abs(size - card.megabytes) < 0.1
    assert "OpenMoji" in card.licence and card.environment["torch"] and card.minutes > 0
    for words in (card.recipe, card.licence, HEADLINE[card.method]):
        assert words in card.text()


@every_model
def test_the_settings_are_those_of_the_recipe(name: str) -> None:
    """A recipe that has changed since would make another model than the one that ships."""
    kept = training_from(json.loads((zoo.folder_of(name) / "settings.json").read_text()))
    recipe = recipes.RECIPES[name].training()
    names = open_source(recipe.data, size=32).categories
    completed = find(recipe.method).completed(recipe.settings, names)
    assert kept == replace(recipe, settings=completed)


@every_encoder
def test_the_weights_give_the_cards_numbers(name: str) -> None:
    """On a third of the pictures: within three standard errors of the card's share, which is of 1,000."""
    card, made = zoo.card_of(name), load_published(zoo.folder_of(name))
    headline = HEADLINE[card.method]
    for data, figures in card.figures.items():
        source = open_source(data, split="test", size=made.encoder.image_size)
        settings = Evaluation.Settings(images=300, train_images=0, baseline=False)
        found = evaluate(made.encoder, source, settings=settings)[headline].value
        kept = {part: value or 0.0 for part, value in figures[headline].items()}
        share = kept["value"] / 100
        # A Jaccard score is spread less than a share of hits of the same mean.
        assert abs(found / 100 - share) < 3 * (share * (1 - share) / 300) ** 0.5 + 0.01, data
        assert kept["value"] > BETTER[card.method](kept["random"]), data


@every_encoder
def test_it_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder(name)
    assert not encoder.network.training
    exported = rizbin.export(name, "out")
    again = load_encoder(exported)
    images = torch.randn(2, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        assert torch.allclose(encoder.features(images).pooled, again.features(images).pooled, atol=1e-6)
    if zoo.card_of(name).method == "detailclip":
        look = load_published(zoo.folder_of(name)).method.look(images)
        assert look is not None and bool(look.attention.isfinite().all())


def test_the_small_dino_shows_objects() -> None:
    """What it ships for: its heads find things, also on grounds that it has never seen."""
    for data, figures in zoo.card_of("dino-mini").figures.items():
        score = figures["attention/best_head_jaccard"]
        assert (score["value"] or 0) > (score["random"] or 0) + (15 if "single" in data else 10), data


def test_the_small_detector_finds_what_its_card_says() -> None:
    """What it ships for, and where it ends: what it was never taught it does not find."""
    card, detector = zoo.card_of("detector-mini"), load_detector("detector-mini")
    calibration = calibration_of(detector)
    source = open_source("scenes:several", split="test", size=96)
    settings = detection.DetectionSettings(images=100, baseline=False)
    found = detection.measure(detector, source, calibration=calibration, settings=settings)
    figures = card.figures["scenes:several"]
    assert abs(found["boxes/ap50"].value - (figures["boxes/ap50"]["value"] or 0)) < 8, "three standard errors of 100"
    assert abs(found["presence/accuracy"].value - (figures["presence/accuracy"]["value"] or 0)) < 5
    for data in ("scenes:several", "scenes:several at 64 px", "scenes:several at 128 px"):
        assert (card.figures[data]["boxes/ap50"]["value"] or 0) > 75, data
        for asked in ("presence", "presence_among"):
            assert (card.figures[data][f"{asked}/mcc"]["value"] or 0) > 0.85, data
        assert (card.figures[data]["presence/calibration_error"]["value"] or 1) < 0.05, data
    assert (card.figures["scenes:several,split=heldout"]["boxes/ap50"]["value"] or 0) < 10
    for numbers in card.figures.values():
        assert (numbers["boxes/ap50"]["random"] or 0) < 1


def test_the_detector_answers_by_name_and_is_exported(tmp_path: Path) -> None:
    sample = open_source("scenes:several", split="test", size=96)[0]
    path = tmp_path / "scene.png"
    Image.fromarray(sample.image).save(path)
    there = sorted(sample.names)
    absent = sorted(set(open_source("scenes:several", size=32).categories) - sample.names)[:3]
    found = rizbin.detect(str(path), [*there, *absent], model="detector-mini", quiet=True)
    assert set(found.images[0].answer.labels) & set(there)
    verdicts = rizbin.verify(path, [there[0], absent[0]], model="detector-mini")
    assert [one.state for one in verdicts] == ["present", "absent"]
    exported = rizbin.export("detector-mini", tmp_path / "kept", half=True)
    assert (exported / "calibration.json").is_file()
    again = rizbin.detect(str(path), [*there, *absent], model=exported, quiet=True)
    assert again.images[0].answer.labels == found.images[0].answer.labels
    with pytest.raises(RizbinError, match="export it to transformers or onnx"):
        rizbin.export("detector-mini", tmp_path / "other", format="timm")
    with pytest.raises(RizbinError, match="is a detector"):
        load_encoder("detector-mini")


def test_the_small_painter_draws_what_its_card_says() -> None:
    """What it ships for; what it forgets, the studies of missing objects are for."""
    figures = zoo.card_of("diffusion-mini").figures[drawn.DATA]
    kept = {name: parts["value"] or 0.0 for name, parts in figures.items()}
    found = rizbin.evaluate("diffusion-mini", settings=drawn.DiffusionSettings(seeds=1, pairs=8, scenes=8), quiet=True)
    for name, count in (("drawing/single", 16), ("drawing/pairs_things", 16)):
        share = kept[name] / 100
        assert abs(found[name].value / 100 - share) < 3 * (share * (1 - share) / count) ** 0.5 + 0.02, name
    assert abs(found["autoencoder/error"].value - kept["autoencoder/error"]) < 0.5
    assert kept["drawing/single"] > 85 and kept["drawing/unasked"] < 2 and kept["judge/true_things"] > 85


def test_what_one_draws_the_other_names_and_no_harm_blinds_it() -> None:
    """What tecoa-mini and clip-mini ship for: the first's gradient draws things, the second can tell."""
    asked = questions(open_source("scenes:easy,seed=5", split="test", size=64), 100)
    judge, draws = load_encoder("clip-mini"), load_encoder("tecoa-mini")
    for name, harm in HARMS.items():
        real = judged_by(judge, [harm(one.real) for one in asked], range(100), asked).right.mean()
        # 95 to 98 percent of these; three standard errors below.
        assert real > 0.88, name
    few = asked[:16]
    made = ascend([draws], [[TextTarget(text=one.text)] for one in few], settings=AscentSettings(chunk=16))
    # 86 percent of 40 captions in three seeds; of 16, fewer than 60 come one time in 150.
    assert judged_by(judge, made.images, range(16), asked).right.mean() >= 0.6


def test_the_page_says_what_the_card_says() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/zoo.md").read_text()
    for words, name in (
        ("zero-shot top-1", "zero_shot/top1"),
        ("zero-shot segmentation, mIoU", "segmentation/zero_shot/miou"),
    ):
        found = [figures[name] for figures in zoo.card_of("detailclip-mini").figures.values()]
        cells = " | ".join(f"{one['value']:.1f} ({one['random']:.1f})" for one in found)
        assert f"| {words} | {cells} |" in page


def test_a_name_that_is_none_gets_a_sentence() -> None:
    for call in (zoo.folder_of, rizbin.load, rizbin.evaluate):
        with pytest.raises(RizbinError, match="detailclip-mini"):
            call("detailclip-minni")
    with pytest.raises(RizbinError, match="no recipe"):
        recipes.rebuild("other", Path("nowhere"))


def test_a_model_is_made_by_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way at toy size: trained, published, measured, with a card that reads."""
    training = replace(preset("detailclip"), settings=tiny("detailclip"), data="scenes:easy,categories=8")
    recipe = recipes.Recipe(
        is_a="a toy", training=lambda: replace(training, steps=2, batch=4), measured_on=("scenes:easy,categories=8",)
    )
    monkeypatch.setitem(recipes.RECIPES, "toy", recipe)
    few = Evaluation.Settings(images=20, train_images=20)
    monkeypatch.setattr(recipes, "SETTINGS", few)
    made = recipes.rebuild("toy", tmp_path / "run")
    assert made == tmp_path / "run/published"
    assert json.loads((made / zoo.CARD).read_text())["steps"] == 2
    monkeypatch.setattr(zoo, "_HERE", made.parent)
    made.rename(made.parent / "toy")
    assert zoo.names() == ("toy",) and "zero_shot/top1" in zoo.card_of("toy").text()
    assert zoo.card_of("toy").categories == 8
    (made.parent / "toy" / zoo.CARD).write_text("{}")
    with pytest.raises(RizbinError, match="card"):
        zoo.card_of("toy")
