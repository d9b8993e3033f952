"""AnyPictures enlarged, labelled, framed and put side by side."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rizbin.core.errors import RizbinError
from rizbin.visualization.colors import AnyPicture, Color, ink_on

GAP = 6
"""Pixels between the pictures of a sheet."""
TYPE = 13
"""Height of labels in pixels: the smallest that Pillow's own font is easily read at."""
_LINE = TYPE + 5
MARK: Color = (255, 225, 25)
"""Yellow, for what stands out."""


def enlarge(picture: AnyPicture, side: int = 192) -> AnyPicture:
    """The picture with each pixel as a square of whole pixels; its shorter side comes near `side`, never smaller."""
    times = max(1, round(side / max(1, min(picture.shape[:2]))))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def shrunk(picture: AnyPicture, side: int) -> AnyPicture:
    """The picture with its shorter side brought down to `side`; one that is small already stays as it is."""
    height, width = picture.shape[:2]
    if min(height, width) <= side:
        return picture
    scale = side / min(height, width)
    return cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def framed(picture: AnyPicture, color: Color, thickness: int = 3) -> AnyPicture:
    """The picture with a frame drawn inside its border."""
    out = picture.copy()
    edge = max(1, min(thickness, min(picture.shape[:2]) // 2))
    out[:edge], out[-edge:], out[:, :edge], out[:, -edge:] = color, color, color, color
    return out


def beside(pictures: Sequence[AnyPicture], *, background: Color = (255, 255, 255)) -> AnyPicture:
    """The pictures in one row, as high as the highest, a gap between them."""
    if not pictures:
        raise RizbinError("There is no picture to show; give at least one.")
    height = max(one.shape[0] for one in pictures)
    width = sum(one.shape[1] for one in pictures) + GAP * (len(pictures) - 1)
    out = np.full((height, width, 3), background, np.uint8)
    left = 0
    for one in pictures:
        out[: one.shape[0], left : left + one.shape[1]] = one
        left += one.shape[1] + GAP
    return out


def labelled(picture: AnyPicture, text: str, *, color: Color = (255, 255, 255)) -> AnyPicture:
    """The picture with a line of text on a strip of `color` under it; what does not fit is cut with "…"."""
    width = picture.shape[1]
    strip = Image.new("RGB", (width, _LINE), color)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(TYPE)
    text = " ".join(text.split())
    if draw.textlength(text, font) > width - 4:
        while text and draw.textlength(text + "…", font) > width - 4:
            text = text[:-1]
        text += "…"
    draw.text((2, 1), text, fill=ink_on(color), font=font)
    return np.concatenate([picture, np.asarray(strip)])


def sheet(
    pictures: Sequence[AnyPicture],
    *,
    labels: Sequence[str] = (),
    columns: int = 0,
    side: int = 192,
    background: Color = (255, 255, 255),
    colors: Sequence[Color] = (),
) -> AnyPicture:
    """A contact sheet.

    Args:
        pictures: Of any sizes; small ones are enlarged.
        labels: One under each picture, or none at all.
        columns: AnyPictures in a row; 0 makes the sheet about as wide as high.
        side: Small pictures grow to about this many pixels.
        background: Behind and between the pictures.
        colors: One behind each label; none at all for the background's.
    """
    if not pictures:
        raise RizbinError("There is no picture to show; give at least one.")
    if labels and len(labels) != len(pictures):
        raise RizbinError(f"There are {len(labels)} labels for {len(pictures)} pictures; give one for each.")
    cells = [enlarge(one, side) for one in pictures]
    if labels:
        behind = colors or [background] * len(cells)
        cells = [labelled(one, text, color=color) for one, text, color in zip(cells, labels, behind, strict=True)]
    columns = min(columns or math.ceil(math.sqrt(len(cells))), len(cells))
    height, width = max(one.shape[0] for one in cells), max(one.shape[1] for one in cells)
    rows = math.ceil(len(cells) / columns)
    out = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), background, np.uint8)
    for index, one in enumerate(cells):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        out[top : top + one.shape[0], left : left + one.shape[1]] = one
    return out
