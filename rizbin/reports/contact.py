"""A contact sheet of images that were found: a row of thumbnails for each query, with the place in each of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from rizbin.visualization.colors import blend, heat, scaled
from rizbin.visualization.grid import GAP, MARK, labelled, sheet

SIDE = 192
"""Pixels of a thumbnail's square."""
COLUMNS = 5
"""Thumbnails in a row."""


@dataclass(frozen=True)
class Shown:
    """One image of the sheet."""

    group: str
    """The heading it stands under."""
    label: str
    image: UInt8[np.ndarray, "_ _ 3"]
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom in pixels of the image, to be drawn."""
    heat: Float[np.ndarray, "rows columns"] | None = None
    """Values on the central square of the image, to be laid over it as colors."""


def contact_sheet(images: Sequence[Shown]) -> bytes:
    """The sheet as a PNG file. Images of one group stand together, in the order in which they come."""
    bands = []
    for group, members in groupby(images, key=lambda image: image.group):
        some = list(members)
        cells = sheet(
            [_thumbnail(entry) for entry in some], labels=[entry.label for entry in some], columns=COLUMNS, side=SIDE
        )
        width = COLUMNS * (SIDE + GAP) - GAP
        wide = np.full((cells.shape[0], width, 3), 255, np.uint8)
        wide[:, : cells.shape[1]] = cells
        heading = np.full((GAP, width, 3), 255, np.uint8)
        bands += [labelled(heading, group), wide]
    held = io.BytesIO()
    Image.fromarray(np.concatenate(bands)).save(held, "PNG")
    return held.getvalue()


def _thumbnail(shown: Shown) -> UInt8[np.ndarray, "side side 3"]:
    """The image within a white square, its place drawn at the size of the thumbnail."""
    height, width = shown.image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(shown.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if shown.heat is not None:
        image = _heated(image, shown.heat)
    if shown.box is not None:
        left, top, right, bottom = (round(edge * scale) for edge in shown.box)
        image = np.ascontiguousarray(image)
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), (0, 0, 0), 3)
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), MARK, 1)
    out = np.full((SIDE, SIDE, 3), 255, np.uint8)
    top, left = (SIDE - image.shape[0]) // 2, (SIDE - image.shape[1]) // 2
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def _heated(image: UInt8[np.ndarray, "_ _ 3"], values: Float[np.ndarray, "rows columns"]) -> np.ndarray:
    """The image with colors over its central square, the hotter the less transparent."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    large = scaled(cv2.resize(values.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)).clip(0, 1)
    out = image.copy()
    part = out[top : top + side, left : left + side]
    out[top : top + side, left : left + side] = blend(part, heat(large), (0.7 * large).astype(np.float32))
    return out
