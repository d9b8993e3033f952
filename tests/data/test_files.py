"""Picture files by what a user types: names that tell files apart, formats that are not read."""

from pathlib import Path

import pytest
from PIL import Image

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.data.files import image_files
from tests.data.pictures import write


def test_files_of_one_name_are_told_apart(empty_folder: Path) -> None:
    for place in ("x/a.png", "y/a.png", "x/b.png", "deep/x/a.png"):
        write(Path(place), 1)
    assert list(image_files("x/a.png", "y/a.png").values()) == ["x/a.png", "y/a.png"]
    absolute = [str(empty_folder / place) for place in ("x/a.png", "y/a.png", "x/b.png")]
    assert list(image_files(*absolute).values()) == ["x/a.png", "y/a.png", "b.png"]
    names = list(image_files("x/a.png", "deep/x/a.png", "y/a.png").values())
    assert len(set(names)) == 3 and names[1] == "deep/x/a.png" and names[2] == "y/a.png"
    assert sorted(image_files("x", "y").values()) == ["b.png", "x/a.png", "y/a.png"]
    assert sorted(image_files("*/a.png").values()) == ["x/a.png", "y/a.png"]


def test_a_file_named_twice_comes_once(empty_folder: Path) -> None:
    write(Path("x/a.png"), 1)
    assert list(image_files("x/a.png", "x", "./x/a.png", str(empty_folder / "x/a.png")).values()) == ["a.png"]


def test_formats_that_are_not_read_are_listed_and_copies_are_not(tmp_path: Path) -> None:
    for name in ("a.heic", "b.tif", "c.CR2", "c.jpg", "d.JFIF", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    assert list(image_files(str(tmp_path)).values()) == ["a.heic", "b.tif", "c.jpg", "d.JFIF"]


def test_films_and_sheets_are_left_out_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`rizbin detect drawn` looks at what was drawn, and not at the films of how it was."""
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    for name in ("a.gif", "b.webp", "c.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    for name in ("0000.png", "0000-film.png", "0000-tried.png", "my-film.png", "grid.png"):
        write(tmp_path / name, 1)
    stills = ["0000.png", "0000-film.png", "0000-tried.png", "grid.png", "my-film.png", "still.gif"]
    assert sorted(image_files(str(tmp_path)).values()) == sorted(stills)  # sheets of somebody else are images
    outputs.write(tmp_path / "drawn.json", "[]")
    assert sorted(image_files(str(tmp_path)).values()) == ["0000.png", "my-film.png", "still.gif"]
    text = " ".join(capsys.readouterr().err.split())
    assert "3 films are left out of" in text and "such as a.gif, b.webp, c.png" in text
    assert "3 sheets of several images are left out of" in text
    assert list(image_files(str(tmp_path / "a.gif")).values()) == ["a.gif"]
    assert list(image_files(str(tmp_path / "*-film.png")).values()) == ["0000-film.png", "my-film.png"]


def test_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    with pytest.raises(RizbinError, match="no images in"):
        image_files(str(tmp_path / "a.png"), str(tmp_path / "none*.png"))
