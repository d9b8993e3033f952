"""What looks alike to a network: one patch against all others, and patches of two pictures that belong together."""

import colorsys

import cv2
import numpy as np
from jaxtyping import Float, Int

from rizbin.core.errors import RizbinError
from rizbin.visualize.attention import overlay
from rizbin.visualize.colors import AnyPicture, Picture
from rizbin.visualize.grid import GAP, beside, enlarge


def similarity_to(
    features: Float[np.ndarray, "rows columns dim"], row: int, column: int
) -> Float[np.ndarray, "rows columns"]:
    """The cosine of every patch with the chosen one, -1 to 1."""
    rows, columns = features.shape[:2]
    if not (0 <= row < rows and 0 <= column < columns):
        raise RizbinError(
            f"There is no patch ({row}, {column}) in a grid of {rows} x {columns}; rows and columns count from 0."
        )
    unit = _unit(features)
    return unit @ unit[row, column]


def similar(
    picture: Picture, features: Float[np.ndarray, "rows columns dim"], row: int, column: int, *, side: int = 192
) -> AnyPicture:
    """The picture under `similarity_to`, with a ring on the chosen patch."""
    shown = enlarge(overlay(picture, similarity_to(features, row, column)), side).copy()
    center = _center(row, column, features.shape[:2], shown)
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):  # a white ring with a dark rim shows on anything
        cv2.circle(shown, center, max(5, shown.shape[0] // 24), color, thickness, cv2.LINE_AA)
    return shown


def correspondences(
    first: Float[np.ndarray, "rows columns dim"], second: Float[np.ndarray, "rows2 columns2 dim"], count: int = 12
) -> Int[np.ndarray, "found 4"]:
    """Patches (row, column, row, column) that are each other's nearest by cosine; the most alike `count`, in order."""
    left, right = _unit(first).reshape(-1, first.shape[-1]), _unit(second).reshape(-1, second.shape[-1])
    cosines = left @ right.T
    there, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    mutual = np.flatnonzero(back[there] == np.arange(len(left)))
    best = mutual[np.argsort(-cosines[mutual, there[mutual]], kind="stable")][:count]
    return np.stack([*np.divmod(best, first.shape[1]), *np.divmod(there[best], second.shape[1])], axis=1)


def corresponding(
    first: AnyPicture,
    second: AnyPicture,
    matches: Int[np.ndarray, "found 4"],
    grids: tuple[tuple[int, int], tuple[int, int]],
    *,
    side: int = 256,
) -> AnyPicture:
    """Both pictures side by side with a line for each match; `grids` are their patch rows and columns."""
    left, right = enlarge(first, side), enlarge(second, side)
    shown = beside([left, right]).copy()
    for index, (row, column, row2, column2) in enumerate(matches.tolist()):
        red, green, blue = colorsys.hsv_to_rgb(index / max(1, len(matches)), 0.75, 1.0)
        color = (round(255 * red), round(255 * green), round(255 * blue))
        start, end = _center(row, column, grids[0], left), _center(row2, column2, grids[1], right)
        end = (end[0] + left.shape[1] + GAP, end[1])
        for ink, thickness in (((0, 0, 0), 3), (color, 1)):
            cv2.line(shown, start, end, ink, thickness, cv2.LINE_AA)
        for point in (start, end):
            cv2.circle(shown, point, 4, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(shown, point, 3, color, -1, cv2.LINE_AA)
    return shown


def _unit(features: Float[np.ndarray, "*shape dim"]) -> Float[np.ndarray, "*shape dim"]:
    """Features at length 1; a zero vector stays zero and is like nothing."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _center(row: int, column: int, grid: tuple[int, ...], picture: AnyPicture) -> tuple[int, int]:
    """The pixel (x, y) in the middle of a patch."""
    return int((column + 0.5) / grid[1] * picture.shape[1]), int((row + 0.5) / grid[0] * picture.shape[0])
