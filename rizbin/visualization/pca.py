"""What patches have in common: their features' three main directions as red, green and blue."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.visualization.colors import SizedImage, scaled
from rizbin.visualization.words import threshold

DIM = 28
"""Brightness of background in the image, of 255."""


def components(
    features: Float[np.ndarray, "samples dim"], count: int, toward: Float[np.ndarray, " samples"] | None = None
) -> Float[np.ndarray, "samples {count}"]:
    """The samples along their `count` directions of most variance; missing directions are zeros.

    A direction's sign is arbitrary. Here each points to where `toward` is larger, and where that does not decide (or is
    not given), to the longer tail of the samples. So features that are negated or turned give the same image.
    """
    centered = features.astype(np.float64) - features.mean(axis=0)
    _, _, directions = np.linalg.svd(centered, full_matrices=False)
    out = np.zeros((len(features), count))
    projected = centered @ directions[:count].T
    for part in range(projected.shape[1]):
        out[:, part] = projected[:, part] * _sign(projected[:, part], directions[part], toward)
    return out


def _sign(
    values: Float[np.ndarray, " samples"],
    direction: Float[np.ndarray, " dim"],
    toward: Float[np.ndarray, " samples"] | None,
) -> float:
    """1 or -1: which way a direction shall point. Below a millionth the leaning is rounding and decides nothing."""
    spread = float(np.sqrt((values**2).mean()))
    if spread == 0:
        return 1.0
    leanings = [float(((values / spread) ** 3).mean())]
    if toward is not None:
        weights = toward.astype(np.float64) - toward.mean()
        leanings.insert(0, float((values * weights).mean() / (spread * max(float(weights.std()), 1e-30))))
    leanings.append(float(direction[np.abs(direction).argmax()]))
    return next((float(np.sign(leaning)) for leaning in leanings if abs(leaning) > 1e-6), 1.0)


def foreground(
    features: Float[np.ndarray, "images rows columns dim"],
    attention: Float[np.ndarray, "images rows columns"] | None = None,
) -> Bool[np.ndarray, "images rows columns"]:
    """The patches of objects, by the first direction of all images' features (as DINOv2 does, arXiv 2304.07193).

    The side that is attended more is taken for the foreground; without attention, the side that is rarer along the
    images' borders. All patches when nothing parts them.
    """
    return np.stack(foregrounds(list(features), None if attention is None else list(attention)))


def foregrounds(
    features: Sequence[Float[np.ndarray, "_ _ dim"]], attention: Sequence[Float[np.ndarray, "_ _"]] | None = None
) -> list[Bool[np.ndarray, "_ _"]]:
    """The same for images of different sizes."""
    first = components(_flat(features), 1)[:, 0]
    limit = threshold(first)
    high = first > limit
    if np.isfinite(limit):
        if attention is None:
            border = np.concatenate([_border(*patches.shape[:2]).ravel() for patches in features])
            high ^= high[border].mean() > high.mean()
        else:
            attended = np.concatenate([image_attention.ravel() for image_attention in attention])
            high ^= attended[high].mean() < attended[~high].mean()
    return _parts(high, features)


def _border(rows: int, columns: int) -> Bool[np.ndarray, "{rows} {columns}"]:
    """The outermost patches."""
    out = np.ones((rows, columns), bool)
    out[1:-1, 1:-1] = False
    return out


def _flat(features: Sequence[Float[np.ndarray, "_ _ dim"]]) -> Float[np.ndarray, "patches dim"]:
    return np.concatenate([patches.reshape(-1, patches.shape[-1]) for patches in features])


def _parts(values: np.ndarray, features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One value a patch, given back to the images they came from."""
    ends = np.cumsum([patches.shape[0] * patches.shape[1] for patches in features])[:-1]
    return [
        part.reshape(*patches.shape[:2], *values.shape[1:])
        for part, patches in zip(np.split(values, ends), features, strict=True)
    ]


def pca_colors(
    features: Float[np.ndarray, "images rows columns dim"],
    keep: Bool[np.ndarray, "images rows columns"] | None = None,
) -> UInt8[np.ndarray, "images rows columns 3"]:
    """One color a patch, from the three main directions of all images together: like colors mean like features.

    Patches outside `keep` (default: `foreground`) are dark and do not shape the directions.
    """
    return np.stack(joint_colors(list(features), list(foreground(features) if keep is None else keep)))


def joint_colors(
    features: Sequence[Float[np.ndarray, "_ _ dim"]],
    keep: Sequence[Bool[np.ndarray, "_ _"]],
    toward: Sequence[Float[np.ndarray, "_ _"]] | None = None,
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The same for images of different sizes; `toward` (attention) decides which end of a direction is bright."""
    chosen = np.concatenate([mask.ravel() for mask in keep])
    weights = (
        None if toward is None else np.concatenate([weights_of_image.ravel() for weights_of_image in toward])[chosen]
    )
    out = np.full((len(chosen), 3), DIM, np.uint8)
    if chosen.sum() >= 2:
        values = components(_flat(features)[chosen], 3, weights)
        # Not from zero: the darkest color must stay apart from the background.
        out[chosen] = np.stack([60 + 195 * scaled(values[:, part]) for part in range(3)], axis=-1).round()
    return _parts(out, features)


def smooth(
    colors: UInt8[np.ndarray, "rows columns 3"], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Colors of patches, smoothly enlarged to an image's size; linear, as cubic rings where objects meet the dark."""
    return cv2.resize(colors, (width, height), interpolation=cv2.INTER_LINEAR)


@torch.no_grad()
def pca_of(encoder: AnyEncoder, images: UInt8[np.ndarray, "batch size size 3"]) -> Sequence[SizedImage]:
    """The PCA colors of the images' patches before the projection, smoothly enlarged to the images' size."""
    network = extractor(encoder)
    patches = network.patches(network.normalized(torch.from_numpy(images).to(network.device))).float().cpu().numpy()
    colors = pca_colors(patches)
    return [smooth(patch_colors, *images.shape[1:3]) for patch_colors in colors]
