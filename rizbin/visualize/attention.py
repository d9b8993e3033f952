"""Where a network looks: attention as heat over the picture."""

import numpy as np
import torch
from jaxtyping import Float, UInt8

from rizbin.data.views import normalize
from rizbin.nets.dual import ImageTextPair
from rizbin.visualize.colors import AnyPicture, Picture, blend, heat, scaled, stretched
from rizbin.visualize.grid import sheet


def overlay(
    picture: Picture,
    attention: Float[np.ndarray, "rows columns"],
    *,
    low: float = 1.0,
    high: float = 99.0,
    smooth: bool = True,
) -> Picture:
    """The picture under its attention: dark where there is little, glowing where there is much.

    Args:
        picture: RGB.
        attention: One number a patch, any scale.
        low: Percentile of the map that is shown darkest.
        high: Percentile that is shown brightest; below 100, else one bright patch would darken all others.
        smooth: Bicubic between patches; False shows each patch as a block.
    """
    height, width = picture.shape[:2]
    values = scaled(stretched(attention, height, width, smooth=smooth), low, high)
    gray = np.repeat((picture @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1).astype(np.uint8)
    return blend(gray, heat(values), 0.55 + 0.2 * values)


def overlay_heads(
    picture: Picture, attention: Float[np.ndarray, "heads rows columns"], *, side: int = 128
) -> AnyPicture:
    """A sheet with the mean over the heads first, then each head, each on its own scale."""
    maps = [attention.mean(axis=0), *attention]
    names = ["mean", *(f"head {index}" for index in range(1, len(maps)))]
    return sheet([overlay(picture, one) for one in maps], labels=names, side=side)


@torch.no_grad()
def attended(pair: ImageTextPair, pictures: UInt8[np.ndarray, "batch size size 3"]) -> list[Picture]:
    """Each picture under the pair's CLS-to-patch attention, mean over layers and heads."""
    device = next(pair.parameters()).device
    maps = pair.attention(normalize(torch.from_numpy(pictures).to(device))).float().cpu().numpy()
    return [overlay(picture, one) for picture, one in zip(pictures, maps, strict=True)]
