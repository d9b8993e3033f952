"""What patches have in common: their features' three main directions as red, green and blue."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from rizbin.data.views import normalize
from rizbin.nets.dual import ImageTextPair
from rizbin.visualize.colors import Picture, scaled, stretched
from rizbin.visualize.words import threshold

DIM = 28
"""Brightness of background in the picture, of 255."""


def components(features: Float[np.ndarray, "samples dim"], count: int) -> Float[np.ndarray, "samples {count}"]:
    """The samples along their `count` directions of most variance; missing directions are zeros.

    A direction's sign is arbitrary; here its largest entry is positive: the same features give the same picture.
    """
    centered = features.astype(np.float64) - features.mean(axis=0)
    _, _, directions = np.linalg.svd(centered, full_matrices=False)
    directions = directions[:count]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.where(directions[np.arange(len(directions)), largest] < 0, -1.0, 1.0)[:, None]
    out = np.zeros((len(features), count))
    out[:, : len(directions)] = centered @ directions.T
    return out


def foreground(features: Float[np.ndarray, "pictures rows columns dim"]) -> Bool[np.ndarray, "pictures rows columns"]:
    """The patches of things, by the first direction of all pictures' features (as DINOv2 does, arXiv 2304.07193).

    The side that is rarer along the pictures' borders is taken for the foreground. All patches when nothing parts them.
    """
    first = components(features.reshape(-1, features.shape[-1]), 1).reshape(features.shape[:3])
    limit = threshold(first)
    if not np.isfinite(limit):
        return np.ones(first.shape, bool)
    high = first > limit
    border = np.concatenate([high[:, 0].ravel(), high[:, -1].ravel(), high[:, :, 0].ravel(), high[:, :, -1].ravel()])
    return ~high if border.mean() > high.mean() else high


def pca_colors(
    features: Float[np.ndarray, "pictures rows columns dim"],
    keep: Bool[np.ndarray, "pictures rows columns"] | None = None,
) -> UInt8[np.ndarray, "pictures rows columns 3"]:
    """One color a patch, from the three main directions of all pictures together: like colors mean like features.

    Patches outside `keep` (default: `foreground`) are dark and do not shape the directions.
    """
    keep = foreground(features) if keep is None else keep
    out = np.full((*features.shape[:3], 3), DIM, np.uint8)
    if keep.sum() >= 2:
        values = components(features[keep], 3)
        # Not from zero: the darkest color must stay apart from the background.
        out[keep] = np.stack([60 + 195 * scaled(values[:, part]) for part in range(3)], axis=-1).round()
    return out


@torch.no_grad()
def pca_of(pair: ImageTextPair, pictures: UInt8[np.ndarray, "batch size size 3"]) -> Sequence[Picture]:
    """The PCA colors of the pictures' patches before the projection, smoothly enlarged to the pictures' size."""
    device = next(pair.parameters()).device
    patches = pair.features(normalize(torch.from_numpy(pictures).to(device))).patches.float().cpu().numpy()
    rows, columns = pictures.shape[1] // pair.patch_size, pictures.shape[2] // pair.patch_size
    colors = pca_colors(patches.reshape(len(pictures), rows, columns, -1))
    height, width = pictures.shape[1:3]
    layers = (
        np.stack([stretched(one[..., part].astype(np.float64), height, width) for part in range(3)], -1)
        for one in colors
    )
    return [layer.round().clip(0, 255).astype(np.uint8) for layer in layers]
