"""Eyes whose answers are known beforehand: a network of raw pixels, and one whose attention is the picture itself."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.visualization.colors import AnyPicture
from rizbin.visualization.eye import CLS


class PixelEye:
    """The feature of a patch is its pixels; CLS attends to each patch by its redness."""

    name = "pixels"
    image_size = 32
    grid = (8, 8)
    any_size = True

    def __init__(self, patch_size: int = 4) -> None:
        self.patch_size = patch_size
        self.grid = (self.image_size // patch_size, self.image_size // patch_size)

    def prepare(self, pictures: Sequence[AnyPicture]) -> Tensor:
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255

    def patches(self, images: Tensor) -> Tensor:
        size = self.patch_size
        rows, columns = images.shape[-2] // size, images.shape[-1] // size
        return F.unfold(images, size, stride=size).transpose(1, 2).unflatten(1, (rows, columns)) - 0.5

    def pooled(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def attention_rows(self, images: Tensor, token: int = CLS, layer: int = -1) -> Tensor:
        red = F.avg_pool2d(images[:, :1], self.patch_size)
        return torch.cat([red, torch.ones_like(red)], dim=1) / red.sum((2, 3), keepdim=True).clamp(min=1)
