"""The script that makes a table of Debian's openclipart-png, on three made pictures and what it must refuse."""

import csv
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "openclipart.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("openclipart", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Three pictures on transparent ground; and what is none, shows nothing, is twice there, linked or has no name."""
    root = tmp_path / "png"

    def draw(place: str, color: tuple[int, int, int], alpha: int = 255) -> Path:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.zeros((100, 200, 4), np.uint8)
        picture[25:75, 50:150] = (*color, alpha)  # OpenCV's order: blue, green, red
        cv2.imwrite(str(path), picture)
        return path

    draw("transportation/red_car_gerald_g._01.png", (0, 0, 255))
    hat = draw("people/clothing/hats/purple_hat_nicu_buculei_01.png", (128, 0, 128))
    draw("animals/birds/blue_duck2.png", (255, 0, 0))
    draw("animals/birds/white_on_nothing.png", (255, 255, 255), 0)
    draw("tools/01.png", (9, 9, 9))
    draw("unsorted/hammer.png", (8, 8, 8))
    shutil.copy(hat, root / "people" / "violet_hat.png")
    (root / "tools" / "saw.png").write_bytes(b"no picture")
    (root / "tools" / "linked.png").symlink_to(hat)
    return root


def test_titles_lose_numbers_letters_and_artists(script: ModuleType) -> None:
    names = [
        "purple_hat_nicu_buculei_01.png",
        "star_64pt23step.png",
        "ace-of.Spades_h_2.png",
        "duck1_archit.png",
        "ganson_house.png",
    ]
    assert [script.title_of(name) for name in names] == ["purple hat", "star", "ace of spades", "duck", "ganson house"]
    assert script.title_of("01.png") == script.title_of("_.png") == ""


def test_three_pictures_become_a_table_that_opens(script: ModuleType, package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written, reasons = script.convert(package, out, side=64)
    assert written == 3 and sum(reasons.values()) == 4
    with (out / "captions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file_name", "caption", "label"]
    assert {row["label"]: row["caption"] for row in rows} == {
        "transportation": "a drawing of red car, transportation",
        "people": "a drawing of purple hat, hats, clothing, people",
        "animals": "a drawing of blue duck, birds, animals",
    }
    with (out / "refused.csv").open(encoding="utf-8") as file:
        refused = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    assert set(refused) == {
        "animals/birds/white_on_nothing.png",
        "people/violet_hat.png",
        "tools/01.png",
        "tools/saw.png",
    }
    assert str(package) not in "".join(refused.values())
    samples = [
        source[i]
        for split in ("train", "test")
        for source in [open_source(str(out), split=split)]
        for i in range(len(source))
    ]
    assert sorted(sample.label for sample in samples) == ["animals", "people", "transportation"]
    car = next(sample.image for sample in samples if sample.label == "transportation")
    assert car.shape == (64, 64, 3), "the longer side is shrunk, the picture stands in a square"
    assert (car[0] == 255).all() and (car[32, 0] == 255).all(), "on white"
    assert tuple(car[32, 32]) == (255, 0, 0), "red is still red"


def test_the_choice_is_stable_and_capped(script: ModuleType, package: Path) -> None:
    chosen: Callable[..., list[Path]] = script.chosen
    everything = chosen(package, 100, 100)
    assert len(everything) == 7 and chosen(package, 100, 100) == everything
    assert len({place.parent for place in chosen(package, 1, 100)}) == len(chosen(package, 1, 100)) == 5
    assert set(chosen(package, 100, 3)) < set(everything)


def test_what_cannot_be_converted_is_said(script: ModuleType, package: Path, tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="holds no PNGs"):
        script.convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(RizbinError, match="not empty"):
        script.convert(package, package)
