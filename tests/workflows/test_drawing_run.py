"""A diffusion model from the command's settings to pictures, a report and repaired drawings."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_image
from rizbin.data.open import open_source
from rizbin.evaluation.suite import Evaluation
from rizbin.generation.diffusion.repair import ObjectPresence, RepairStrategy
from rizbin.generation.diffusion.text_to_image import GeneratedImage, Sampling, TextToImage
from rizbin.generation.film import Pixels
from rizbin.pages.page import Page
from rizbin.workflows import catalogue, evaluate_model, presets, tour  # noqa: F401 (imported before its settings are replaced)
from rizbin.workflows import evaluate_diffusion as drawn
from rizbin.workflows.checkpoints import images_at, steps_of
from rizbin.workflows.load import load_encoder
from tests.generation.diffusion.small_painters import SMALL

FEW = drawn.DiffusionSettings(seeds=2, pairs=3, scenes=12, steps=2)


class Blank(TextToImage):
    """Draws nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked = ""

    def paint(self, prompt: str, sampling: Sampling | None = None, **others: object) -> GeneratedImage:
        self.asked = prompt
        return GeneratedImage(np.zeros((32, 32, 3), np.uint8), [], [], 0.0)

    def encode(self, image: Pixels, height: int, width: int) -> torch.Tensor:
        return torch.tensor(image)

    def decode(self, latents: torch.Tensor) -> Pixels:
        return latents.numpy()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = presets.preset("diffusion")
    data = "scenes:drawn,categories=4"
    settings = replace(SMALL, autoencoder_share=0.5)
    where = tmp_path_factory.mktemp("diffusion") / "run"
    training = replace(training, steps=4, batch=4, data=data, settings=settings)
    return rizbin.train(training, run=where, quiet=True).folder


def test_it_stands_among_what_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "diffusion" in catalogue.names() and presets.names("diffusion") == ("small",)
    assert cli.main(["train", "diffusion", "--help"]) == 0
    assert "autoencoder-share" in capsys.readouterr().out
    with pytest.raises(RizbinError, match="no preset 'nano'"):
        presets.preset("diffusion", "nano")


def test_its_drawings_are_seen_over_its_checkpoints(run: Path) -> None:
    assert steps_of(run) == [0, 4]
    first, last = (images_at(run, step, limit=1).images[0] for step in (0, 4))
    assert [image.caption for image in last] == ["Image", "Drawn"]
    assert np.array_equal(first[0].image, last[0].image) and not np.array_equal(first[1].image, last[1].image)


def test_a_run_draws_and_its_folder_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["a zebra", "--steps", "2", "--quiet"]
    assert cli.main(["generate", *common, "--model", str(run), "--output", str(tmp_path / "a"), "--film"]) == 0
    assert "0000.png: a zebra (seed 0" in capsys.readouterr().out
    assert cli.main(["generate", *common, "--model", str(run / "model"), "--output", str(tmp_path / "b")]) == 0
    first, second = (read_image(tmp_path / name / "0000.png") for name in "ab")
    assert first.shape == (32, 32, 3) and np.abs(first.astype(int) - second.astype(int)).max() <= 1
    page = (tmp_path / "a" / "film.html").read_text(encoding="utf-8")
    assert "Where &quot;zebra&quot; is read" in page or 'Where "zebra" is read' in page


