"""The nearest rows of a table of vectors: by comparing all (exact), or by FAISS's lists (faster, almost all found).

And places in images: the row whose best patch is nearest, and where in the image the patches near it lie.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from rizbin.core.errors import RizbinError
from rizbin.vectors.table import Vectors

Index = Literal["exact", "faiss"]
_ROWS = 65_536
"""Rows compared at once: 128 MB at 512 dimensions."""
_LEAST_LISTS = 4096
"""Rows under which FAISS compares all as well: its lists would save nothing."""
_PROBED = 0.1
"""Share of FAISS's lists that are looked through."""


@dataclass(frozen=True)
class ImagePlace:
    """Where in an image something is."""

    heat: Float[np.ndarray, "rows columns"]
    """Cosine of each patch of the central square."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the whole image: around the patches that belong to the best."""


def nearest(
    vectors: Float[np.ndarray, "rows dim"],
    queries: Float[np.ndarray, "queries dim"],
    count: int,
    index: Index = "exact",
) -> tuple[Int[np.ndarray, "queries found"], Float[np.ndarray, "queries found"]]:
    """The rows of greatest cosine for each query, and the cosines, the greatest first; of equals the earlier row."""
    count = min(count, len(vectors))
    if index == "faiss" and len(vectors) >= _LEAST_LISTS:
        return _by_lists(vectors, queries, count)
    rows = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(vectors), _ROWS):
        some = queries @ np.asarray(vectors[start : start + _ROWS], np.float32).T
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + some.shape[1]), some.shape)], axis=1)
        scores = np.concatenate([scores, some], axis=1)
        rows, scores = best(rows, scores, count)
    return rows, scores


def best(
    rows: Int[np.ndarray, "queries some"], scores: Float[np.ndarray, "queries some"], count: int
) -> tuple[Int[np.ndarray, "queries found"], Float[np.ndarray, "queries found"]]:
    """The `count` greatest of each query, in order."""
    order = np.lexsort((rows, -scores), axis=1)[:, :count]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _by_lists(
    vectors: Float[np.ndarray, "rows dim"], queries: Float[np.ndarray, "queries dim"], count: int
) -> tuple[Int[np.ndarray, "queries found"], Float[np.ndarray, "queries found"]]:
    """FAISS's inverted lists by inner product (IVF-Flat): about sqrt(rows) lists, a tenth of them looked through."""
    faiss = _faiss()
    dim = vectors.shape[1]
    lists = round(math.sqrt(len(vectors)))
    # Both names must stay while the index is used: FAISS holds no reference to its quantizer.
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)
    data = np.ascontiguousarray(vectors, np.float32)
    index.cp.min_points_per_centroid = 1  # else it warns of what is chosen here
    index.train(data)
    index.add(data)
    index.nprobe = max(1, math.ceil(lists * _PROBED))
    scores, rows = index.search(np.ascontiguousarray(queries, np.float32), count)
    # Where the lists hold fewer rows than are asked for, FAISS says -1.
    if (rows < 0).any():
        index.nprobe = lists
        scores, rows = index.search(np.ascontiguousarray(queries, np.float32), count)
    return rows, scores


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise RizbinError(
            "--index faiss needs FAISS, which is not installed: pip install 'rizbin[vectors]' brings it; the exact "
            "search needs nothing."
        ) from error


def nearest_patches(
    table: Vectors, queries: Float[np.ndarray, "queries dim"], count: int
) -> tuple[Int[np.ndarray, "queries found"], Float[np.ndarray, "queries found"]]:
    """The rows whose best patch is nearest to each query, and its cosine."""
    parts = []
    for _, patches in table.patch_chunks():
        flat = patches.reshape(len(patches), -1, patches.shape[-1])
        parts.append((flat @ queries.T).max(axis=1))
    scores = np.concatenate(parts).T
    rows = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return best(rows, scores, min(count, scores.shape[1]))


def place_of(
    patches: Float[np.ndarray, "rows columns dim"], query: Float[np.ndarray, " dim"], size: Sequence[int]
) -> ImagePlace:
    """Where in an image of that width and height the patches nearest to the query lie.

    The box is around the patches that are joined to the best one, side by side, and whose cosine is at least halfway
    from the median of all to the best.
    """
    heat = patches @ query
    middle = float(np.median(heat))
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    near = heat >= middle + (float(heat.max()) - middle) / 2
    rows, columns = _joined(near, (int(row), int(column)))
    width, height = int(size[0]), int(size[1])
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    wide, high = side / heat.shape[1], side / heat.shape[0]
    box = (
        left + min(columns) * wide,
        top + min(rows) * high,
        left + (max(columns) + 1) * wide,
        top + (max(rows) + 1) * high,
    )
    return ImagePlace(heat.astype(np.float32), box)


def _joined(near: np.ndarray, start: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Rows and columns of the cells that are reached from one of them over sides that they share."""
    reached, ends = {start}, [start]
    while ends:
        row, column = ends.pop()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < near.shape[0] and 0 <= cell[1] < near.shape[1]
            if inside and cell not in reached and near[cell]:
                reached.add(cell)
                ends.append(cell)
    return [row for row, _ in reached], [column for _, column in reached]
