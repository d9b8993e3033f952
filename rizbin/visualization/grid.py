"""Images enlarged, labelled, framed and put side by side."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rizbin.core.errors import RizbinError
from rizbin.visualization.colors import AnySizeImage, Color, ink_on

GAP = 6
"""Pixels between the images of a sheet."""
TYPE = 13
"""Height of labels in pixels: the smallest that Pillow's own font is easily read at."""
_LINE = TYPE + 5
MARK: Color = (255, 225, 25)
"""Yellow, for what stands out."""


def enlarge(image: AnySizeImage, side: int = 192) -> AnySizeImage:
    """The image with each pixel as a square of whole pixels; its shorter side comes near `side`, never smaller."""
    times = max(1, round(side / max(1, min(image.shape[:2]))))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def shrunk(image: AnySizeImage, side: int) -> AnySizeImage:
    """The image with its shorter side brought down to `side`; one that is small already stays as it is."""
    height, width = image.shape[:2]
    if min(height, width) <= side:
        return image
    scale = side / min(height, width)
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def framed(image: AnySizeImage, color: Color, thickness: int = 3) -> AnySizeImage:
    """The image with a frame drawn inside its border."""
    out = image.copy()
    edge = max(1, min(thickness, min(image.shape[:2]) // 2))
    out[:edge], out[-edge:], out[:, :edge], out[:, -edge:] = color, color, color, color
    return out


def beside(images: Sequence[AnySizeImage], *, background: Color = (255, 255, 255)) -> AnySizeImage:
    """The images in one row, as high as the highest, a gap between them."""
    if not images:
        raise RizbinError("There is no image to show; give at least one.")
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + GAP * (len(images) - 1)
    out = np.full((height, width, 3), background, np.uint8)
    left = 0
    for image in images:
        out[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + GAP
    return out


def labelled(image: AnySizeImage, text: str, *, color: Color = (255, 255, 255)) -> AnySizeImage:
    """The image with a line of text on a strip of `color` under it; what does not fit is cut with "…"."""
    width = image.shape[1]
    strip = Image.new("RGB", (width, _LINE), color)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(TYPE)
    text = " ".join(text.split())
    if draw.textlength(text, font) > width - 4:
        while text and draw.textlength(text + "…", font) > width - 4:
            text = text[:-1]
        text += "…"
    draw.text((2, 1), text, fill=ink_on(color), font=font)
    return np.concatenate([image, np.asarray(strip)])


def sheet(
    images: Sequence[AnySizeImage],
    *,
    labels: Sequence[str] = (),
    columns: int = 0,
    side: int = 192,
    background: Color = (255, 255, 255),
    colors: Sequence[Color] = (),
) -> AnySizeImage:
    """A contact sheet.

    Args:
        images: Of any sizes; small ones are enlarged.
        labels: One under each image, or none at all.
        columns: Images in a row; 0 makes the sheet about as wide as high.
        side: Small images grow to about this many pixels.
        background: Behind and between the images.
        colors: One behind each label; none at all for the background's.
    """
    if not images:
        raise RizbinError("There is no image to show; give at least one.")
    if labels and len(labels) != len(images):
        raise RizbinError(f"There are {len(labels)} labels for {len(images)} images; give one for each.")
    cells = [enlarge(image, side) for image in images]
    if labels:
        behind = colors or [background] * len(cells)
        cells = [labelled(cell, text, color=color) for cell, text, color in zip(cells, labels, behind, strict=True)]
    columns = min(columns or math.ceil(math.sqrt(len(cells))), len(cells))
    height, width = max(cell.shape[0] for cell in cells), max(cell.shape[1] for cell in cells)
    rows = math.ceil(len(cells) / columns)
    out = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), background, np.uint8)
    for index, cell in enumerate(cells):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        out[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return out
