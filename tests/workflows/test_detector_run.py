"""A detector from the command's settings to its report, on scenes and on COCO files with faults."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.detection import measure as detection
from rizbin.detection.detector import Detector
from rizbin.evaluation.suite import Evaluation
from rizbin.workflows import catalogue, evaluate, presets
from rizbin.workflows.checkpoints import images_at, steps_of
from rizbin.workflows.evaluate import settings_of
from rizbin.workflows.load import load_detector
from rizbin.workflows.runs import load_run
from tests.detection.toys import Shapes

SIZE = {"width": 32, "queries": 10, "feedforward": 64, "backbone_width": 16, "text_width": 32, "text_tokens": 64}
SMALL: dict[str, Any] = {"size": SIZE, "image_size": 64, "negatives": 4}


@dataclass(frozen=True, kw_only=True)
class Quick(detection.DetectionSettings):
    images: int = 4
    baseline: bool = False


QUICK = Quick()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of pictures where an evaluation would take hundreds."""
    monkeypatch.setattr(detection, "DetectionSettings", Quick)
    monkeypatch.setitem(evaluate._KINDS, "a detector", (Quick, evaluate._KINDS["a detector"][1]))
    monkeypatch.setattr("rizbin.reports.detector.SEARCHED", 4)


def test_from_settings_to_report_and_back(tmp_path: Path) -> None:
    settings = {**SMALL, "held_out": ["zebra"]}
    run = Path(
        rizbin.train(
            "detector", data="scenes:several", run=tmp_path / "run", steps=2, batch=4, settings=settings, quiet=True
        )
    )
    kept = json.loads((run / "settings.json").read_text())["settings"]
    assert len(kept["names"]) == 31 and "zebra" not in kept["names"], "names came from the data"
    loaded = load_run(run)
    assert loaded.detector is not None and loaded.step == 2
    with pytest.raises(RizbinError, match="is a detector"):
        _ = loaded.encoder
    page = rizbin.report(run, quiet=True).read_text()
    for words in (
        "A detector on scenes:several",
        "What it finds",
        "Where it fails",
        "How it learned",
        "AP50",
        "OpenMoji",
    ):
        assert words in page, words
    assert "What was learned" not in page, "it began with nothing"
    again = load_detector(run)
    shipped = Detector.from_pretrained(run / "model")
    assert steps_of(run) == [0, 2]
    seen = images_at(run, 2, limit=2)
    assert [image.caption for image in seen.images[1]] == ["Image", "Found", "Truth"]
    picture = np.zeros((64, 64, 3), np.uint8)
    one, other = (found.detect([picture], ["zebra"])[0] for found in (again, shipped))
    assert np.allclose(one.scores, other.scores, atol=1e-5)
    # A finished run is left as it is; the same settings find it again.
    assert (
        rizbin.train("detector", data="scenes:several", run=run, steps=2, batch=4, settings=settings, quiet=True).folder
        == run
    )


def test_going_on_from_a_trained_one_tells_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "start": "detector-mini", "held_out": ["zebra", "bus"], "image_size": 96, "freeze": ["text"]}
    run = Path(
        rizbin.train(
            "detector", data="scenes:several", run=tmp_path / "run", steps=1, batch=4, settings=settings, quiet=True
        )
    )
    page = rizbin.report(run, quiet=True).read_text()
    assert "What was learned, and what was forgotten" in page and "30 taught" in page and "2 held out" in page


def test_the_command_takes_its_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "detector", "--help-all"]) == 0
    told = capsys.readouterr().out
    for flag in ("--images", "--method.start", "--method.freeze", "--method.negatives", "--method.held-out"):
        assert flag in told, flag
    assert "detector" in catalogue.names() and presets.names("detector") == ("small", "finetune")
    with pytest.raises(RizbinError, match="choose one of small, finetune"):
        presets.preset("detector", "nano")
    with pytest.raises(RizbinError, match="choose one of aclip"):
        catalogue.find("detectr")
    assert cli.main(["evaluate", "detector-mini", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--presence" in told and "--probe-steps" not in told


def coco(folder: Path, count: int = 6) -> Path:
    """Shapes as a COCO file with the faults that are common: gaps in ids, dangling ones, boxes outside, of no area."""
    (folder / "photos").mkdir()
    names = list(Shapes.categories)
    ids = {name: 3 + 7 * place for place, name in enumerate(names)}
    images, annotations = [], []
    for number in range(count):
        sample = Shapes(size=64)[number]
        Image.fromarray(sample.image).save(folder / "photos" / f"{number}.png")
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": 64, "height": 64})
        for thing in sample.objects:
            left, top, right, bottom = thing.box
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": 100 + number, "category_id": ids[thing.name], "bbox": box})
    (folder / "photos" / "broken.png").write_bytes(b"no picture")
    images.append({"id": 999, "file_name": "broken.png", "width": 64, "height": 64})
    first = {"image_id": 100, "category_id": ids[names[0]]}
    annotations += [
        {"image_id": 12345, "category_id": ids[names[0]], "bbox": [0, 0, 9, 9]},
        {"image_id": 100, "category_id": 1, "bbox": [0, 0, 9, 9]},
        {**first, "bbox": [500, 500, 20, 20]},
        {**first, "bbox": [10, 10, 0, 5]},
        {**first, "bbox": [-20, -20, 5, 5]},
    ]
    path = folder / "instances.json"
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    for number, one in enumerate(annotations):
        one["id"] = number
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_a_coco_file_with_faults_teaches_and_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"{coco(tmp_path, 60)}@{tmp_path / 'photos'}"
    run = Path(rizbin.train("detector", data=data, run=tmp_path / "run", steps=2, batch=4, settings=SMALL, quiet=True))
    told = " ".join(capsys.readouterr().err.split())
    assert "1 annotation is left out, for image_id 12345 " in told and "for category_id 1 is not" in told
    kept = json.loads((run / "settings.json").read_text())["settings"]
    assert tuple(kept["names"]) == Shapes.categories
    found = rizbin.evaluate(run, data=data, split="all", quiet=True)
    assert "image_id 12345" in " ".join(capsys.readouterr().err.split())
    assert found.images > 0 and "boxes/ap50" in found


def test_settings_for_the_other_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="not for a detector"):
        rizbin.evaluate("detector-mini", settings=Evaluation.Settings(), quiet=True)
    with pytest.raises(RizbinError, match="not for an encoder"):
        rizbin.evaluate("dino-mini", settings=QUICK, quiet=True)
    rizbin.export("detector-mini", tmp_path / "exported")
    assert isinstance(settings_of(tmp_path / "exported"), type(QUICK))
    assert isinstance(settings_of("dino-mini"), Evaluation.Settings)
