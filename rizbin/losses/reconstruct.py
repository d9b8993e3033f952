"""Pixel reconstruction: of removed patches (MAE, arXiv 2111.06377, section 3), and of what a low resolution lost."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rizbin.core import parallel


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """Settings of the prediction of hidden pixels: weights of the terms, resolution, decoder."""

    reconstruction: bool = True
    """Predict the hidden pixels. Off: one of the three techniques is gone."""
    reconstruction_weight: float = 1.0
    """Weight a3 of the pixel term (paper: 1; 2 lost 0.7 points there)."""
    low_resolution: Literal[1, 2, 4] = 1
    """The predicting student sees its view at 1/2 or 1/4 of the resolution (brought back to size), and must predict
    from visible patches what that took away. 1: full resolution (paper)."""
    residual_weight: float = 1.0
    """Weight of that second pixel term, whose error is 1 for bicubic upsampling; idle at full resolution."""
    decoder_width: int = 768
    """Channels of the decoder through which hidden places are predicted."""
    decoder_blocks: int = 1
    """Blocks of the decoder, 1 to 4 (paper's code: 1)."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""


def patchify(images: Float[Tensor, "batch 3 height width"], size: int) -> Float[Tensor, "batch patches pixels"]:
    """Images as patches in row order; each is [row, column, channel] flattened, size * size * 3 numbers."""
    batch, channels, height, width = images.shape
    tiles = images.reshape(batch, channels, height // size, size, width // size, size)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, (height // size) * (width // size), size * size * channels)


def unpatchify(
    patches: Float[Tensor, "batch patches pixels"], size: int, grid: tuple[int, int]
) -> Float[Tensor, "batch 3 height width"]:
    """The inverse of `patchify`."""
    batch = patches.shape[0]
    tiles = patches.reshape(batch, grid[0], grid[1], size, size, 3)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(batch, 3, grid[0] * size, grid[1] * size)


EPSILON = 1e-6
"""Added to a patch's variance, as in MAE: a plain patch has none."""


def patch_statistics(
    patches: Float[Tensor, "batch patches pixels"],
) -> tuple[Float[Tensor, "batch patches 1"], Float[Tensor, "batch patches 1"]]:
    """Mean and standard deviation (unbiased, as in MAE's code) of each patch over its pixels and channels."""
    variance, mean = patches.var(dim=-1, keepdim=True), patches.mean(dim=-1, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def painted(
    patches: Float[Tensor, "batch patches pixels"],
    predicted: Float[Tensor, "batch patches pixels"],
    truth: Float[Tensor, "batch patches pixels"],
    removed: Bool[Tensor, "batch patches"],
) -> Float[Tensor, "batch patches pixels"]:
    """The patches, with what was predicted in the place of the removed ones.

    Predicted patches are normalized by their own statistics; the truth's are put back to show them, as MAE does.
    """
    mean, deviation = patch_statistics(truth)
    return torch.where(removed.unsqueeze(-1), predicted * deviation + mean, patches)


def pixel_loss(
    predicted: Float[Tensor, "batch removed pixels"],
    patches: Float[Tensor, "batch patches pixels"],
    removed: Int[Tensor, "batch removed"],
) -> Float[Tensor, ""]:
    """Mean squared error on removed patches.

    Each is normalized by its own mean and deviation, which makes fine texture count.
    """
    target = patches.gather(1, removed.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    mean, deviation = patch_statistics(target)
    return ((predicted.to(target.dtype) - (target - mean) / deviation) ** 2).mean()


def residual_loss(
    predicted: Float[Tensor, "batch patches pixels"], lost: Float[Tensor, "batch patches pixels"]
) -> Float[Tensor, ""]:
    """Squared error of what a low resolution lost, as a share of what it lost: 1 for bicubic upsampling alone.

    Not normalized patch by patch: brightness is in the input, and a plain patch, which lost nothing, must not count.
    """
    size = parallel.mean(lost.square().mean()).clamp(min=EPSILON)
    return (predicted.to(lost.dtype) - lost).square().mean() / size
