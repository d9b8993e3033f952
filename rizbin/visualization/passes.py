"""Images of several sizes through one network, those of one size together."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.models.protocol import FeatureExtractor
from rizbin.visualization.colors import AnySizeImage

AT_ONCE = 16
"""Images in one forward pass: enough to fill a processor, few enough for any memory."""


@torch.inference_mode()
def over(
    encoder: FeatureExtractor, images: Sequence[AnySizeImage], look: Callable[[Tensor], Tensor]
) -> list[Float[np.ndarray, "*shape"]]:
    """What `look` (a method of the encoder) gives for each image, in order."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(index)
    results: dict[int, np.ndarray] = {}
    for members in sizes.values():
        for start in range(0, len(members), AT_ONCE):
            part = members[start : start + AT_ONCE]
            out = look(encoder.prepare([images[index] for index in part])).float().cpu().numpy()
            results |= dict(zip(part, out, strict=True))
    return [results[index] for index in range(len(images))]
