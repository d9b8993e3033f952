"""What a decoder makes of the gaps: removed patches filled with its guess."""

import numpy as np
from jaxtyping import Bool

from rizbin.nets.masks import pixels_of
from rizbin.visualization.colors import AnySizeImage, SizedImage
from rizbin.visualization.grid import beside, enlarge
from rizbin.visualization.removed import removed


def filled(image: SizedImage, guess: SizedImage, patches: Bool[np.ndarray, "rows columns"]) -> SizedImage:
    """The image with its marked patches replaced by those of the guess; both of one size."""
    height, width = image.shape[:2]
    return np.where(pixels_of(patches, height, width)[..., None], guess, image)


def compared(
    image: SizedImage, guess: SizedImage, patches: Bool[np.ndarray, "rows columns"], *, side: int = 192
) -> AnySizeImage:
    """Side by side: what the network saw, what it made of that, and the whole image."""
    parts = (filled(image, guess, patches), image)
    return beside([removed(image, patches, side=side), *(enlarge(part, side) for part in parts)])