def test_a_picture_is_redrawn_with_its_grid(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start.png"
    assert (
        cli.main(["generate", "a frog", "--steps", "1", "--model", str(run), "--output", str(tmp_path), "--quiet"]) == 0
    )
    (tmp_path / "0000.png").rename(start)
    words = ["edit", str(start), "a taxi", "--model", str(run), "--output", str(tmp_path / "new"), "--steps", "5"]
    assert cli.main([*words, "--grid", "--quiet"]) == 0
    assert (tmp_path / "new" / "grid.png").is_file()
    told = json.loads((tmp_path / "new" / "drawn.json").read_text())
    assert told[0]["steps_made"] == 3 and told[0]["strength"] == 0.6
    (tmp_path / "no.png").write_text("no picture")
    assert cli.main(["edit", str(tmp_path / "no.png"), "a taxi", "--model", str(run)]) == 2
    assert "no.png" in capsys.readouterr().err


def test_repair_looks_with_the_zoo_s_detector(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained model draws nothing that can be found: all rungs are climbed, and the exit code says so."""
    words = [
        "repair",
        "a zebra and a frog",
        "--model",
        str(run),
        "--output",
        str(tmp_path),
        "--steps",
        "2",
        "--quiet",
    ]
    assert cli.main([*words, "--verify"]) == 1
    assert "zebra 0." in capsys.readouterr().out
    made = rizbin.repair(
        "a zebra and a frog",
        model=run,
        output=tmp_path,
        steps=2,
        strategy=RepairStrategy(seeds=1, places=1),
        among=["taxi", "pizza"],
        quiet=True,
    )
    told = json.loads((tmp_path / "repaired.json").read_text())
    assert [one["how"] for one in told[0]["tried"]] == ["draw", "attention", "place", "reseed"]
    assert sum(one["kept"] for one in told[0]["tried"]) == 1 and not told[0]["whole"]
    assert (tmp_path / "0000-tried.png").is_file() and made[0].objects == ("zebra", "frog")


def test_the_report_is_a_page_of_numbers_and_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "DiffusionSettings", lambda: FEW)
    page = rizbin.report(run, output=tmp_path / "page.html").read_text(encoding="utf-8")
    for part in ("with that object", "Drawn from captions", "Step by step", "What the autoencoder keeps"):
        assert part in page


def test_a_model_that_draws_is_measured_by_what_a_detector_finds(run: Path) -> None:
    """An untrained one draws nothing; its judge finds the things of true scenes all the same."""
    numbers = rizbin.evaluate(run, settings=FEW, quiet=True)
    assert numbers.images == 2 * 4 + 3
    assert numbers["drawing/single"].value <= 25 and numbers["judge/true_things"].value > 75
    assert numbers["autoencoder/error"].value > 5
    again = rizbin.evaluate(run / "model", data="scenes:drawn,categories=4", settings=FEW, quiet=True)
    assert again["judge/true_things"] == numbers["judge/true_things"]
    with pytest.raises(RizbinError, match="not for a text-to-image model"):
        rizbin.evaluate(run, settings=Evaluation.Settings(), quiet=True)
    with pytest.raises(RizbinError, match="two names"):
        rizbin.evaluate(run, data="scenes:drawn,categories=1", settings=FEW, quiet=True)


def test_the_command_knows_how_it_is_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(run), "--seeds", "1", "--pairs", "1", "--scenes", "2", "--steps", "1"]
    assert cli.main(words) == 0
    assert "drawing/pairs_whole" in capsys.readouterr().out


def test_it_is_exported_as_diffusers_has_it(run: Path, tmp_path: Path) -> None:
    whole, half = (rizbin.export(run, tmp_path / name, half=name == "half") for name in ("whole", "half"))
    sizes = [(folder / "unet/diffusion_pytorch_model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    rizbin.generate("a zebra", model=half, output=tmp_path, steps=1, quiet=True)
    with pytest.raises(RizbinError, match="export it to diffusers"):
        rizbin.export(run, tmp_path / "other", format="timm")


def test_a_picture_of_all_that_was_asked_for_is_whole() -> None:
    """A judge that knows: with every second thing of the prompt there, half of the things and no pair are found."""
    painter, source = Blank(), open_source("scenes:drawn,categories=4", split="test", size=32)

    class Knows:
        """Says that the first thing of the last prompt is there."""

        def __call__(self, image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
            return [ObjectPresence(float(painter.asked.split()[1] == one)) for one in phrases]

    numbers = drawn.measure(painter, source, Knows(), settings=replace(FEW, scenes=1))
    assert numbers["drawing/single"].value == 100 and numbers["drawing/single"].chance == 0
    assert numbers["drawing/pairs_things"].value == 50 and numbers["drawing/pairs_whole"].value == 0


def test_the_demo_shows_the_rooms(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model lacks a thing at once, so that all of the ladder is shown; without models there is a note."""
    monkeypatch.setattr(tour, "DRAWS", str(run))
    page = Page("rooms")
    tour.tour(page)
    text = page.html()
    for part in (
        "Text-to-image",
        "Repair",
        "came out without",
        "drawn into a free place",
        "Detection",
        "16 names were searched for",
        "Gradient ascent",
    ):
        assert part in text
    monkeypatch.setattr(tour, "DRAWS", str(tmp_path / "nothing"))
    without = Page("rooms")
    tour.tour(without)
    assert "Not shown" in without.html()


def test_what_draws_is_no_encoder(run: Path) -> None:
    with pytest.raises(RizbinError, match="is a text-to-image model; this is done with image encoders"):
        load_encoder(run)
    with pytest.raises(RizbinError, match="is a text-to-image model; this is done with image encoders"):
        load_encoder(run / "model")
    with pytest.raises(RizbinError, match="did you mean diffusion-mini"):
        rizbin.generate("a zebra", model="difusion-mini", quiet=True)
