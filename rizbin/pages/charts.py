"""Line charts as SVG text: several series, a smooth line over the faint raw one, sensible ticks, a logarithmic axis.

No dependency and no script is needed to read one. Colors are the classes `s0` to `s7` of `page.css`, so that a chart
follows the reader's light or dark mode.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

Real = int | float
"""A number; the checker of the tests does not take an int for a float."""

WIDTH, HEIGHT = 400, 248
"""Drawing units. Small on purpose: at 330 px on a telephone 13 units of type are still 10 pixels high."""
LEFT, TOP, RIGHT, BOTTOM = 50, 14, 388, 208
"""The frame that holds the lines; the rest is for the numbers of the axes."""
COLORS = 8
"""Series colors in `page.css`; the ninth series takes the first again, with another dash."""
COLUMNS = 240
"""A raw line is thinned to the lowest and highest value in this many columns: more than a screen can tell apart."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    """Shown in the legend."""
    x: Sequence[Real]
    """Positions, in rising order, as many as `y`."""
    y: Sequence[Real]
    """Values; one that is not finite (or not positive on a logarithmic axis) leaves a gap."""
    smooth: bool = True
    """Draw a running mean over the faint values, where there are enough of them to need it."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A vertical line: something happened at `x`."""

    x: Real
    text: str
    """Shown when the pointer rests on it, and read aloud."""


def clean(text: str) -> str:
    """The text escaped for HTML, for content and for attributes, without characters that no page may hold."""
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]", "\ufffd", text)
    return escape(text, quote=True)


def number(value: Real, digits: int = 3) -> str:
    """The value in few characters: "0.042", "1.5", "12,000", "3e-07"; "n/a" for one that is not finite."""
    if not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e7:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low: Real, high: Real, most: int = 5) -> list[float]:
    """Round positions (steps of 1, 2 or 5 times a power of ten) inside [low, high], `most` or fewer, never none."""
    if not high > low:
        return [float(low)]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded to the step's own decimals, else 3 * 0.1 would be printed as 0.30000000000000004.
    places = max(0, -math.floor(math.log10(step)))
    return [round(index * step, places) for index in range(first, last + 1)] or [float(low)]


def tick_labels(values: Sequence[Real]) -> list[str]:
    """The values in words that differ from each other: more digits than three only where three would repeat."""
    for digits in range(3, 13):
        texts = [number(value, digits) for value in values]
        if len(set(texts)) == len(texts):
            break
    else:
        texts = [repr(float(value)) for value in values]
    return texts


def log_ticks(low: Real, high: Real, most: int = 5) -> list[float]:
    """Powers of ten inside [low, high]; where there are fewer than two, also 2 and 5 times them; both positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    inside = [power for power in range(first, last + 1) if low * (1 - 1e-9) <= 10.0**power <= high * (1 + 1e-9)]
    if len(inside) >= 2:
        return [10.0**power for power in inside[:: math.ceil(len(inside) / most)]]
    fine = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [value for value in fine if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)] or [float(low)]


def smoothed(y: Float[np.ndarray, "points"], window: int) -> Float[np.ndarray, "points"]:
    """The centered mean over `window` neighbours (fewer at the ends); gaps are left out of the mean and stay gaps."""
    known = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    middle = np.arange(len(y))
    # The window shrinks evenly on both sides near the ends: a one-sided mean would bend the line there.
    half = np.minimum(window // 2, np.minimum(middle, len(y) - 1 - middle))
    start, stop = middle - half, middle + half + 1
    mean = (sums[stop] - sums[start]) / np.maximum(counts[stop] - counts[start], 1)
    return np.where(known, mean, np.nan)


@dataclass(frozen=True)
class _Axis:
    """Maps values to drawing units."""

    low: Real
    high: Real
    start: Real
    stop: Real
    log: bool

    def __call__(self, values: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        place = np.log10(values) if self.log else values
        return self.start + (place - low) / (high - low) * (self.stop - self.start)


def _range(values: Float[np.ndarray, "points"], log: bool, pad: float) -> tuple[float, float]:
    """A range that holds all values with a little air; a constant gets a range too, and nothing at all gets 0 to 1."""
    if values.size == 0:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        air = (high / low) ** pad if high > low * (1 + 1e-9) else 2.0
        return low / air, high * air
    spread = high - low
    if spread <= 1e-12 * max(abs(low), abs(high)):
        spread, pad = max(abs(low), 1.0), 0.5
    # A line that starts at zero or comes close to it is easier to judge with zero in the image.
    floor = 0.0 if 0 <= low < 0.25 * high else low - pad * spread
    return floor, high + pad * spread


def _values(series: Series, log: bool) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]:
    """The series as arrays; what cannot be drawn is NaN, points without a position are dropped."""
    x, y = np.asarray(series.x, dtype=np.float64), np.asarray(series.y, dtype=np.float64)
    # 1e100 is beyond any figure of a run that lives, and keeps differences of two values finite.
    y = np.where((np.abs(y) < 1e100) & ((y > 1e-100) | (not log)), y, np.nan)
    placed = np.abs(x) < 1e100
    return x[placed], y[placed]


def _runs(x: Float[np.ndarray, "points"], y: Float[np.ndarray, "points"]) -> list[str]:
    """The line's unbroken pieces as "x,y x,y ...": gaps cut it."""
    known = np.isfinite(y)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return [
        " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[start:stop], y[start:stop], strict=True))
        for start, stop in edges.reshape(-1, 2)
    ]


