"""What a decoder makes of the gaps: removed patches filled with its guess."""

import numpy as np
from jaxtyping import Bool

from rizbin.nets.masks import pixels_of
from rizbin.visualization.colors import AnyPicture, Picture
from rizbin.visualization.grid import beside, enlarge
from rizbin.visualization.removed import removed


def filled(picture: Picture, guess: Picture, patches: Bool[np.ndarray, "rows columns"]) -> Picture:
    """The picture with its marked patches replaced by those of the guess; both of one size."""
    height, width = picture.shape[:2]
    return np.where(pixels_of(patches, height, width)[..., None], guess, picture)


def compared(
    picture: Picture, guess: Picture, patches: Bool[np.ndarray, "rows columns"], *, side: int = 192
) -> AnyPicture:
    """Side by side: what the network saw, what it made of that, and the whole picture."""
    parts = (filled(picture, guess, patches), picture)
    return beside([removed(picture, patches, side=side), *(enlarge(one, side) for one in parts)])
