"""Where a network looks: attention as heat over the image, and as a mask that is held against the truth."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from rizbin.models.protocol import NoAttention
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.nets.masks import pixels_of
from rizbin.visualization.colors import AnySizeImage, Color, SizedImage, blend, heat, scaled, stretched
from rizbin.visualization.grid import MARK, enlarge, sheet


def overlay(
    image: SizedImage,
    attention: Float[np.ndarray, "rows columns"],
    *,
    low: float = 1.0,
    high: float = 99.0,
    smooth: bool = True,
) -> SizedImage:
    """The image under its attention: dark where there is little, glowing where there is much.

    Args:
        image: RGB.
        attention: One number a patch, any scale.
        low: Percentile of the map that is shown darkest.
        high: Percentile that is shown brightest; below 100, else one bright patch would darken all others.
        smooth: Bicubic between patches; False shows each patch as a block.
    """
    height, width = image.shape[:2]
    values = scaled(stretched(attention, height, width, smooth=smooth), low, high)
    gray = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1).astype(np.uint8)
    return blend(gray, heat(values), 0.55 + 0.2 * values)


def overlay_heads(
    image: SizedImage, attention: Float[np.ndarray, "heads rows columns"], *, side: int = 128
) -> AnySizeImage:
    """A sheet with the mean over the heads first, then each head, each on its own scale."""
    maps = [attention.mean(axis=0), *attention]
    names = ["mean", *(f"head {index}" for index in range(1, len(maps)))]
    return sheet([overlay(image, head) for head in maps], labels=names, side=side)


@torch.no_grad()
def attended(encoder: AnyEncoder, images: UInt8[np.ndarray, "batch size size 3"]) -> list[SizedImage]:
    """Each image under the encoder's CLS-to-patch attention, mean over layers and heads.

    Raises NoAttention where there is none.
    """
    network = extractor(encoder)
    attention = network.features(network.normalized(torch.from_numpy(images).to(network.device))).attention
    if attention is None:
        raise NoAttention(f"{network.name} has no CLS token that attends to patches; choose a ViT.")
    rows, columns = (side // network.patch_size for side in images.shape[1:3])
    maps = attention.unflatten(1, (rows, columns)).float().cpu().numpy()
    return [overlay(image, attention_map) for image, attention_map in zip(images, maps, strict=True)]


def outlined(
    image: AnySizeImage, mask: Bool[np.ndarray, "rows columns"], *, color: Color = MARK, side: int = 192
) -> AnySizeImage:
    """The image, enlarged to about `side`, with marked patches as they are, ringed, and all others dark."""
    shown = enlarge(image, side)
    inside = pixels_of(mask, shown.shape[0], shown.shape[1])
    gray = np.repeat((shown @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1)
    out = np.ascontiguousarray(np.where(inside[..., None], shown, gray * 0.35).astype(np.uint8))
    rings, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for ink, thickness in (((0, 0, 0), 3), (color, 1)):  # a dark rim, so that the ring shows on anything
        cv2.drawContours(out, rings, -1, ink, thickness, cv2.LINE_8)
    return out


def heads_outlined(
    image: AnySizeImage,
    attention: Float[np.ndarray, "heads rows columns"],
    masks: Bool[np.ndarray, "heads rows columns"],
    *,
    labels: Sequence[str],
    best: int = -1,
    side: int = 128,
) -> AnySizeImage:
    """A sheet with each head's heat above its mask; the label of the `best` head stands on the color of the rings."""
    cells = [
        np.concatenate([overlay(enlarge(image, side), heat_of), outlined(image, mask, side=side)])
        for heat_of, mask in zip(attention, masks, strict=True)
    ]
    colors = [MARK if head == best else (255, 255, 255) for head in range(len(cells))]
    return sheet(cells, labels=labels, side=1, colors=colors)
