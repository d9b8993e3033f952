"""The command ascend and its function: files, what is gone on with, and bad input in one sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.generation.ascent import ascend as room
from rizbin.generation.ascent.settings import AscentSettings
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip, save_timm
from rizbin.nets.image import ImageEncoder
from rizbin.workflows import ascend as ascending
from rizbin.workflows.ascend import Ascend, settings_from, weighted
from tests.generation.ascent.toy_encoders import Broken
from tests.toys import ENCODER, NANO

FEW = ("--steps", "3", "--copies", "2", "--size", "32", "--quiet")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "pair"
    save_open_clip(ImageTextPair(NANO), folder)
    return str(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (32, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_command_draws_into_a_folder(pair: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["a zebra", "a frog", "--model", pair, "--count", "2", "--negative", "text=0.2", "--also", "oil painting"]
    assert cli.main(["ascend", *words, *FEW]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[0].startswith("ascended/0000.png: a zebra (seed 0, score ")
    out = empty_folder / "ascended"
    for number in range(4):
        assert np.asarray(Image.open(out / f"{number:04d}.png")).shape == (32, 32, 3)
        assert (out / f"{number:04d}-film.png").is_file() and (out / f"{number:04d}.gif").is_file()
    told = json.loads((out / "ascended.json").read_text())
    assert [(one["prompt"], one["seed"]) for one in told] == [
        ("a zebra", 0),
        ("a zebra", 1),
        ("a frog", 0),
        ("a frog", 1),
    ]
    assert told[0]["negative"] == ["text=0.2"] and told[0]["steps"] == 3 and told[0]["models"] == ["pair"]
    assert not list(out.glob("state-*")), "nothing is left of the way there"
    before = (out / "0001.png").read_bytes()
    assert cli.main(["ascend", *words, *FEW]) == 0 and (out / "0001.png").read_bytes() == before


def test_what_was_interrupted_goes_on(pair: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ascend", "a zebra", "--model", pair, *FEW]
    assert cli.main([*words, "--output", "whole"]) == 0
    monkeypatch.setattr(room._State, "EVERY", 0.0)
    asked = []

    def stops(frame: Any) -> None:
        asked.append(frame.step)
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ascending, "_is_tenth", stops)
    assert cli.main([*words, "--output", "part"]) == 130
    assert cli.main([*words, "--output", "part"]) == 0
    assert asked == [1, 2, 2, 3], "the first step was on disk"
    assert (empty_folder / "part/0000.png").read_bytes() == (empty_folder / "whole/0000.png").read_bytes()


def test_whoever_watches_sees_every_step_of_every_seed(pair: str, empty_folder: Path) -> None:
    seen = []
    made = rizbin.ascend(
        ["a zebra", "a frog"],
        model=pair,
        output="out",
        settings=AscentSettings(steps=3, copies=2),
        count=2,
        quiet=True,
        watch=lambda frame, number: seen.append((number, frame.step, frame.images)),
    )
    assert [(number, step) for number, step, _ in seen] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    for place, file in enumerate(ascended.file for ascended in made):
        number, prompt = place % 2, place // 2
        assert np.array_equal(np.asarray(Image.open(file)), seen[3 * number + 2][2][prompt])


def test_pictures_are_followed_and_changed_where_they_may(pair: str, picture: Path, tmp_path: Path) -> None:
    quick = AscentSettings(steps=3, copies=2)
    mask = np.zeros((32, 40), np.uint8)
    mask[:, 20:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (made,) = rizbin.ascend(
        "a zebra",
        model=pair,
        output=tmp_path / "out",
        settings=quick,
        start=picture,
        mask=tmp_path / "mask.png",
        quiet=True,
    )
    before, after = (np.asarray(Image.open(path)) for path in (picture, made.file))
    assert np.array_equal(before[:, :20], after[:, :20]) and not np.array_equal(before[:, 20:], after[:, 20:])
    several: list[dict[str, Any]] = [{"image": picture}, {"style": picture, "content": picture}]
    for followed in several:
        (made,) = rizbin.ascend(model=pair, output=tmp_path / "other", settings=quick, quiet=True, **followed)
        assert made.prompt == "" and np.isfinite(made.score)
    (small,) = rizbin.ascend(
        "a zebra",
        model=pair,
        output=tmp_path / "small",
        settings=AscentSettings(steps=1, size=16),
        start=picture,
        quiet=True,
    )
    assert np.asarray(Image.open(small.file)).shape == (16, 20, 3)


def test_bad_input_is_one_sentence(
    pair: str, picture: Path, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save("mask.png")
    torch.manual_seed(0)
    save_timm(ImageEncoder(ENCODER), empty_folder / "blind")
    two = ["--model", pair, "--model", "blind"]
    for words, said in (
        ([], "Say what to draw"),
        ([" "], "empty prompt says nothing"),
        (["a", "--negative", "b=1"], "weights sum to 0"),
        (["a", "--negative", "b=x"], "'x' in 'b=x' is not a weight"),
        (["a", "--mask", "mask.png"], "give the image too"),
        (["a", "--start", str(picture), "--mask", "mask.png"], "mask has 9x8 pixels and the image 40x32"),
        (["a", "--model", "blind"], "blind reads no words"),
        (["a", "--resolutions", "1,x"], "'1,x' names no resolutions"),
        (["a", "--resolutions", "1,99"], "A resolution of 99 does not fit"),
        (["a", "--parametrization", "latent"], "need an autoencoder"),
        (["a", "--style", str(picture), *two], "have no layer in common"),
        (["a", "--count", "0"], "0 images are none"),
        (["a", "--steps", "-1"], "steps is -1"),
        (["a", "--start", "nowhere.png"], "nowhere.png"),
        (["a", "--model", "nowhere"], "neither a folder nowhere"),
    ):
        model = [] if "--model" in words else ["--model", pair]
        steps = [] if "--steps" in words else ["--steps", "1"]
        assert cli.main(["ascend", *words, *model, *steps, "--size", "32", "--quiet"]) == 2, words
        spoken = capsys.readouterr().err
        assert said in spoken and spoken.count("\n") == 1, spoken


def test_what_is_no_number_keeps_the_last_good_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascending, "load_encoder", lambda name, device: Broken())
    settings = AscentSettings(steps=5, copies=2, chunk=1, size=16)
    with pytest.raises(RizbinError, match="step 1 is kept"):
        rizbin.ascend("a zebra", output=tmp_path, settings=settings, quiet=True)
    assert np.asarray(Image.open(tmp_path / "0000.png")).shape == (16, 16, 3)


def test_flags_change_a_preset() -> None:
    asked = Ascend("x", preset="paper", copies=3, resolutions="1,2", change=0.5, seed=4, chunk=8)
    made = settings_from(asked)
    assert (made.steps, made.copies, made.resolutions, made.seed) == (100, 3, (1, 2), 4)
    assert (made.optimizer, made.learning_rate, made.change, made.chunk) == ("sgd", 0.2, 0.5, 8)
    # Resolutions are of images made of them, whatever the preset is made of.
    adversarial = replace(asked, preset="adversarial")
    assert settings_from(adversarial).parametrization == "resolutions"
    assert settings_from(replace(adversarial, resolutions=None)).parametrization == "pixels"
    assert (made.smooth, settings_from(replace(asked, smooth=2.0)).smooth) == (0.0, 2.0)
    assert settings_from(replace(asked, smooth=0.0, preset="default")).smooth == 0
    assert made.augment.noise == 0.2 and settings_from(replace(asked, noise=0.0)).augment.noise == 0
    with pytest.raises(RizbinError, match="noise is nan"):
        settings_from(replace(asked, noise=float("nan")))
    assert weighted(["a = b=0.5", "c"], 0.3) == [("a = b", 0.5), ("c", 0.3)]
