"""Drawings: cached in one step, made anew when damaged, and taken from any folder of cut-outs."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Refused
from rizbin.data.scenes import Scenes
from rizbin.data.scenes import sprites as module
from rizbin.data.scenes.cutouts import name_of
from rizbin.data.scenes.sprites import Sprite, cache_folder, make_sprite, openmoji_sprites, side_for
from rizbin.data.scenes.vocabulary import CODES

NAMES = ("pizza", "zebra", "frog")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIZBIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codes rendered from now on."""
    codes: list[str] = []
    real = module._render
    monkeypatch.setattr(module, "_render", lambda code, side: codes.append(code) or real(code, side))
    return codes


def pixels(sprites: list[Sprite]) -> list[bytes]:
    return [sprite.levels[0].tobytes() for sprite in sprites]


def test_renders_once(cache: Path, rendered: list[str]) -> None:
    first = openmoji_sprites(NAMES, 64)
    assert len(rendered) == 3
    assert pixels(openmoji_sprites(NAMES, 64)) == pixels(first)
    assert len(rendered) == 3
    openmoji_sprites(NAMES[:2], 64)
    openmoji_sprites(NAMES, 128)
    assert len(rendered) == 8
    stored = list((cache / "scenes").iterdir())
    assert len(stored) == 3 and not [path for path in stored if path.suffix != ".bin"], "no temporary file is left"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "other"])
def test_a_damaged_cache_is_made_anew(cache: Path, rendered: list[str], damage: str) -> None:
    whole = pixels(openmoji_sprites(NAMES, 64))
    (path,) = (cache / "scenes").iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "other":
        data = bytearray(hashlib.sha256(b"short").digest() + b"short")
    path.write_bytes({"cut": data[:-100], "empty": b"", "text": b"not found"}.get(damage, data))
    assert pixels(openmoji_sprites(NAMES, 64)) == whole
    assert len(rendered) == 6
    assert pixels(openmoji_sprites(NAMES, 64)) == whole
    assert len(rendered) == 6, "the file is whole again"


