"""A dense head without training: patch embeddings from sliding windows, and scores that follow the image's colors.

A patch of 8 pixels of a small image holds several small objects; in the image enlarged twice it sees a quarter of that
area. `windows` runs the network on windows of the enlarged image and averages what they say with what the whole image
says: the windows bring the detail, the whole image the context. `guided_upsample` then takes scores from patches to
pixels along the image's own edges.

Sources: sliding windows as in the open-vocabulary segmentation of TCL (arXiv 2212.00785) and SCLIP (arXiv 2312.01597);
upsampling as in Kopf et al., "Joint bilateral upsampling", SIGGRAPH 2007, equation 4. Differs: the color of a patch is
the mean of its pixels, not a sample of them, and there are 3x3 patches.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError

DenseHead = Literal["plain", "windows"]
"""How patch embeddings are made: by one pass over the whole image, or with sliding windows as well."""
SCALE = 2
"""How much the windows' image is enlarged. Three times is worse (docs/LOG.md)."""
STRIDE = 1.0
"""Step from one window to the next, in windows. Windows side by side are both cheaper and better here than overlapping
ones, whose mean blurs: mIoU with background 28.7 at a stride of 1, 26.6 at 0.5, 25.5 at 0.25 (200 easy scenes,
detailclip-mini; docs/LOG.md)."""
COLOR = 0.7
"""Deviation of the color term, in ImageNet's deviations of a channel (those of normalized images): about 40 of 255.
Less draws sharper borders, more keeps an object together whose patches are not all named alike (docs/LOG.md)."""
DISTANCE = 0.9
"""Deviation of the distance term, in patches of the scores' grid."""
_AT_ONCE = 128
"""Windows in one forward pass: enough to fill a processor, few enough for any memory."""


@runtime_checkable
class PatchEncoder(Protocol):
    """What the head asks of a network; `rizbin.nets.ImageTextPair` is one."""

    @property
    def image_size(self) -> int: ...
    @property
    def patch_size(self) -> int: ...

    def dense(self, images: Tensor) -> Tensor: ...


def windows(
    encoder: PatchEncoder, images: Float[Tensor, "batch 3 height width"], *, scale: int = SCALE, stride: float = STRIDE
) -> Float[Tensor, "batch rows columns embedding"]:
    """Unit-length patch embeddings on a grid `scale` times finer than the network's own.

    The mean of two: the embeddings of the whole image, upsampled bilinearly, and those of the windows that cover a
    place. Windows have the size that the network was made for (`image_size`), or the enlarged image's where that is
    smaller; the last of a row ends at the image's border.

    Args:
        encoder: Gives unit-length patch embeddings of images of any size that divides into patches.
        images: Normalized, of any such size.
        scale: A whole number of 1 or more. The number of windows grows with its square.
        stride: From one window to the next, in windows, over 0 to 1; rounded to whole patches.
    """
    if scale < 1 or not 0 < stride <= 1:
        raise RizbinError(f"Windows of scale {scale} and stride {stride:g} cannot be; give 1 or more, and over 0 to 1.")
    whole = encoder.dense(images)
    batch, patch = len(images), encoder.patch_size
    rows, columns = whole.shape[1] * scale, whole.shape[2] * scale
    side = encoder.image_size // patch
    height, width = min(side, rows), min(side, columns)
    corners = [(top, left) for top in _starts(rows, height, stride) for left in _starts(columns, width, stride)]
    enlarged = F.interpolate(images, scale_factor=scale, mode="bicubic", align_corners=False)
    crops = [
        enlarged[..., top * patch : (top + height) * patch, left * patch : (left + width) * patch]
        for top, left in corners
    ]
    parts = torch.cat(crops).split(_AT_ONCE)
    embeddings = torch.cat([encoder.dense(part) for part in parts]).unflatten(0, (len(corners), batch))
    total = whole.new_zeros(batch, rows, columns, whole.shape[-1])
    count = whole.new_zeros(rows, columns, 1)
    for (top, left), embedding in zip(corners, embeddings, strict=True):
        total[:, top : top + height, left : left + width] += embedding
        count[top : top + height, left : left + width] += 1
    smooth = F.interpolate(whole.permute(0, 3, 1, 2), scale_factor=scale, mode="bilinear", align_corners=False)
    return F.normalize(smooth.permute(0, 2, 3, 1) + total / count, dim=-1)


def _starts(total: int, window: int, stride: float) -> list[int]:
    """First patches of the windows along one side; the last window ends where the side does."""
    step = max(1, round(window * stride))
    return [*range(0, total - window, step), total - window]


def guided_upsample(
    scores: Float[Tensor, "batch classes rows columns"],
    images: Float[Tensor, "batch 3 height width"],
    *,
    color: float = COLOR,
    distance: float = DISTANCE,
) -> Float[Tensor, "batch classes height width"]:
    """Scores at pixel resolution: each pixel gathers from the 3x3 patches around it those that look like it.

    A patch weighs exp(-c^2 / (2 color^2) - d^2 / (2 distance^2)), where c^2 is the mean over the channels of the
    squared difference between the pixel and the patch's mean color, and d the distance of pixel and patch center in
    patches. Weights sum to 1; what lies outside the image has none. A constant stays what it is.

    Args:
        scores: Of patches; classes may be anything.
        images: Normalized (`rizbin.data.views.normalize`), whose sides are multiples of rows and columns.
        color: See `COLOR`.
        distance: See `DISTANCE`.

    Raises RizbinError when the image does not divide into the patches.
    """
    batch, classes, rows, columns = scores.shape
    height, width = images.shape[-2:]
    if height % rows or width % columns:
        raise RizbinError(f"An image of {height}x{width} pixels does not divide into {rows}x{columns} patches.")
    high, wide = height // rows, width // columns
    # One small matrix product a patch: its pixels x 9 times 9 x classes.
    pixels = images.reshape(batch, 3, rows, high, columns, wide).permute(0, 2, 4, 3, 5, 1)
    pixels = pixels.reshape(batch * rows * columns, high * wide, 3)
    weights = -(torch.cdist(pixels, _around(F.avg_pool2d(images, (high, wide)))) ** 2) / (3 * 2 * color**2)
    weights = weights - _squared_distance(high, wide).to(images) / (2 * distance**2)
    outside = _around(images.new_ones(1, 1, rows, columns)).transpose(1, 2) == 0
    weights = weights.unflatten(0, (batch, -1)).masked_fill(outside, -torch.inf).softmax(-1).flatten(0, 1)
    gathered = weights.to(scores) @ _around(scores)
    gathered = gathered.view(batch, rows, columns, high, wide, classes).transpose(2, 3)
    return gathered.reshape(batch, height, width, classes).permute(0, 3, 1, 2)


def _around(maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "patches 9 channels"]:
    """The 3x3 patches around each, in row order; zeros beyond the border. Patches of all images in one row."""
    near = F.unfold(maps, 3, padding=1).unflatten(1, (maps.shape[1], 9))
    return near.permute(0, 3, 2, 1).flatten(0, 1)


def _squared_distance(high: int, wide: int) -> Float[Tensor, "pixels 9"]:
    """From each pixel of a patch to the centers of the 3x3 patches around, in patches."""
    sides = [((torch.arange(count) + 0.5) / count - 0.5)[:, None] - torch.arange(-1, 2) for count in (high, wide)]
    down, across = (side**2 for side in sides)
    return (down[:, None, :, None] + across[None, :, None, :]).reshape(high * wide, 9)
