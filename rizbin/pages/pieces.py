"""The pieces that report pages are made of: what goes in as plain data, and how each looks as HTML."""

import base64
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from rizbin.core.errors import RizbinError
from rizbin.pages.charts import Real, clean, number

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Link:
    """A word that leads out of the page when a reader clicks it; nothing is fetched before."""

    text: str
    address: str
    """http, https or mailto; any other scheme is refused."""


@dataclass(frozen=True)
class Strong:
    """Words that a reader who skims should see."""

    text: str


Part = str | Link | Strong


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One big number at the top of a page."""

    value: str
    label: str
    detail: str = ""
    """A second, quieter line: what the number is compared with."""


@dataclass(frozen=True, kw_only=True)
class PageImage:
    """One image with what it shows."""

    image: UInt8[np.ndarray, "height width 3"]
    """RGB, 0 to 255, any size; a small one is shown enlarged with its pixels sharp."""
    caption: str = ""
    """Under the image."""
    alt: str
    """What a reader who cannot see it should know."""
    good: bool | None = None
    """Marks the image as right or wrong where that has a meaning."""
    smooth: bool = False
    """Enlarge softly: for heat maps, whose pixels mean nothing by themselves."""


@dataclass(frozen=True, kw_only=True)
class BarCell:
    """A table cell that shows a value as a bar, with a tick for each thing it is compared with."""

    value: Real
    ticks: tuple[tuple[str, Real | None], ...] = ()
    """(name, value); one without a value draws nothing."""
    low: Real = 0.0
    """The value at the bar's left end."""
    high: Real = 1.0
    """The value at its right end; what lies outside is cut off there."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One line of a small ranking."""

    name: str
    value: Real
    """0 to 1: the length of its bar."""
    good: bool | None = None
    """True for a right answer, False for a wrong one, None where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Swatch:
    """One entry of a legend of colors."""

    color: Color
    text: str


@dataclass(frozen=True)
class Number:
    """A table cell with a number in words of its own: "87.2 %"."""

    text: str
    value: Real | None
    """What the column is sorted by; None comes last."""


Cell = str | int | float | Number | BarCell | Link
"""What a table can hold; plain numbers are written with three digits."""


def png(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The image as a PNG file: 8-bit RGB, lossless; the row filter that packs best is chosen for all rows."""
    height, width, _ = image.shape
    if height == 0 or width == 0:
        raise RizbinError(f"An image of {width} x {height} pixels cannot be shown; give one with at least one pixel.")
    flat = np.ascontiguousarray(image).reshape(height, width * 3)
    left = flat.copy()
    left[:, 3:] -= flat[:, :-3]
    above = flat.copy()
    above[1:] -= flat[:-1]
    packed = (  # filter types 0 (none), 1 (left), 2 (above) of the PNG specification, section 9.2
        zlib.compress(np.concatenate([np.full((height, 1), kind, np.uint8), rows], axis=1).tobytes(), 6)
        for kind, rows in enumerate((flat, left, above))
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", min(packed, key=len)) + chunk(b"IEND", b"")


def parts_html(parts: Sequence[Part]) -> str:
    """Inline text."""
    out: list[str] = []
    for part in parts:
        if isinstance(part, Link):
            if not re.match(r"(https?://|mailto:)", part.address):
                raise RizbinError(
                    f"The link {part.address!r} cannot go into a report: give one that begins with https://."
                )
            out.append(f'<a href="{clean(part.address)}" rel="noopener noreferrer">{clean(part.text)}</a>')
        elif isinstance(part, Strong):
            out.append(f"<strong>{clean(part.text)}</strong>")
        else:
            out.append(clean(part))
    return "".join(out)


def figure_html(shown: PageImage) -> str:
    """One `<figure>`. Width and height are given, so that the page does not jump while it opens."""
    height, width, _ = shown.image.shape
    # Under 160 px an image is enlarged on the page; soft edges would then hide what the network really saw.
    kind = "soft" if shown.smooth else "sharp" if max(height, width) < 160 else "soft"
    data = base64.b64encode(png(shown.image)).decode()
    verdict = "" if shown.good is None else f' class="{"good" if shown.good else "bad"}"'
    caption = f'<figcaption dir="auto">{_verdict(shown.good)}{clean(shown.caption)}</figcaption>'
    return (
        f'<figure{verdict}><img class="{kind}" width="{width}" height="{height}" alt="{clean(shown.alt)}" '
        f'decoding="async" src="data:image/png;base64,{data}">'
        f"{caption if shown.caption or shown.good is not None else ''}</figure>"
    )


def _verdict(good: bool | None) -> str:
    """A sign that does not rest on color alone."""
    if good is None:
        return ""
    sign, word = ("✓", "right") if good else ("✗", "wrong")
    return f'<span class="{"yes" if good else "no"}" role="img" aria-label="{word}">{sign}</span> '


def bar_html(bar: BarCell) -> str:
    """The SVG of one bar, 100 units wide."""

    def place(value: Real) -> float:
        share = (value - bar.low) / (bar.high - bar.low) if bar.high > bar.low else 0.0
        return 100 * min(max(share, 0.0), 1.0) if share == share else 0.0

    spoken = ", ".join(f"{name} {number(value)}" for name, value in bar.ticks if value is not None)
    out = [f'<svg class="bar" viewBox="0 0 100 14" preserveAspectRatio="none" role="img" aria-label="{clean(spoken)}">']
    out.append('<rect class="track" width="100" height="8" y="3"/>')
    out.append(f'<rect class="fill" width="{place(bar.value):.1f}" height="8" y="3"/>')
    for index, (name, value) in enumerate(bar.ticks):
        if value is not None:
            x = min(max(place(value), 0.6), 99.4)
            out.append(
                f'<line class="t{index}" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="14"><title>{clean(name)}</title></line>'
            )
    return "".join(out) + "</svg>"


def cell_html(cell: Cell, label: str) -> str:
    """One `<td>`; the label is what a narrow screen shows beside the value."""
    if isinstance(cell, BarCell):
        return f'<td class="bars" data-sort="{cell.value!r}">{bar_html(cell)}</td>'
    if isinstance(cell, Link):
        return f"<td>{parts_html([cell])}</td>"
    if isinstance(cell, str):
        return f'<td data-label="{clean(label)}" dir="auto">{clean(cell)}</td>'
    cell = cell if isinstance(cell, Number) else Number(number(cell), float(cell))
    key = "-inf" if cell.value is None else repr(float(cell.value))
    return f'<td class="number" data-label="{clean(label)}" data-sort="{key}">{clean(cell.text)}</td>'


def scores_html(scores: Sequence[Score]) -> str:
    """A small ranking: name, bar, percent."""
    rows = "".join(
        f"<li><span>{_verdict(score.good)}{clean(score.name)}</span>{bar_html(BarCell(value=score.value))}"
        f'<span class="percent">{100 * score.value:.0f} %</span></li>'
        for score in scores
    )
    return f'<ol class="scores">{rows}</ol>' if scores else ""


def legend_html(swatches: Sequence[Swatch]) -> str:
    """Colors with their names."""
    entries = "".join(
        f'<li><svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" rx="2" '
        f'fill="#{"".join(f"{part:02x}" for part in swatch.color)}"/></svg>{clean(swatch.text)}</li>'
        for swatch in swatches
    )
    return f'<ul class="legend">{entries}</ul>' if swatches else ""
