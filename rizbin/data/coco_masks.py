"""The masks of COCO's annotations: polygons, run lengths plain and compressed, and boxes.

Format: cocodataset.org, "Data format", and its API's `mask`.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rizbin.data.coco_file import Record, id_of, spelled
from rizbin.data.sample import LabeledObject

Mask = Bool[np.ndarray, "height width"]
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""
MOST_CROSSINGS = 30_000_000
"""Most crossings of one outline with the rows of its image: a second of one core."""
FARTHEST = 1e7
"""Pixels from the image's corner at which a corner of an outline may lie."""
_AT_ONCE = 2**20
"""Crossings that are worked out together: some ten megabytes."""


class Unfit(ValueError):
    """An annotation whose fault can be named."""


def object_of(record: Record, names: dict[Any, str], height: int, width: int) -> LabeledObject:
    """An object with its mask, from polygons, run lengths or else its box. Raises ValueError when it lies outside."""
    mask = _mask(record, height, width)
    if not mask.any():  # an outline that is thinner than a pixel, beside which the box may be good
        mask = _box_mask(box_of(record), height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return LabeledObject(names[id_of(record, "category_id")], box, mask)


def _mask(record: Record, height: int, width: int) -> Mask:
    shape = record.get("segmentation")
    if isinstance(shape, dict):
        size = shape.get("size")
        if size is not None and size != [height, width]:
            raise Unfit(f"run lengths of size {spelled(size)} for an image of size [{height}, {width}]")
        return decode_runs(shape["counts"], height, width)
    if not shape:
        return _box_mask(box_of(record), height, width)
    mask = np.zeros((height, width), np.bool_)
    for polygon in shape:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not (np.abs(corners) <= FARTHEST).all():
            raise Unfit("a corner that is no place near the image")
        mask |= fill_polygon(corners, height, width)
    return mask


def box_of(record: Record) -> Box:
    """Left, top, width and height. Raises ValueError for what is no box, TypeError or KeyError where there is none."""
    left, top, wide, high = (float(number) for number in record["bbox"])
    if not all(abs(number) <= FARTHEST for number in (left, top, wide, high)):
        raise Unfit("a box that is no place near the image")
    if min(wide, high) < 0:
        raise Unfit(f"a box with a width of {wide:g} and a height of {high:g}")
    return left, top, wide, high


def _box_mask(box: Box, height: int, width: int) -> Mask:
    """The pixels whose center is in the box; of one that holds no center, the pixel in its own center."""
    left, top, wide, high = box
    right, bottom = left + wide, top + high
    mask = np.zeros((height, width), np.bool_)
    (first, last), (low, high) = (
        (max(math.ceil(start - 0.5), 0), max(math.ceil(end - 0.5), 0)) for start, end in ((left, right), (top, bottom))
    )
    mask[low:high, first:last] = True
    if first >= min(last, width) or low >= min(high, height):
        column, row = (
            math.floor((max(left, 0) + min(right, width)) / 2),
            math.floor((max(top, 0) + min(bottom, height)) / 2),
        )
        if right <= 0 or bottom <= 0 or left >= width or top >= height or right == left or bottom == top:
            raise Unfit(f"a box outside of the {width} x {height} pixels, or without an area")
        mask[min(row, height - 1), min(column, width - 1)] = True
    return mask


def decode_runs(counts: list[int] | str, height: int, width: int) -> Mask:
    """The mask of COCO's run lengths, plain or compressed: runs of 0 and 1 in turn, column by column."""
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise Unfit(f"run lengths that do not fill {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T.copy()


def _unpack(text: str) -> list[int]:
    """Run lengths from COCO's text: 5 bits a character, lowest first, from the fourth on less the one two before."""
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def fill_polygon(corners: Float[np.ndarray, "corners 2"], height: int, width: int) -> Mask:
    """The pixels whose center is inside, by the even-odd rule; x and y in pixels, 0 being the image's edge.

    OpenCV and Pillow draw the outline too, which makes every object a pixel larger than its annotation. Raises
    ValueError for an outline that crosses the rows more than `MOST_CROSSINGS` times.
    """
    mask = np.zeros((height, width), np.bool_)
    ends = np.roll(corners, -1, axis=0)
    lows, highs = np.minimum(corners[:, 1], ends[:, 1]), np.maximum(corners[:, 1], ends[:, 1])
    first, last = (np.clip(np.ceil(rows - 0.5), 0, height).astype(np.int64) for rows in (lows, highs))
    counts = np.maximum(last - first, 0)
    if counts.sum() > MOST_CROSSINGS:
        raise Unfit(f"an outline of {len(corners)} corners that crosses the rows {counts.sum()} times")
    used = np.flatnonzero(counts)
    if not used.size:
        return mask
    top, bottom = int(first[used].min()), int(last[used].max())
    # How often the outline is crossed on the way from the left edge, modulo 256, which leaves odd and even alone.
    crossings = np.zeros((bottom - top) * (width + 1), np.uint8)
    for part in np.split(used, np.flatnonzero(np.diff(np.cumsum(counts[used]) // _AT_ONCE)) + 1):
        edges = np.repeat(part, counts[part])
        before = np.cumsum(counts[part]) - counts[part]
        rows = first[edges] + np.arange(len(edges)) - np.repeat(before, counts[part])
        (x1, y1), (x2, y2) = corners[edges].T, ends[edges].T
        across = np.ceil(x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1) - 0.5).clip(0, width).astype(np.int64)
        np.add.at(crossings, (rows - top) * (width + 1) + across, np.uint8(1))
    inside = crossings.reshape(-1, width + 1)[:, :width].cumsum(axis=1, dtype=np.uint8) % 2 == 1
    mask[top:bottom] = inside
    return mask
