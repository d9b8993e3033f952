"""Maps of attention as masks of patches, held against the true masks of objects."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from rizbin.core.errors import RizbinError


def mass_mask(
    attention: Float[np.ndarray, "*maps rows columns"], mass: float = 0.6
) -> Bool[np.ndarray, "*maps rows columns"]:
    """The fewest patches of each map that together hold `mass` of its sum, over 0 to 1: the largest ones.

    0.6 is what DINO's figure 4 keeps (arXiv 2104.14294). A map without any weight keeps none.
    """
    if not 0 < mass <= 1:
        raise RizbinError(f"A mass of {mass:g} cannot be kept; give a share over 0 and up to 1, such as 0.6.")
    flat = attention.reshape(*attention.shape[:-2], -1).astype(np.float64)
    order = np.argsort(flat, axis=-1, kind="stable")
    summed = np.cumsum(np.take_along_axis(flat, order, axis=-1), axis=-1)
    total = summed[..., -1:]
    mask = np.zeros(flat.shape, bool)
    # The sums of doubles come out a little above or below; a patch too many would be seen.
    np.put_along_axis(mask, order, summed > (1 - mass + 1e-9) * total, axis=-1)
    return mask.reshape(attention.shape)


def jaccard(mask: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]) -> float:
    """Pixels in both divided by pixels in either, 0 to 1; 1 where both are empty."""
    either = int((mask | truth).sum())
    return int((mask & truth).sum()) / either if either else 1.0


def jaccards(
    masks: Bool[np.ndarray, "heads rows columns"], truth: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, " heads"]:
    """The Jaccard score of each mask of patches with a truth of pixels, each patch a block.

    DINO's segmentation score is the largest of them, the best head, averaged over images.
    """
    return np.array([jaccard(pixels_of(mask, *truth.shape), truth) for mask in masks])


def pixels_of(
    patches: Bool[np.ndarray, "rows columns"], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """Marked patches as marked pixels of an image of that size."""
    return cv2.resize(patches.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
