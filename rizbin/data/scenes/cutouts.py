"""A folder of cut-outs (PNG with transparency) as drawings for scenes."""

import hashlib
import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_rgba
from rizbin.data.sample import Refused
from rizbin.data.scenes.sprites import Sprite, make_sprite

LONGEST_NAME = 60
"""Letters of a category's name; a longer one would leave no room in a caption."""


def read_cutouts(folder: Path, side: int) -> tuple[dict[str, list[Sprite]], str]:
    """The drawings by name, at most `side` pixels long, and a hash of all names and pixels.

    Raises RizbinError, one sentence naming folder or file, when there is nothing, or something that cannot be used.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png" and path.is_file())
        next(folder.iterdir(), None)  # rglob is silent about a folder that is missing or closed
    except OSError as problem:
        raise RizbinError(
            f"The folder {folder} cannot be read ({problem.strerror}); give a folder of PNGs."
        ) from problem
    if not files:
        raise RizbinError(f"{folder} holds no PNG; put cut-outs with a transparent background into it.")
    sprites: dict[str, list[Sprite]] = {}
    content = hashlib.sha256()
    for path in files:
        name = name_of(path)
        pixels = _read(path)
        try:
            sprite = make_sprite(pixels, side)
        except ValueError as problem:
            raise RizbinError(f"{path} is transparent all over; remove it or export it again.") from problem
        sprites.setdefault(name, []).append(sprite)
        content.update(f"{name}\n{sprite.levels[0].shape}\n".encode())
        content.update(sprite.levels[0].tobytes())
    return sprites, content.hexdigest()


def _read(path: Path) -> UInt8[np.ndarray, "height width 4"]:
    try:
        pixels = read_rgba(path, name=str(path))
    except Refused as problem:
        raise RizbinError(str(problem)) from problem
    if pixels[..., 3].min() == 255:
        raise RizbinError(f"{path} has no transparent background; cut the object out, or remove the file.")
    return pixels


def name_of(path: Path) -> str:
    """What a cut-out shows: the first line of the `.txt` beside it, else its file name without number and punctuation.

    Raises RizbinError when nothing readable is left.
    """
    beside = path.with_suffix(".txt")
    if beside.is_file():
        try:
            words = (beside.read_text("utf-8-sig").strip().splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as problem:
            raise RizbinError(f"{beside} cannot be read as text; save it as UTF-8 with the name in it.") from problem
    else:
        beside = path
        words = re.sub(r"[\W_]*\d+[\W_]*$", "", path.stem)
    name = " ".join(re.sub(r"[^\w'-]|_", " ", words).split()).strip("-' ").lower()
    name = name if beside.suffix == ".txt" else " ".join(name.replace("-", " ").split())
    if not any(letter.isalpha() for letter in name) or len(name) > LONGEST_NAME:
        raise RizbinError(
            f"{beside} gives no name of 1 to {LONGEST_NAME} letters; name it after what it shows, like mug-03.png."
        )
    return name
