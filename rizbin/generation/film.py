"""How an image comes to be, shown: images on a sheet with words under them, and the same moving."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from rizbin.core import outputs
from rizbin.core.errors import RizbinError

Pixels = UInt8[np.ndarray, "_ _ 3"]
"""An image, RGB, 0 to 255."""
Labelled = tuple[Pixels, str]
"""An image and what stands under it."""
_LINE = 18
"""Height in pixels of a line of text."""


One = TypeVar("One")


def chosen(frames: Sequence[One], most: int) -> list[One]:
    """At most `most` frames, evenly spread, the first and the last among them."""
    if len(frames) <= most:
        return list(frames)
    places = np.linspace(0, len(frames) - 1, most).round().astype(int)
    return [frames[place] for place in places.tolist()]


def sheet(rows: Sequence[Sequence[Labelled]], *, side: int = 128, heads: Sequence[str] = ()) -> Pixels:
    """Images in rows with their words below, each row with its `heads` above; small ones are enlarged unsmoothed."""
    if not rows or not any(rows):
        raise RizbinError("There are no images to put on a sheet.")
    wide = max(len(row) for row in rows)
    high = max(round(side * image.shape[0] / image.shape[1]) for row in rows for image, _ in row)
    head = _LINE if heads else 0
    gap = 6
    canvas = Image.new("RGB", (wide * (side + gap) + gap, len(rows) * (high + _LINE + head + gap) + gap), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for number, row in enumerate(rows):
        top = gap + number * (high + _LINE + head + gap)
        if heads:
            pen.text((gap, top), heads[number], fill=(0, 0, 0), font=font)
        for place, (image, words) in enumerate(row):
            left = gap + place * (side + gap)
            canvas.paste(Image.fromarray(_fitted(image, side)), (left, top + head))
            pen.text((left, top + head + high + 2), _short(words, side, pen, font), fill=(60, 60, 60), font=font)
    return np.asarray(canvas)


def write_png(image: Pixels, path: Path) -> Path:
    """Writes an image and returns its path, which may be a new name (`rizbin.core.outputs`)."""
    return outputs.write(path, png(image))


def png(image: UInt8[np.ndarray, "_ _ *channels"]) -> bytes:
    """An image as the bytes of a PNG file."""
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG")
    return held.getvalue()


def write_gif(images: Sequence[Pixels], path: Path, *, side: int = 256, milliseconds: int = 160) -> Path:
    """Writes images one after the other; the last stays for two seconds."""
    frames = [Image.fromarray(_fitted(image, side)) for image in images]
    held = io.BytesIO()
    frames[0].save(
        held,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[milliseconds] * (len(frames) - 1) + [2000],
        loop=0,
    )
    return outputs.write(path, held.getvalue())


def _fitted(image: Pixels, side: int) -> Pixels:
    """At a width of `side`: small images keep their pixels visible, large ones are averaged."""
    height, width = image.shape[:2]
    how = cv2.INTER_NEAREST if width <= side else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (side, round(side * height / width)), interpolation=how), np.uint8)


def _short(words: str, side: int, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the words as fits under an image."""
    if pen.textlength(words, font) <= side:
        return words
    while words and pen.textlength(words + "...", font) > side:
        words = words[:-1]
    return words + "..."
