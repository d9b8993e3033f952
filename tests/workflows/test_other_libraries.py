"""Models of open_clip, timm and transformers through every command that takes an encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rizbin
from rizbin.core.measurement import Report
from rizbin.evaluation.suite import Evaluation
from rizbin.generation.ascent.settings import AscentSettings as Ascent
from rizbin.workflows.evaluate import measured as measured_by
from tests.models.small import VIT, save_clip, save_open_clip_model, save_siglip, save_timm_model

FEW = Evaluation.Settings(
    images=20, train_images=24, least_images=10, batch=20, k=3, probe_steps=2, decays=(0.1,), dense_images=4
)
DATA = "scenes:easy,categories=6"


def measured(folder: Path, settings: Any = FEW) -> Report:
    return rizbin.evaluate(folder, data=DATA, settings=settings, quiet=True)


IN_WORDS = {"zero_shot/top1", "retrieval/image_to_text/r1"}
IN_PATCHES = {"segmentation/linear/miou"}
DENSE = {"segmentation/zero_shot/miou", "segmentation/dense_head/miou", "grounding/zero_shot/pair_both"}
HEADS = {"attention/best_head_jaccard", "tokens/object_pixels_kept"}
MODELS: dict[str, tuple[Callable[[Path], Any], set[str], set[str]]] = {
    "open_clip": (save_open_clip_model, IN_WORDS | IN_PATCHES | DENSE | HEADS, set()),
    "clip": (save_clip, IN_WORDS | IN_PATCHES | DENSE | HEADS, set()),
    "siglip": (
        save_siglip,
        IN_WORDS | IN_PATCHES | {"sizes/large/classified"},
        DENSE | HEADS | {"sizes/large/localized"},
    ),
    "timm": (lambda folder: save_timm_model(folder, **VIT), IN_PATCHES | HEADS | {"collapse/rank"}, IN_WORDS | DENSE),
    "resnet of 176 pixels": (
        lambda folder: save_timm_model(folder, "resnet10t"),
        {"collapse/rank"},
        IN_WORDS | IN_PATCHES | DENSE | HEADS,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_is_measured_as_far_as_it_goes(name: str, tmp_path: Path) -> None:
    make, there, absent = MODELS[name]
    make(tmp_path / "model")
    report = measured(tmp_path / "model")
    names = {one.name for one in report.measurements}
    assert there | {"knn/top1", "probe/top1"} <= names and not absent & names
    assert all(one.baseline is not None for one in report.measurements if one.name != "knn/pixels_top1")
    left_out = dict(report.left_out)
    assert "random weights" not in left_out
    if name == "siglip":
        assert "compared with words" in left_out["segmentation/zero_shot"]
        assert "compared with words" in left_out["grounding"] and "sizes/localized" in left_out
        assert "no CLS token" in left_out["attention"]
    if "resnet" in name:
        assert "do not divide into the network's 6x6 patches" in left_out["segmentation"]
        assert left_out["segmentation"] == left_out["tokens"] == left_out["attention"]


def test_a_network_that_cannot_be_built_untrained_has_no_baseline(tmp_path: Path) -> None:
    from rizbin.data.open import open_source
    from rizbin.evaluation import evaluate
    from rizbin.models.timm import TimmEncoder

    encoder = TimmEncoder(save_timm_model(tmp_path / "model", **VIT), name="mine")
    source = open_source(DATA, split="test", size=encoder.image_size)
    report = evaluate(encoder, source, settings=FEW)
    assert all(one.baseline is None for one in report.measurements) and report.measurements
    assert dict(report.left_out)["random weights"] == "mine cannot be built without its weights."


@pytest.mark.parametrize("make", [save_clip, save_siglip, MODELS["timm"][0]], ids=["clip", "siglip", "timm"])
def test_a_report_is_written(make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rizbin.reports.encoder.SEARCHED", 8)
    make(tmp_path / "model")
    monkeypatch.setattr("rizbin.workflows.report.measured", _few(measured_by))
    page = rizbin.report(tmp_path / "model", data=DATA, output=tmp_path / "page.html", quiet=True).read_text()
    if make is MODELS["timm"][0]:
        assert "Attention and nearest neighbors" in page and "head 2" in page
    else:
        assert "What it sees" in page and "Finding images by words" in page
        assert ("Each place in the color" in page) == (make is save_clip)


def _few(measure: Callable[..., Any]) -> Callable[..., Any]:
    def few(found: Any, data: str, settings: Any, quiet: bool, **more: Any) -> Any:
        return measure(found, data, FEW, quiet, **more)

    return few


def test_images_are_drawn_and_climbed(tmp_path: Path) -> None:
    save_open_clip_model(tmp_path / "clip")
    for drawing in ("attention", "pca", "neighbors", "words"):
        page = rizbin.visualize(drawing, tmp_path / "clip", "scenes:easy", limit=2, output=tmp_path / drawing)
        assert page.is_file()
    settings = Ascent(steps=2, copies=1, size=32)
    (made,) = rizbin.ascend("a fox", model=tmp_path / "clip", output=tmp_path / "made", settings=settings, quiet=True)
    assert made.file.is_file() and made.score == made.score