def test_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rendered: list[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("RIZBIN_CACHE", str(blocked))
    assert len(openmoji_sprites(NAMES, 64)) == len(rendered) == 3
    assert blocked.read_text() == "a file where the folder should be"


def test_a_full_disk_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(openmoji_sprites(NAMES, 64)) == 3
    assert not list((cache / "scenes").iterdir())


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIZBIN_CACHE", "/here")
    assert cache_folder() == Path("/here")
    monkeypatch.delenv("RIZBIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert cache_folder() == Path("/there/rizbin")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/me")
    assert cache_folder() == Path("/me/.cache/rizbin")


def test_every_drawing_is_seen_at_16_pixels() -> None:
    for name, sprite in zip(CODES, openmoji_sprites(tuple(CODES), 64), strict=True):
        level = sprite.at_least(16.0)
        assert 16 <= max(level.shape[:2]) <= 24, name
        assert (level[..., 3] >= 128).mean() > 0.15, name
        # The strongest outline or fill must stand out from every background.
        seen = level[..., :3][level[..., 3] > 200]
        assert seen.max() > 120 or seen.min() < 60, name


def test_drawings_have_their_colors() -> None:
    strawberry, whale = (
        sprite.levels[0].astype(int).mean((0, 1)) for sprite in openmoji_sprites(("strawberry", "whale"), 64)
    )
    assert strawberry[0] > 1.5 * strawberry[2] and whale[2] > 1.5 * whale[0]


def test_levels_shrink_and_keep_the_color() -> None:
    disc = np.zeros((100, 60, 4), np.uint8)
    cv2.ellipse(disc, (30, 50), (20, 40), 0, 0, 360, (200, 100, 50, 255), -1)
    disc[disc[..., 3] == 0] = (0, 255, 0, 0)  # color under transparent pixels must never leak
    sprite = make_sprite(disc, 64)
    lengths = [max(level.shape[:2]) for level in sprite.levels]
    assert lengths[0] == 64 and lengths == sorted(lengths, reverse=True) and lengths[-1] <= 8
    for level in sprite.levels:
        assert (level[..., :3] <= level[..., 3:].astype(int) + 1).all(), "colors are multiplied by alpha"
        inside = level[level[..., 3] == 255]
        assert len(inside) and np.abs(inside[:, :3].astype(int) - [200, 100, 50]).max() <= 3
    assert max(sprite.at_least(30.0).shape[:2]) == 32
    assert sprite.at_least(1000.0) is sprite.levels[0]


def test_render_sizes() -> None:
    assert [side_for(length) for length in (9.6, 38.4, 64.0, 64.5, 156.8, 358.4)] == [64, 64, 64, 128, 256, 512]


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def cutout(color: tuple[int, int, int], side: int = 40) -> np.ndarray:
    image = np.zeros((side, side, 4), np.uint8)
    cv2.circle(image, (side // 2, side // 2), side // 3, (*color, 255), -1)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "own/red_mug-03.png", cutout((0, 0, 255)))
    write(tmp_path / "own/red_mug-04.png", cutout((0, 0, 200), 90))
    write(tmp_path / "own/deeper/blue apple.PNG", cutout((255, 0, 0)))
    write(tmp_path / "own/x1.png", cutout((0, 255, 0)))
    (tmp_path / "own/x1.txt").write_text("Garden gnome\n")
    (tmp_path / "own/notes.md").write_text("not a picture")
    return tmp_path / "own"


def test_composes_cutouts(folder: Path) -> None:
    source = Scenes.from_cutouts(folder, Scenes.Settings(categories=0))
    assert source.categories == ("blue apple", "garden gnome", "red mug")
    seen = set()
    for i in range(40):
        sample = source[i]
        seen |= sample.names
        for thing in sample.objects:
            color = sample.image[thing.mask].astype(int).mean(0)
            assert int(np.argmax(color)) == {"red mug": 0, "garden gnome": 1, "blue apple": 2}[thing.name], "RGB order"
    assert seen == set(source.categories)
    assert any("a blue apple" in source[i].caption for i in range(40))
    assert Scenes.from_cutouts(folder, Scenes.Settings(categories=2)).categories == ("blue apple", "garden gnome")


def test_the_fingerprint_is_of_the_content(folder: Path) -> None:
    def fingerprint() -> str:
        return Scenes.from_cutouts(folder, Scenes.Settings(categories=0)).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    write(folder / "x1.png", cutout((0, 250, 0)))
    second = fingerprint()
    (folder / "x1.txt").write_text("gnome")
    assert len({first, second, fingerprint()}) == 3


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("red_mug-03.png", "red mug"), ("Zebra.png", "zebra"), ("fire engine 2.png", "fire engine"),
        ("t-rex_1.png", "t rex"), ("mug(3).png", "mug"), ("mug 12_.png", "mug"), ("قوری.png", "قوری"),
    ],
)  # fmt: skip
def test_names_from_file_names(file: str, name: str, tmp_path: Path) -> None:
    assert name_of(tmp_path / file) == name


def test_a_bad_folder_is_refused_in_one_sentence(tmp_path: Path, folder: Path) -> None:
    def refused(where: Path, *words: str, **change: object) -> None:
        with pytest.raises(RizbinError) as caught:
            Scenes.from_cutouts(where, Scenes.Settings(**({"categories": 0} | change)))  # type: ignore[arg-type]
        message = str(caught.value)
        assert "\n" not in message and all(word in message for word in words), message

    refused(tmp_path / "nowhere", "nowhere", "cannot be read")
    refused(folder / "x1.txt", "x1.txt", "cannot be read")
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", "bare", "no PNG")
    refused(folder, "3 names, not 4", categories=4)
    refused(folder, "no held-out categories", split="heldout")
    refused(folder, "use more categories", split="pairs")
    bad = {
        "opaque": cutout((1, 2, 3))[..., :3], "filled": np.full((9, 9, 4), 255, np.uint8),
        "clear": np.zeros((9, 9, 4), np.uint8),
    }  # fmt: skip
    words = {"opaque": "no transparent", "filled": "no transparent", "clear": "transparent all over"}
    for name, image in bad.items():
        write(tmp_path / name / f"{name}.png", image)
        refused(tmp_path / name, f"{name}.png", words[name])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/broken.png").write_bytes(b"not a picture")
    refused(tmp_path / "broken", "broken.png")
    write(tmp_path / "nameless/123.png", cutout((1, 2, 3)))
    refused(tmp_path / "nameless", "123.png", "no name")
    write(tmp_path / "latin/a.png", cutout((1, 2, 3)))
    (tmp_path / "latin/a.txt").write_bytes(b"m\xf8\xf8se")
    refused(tmp_path / "latin", "a.txt", "UTF-8")


def test_a_drawing_too_thin_to_be_seen_is_refused(tmp_path: Path) -> None:
    image = np.zeros((600, 600, 4), np.uint8)
    image[[0, 599], [0, 599]] = 255
    write(tmp_path / "thin/hair.png", image)
    with pytest.raises(Refused, match="hair is too thin"):
        Scenes.from_cutouts(tmp_path / "thin", Scenes.Settings(categories=0))[0]
