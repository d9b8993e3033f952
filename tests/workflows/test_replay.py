"""Records hold all that makes a picture again: replayed, every pixel is the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_image
from rizbin.detection.detector import Detector, Preparation
from rizbin.generation.diffusion.repair import RepairStrategy
from rizbin.workflows.replay import replay
from tests.detection.toys import tiny, tokenizer
from tests.generation.diffusion.small_painters import painter

QUICK: dict[str, Any] = {"steps": 2, "guidance_scale": 2.0, "scheduler": "ddpm", "seed": 3}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that draws 32 pixels, and a detector that knows a cat and a dog."""
    folder = tmp_path_factory.mktemp("models")
    painter().pipeline.save_pretrained(folder / "draws")
    Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128)).save(folder / "looks")
    return folder


def test_pictures_come_out_the_same_to_the_bit(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain, cured with objects named and another scale, away from words, of another size, and from an image."""
    model = models / "draws"
    plain = rizbin.generate(["a zebra", "a frog"], model=model, output=tmp_path / "a", **QUICK, count=2, quiet=True)
    cured: dict[str, Any] = {"steps": 2, "negative": "a dog", "height": 32, "width": 40, "seed": 2**64 - 1}
    cured |= {"guidance": "attend-and-excite", "update_scale": 40.0, "object": ("frog",), "film": True}
    rizbin.generate("a zebra and a frog", model=model, output=tmp_path / "b", quiet=True, **cured)
    late: dict[str, Any] = {"steps": 4, "strength": 0.5, "scheduler": "pndm"}
    rizbin.edit(plain[0].file, "a fox", model=model, output=tmp_path / "c", quiet=True, **late)
    for name in "abc":
        assert cli.main(["replay", str(tmp_path / name), "--output", str(tmp_path / "again")]) == 0
        told = json.loads((tmp_path / name / "drawn.json").read_text())
        assert capsys.readouterr().out.count("the same to the bit") == len(told)
        for one in told:
            drawn, again = (read_image(tmp_path / place / one["file"]) for place in (name, "again"))
            np.testing.assert_array_equal(drawn, again)
            assert one["size"] == [drawn.shape[1], drawn.shape[0]]
    told = json.loads((tmp_path / "b/drawn.json").read_text())[0]
    assert (told["guidance"], told["update_scale"], told["objects"]) == ("attend-and-excite", 40.0, ["frog"])
    assert told["versions"]["torch"] and told["model"] == str(model)
    page = (tmp_path / "b/film.html").read_text(encoding="utf-8")
    assert "attend-and-excite" in page and "update_scale 40.0" in page and "40x32 pixels" in page


def test_repaired_pictures_too_and_they_are_filmed(models: Path, tmp_path: Path) -> None:
    made = rizbin.repair(
        "a cat and a dog",
        model=models / "draws",
        judge=models / "looks",
        output=tmp_path / "a",
        **QUICK,
        strategy=RepairStrategy(seeds=1, places=1, threshold=0.99, guidance="iou"),
        film=True,
        quiet=True,
    )
    assert {path.name for path in (tmp_path / "a").glob("[0f]*")} == {
        "0000.png",
        "0000-tried.png",
        "0000-film.png",
        "0000.gif",
        "film.html",
    }
    told = json.loads((tmp_path / "a/repaired.json").read_text())[0]
    assert told["strategy"]["guidance"] == "iou" and told["tried"][0]["how"] == "draw"
    assert told["looked_for"] == ["cat", "dog"] and len(told["tried"]) == len(made[0].attempts) == 4
    made_again = replay(tmp_path / "a/repaired.json", output=tmp_path / "b", quiet=True)
    assert isinstance(made_again, list)
    (again,) = made_again
    assert again.same
    np.testing.assert_array_equal(read_image(again.file), made[0].best.image)


def test_what_the_judge_does_not_know_is_said_and_not_mended(models: Path, tmp_path: Path) -> None:
    (made,) = rizbin.repair(
        "a cat and a zeppelin",
        model=models / "draws",
        judge=models / "looks",
        output=tmp_path,
        **QUICK,
        strategy=RepairStrategy(threshold=0.0),
        quiet=True,
    )
    assert not made.whole and len(made.attempts) == 1 and not made.best.presences["zeppelin"].known
    assert any('does not know "zeppelin"' in note for note in made.notes)


def test_what_is_no_longer_the_same_is_said(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rizbin.generate("a fox", model=models / "draws", output=tmp_path / "a", **QUICK, quiet=True)
    record = tmp_path / "a/drawn.json"
    told = json.loads(record.read_text())
    changed = [{**told[0], "seed": 4, "versions": {"torch": "0.1"}}]
    record.write_text(json.dumps(changed))
    assert cli.main(["replay", str(record), "--output", str(tmp_path / "b")]) == 1
    assert "not the same" in (said := capsys.readouterr().out) and "torch 0.1 then" in said
    start = tmp_path / "a/0000.png"
    rizbin.edit(start, "a taxi", model=models / "draws", output=tmp_path / "c", **QUICK, quiet=True)
    rizbin.generate("a frog", model=models / "draws", output=tmp_path / "a", **QUICK, quiet=True)
    with pytest.raises(RizbinError, match="no longer the image"):
        replay(tmp_path / "c/drawn.json", output=tmp_path / "d", quiet=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '[{"file": "a.png"}]', "[" * 100_000])
def test_what_is_no_record_gets_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "drawn.json").write_text(text)
    with pytest.raises(RizbinError, match=r"drawn\.json"):
        replay(tmp_path / "drawn.json", quiet=True)
