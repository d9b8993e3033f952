"""One word for any data: each accepted form opens, everything else is explained."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rizbin.core.errors import RizbinError
from rizbin.data.loader import Loader
from rizbin.data.open import open_source
from rizbin.data.scenes import Scenes
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View
from tests.data.pictures import write
from tests.data.test_shards import pairs, tar


def test_real_pictures_in_every_form(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"pictures/{number}.png", number, f"number {number}")
    rows = [{"file_name": f"pictures/{number}.png", "text": f"number {number}"} for number in range(4)]
    lines = ["file_name\ttext", *("\t".join(row.values()) for row in rows)]
    (tmp_path / "t.tsv").write_text("\n".join(lines))
    (tmp_path / "t.csv").write_text("\n".join(lines).replace("\t", ","))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images = [{"id": number, "file_name": row["file_name"]} for number, row in enumerate(rows)]
    annotations = [{"image_id": number, "caption": row["text"]} for number, row in enumerate(rows)]
    (tmp_path / "t.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    tar(tmp_path / "t.tar", pairs(0, 4))
    for spec in ("pictures", "t.tsv", "t.csv", "t.jsonl", "t.json", "shards:t.tar"):
        kind, colon, name = spec.rpartition(":")
        source = open_source(f"{kind}{colon}{tmp_path / name}", split="all")
        assert [source[i].caption for i in range(len(source))] == [f"number {number}" for number in range(4)], spec
        assert source.fingerprint == open_source(f"{kind}{colon}{tmp_path / name}", split="all").fingerprint


def test_scenes_with_options() -> None:
    source = open_source("scenes:hard,categories=12", split="test", size=32, seed=5)
    expected = Scenes(Scenes.Settings(preset="hard", categories=12, split="test", size=32, seed=5))
    assert source.fingerprint == expected.fingerprint
    assert open_source("scenes").fingerprint == Scenes(Scenes.Settings(size=64)).fingerprint
    assert open_source("scenes", split="all").fingerprint == open_source("scenes:easy").fingerprint
    assert open_source("scenes:categories=12,split=pairs").name.endswith("pairs")


def test_cutouts(tmp_path: Path) -> None:
    for name in ("red mug", "blue box"):
        pixels = np.zeros((20, 20, 4), np.uint8)
        pixels[4:16, 4:16] = (200, 30, 30, 255)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    source = open_source(f"cutouts:{tmp_path}", size=32)
    assert source.endless and source.categories == ("blue box", "red mug") and source[0].image.shape == (32, 32, 3)


@pytest.mark.parametrize("spec", ["", "nowhere", "cutouts:", "cutouts:nowhere", "pictures.zip", "a\0b"])
def test_what_is_no_data_is_explained(spec: str, empty_folder: Path) -> None:
    (empty_folder / "pictures.zip").write_bytes(b"")
    with pytest.raises(RizbinError, match=r"scenes:easy.*FOLDER.*FILE\.csv.*shards:PATTERN"):
        open_source(spec)


@pytest.mark.parametrize(
    "spec", ["scenes:soft", "scenes:easy,categories=many", "scenes:easy,sise=3", "scenes:easy,hard"]
)
def test_unknown_options_are_explained(spec: str) -> None:
    with pytest.raises(
        RizbinError,
        match=r"scenes do not know '.*=easy\|several\|drawn\|hard\|single\|tinted\|group\|detail, categories=NUMBER",
    ):
        open_source(spec)


def test_a_folder_with_blemishes_trains_on(tmp_path: Path) -> None:
    for number in range(80):
        write(tmp_path / f"{number}.png", number, f"number {number}")
    (tmp_path / "7.png").write_bytes(b"<html>")
    (tmp_path / "8.txt").write_text("")
    views, tokenizer = (View.Settings(size=8),), Tokenizer(Tokenizer.Settings())
    batches = list(Loader(open_source(str(tmp_path)), views, tokenizer, seed=0, batch=16, steps=10, workers=1))
    reasons = {reason for batch in batches for _, reason in batch.refused}
    assert len(reasons) == 2 and all(str(tmp_path) in reason for reason in reasons)


def test_digits_are_real_pictures_without_a_download() -> None:
    train, test = (open_source("digits", split=split, size=32) for split in ("train", "test"))
    assert len(train) + len(test) == len(open_source("digits", split="all", size=32)) == 1797
    assert len(test) == 360 and train.fingerprint != test.fingerprint
    sample = test[0]
    assert sample.image.shape == (32, 32, 3) and sample.names == {"zero"} and sample.caption == "a handwritten zero"
    assert sample.image[0, 0, 0] == 255, "black on white"
