"""Everything that can be drawn, by small networks, to the files that are written."""

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from rizbin.core.errors import RizbinError
from rizbin.core.settings import explained
from rizbin.models.protocol import FeatureExtractor, NoAttention
from rizbin.models.wrap import encoder_of
from rizbin.nets.dual import ImageTextPair
from rizbin.visualization import words as texts
from rizbin.visualization.album import write_album
from rizbin.visualization.inputs import ShownImage, read_images
from rizbin.visualization.visualizers import (
    VISUALIZERS,
    Attention,
    Correspondence,
    Neighbors,
    Patch,
    Pca,
    Propagate,
    WordMap,
    does,
)
from tests.toys import NANO
from tests.visualization.pixel_encoder import PixelEncoder


@cache
def encoder(name: str) -> FeatureExtractor:
    torch.manual_seed(0)
    if name == "pair":
        return encoder_of(ImageTextPair(NANO))
    flexible: dict[str, Any] = {} if "resnet" in name else {"dynamic_img_size": True}
    return encoder_of(timm.create_model(name, num_classes=0, **flexible))


def scenes(name: str, count: int, size: int = 0) -> list[ShownImage]:
    return read_images("scenes:easy", encoder(name), limit=count, size=size).shown


@pytest.mark.parametrize("what", VISUALIZERS)
def test_each_is_explained_and_drawn(what: str) -> None:
    kind = VISUALIZERS[what]
    assert re.fullmatch(r"[A-Z].+\.", does(kind)) and kind.needs and kind.most >= kind.least
    assert set(explained(kind.Settings)) >= {field.name for field in dataclasses.fields(kind.Settings)}
    pictures = scenes("pair", 3)
    for sheet in kind()(encoder("pair"), pictures):
        assert re.fullmatch(r"[a-z0-9-]+", sheet.name)
        assert sheet.image.dtype == np.uint8 and sheet.image.shape[2] == 3
        assert min(sheet.image.shape[:2]) > 60 and max(sheet.image.shape[:2]) < 4000
        assert re.fullmatch(r".+[.]", sheet.caption)


@pytest.mark.parametrize("what", ["attention", "patch", "pca", "correspondence", "propagate"])
def test_registers_and_wide_pictures_are_no_hindrance(what: str) -> None:
    random = np.random.default_rng(0)
    wide = [ShownImage(f"wide {one}", random.integers(0, 256, (64, 96, 3), dtype=np.uint8)) for one in range(2)]
    assert VISUALIZERS[what]()(encoder("rizbin_vit_mini_reg4_patch8_64"), wide)


def test_a_convolutional_network_draws_what_needs_no_attention() -> None:
    pictures = scenes("resnet10t", 2, size=128)
    for what in (Pca, Correspondence, Neighbors, Propagate):
        assert what()(encoder("resnet10t"), pictures)
    for what in (Attention(), Patch(), Pca(Pca.Settings(foreground="mass"))):
        with pytest.raises(NoAttention):
            what(encoder("resnet10t"), pictures)
    with pytest.raises(RizbinError, match="image-text encoder"):
        WordMap()(encoder("resnet10t"), pictures)


def test_the_best_head_of_a_known_attention_has_the_known_score() -> None:
    image, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    image[mask, 0] = 255  # the first head of this encoder attends to red, the second to nothing in particular
    sheets = Attention()(PixelEncoder(), [ShownImage("square", image, (("square", mask),))] * 2)
    assert [sheet.name for sheet in sheets] == ["attention-001", "attention-002", "attention-all"]
    assert "best: head 1" in sheets[0].caption
    kept = np.ceil(0.6 * 16) / 16  # of sixteen red patches alike, the fewest that hold 0.6
    assert f"mean over 2 images: {kept:.3f}" in sheets[-1].caption


def test_without_truth_no_score_is_made_up() -> None:
    sheets = Attention()(PixelEncoder(), [ShownImage("plain", np.full((32, 32, 3), 90, np.uint8))])
    assert "Jaccard" not in "".join(sheet.caption for sheet in sheets)


