"""What looks alike to a network: one patch against all others, patches of two images, and whole images."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from rizbin.core.errors import RizbinError
from rizbin.visualization.attention import overlay
from rizbin.visualization.colors import AnySizeImage, Color, SizedImage, distinct, ink_on
from rizbin.visualization.grid import GAP, beside, enlarge


def similarity_to(
    features: Float[np.ndarray, "rows columns dim"], row: int, column: int
) -> Float[np.ndarray, "rows columns"]:
    """The cosine of every patch with the chosen one, -1 to 1."""
    rows, columns = features.shape[:2]
    if not (0 <= row < rows and 0 <= column < columns):
        raise RizbinError(
            f"There is no patch ({row}, {column}) in a grid of {rows} x {columns}; rows and columns count from 0."
        )
    units = unit(features)
    return units @ units[row, column]


def similar(
    image: SizedImage, features: Float[np.ndarray, "rows columns dim"], row: int, column: int, *, side: int = 192
) -> AnySizeImage:
    """The image under `similarity_to`, with a ring on the chosen patch."""
    return ringed(enlarge(overlay(image, similarity_to(features, row, column)), side), row, column, features.shape[:2])


def ringed(image: AnySizeImage, row: int, column: int, grid: tuple[int, ...]) -> AnySizeImage:
    """The image with a ring on one patch of the grid."""
    shown = image.copy()
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):  # a white ring with a dark rim shows on anything
        cv2.circle(
            shown, _center(row, column, grid, shown), max(5, shown.shape[0] // 24), color, thickness, cv2.LINE_AA
        )
    return shown


def nearest(
    features: Float[np.ndarray, "images dim"], count: int, *, of: int = -1
) -> tuple[Int[np.ndarray, "queries found"], Float[np.ndarray, "queries found"]]:
    """The other images that are most like each one, nearest first, and their cosines.

    `of` asks for the first so many images only, -1 for all; there are never more found than there are others.
    """
    known = unit(features)
    cosines = known[: len(known) if of < 0 else of] @ known.T
    np.fill_diagonal(cosines, -np.inf)  # an image is most like itself, which nobody wants to know
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(known) - 1)]
    return order, np.take_along_axis(cosines, order, axis=1)


def correspondences(
    first: Float[np.ndarray, "rows columns dim"],
    second: Float[np.ndarray, "rows2 columns2 dim"],
    count: int = 12,
    *,
    keep: tuple[Bool[np.ndarray, "rows columns"], Bool[np.ndarray, "rows2 columns2"]] | None = None,
) -> Int[np.ndarray, "found 4"]:
    """Patches (row, column, row, column) that are each other's nearest by cosine; the most alike `count`, in order.

    `keep` marks the patches of both images that take part; by default all do.
    """
    left, right = unit(first).reshape(-1, first.shape[-1]), unit(second).reshape(-1, second.shape[-1])
    places = [np.arange(len(left)), np.arange(len(right))]
    if keep is not None:
        places = [np.flatnonzero(mask) for mask in keep]
    if not (len(places[0]) and len(places[1])):
        return np.zeros((0, 4), int)
    cosines = left[places[0]] @ right[places[1]].T
    there, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    mutual = np.flatnonzero(back[there] == np.arange(len(there)))
    best = mutual[np.argsort(-cosines[mutual, there[mutual]], kind="stable")][:count]
    ends = places[0][best], places[1][there[best]]
    return np.stack([*np.divmod(ends[0], first.shape[1]), *np.divmod(ends[1], second.shape[1])], axis=1)


def corresponding(
    first: AnySizeImage,
    second: AnySizeImage,
    matches: Int[np.ndarray, "found 4"],
    grids: tuple[tuple[int, int], tuple[int, int]],
    *,
    side: int = 256,
) -> AnySizeImage:
    """Both images side by side, each match a line between two dots of one number, the most alike first.

    `grids` are their patch rows and columns.
    """
    left, right = enlarge(first, side), enlarge(second, side)
    shown = beside([left, right]).copy()
    ends: list[tuple[Color, tuple[int, int], tuple[int, int]]] = []
    for color, (row, column, row2, column2) in zip(distinct(len(matches)), matches.tolist(), strict=True):
        start, end = _center(row, column, grids[0], left), _center(row2, column2, grids[1], right)
        ends.append((color, start, (end[0] + left.shape[1] + GAP, end[1])))
    for color, start, end in ends:
        for ink, thickness in (((0, 0, 0), 3), (color, 1)):
            cv2.line(shown, start, end, ink, thickness, cv2.LINE_AA)
    # All dots after all lines, and the most alike last: a number that is covered says nothing.
    for number, (color, start, end) in reversed(list(enumerate(ends, 1))):
        for point in (start, end):
            _dot(shown, point, color, str(number))
    return shown


def _dot(image: AnySizeImage, point: tuple[int, int], color: Color, text: str) -> None:
    """Draws a disk with a number in it."""
    cv2.circle(image, point, 9, (0, 0, 0), -1, cv2.LINE_AA)
    cv2.circle(image, point, 8, color, -1, cv2.LINE_AA)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
    place = (point[0] - width // 2, point[1] + height // 2)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, ink_on(color), 1, cv2.LINE_AA)


def unit(features: Float[np.ndarray, "*shape dim"]) -> Float[np.ndarray, "*shape dim"]:
    """Features at length 1; a zero vector stays zero and is like nothing."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _center(row: int, column: int, grid: tuple[int, ...], image: AnySizeImage) -> tuple[int, int]:
    """The pixel (x, y) in the middle of a patch."""
    return int((column + 0.5) / grid[1] * image.shape[1]), int((row + 0.5) / grid[0] * image.shape[0])
