"""A wrong path, a missing image or word is said before a model is loaded, and so is where a page cannot go."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin import cli
from rizbin.core.measurement import Measurement, Report
from rizbin.evaluation.suite import TooFew
from rizbin.workflows.report import _no_numbers

WRONG = {
    "evaluate detailclip-mini --data nowhere": "'nowhere' is neither a file nor a folder",
    "evaluate detailclip-mini --validation-data nowhere.csv": "'nowhere.csv' is neither",
    "report detailclip-mini --data nowhere": "'nowhere' is neither",
    "report detailclip-mini --output file/page.html": "The folder file for the page cannot be made",
    "report detailclip-mini --output folder": "folder is a folder; name a file",
    "visualize attention dino-mini nowhere.png": "nowhere.png",
    "visualize attention dino-mini a.png --masks nowhere": "nowhere is neither",
    "detect nowhere --find cat --model detector-mini": "nowhere is neither a file nor a folder",
    "detect a.png --model detector-mini": "nothing to look for",
    "verify nowhere.png zebra --model detector-mini": "nowhere.png",
    "verify a.png --model detector-mini": "PHRASES is missing",
    "generate": "Say what to draw",
    "edit nowhere.png zebra": "nowhere.png",
    "ascend zebra --image nowhere.png": "nowhere.png",
    "export detailclip-mini --format nothing --output out": "--format: 'nothing' is not among its values",
    "export detailclip-mini --format open_clip --output folder": "folder is not empty",
    "study grounding --data nowhere": "'nowhere' is neither",
    "train clip --data nowhere --steps 1": "'nowhere' is neither",
    "train clip --steps 1 --epochs 1": "Both --steps and --epochs were given",
    "train clip --lr 1e-3 --trainer.learning-rate 1e-4": "are the same",
    "train clip --learning-rate -1": "give a positive number",
}


@pytest.fixture
def nothing_loads(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one picture, where loading any model fails the test."""
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(empty_folder / "a.png")
    (empty_folder / "folder").mkdir()
    (empty_folder / "folder" / "mine.txt").write_text("mine")
    (empty_folder / "file").write_text("")

    def fail(*_: Any, **__: Any) -> None:
        pytest.fail("a model was loaded first")

    places = "evaluate_model.open_model report.open_model export.open_model detect.load_detector verify.load_detector"
    for place in f"{places} generate.load_text_to_image ascend.load_encoder visualize.load_encoder".split():
        monkeypatch.setattr(f"rizbin.workflows.{place}", fail)
    monkeypatch.setattr("rizbin.workflows.runs.build", fail)
    return empty_folder


@pytest.mark.parametrize("command", WRONG)
def test_it_is_said_before_a_model_is_loaded(
    command: str, nothing_loads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command.split()) == 2
    assert WRONG[command] in capsys.readouterr().err
    assert sorted(path.name for path in nothing_loads.rglob("*")) == ["a.png", "file", "folder", "mine.txt"]


def test_a_report_makes_the_folder_of_its_page(nothing_loads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`report --output nodir/x` measured for minutes, then blamed space."""

    class Reached(Exception):
        pass

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr("rizbin.workflows.report.open_model", reached)
    with pytest.raises(Reached):
        rizbin.report("detailclip-mini", output="nodir/page.html")
    assert (nothing_loads / "nodir").is_dir()


def test_drawings_go_into_a_folder_of_their_own(empty_folder: Path) -> None:
    """Not into the folder in which one happens to stand."""
    page = rizbin.visualize("attention", "dino-mini", "scenes:single", limit=1)
    assert page == Path("runs/visualize/attention-dino-mini/index.html") and page.is_file()
    assert [path.name for path in empty_folder.iterdir()] == ["runs"]
    html = page.read_text()
    assert "IoU is that of these patches with the objects" in html and '<div class="sheets">' in html


def test_the_default_detector_that_is_not_here_is_named_with_what_to_do(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rizbin.core.errors import RizbinError
    from rizbin.detection.detector import DEFAULT, Detector

    def offline(*_: Any, **__: Any) -> None:
        raise RizbinError("no network")

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("a.png")
    monkeypatch.setattr(Detector, "from_pretrained", offline)
    assert cli.main(["verify", "a.png", "zebra"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and DEFAULT in said and "--model detector-mini" in said and "fetched once" in said


def test_the_end_of_a_training_tells_its_numbers(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rizbin.cli import training

    number = Measurement(name="zero_shot/top1", value=81.25, protocol="p", baseline=3.0)
    found = Report(measurements=(number,), left_out=(), images=1000, source="scenes:easy, test")

    def report(run: Path, **given: Any) -> Path:
        given["on_numbers"](found)
        return Path("r.html")

    monkeypatch.setattr("rizbin.workflows.report.report", report)
    assert training.finish(lambda: Path("r"), ["train"], report=True, quiet=True) == 0
    out = capsys.readouterr().out
    assert "On 1,000 images of scenes:easy, test.\nzero_shot/top1 81.2 (random 3.0)\n" in out
    few = TooFew("mine has 1 image to measure on; give more images.", 1, 10)
    training.tell(_no_numbers(few))
    assert capsys.readouterr().out == "No numbers: mine has 1 image to measure on; give more images.\n"


def test_flags_as_everyone_types_them(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run_options(training: Any, options: Any) -> Path:
        given.update(vars(options), training=training)
        return Path("r")

    Path("d").mkdir()
    monkeypatch.setattr("rizbin.workflows.train.run_options", run_options)
    words = [
        "--epochs",
        "3",
        "--learning-rate",
        "2e-4",
        "--device",
        "cpu",
        "--tolerate",
        ".5",
        "--validation-data",
        "d",
    ]
    assert cli.main(["train", "clip", *words, "--no-report"]) == 0
    assert given["training"].trainer.learning_rate == 2e-4
    assert (given["epochs"], given["device"], given["tolerate"], given["validation_data"]) == (3.0, "cpu", 0.5, "d")
    assert cli.main(["train", "clip", "--lr", "3e-4", "--no-report"]) == 0
    assert given["training"].trainer.learning_rate == 3e-4
