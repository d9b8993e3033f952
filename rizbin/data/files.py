"""Lists image files from what a user types: a file, a folder, a pattern."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from rizbin.core import progress
from rizbin.core.errors import RizbinError, printable
from rizbin.core.outputs import RECORD
from rizbin.data.folders import split_images
from rizbin.data.listing import counted, such_as


def image_files(*spelled: str) -> dict[Path, str]:
    """The files and what to call them, in the order in which a person counts them (frame 9 before frame 10).

    Of a folder, all images in it and in the folders in it, hidden ones left out, called by their path from there;
    films in it and sheets of several images that Rizbin wrote beside its images are left out, which is said. A file
    that was named twice comes once; files that would be called alike are called by as much of their paths as tells
    them apart. Raises RizbinError when something that was named has none.
    """
    named: dict[str, tuple[Path, str]] = {}
    for text in spelled:
        for path, name in _named(text).items():
            named.setdefault(os.path.abspath(path), (path, name))
    return dict(_apart(list(named.values())))


def _named(text: str) -> dict[Path, str]:
    """The files that one word names."""
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            files, _ = split_images([file for file in path.rglob("*") if _visible(file, path)])
            files = _stills(files, path)
            names = {file: file.relative_to(path).as_posix() for file in files}
        else:
            files = [path] if path.exists() else [Path(name) for name in glob.glob(str(path), recursive=True)]
            names = {file: file.name for file in files}
    except (OSError, ValueError) as error:
        raise RizbinError(f"{text} cannot be looked into ({error}); give images that may be read.") from error
    if not files:
        raise RizbinError(
            f"There are no images in {text}; give a folder or files (JPEG, PNG, WebP, BMP, GIF), or scenes:easy."
        )
    return {file: printable(names[file]) for file in sorted(files, key=lambda file: _natural(file.as_posix()))}


SHEETS = ("-film", "-tried")
"""Ends of the names of sheets that Rizbin writes beside the image that they tell of: 0000-film.png beside 0000.png."""
_SHEETS_SAID = ("sheet of several images", "sheets of several images")
GRID = "grid.png"
"""Name of the sheet of strengths and scales that `rizbin edit` writes."""


def _stills(files: Sequence[Path], folder: Path) -> list[Path]:
    """The files of a folder without films and sheets; says how many are left out."""
    films = [file for file in files if _is_film(file)]
    left_out = {*films, *(sheets := [file for file in files if _is_sheet(file)])}
    for kind, many, listed in (("film", "films", films), (*_SHEETS_SAID, sheets)):
        if listed:
            names = sorted(file.relative_to(folder).as_posix() for file in listed)
            counts = counted(len(listed), kind, many)
            _say_once(f"{counts} left out of {folder}{such_as(names)}; what is named by itself is looked at.")
    return [file for file in files if file not in left_out]


@cache
def _say_once(text: str) -> None:
    """Folders are looked through twice: before a network is loaded, and when it is there."""
    progress.warn(text)


def _is_film(file: Path) -> bool:
    """Whether a file shows several frames, by its first bytes where they tell: animated GIF, WebP or PNG."""
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
        if head.startswith(b"GIF8"):
            with Image.open(file, formats=["GIF"]) as image:
                return bool(getattr(image, "is_animated", False))
    except Exception:  # what cannot be read is refused with its reason when it is looked at
        return False
    if head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2)
    return head.startswith(b"\x89PNG") and b"acTL" in head


def _is_sheet(file: Path) -> bool:
    """Whether Rizbin wrote the file beside an image of its own, to show several at once."""
    if not (file.parent / RECORD).is_file():
        return False
    ending = next((end for end in SHEETS if file.stem.endswith(end)), "")
    beside = file.with_name(f"{file.stem.removesuffix(ending)}{file.suffix}")
    return file.name == GRID or (ending != "" and beside.is_file())


def _apart(files: Sequence[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """The files with names of their own: where names are the same, as many folders before them as it takes."""
    names = [name for _, name in files]
    parts = [Path(os.path.abspath(path)).parts for path, _ in files]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        shared = {name for name, count in Counter(names).items() if count > 1}
        if not shared:
            break
        names = [
            printable("/".join(steps[-depth:])) if name in shared else name
            for steps, name in zip(parts, names, strict=True)
        ]
    return [(path, name) for (path, _), name in zip(files, names, strict=True)]


def _visible(file: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
