"""A few photographs of one's own: how many are used, how large they are, and what may be said of so few."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.data.open import open_source
from rizbin.evaluation.suite import Evaluation, TooFew
from rizbin.training.trainer import Trainer
from rizbin.workflows.diagnostics import LEAST_IMAGES, CollapseDiagnostics
from rizbin.workflows.presets import Training, preset
from rizbin.workflows.runs import LoadedRun, load_run, train
from tests.toys import build, tiny

FEW = Evaluation.Settings(probe_steps=3, baseline=False, dense_images=0)


def photographs(folder: Path, count: int, *, bad: int = 0, size: tuple[int, int] = (48, 40)) -> str:
    """Photographs of noise with captions; the first `bad` have none."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        if number >= bad:
            (folder / f"{number:03d}.txt").write_text(f"a {('cat', 'dog')[number % 2]} in place {number}")
    return str(folder)


def short(method: str, data: str, **changes: Any) -> Training[Any]:
    given: dict[str, Any] = {"settings": tiny(method), "data": data, "batch": 4, "steps": 2, "checkpoint_every": 2}
    return replace(preset(method, "small"), **given | changes)


def said(work: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    work()
    return out.getvalue()


def test_so_few_are_counted_and_refused_and_where_more_are_is_said(tmp_path: Path) -> None:
    data = photographs(tmp_path / "mine", 12)
    run = train(short("clip", data), tmp_path / "run", quiet=True)
    with pytest.raises(TooFew, match=r"^mine, test has 1 image to measure on, .*In all there are 12: .*--split all"):
        rizbin.evaluate(run, settings=FEW, quiet=True)
    found = rizbin.evaluate(run, split="all", settings=FEW, quiet=True)
    assert found.images == 12 and "retrieval/image_to_text/r1" in found
    assert ("knn", "The source does not name two or more categories.") in found.left_out
    assert "On 12 images of mine, all. A share of so few has a standard error of up to 14 points." in found.table()
    others = photographs(tmp_path / "others", 11)
    found = rizbin.evaluate(run, validation_data=others, settings=FEW, quiet=True)
    assert found.images == 11 and found.source == "others, all"
    with pytest.raises(RizbinError, match="measured whole"):
        rizbin.evaluate(run, split="all", validation_data=others, settings=FEW, quiet=True)
    told: list[Any] = []
    page = rizbin.report(run, quiet=True, on_numbers=told.append).read_text()
    assert "Nothing was measured. mine, test has 1 image" in page and told[0].measurements == ()
    bad = photographs(tmp_path / "bad", 16, bad=2)
    found = rizbin.evaluate(run, validation_data=bad, settings=FEW, quiet=True)
    assert "2 images could not be used; the first reason: " in found.table()
    assert "2 images that could not be used, and why" in rizbin.report(run, validation_data=bad, quiet=True).read_text()


def test_what_is_measured_on_itself_asks_no_neighbors(tmp_path: Path) -> None:
    """With --split all every image would be its own nearest neighbor."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    for kind in ("cat", "dog"):
        photographs(folder / kind, 12, bad=12)
    run = train(short("clip", str(folder)), tmp_path / "run", quiet=True)
    found = rizbin.evaluate(run, split="all", settings=FEW, quiet=True)
    reason = "There are no training images beside those measured on."
    assert ("knn", reason) in found.left_out and ("probe", reason) in found.left_out


def test_validation_data_leave_all_of_the_others_to_train_on(tmp_path: Path) -> None:
    data, others = photographs(tmp_path / "mine", 30), photographs(tmp_path / "others", 12)
    run = train(short("clip", data, steps=8), tmp_path / "run", validation_data=others, quiet=True)
    kept = json.loads((run / "settings.json").read_text())
    assert kept["validation_data"] == others
    assert kept["data_fingerprint"] == open_source(data, split="all", size=32).fingerprint
    opened = load_run(run)
    assert isinstance(opened, LoadedRun) and opened.validation_data == others
    found = rizbin.evaluate(run, settings=FEW, quiet=True)
    assert found.source == "others, all" and found.images == 12
    with pytest.raises(RizbinError, match="validation_data"):
        train(short("clip", data, steps=8), tmp_path / "run", quiet=True)
    with pytest.raises(RizbinError, match="neither a file nor a folder"):
        train(short("clip", data), tmp_path / "new", validation_data=str(tmp_path / "nowhere"), quiet=True)
    assert not (tmp_path / "new").exists()


def test_a_short_run_without_captions_goes_on_without_the_collapse_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photographs(tmp_path / "mine", 12)
    told = said(lambda: train(short("simclr", data), tmp_path / "run", quiet=True), monkeypatch)
    assert "There is 1 image to look at while it trains, fewer than 20, and so has the training part" in told
    run = RunFolder(tmp_path / "run")
    assert run.is_finished and not [line for line in run.metrics.read() if "feature_std" in line]


def test_collapse_is_looked_for_on_training_images_where_the_test_part_is_small(tmp_path: Path) -> None:
    """A rank is never above the number of images, so that three healthy ones would raise the alarm."""
    data = photographs(tmp_path / "mine", 40)
    train_part, test_part = (open_source(data, split=part, size=32) for part in ("train", "test"))
    assert len(test_part) < LEAST_IMAGES
    watching = CollapseDiagnostics(build("simclr"), train_part, test_part)
    assert "collapse is looked for on training images" in watching.unseen
    numbers = watching(1, build("simclr"), {}).numbers
    assert "feature_std" in numbers and "knn" not in numbers
    assert len(watching.queries) == len(train_part)


def test_unusable_files_are_counted_listed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten with four bad ones are trained on; none usable is said of the files, not of the draws."""
    data = photographs(tmp_path / "mine", 10, bad=4)
    told = said(lambda: train(short("clip", data, steps=6), tmp_path / "run", quiet=True), monkeypatch)
    refused = RunFolder(tmp_path / "run").read_refused()
    assert 3 <= len(refused) <= 4 and all("has no caption" in reason for _, reason in refused)
    assert "An image was skipped: " in told and f"{len(refused)} of the " in told and "refused.jsonl lists them" in told
    bare = photographs(tmp_path / "bare", 12, bad=12)
    with pytest.raises(RizbinError, match=r"^None of the \d+ images of bare, train can be used, .*has no caption"):
        train(short("clip", bare), tmp_path / "none", quiet=True)
    worse = photographs(tmp_path / "worse", 60, bad=40)
    with pytest.raises(RizbinError, match=r"2\d of the \d+ images of worse.*--tolerate 0\.\d trains on the others"):
        train(short("clip", worse, steps=20), tmp_path / "stops", quiet=True)
    train(short("clip", worse, steps=20), tmp_path / "tolerated", tolerate=0.8, quiet=True)


def test_the_size_is_said_where_detail_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = photographs(tmp_path / "large", 4, size=(160, 120))
    told = said(lambda: train(short("clip", large), tmp_path / "a", quiet=True), monkeypatch)
    assert (
        "The images have about 160x120 pixels and are trained at 32x32, without their detail; --preset vits16" in told
    )
    small = photographs(tmp_path / "small", 4)
    assert "pixels" not in said(lambda: train(short("clip", small), tmp_path / "b", quiet=True), monkeypatch)
    scenes = short("clip", "scenes:easy,categories=8")
    assert "pixels" not in said(lambda: train(scenes, tmp_path / "c", quiet=True), monkeypatch)


def test_epochs_are_steps(tmp_path: Path) -> None:
    data = photographs(tmp_path / "mine", 12)
    run = train(short("clip", data), tmp_path / "run", epochs=1.5, quiet=True)
    length = len(open_source(data, split="train", size=32))
    assert json.loads((run / "settings.json").read_text())["steps"] == -(-3 * length // 8) == 5
    with pytest.raises(RizbinError, match="epochs is -1"):
        train(short("clip", data), tmp_path / "new", epochs=-1.0, quiet=True)


def test_the_time_left_is_asked_of_places_over_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, list[tuple[float, float]]]] = []
    monkeypatch.setattr("rizbin.workflows.runs.FORETOLD_FROM", 2)

    class Noted(Bar):
        def __init__(self, total: int, label: str, **more: Any) -> None:
            super().__init__(total, label, **more)
            asked.append((total, list(self.costs)))

    monkeypatch.setattr("rizbin.training.trainer.Bar", Noted)
    monkeypatch.setattr(Trainer, "place_costs", lambda *_, **__: [1.0, 3.0])
    train(short("clip", "scenes:easy,categories=8", steps=4), tmp_path / "run")
    assert asked == [(4, [(2.0, 1.0), (2.0, 3.0)])]


@pytest.mark.parametrize(
    ("kind", "words"), [("tpu", "no device 'tpu'"), ("cuda:x", "no device"), ("cuda:7", "cuda:7 was")]
)
def test_a_device_that_is_not_there_is_said(kind: str, words: str, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available() and kind == "cuda:7":
        pytest.skip("this machine has GPUs")
    with pytest.raises(RizbinError, match=words):
        train(short("clip", "scenes:easy,categories=8"), tmp_path / "run", device=kind, quiet=True)


def test_one_image_a_step_is_enough_for_a_detector(tmp_path: Path) -> None:
    """Only methods that compare images with each other need two."""
    from rizbin.cli import main

    folder = tmp_path / "boxes"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    images, boxes = [], []
    for number in range(4):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        boxes.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [8, 8, 32, 32]})
    table = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    (folder / "t.json").write_text(json.dumps(table))
    words = f"train detector --data {folder}/t.json --steps 1 --batch 1 --run {tmp_path}/run --no-report --quiet"
    assert main(words.split()) == 0
    with pytest.raises(RizbinError, match="clip compares the images of a batch with each other, so it needs 2 or more"):
        train(short("clip", "scenes:easy", batch=1), tmp_path / "other", quiet=True)
