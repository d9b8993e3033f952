"""Draws detections on their image: a frame and a name in the color of the class, legible on any background."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from rizbin.detection.detections import Detections

Color = tuple[int, int, int]
_GOLDEN = 0.618034
"""Turns of the color circle between two classes: neighbors in the list never look alike."""


def color_of(number: int) -> Color:
    """The color of a class, bright enough for black letters."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + number * _GOLDEN) % 1, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn(
    pixels: UInt8[np.ndarray, "height width 3"], answer: Detections, *, least: int = 320
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image with its boxes; a small one is enlarged to `least` pixels of its shorter side, so that names fit.

    The best answer is drawn last, on top; a name stands above its box, or inside where there is no room.
    """
    height, width = pixels.shape[:2]
    scale = max(1, -(-least // min(height, width)))
    image = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    size = max(12, round(min(image.size) / 36))
    font = ImageFont.load_default(size)
    line = max(2, size // 6)
    order = range(len(answer) - 1, -1, -1)
    for number in order:
        left, top, right, bottom = (float(value) * scale for value in answer.boxes[number])
        color = color_of(int(answer.classes[number]))
        # A dark line beside the bright one stands out from any ground.
        pen.rectangle((left, top, right - 1, bottom - 1), outline=(0, 0, 0), width=line + 2)
        pen.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=color, width=line)
    places: list[tuple[float, float, float, float]] = []
    for number in range(len(answer)):
        left, top, right, bottom = (float(value) * scale for value in answer.boxes[number])
        text = f"{_shown(answer.labels[number])} {answer.scores[number]:.2f}"
        wide, high = pen.textlength(text, font) + 6, float(size + 4)
        x = min(max(left, 0.0), max(image.width - wide, 0.0))
        y = _free(top, high, x, wide, places, image.height)
        places.append((x, y, x + wide, y + high))
        pen.rectangle((x, y, x + wide, y + high), fill=color_of(int(answer.classes[number])))
        pen.text((x + 3, y + 1), text, fill=(0, 0, 0), font=font)
    return np.asarray(image)


def _free(
    top: float, high: float, x: float, wide: float, places: Sequence[tuple[float, float, float, float]], bottom: int
) -> float:
    """A free position for a name: above the box, below its upper edge, or further down."""
    for y in (top - high, top, *(top + step * high for step in range(1, 8))):
        if y < 0 or y + high > bottom:
            continue
        if not any(x < right and x + wide > left and y < low and y + high > up for left, up, right, low in places):
            return y
    return min(max(top, 0.0), max(bottom - high, 0.0))


def _shown(name: str) -> str:
    name = "".join(character if character.isprintable() else " " for character in name)
    return name if len(name) <= 32 else name[:29] + "..."
