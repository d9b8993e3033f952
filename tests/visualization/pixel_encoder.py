"""An encoder whose answers are known beforehand: its features are raw pixels, its attention is the image itself."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.models.encoder import Encoder
from rizbin.models.protocol import CLS
from rizbin.visualization.colors import AnySizeImage


class PixelEncoder(Encoder):
    """The feature of a patch is its pixels; CLS attends to each patch by its redness."""

    any_size = attends = True

    def __init__(self, patch_size: int = 4) -> None:
        super().__init__(nn.Identity(), name="pixels", image_size=32, patch_size=patch_size)

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.pooled(batch), None, self.patches(batch)

    def prepare(self, images: Sequence[AnySizeImage]) -> Tensor:
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255

    def patches(self, batch: Tensor) -> Tensor:
        size = self.patch_size
        rows, columns = batch.shape[-2] // size, batch.shape[-1] // size
        return F.unfold(batch, size, stride=size).transpose(1, 2).unflatten(1, (rows, columns)) - 0.5

    def pooled(self, batch: Tensor) -> Tensor:
        return batch.mean(dim=(2, 3))

    def attention_rows(self, batch: Tensor, token: int = CLS, layer: int = -1) -> Tensor:
        red = F.avg_pool2d(batch[:, :1], self.patch_size)
        return torch.cat([red, torch.ones_like(red)], dim=1) / red.sum((2, 3), keepdim=True).clamp(min=1)