def test_points_are_places_in_the_picture() -> None:
    picture = [ShownImage("one", np.zeros((32, 48, 3), np.uint8))]
    points = Patch.Settings(points=((0.0, 0.0), (1.0, 1.0), (0.5, 0.25)))
    said = [sheet.caption for sheet in Patch(points)(PixelEncoder(), picture)]
    for text, place in zip(said, ("row 0, column 0", "row 7, column 11", "row 2, column 6"), strict=True):
        assert place in text
    with pytest.raises(RizbinError, match="lies outside"):
        Patch(Patch.Settings(points=((0.5, 2.0),)))(PixelEncoder(), picture)


def test_a_mask_from_a_file_is_followed(tmp_path: Path) -> None:
    ground = np.random.default_rng(0).integers(0, 100, (32, 32, 3), dtype=np.uint8)
    frames = []
    for step in (0, 4, 8):
        frame = ground.copy()
        frame[8:16, 4 + step : 12 + step] = (250, 240, 20)
        frames.append(ShownImage(f"frame {step}", frame))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 4:12] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (sheet,) = Propagate(Propagate.Settings(mask=str(tmp_path / "mask.png")))(PixelEncoder(), frames)
    assert len(sheet.masks) == 3
    np.testing.assert_array_equal(sheet.masks[0], mask)
    middle = np.argwhere(sheet.masks[2]).mean(axis=0)
    np.testing.assert_allclose(middle, (11.5, 15.5), atol=1)


def test_words_come_from_the_caption_or_are_given() -> None:
    pictures = scenes("pair", 1)
    (given,) = WordMap(WordMap.Settings(words=("zebra", "red")))(encoder("pair"), pictures)
    assert "with zebra, red" in given.caption
    (own,) = WordMap()(encoder("pair"), pictures)
    assert pictures[0].objects[0][0] in own.caption
    with pytest.raises(RizbinError, match="no caption"):
        WordMap()(encoder("pair"), [ShownImage("plain", pictures[0].image)])


def test_words_can_be_seen_through_windows() -> None:
    pictures = scenes("pair", 1)
    settings = WordMap.Settings(words=("zebra", "red"))
    (plain,) = WordMap(settings)(encoder("pair"), pictures)
    (dense,) = WordMap(dataclasses.replace(settings, dense_head="windows"))(encoder("pair"), pictures)
    assert "each patch" in plain.caption and "each pixel" in dense.caption
    assert dense.image.shape == plain.image.shape
    assert not np.array_equal(dense.image, plain.image)


def test_maps_through_windows_have_a_row_of_pixels_for_a_row_of_patches() -> None:
    pair = ImageTextPair(NANO).eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    against = texts.embedded(pair, ["one", "two"])
    assert texts.similarities(pair, image, ["cat"], against=against).shape == (1, 8, 12)
    fine = texts.similarities(pair, image, ["cat"], against=against, dense_head="windows")
    assert fine.shape == (1, 64, 96) and np.isfinite(fine).all()


def test_too_few_pictures_are_refused() -> None:
    for what in (Correspondence(), Neighbors(), Propagate()):
        with pytest.raises(RizbinError, match="needs 2 images"):
            what(encoder("pair"), scenes("pair", 1))


def test_sheets_become_files_and_one_page(tmp_path: Path) -> None:
    sheets = Propagate()(encoder("pair"), scenes("pair", 2))
    page = write_album(
        sheets, tmp_path / "new" / "folder", title="A <film>", notes=["b.png is empty."], credit="By us."
    )
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == [
        ".rizbin-outputs.jsonl",
        "index.html",
        "propagate-mask-001.png",
        "propagate-mask-002.png",
        "propagate.png",
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(page.parent / "propagate.png")), sheets[0].image)
    np.testing.assert_array_equal(np.asarray(Image.open(page.parent / "propagate-mask-002.png")), sheets[0].masks[1])
    html = page.read_text(encoding="utf-8")
    assert "A &lt;film&gt;" in html and "b.png is empty." in html and "By us." in html and "<img" in html
    (tmp_path / "file").write_text("")
    with pytest.raises(RizbinError, match="could not be written"):
        write_album(sheets, tmp_path / "file", title="x")