def _thinned(
    x: Float[np.ndarray, "points"], y: Float[np.ndarray, "points"]
) -> tuple[Float[np.ndarray, "kept"], Float[np.ndarray, "kept"]]:
    """The lowest and the highest point of each column, in order: peaks survive, the file stays small."""
    if len(x) <= 2 * COLUMNS:
        return x, y
    keep: list[int] = []
    for part in np.array_split(np.arange(len(x)), COLUMNS):
        known = part[np.isfinite(y[part])]
        pair = {int(known[y[known].argmin()]), int(known[y[known].argmax()])} if known.size else {int(part[0])}
        keep.extend(sorted(pair))
    return x[keep], y[keep]


def _lines(series: Series, index: int, across: _Axis, up: _Axis) -> str:
    """The SVG of one series."""
    x, y = _values(series, up.log)
    known = int(np.isfinite(y).sum())
    dash = f" d{index // COLORS % 3}" if index >= COLORS else ""
    name = clean(series.name)
    out: list[str] = []
    window = known // 25
    smooth = series.smooth and window >= 3
    layers = [("raw", *_thinned(x, y))] if smooth else []
    layers.append(("line", *_thinned(x, smoothed(y, window) if smooth else y)))
    for kind, part_x, part_y in layers:
        with np.errstate(invalid="ignore"):  # the gaps
            pieces = _runs(across(part_x), up(part_y))
        for piece in pieces:
            if " " in piece:
                out.append(f'<polyline class="{kind} s{index % COLORS}{dash}" data-name="{name}" points="{piece}"/>')
            elif kind == "line":
                a, b = piece.split(",")
                out.append(f'<circle class="dot s{index % COLORS}" data-name="{name}" cx="{a}" cy="{b}" r="3.5"/>')
    return "".join(out)


def _frame(across: _Axis, up: _Axis, x_label: str) -> str:
    """Grid lines, the numbers of both axes, and the name of the horizontal one."""
    out: list[str] = []
    heights = log_ticks(up.low, up.high) if up.log else ticks(up.low, up.high)
    for value, text in zip(heights, tick_labels(heights), strict=True):
        y = float(up(np.array([value]))[0])
        out.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" text-anchor="end" x="{LEFT - 7}" y="{y + 4.5:.1f}">{text}</text>')
    places = ticks(across.low, across.high, 4)
    for value, text in zip(places, tick_labels(places), strict=True):
        x = float(across(np.array([value]))[0])
        # The outermost numbers lean inwards, so that "12,000" at the right edge is not cut off.
        anchor = "end" if x > RIGHT - 16 else "middle"
        x = min(x, RIGHT + 8) if anchor == "end" else x
        out.append(f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" y="{BOTTOM + 17}">{text}</text>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    middle = (LEFT + RIGHT) / 2
    out.append(f'<text class="tick" text-anchor="middle" x="{middle}" y="{HEIGHT - 6}">{clean(x_label)}</text>')
    return "".join(out)


def line_chart(
    series: Sequence[Series], *, title: str, log: bool = False, marks: Sequence[Mark] = (), x_label: str = "step"
) -> str:
    """One `<svg>` element. It never fails on values: constant, missing, infinite and one-point series all draw.

    Args:
        series: The lines; none, or none with a finite value, gives an empty frame that says so.
        title: What a screen reader hears.
        log: Logarithmic vertical axis; values that are not positive are left out.
        marks: Vertical lines; those outside the range of `series` are clipped away.
        x_label: Name of the horizontal axis.
    """
    values = [_values(line, log) for line in series]
    xs = np.concatenate([x for x, _ in values]) if values else np.empty(0)
    ys = np.concatenate([y for _, y in values]) if values else np.empty(0)
    finite = np.isfinite(ys)
    x_low, x_high = (float(xs[finite].min()), float(xs[finite].max())) if finite.any() else (0.0, 1.0)
    if x_high <= x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    across = _Axis(x_low, x_high, LEFT, RIGHT, False)
    up = _Axis(*_range(ys[finite], log, 0.06), BOTTOM, TOP, log)
    inner = [_frame(across, up, x_label)]
    for mark in marks:
        if x_low <= mark.x <= x_high:
            x = float(across(np.array([float(mark.x)]))[0])
            inner.append(
                f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BOTTOM}">'
                f"<title>{clean(mark.text)}</title></line>"
            )
    inner.extend(_lines(line, index, across, up) for index, line in enumerate(series))
    if not finite.any():
        inner.append(
            f'<text class="tick" text-anchor="middle" x="{(LEFT + RIGHT) / 2}" y="{(TOP + BOTTOM) / 2}">'
            "No values were recorded.</text>"
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{clean(title)}" '
        f'data-frame="{LEFT} {TOP} {RIGHT} {BOTTOM}" data-log="{int(log)}" '
        f'data-range="{x_low!r} {x_high!r} {up.low!r} {up.high!r}">{"".join(inner)}</svg>'
    )
