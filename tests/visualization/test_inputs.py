"""Pictures from folders, files, patterns and scenes, brought to whole patches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rizbin.core.errors import RizbinError
from rizbin.visualization.inputs import ShownImage, read_images, read_mask
from tests.visualization.pixel_encoder import PixelEncoder

EYE = PixelEncoder(8)


def save(path: Path, height: int = 40, width: int = 60, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


def test_a_folder_comes_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        save(tmp_path / f"frame {number}.png", value=number)
    save(tmp_path / ".hidden" / "no.png")
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_images(str(tmp_path), EYE)
    assert [one.name for one in found.shown] == ["frame 1.png", "frame 9.png", "frame 10.png"]
    assert [int(one.image[0, 0, 0]) for one in found.shown] == [1, 9, 10]
    assert (found.skipped, found.left_out, found.credit) == ([], 0, "")
    first = read_images(f"{tmp_path}/frame*.png", EYE, limit=2)
    assert [one.name for one in first.shown] == ["frame 1.png", "frame 9.png"]
    assert first.left_out == 1
    both = read_images([f"{tmp_path}/frame 9.png", f"{tmp_path}/frame 1.png"], EYE)
    assert [one.name for one in both.shown] == ["frame 9.png", "frame 1.png"]


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [(0, (40, 60), (32, 48)), (20, (40, 60), (16, 24)), (64, (40, 61), (64, 96)), (0, (100, 30), (104, 32))],
)
def test_the_shorter_side_is_the_size_and_both_are_whole_patches(
    tmp_path: Path, size: int, shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    save(tmp_path / "one.png", *shape)
    (one,) = read_images(str(tmp_path / "one.png"), EYE, size=size).shown
    assert one.image.shape[:2] == expected


def test_a_network_of_one_size_gets_the_middle_square(tmp_path: Path) -> None:
    class Rigid(PixelEncoder):
        any_size = False

    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, 32:64] = 255
    Image.fromarray(picture).save(tmp_path / "one.png")
    (one,) = read_images(str(tmp_path), Rigid(8)).shown
    assert one.image.shape == (32, 32, 3) and (one.image == 255).all()
    with pytest.raises(RizbinError, match="32 pixels only"):
        read_images(str(tmp_path), Rigid(8), size=64)


def test_scenes_come_with_their_truth() -> None:
    found = read_images("scenes:easy", EYE, size=48, limit=3)
    assert len(found.shown) == 3 and found.left_out == 0 and "OpenMoji" in found.credit
    for one in found.shown:
        assert one.image.shape == (48, 48, 3) and one.caption
        assert one.truth is not None and one.truth.shape == (48, 48) and one.truth.any()
    assert len(read_images("scenes", EYE).shown) == 16
    assert ShownImage("none", found.shown[0].image).truth is None


def test_what_cannot_be_read_is_skipped_and_listed(tmp_path: Path) -> None:
    save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "c.jpg").write_bytes(b"")
    found = read_images(str(tmp_path), EYE, limit=1)
    assert [one.name for one in found.shown] == ["b.png"]
    assert len(found.skipped) == 1 and "a.png" in found.skipped[0]
    assert found.left_out == 1
    save(tmp_path / "long" / "strip.png", 40, 3000)
    strip = read_images(str(tmp_path / "long"), PixelEncoder(4), size=32)
    assert strip.shown[0].image.shape[0] == 32
    with pytest.raises(RizbinError, match="choose a smaller size"):
        read_images(str(tmp_path / "long"), PixelEncoder(4), size=128)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    for where, said in (
        ([], "no images to look at"),
        (str(tmp_path), "no images in"),
        (str(tmp_path / "nowhere"), "no images in"),
        ("scenes:zzz", "zzz"),
    ):
        with pytest.raises(RizbinError, match=said):
            read_images(where, EYE)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(RizbinError, match=r"None of the images .* the first: .*a\.png"):
        read_images(str(tmp_path), EYE)
    with pytest.raises(RizbinError, match="one patch of 8"):
        read_images(str(tmp_path), EYE, size=3)


@pytest.mark.parametrize("mode", ["gray", "palette", "color"])
def test_a_mask_is_read_in_any_form(tmp_path: Path, mode: str) -> None:
    numbers = np.zeros((40, 60), np.uint8)
    numbers[:20, :30], numbers[20:, 30:] = 1, 2
    colors = np.array([(0, 0, 0), (10, 0, 0), (20, 0, 0)], np.uint8)
    image = Image.fromarray(numbers)
    if mode == "palette":
        image = Image.fromarray(numbers, mode=None).convert("P")
        image.putpalette(colors.ravel().tolist())
    if mode == "color":
        image = Image.fromarray(colors[numbers])
    image.save(tmp_path / "mask.png")
    save(tmp_path / "pictures" / "one.png")
    (one,) = read_images(str(tmp_path / "pictures"), EYE).shown
    mask = read_mask(tmp_path / "mask.png", one, EYE)
    assert mask.shape == (32, 48)
    assert (mask[:15, :23] == 1).all() and (mask[17:, 25:] == 2).all() and (mask[17:, :23] == 0).all()


def test_a_folder_of_masks_is_the_truth_of_a_folder(tmp_path: Path) -> None:
    """Two things of one picture, by their colors; a picture without a mask has no truth."""
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    pictures.mkdir()
    masks.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 64), (90, 60, 30)).save(pictures / name)
    colors = np.zeros((64, 64, 3), np.uint8)
    colors[:16, :32], colors[48:, :] = (255, 0, 0), (0, 255, 0)
    Image.fromarray(colors).save(masks / "a.png")
    first, second = read_images(str(pictures), EYE, size=64, masks=masks).shown
    assert [int(mask.sum()) for _, mask in first.objects] == [16 * 64, 16 * 32] and second.truth is None
    assert first.truth is not None and int(first.truth.sum()) == 16 * 96
    with pytest.raises(RizbinError, match="no folder"):
        read_images(str(pictures), EYE, masks=tmp_path / "nowhere")


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    save(tmp_path / "square.png", 40, 40, 7)
    one = ShownImage("frame", np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(RizbinError, match="2400 colors, so it is no mask"):
        read_mask(tmp_path / "photo.png", one, EYE)
    with pytest.raises(RizbinError, match="another shape than frame"):
        read_mask(tmp_path / "square.png", one, EYE)
    with pytest.raises(RizbinError, match="cannot be opened"):
        read_mask(tmp_path / "nowhere.png", one, EYE)
