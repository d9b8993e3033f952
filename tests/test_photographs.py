"""The script that trains on Debian's photographed stamps, on made ones: what is used and what is not, one short run."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.data.sample import Refused

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "photographs.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("photographs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "photographs", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """Four photographs under three names, and what is drawn, mirrored, a copy, opaque, tiny or broken."""
    root = tmp_path / "stamps"
    random = np.random.default_rng(0)

    def noise(color: tuple[int, int, int], side: int = 64) -> np.ndarray:
        image = np.zeros((side, side, 4), np.uint8)
        image[8:-8, 8:-8, :3] = np.clip(np.array(color) + random.integers(-40, 40, (side - 16, side - 16, 1)), 0, 255)
        image[8:-8, 8:-8, 3] = 255
        return image

    def put(place: str, image: np.ndarray, text: str = "") -> None:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
        if text:
            path.with_suffix(".txt").write_text(f"{text}\nfr.utf8=Autre chose.\n", "utf-8")

    frog = noise((60, 180, 60))
    put("animals/frog.png", frog, "A frog.")
    put("animals/frog-1.png", noise((40, 160, 40)), "A frog.")
    put("animals/peahen.png", noise((220, 220, 220)), "An albino peahen (a female peafowl, or peacock).")
    put("food/broccoli2.png", noise((30, 90, 30)), "Eat your broccoli, it keeps you well!")
    put("animals/frog_mirror.png", noise((9, 9, 9)), "A frog.")
    put("animals/turned.png", frog[:, ::-1], "A turned frog.")
    put("animals/cartoon/cat.png", noise((90, 90, 200)), "A cat.")
    put("symbols/a.png", noise((0, 0, 0)), "A")
    flat = noise((0, 0, 0))
    flat[..., :3] = (200, 30, 30)
    put("clothes/sock.png", flat, "A sock.")
    put("sports/opaque.png", np.concatenate([frog[..., :3], np.full((64, 64, 1), 255, np.uint8)], axis=2), "A ball.")
    put("sports/tiny.png", noise((50, 50, 50), 24), "A ball.")
    (root / "sports" / "broken.png").write_bytes(b"no image")
    return root


def test_names_come_from_the_first_line_or_the_file(script: ModuleType, stamps: Path) -> None:
    names = {path.stem: script.name_of(path) for path in sorted(stamps.rglob("*.png")) if "symbols" not in path.parts}
    with pytest.raises(Refused, match="no words"):
        script.name_of(stamps / "symbols" / "a.png")
    assert names["frog"] == names["frog-1"] == "frog"
    assert names["peahen"] == "albino peahen", "what stands in brackets is left out"
    assert names["broccoli2"] == "broccoli", "a sentence is no name, the file's name is"


def test_photographs_become_cutouts_that_open(script: ModuleType, stamps: Path, tmp_path: Path) -> None:
    prepared = script.prepare(stamps, tmp_path / "cutouts")
    assert prepared.names == ("albino peahen", "broccoli", "frog") and prepared.used == 4
    with (tmp_path / "cutouts" / "refused.csv").open(encoding="utf-8") as file:
        reasons = {row["stamp"]: row["reason"] for row in csv.DictReader(file)}
    assert len(reasons) == sum(prepared.refused.values()) == 8, reasons
    assert "mirrored" in reasons["animals/frog_mirror.png"] and "copy" in reasons["animals/turned.png"]
    assert "drawings" in reasons["animals/cartoon/cat.png"] and "drawings" in reasons["symbols/a.png"]
    assert "flat" in reasons["clothes/sock.png"] and "under" in reasons["sports/tiny.png"]
    assert "background" in reasons["sports/opaque.png"] and str(stamps) not in "".join(reasons.values())
    source = open_source(f"cutouts:{tmp_path / 'cutouts'}", split="test", size=64)
    assert source.categories == prepared.names and source[0].names <= set(prepared.names)
    assert script.prepare(stamps, tmp_path / "cutouts") == prepared, "what is there is taken as it is"
    fewer = script.prepare(stamps, tmp_path / "fewer", 1)
    assert fewer.names == ("frog",) and fewer.used == 2, "names with the most images first"


def test_what_holds_no_stamps_is_said(script: ModuleType, stamps: Path, tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="apt-get download"):
        script.prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(RizbinError, match="not empty"):
        script.prepare(stamps, stamps)


def test_both_methods_start_alike(script: ModuleType) -> None:
    clip, detail = (script.training_of(name, "scenes:easy", 64, 1, 8) for name in ("clip", "detailclip"))
    assert script.same_start(clip, detail)
    assert not script.same_start(clip, script.training_of("detailclip", "scenes:easy", 64, 2, 8))


def test_a_short_run_writes_table_numbers_and_sheet(
    script: ModuleType, stamps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["photographs", "--stamps", str(stamps), "--output", str(out), "--minutes", "0.01", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--batch", "8", "--images", "24"])
    assert script.main() == 0
    columns = json.loads((out / "results.json").read_text())
    assert set(columns) == set(script.COLUMNS) and all(len(runs) == 1 for runs in columns.values())
    assert columns["DetailCLIP"][0]["steps"] == columns["CLIP, equal steps"][0]["steps"]
    assert "zero_shot/top1" in columns["DetailCLIP"][0] and "retrieval/image_to_text/r1" in columns["DetailCLIP"][0]
    page = (out / "results.md").read_text()
    assert "4 photographs under 3 names" in page and "zero_shot/top1" in page
    image = cv2.imread(str(out / "sheet.png"))
    assert image is not None and image.shape[1] > 1000, "scene, CLIP, DetailCLIP and truth side by side"
    before = (out / "results.json").read_text()
    assert script.main() == 0 and (out / "results.json").read_text() == before, "finished runs are not made again"
