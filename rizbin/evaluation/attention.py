"""DINO's segmentation score: the CLS attention of each head against the objects' true masks."""

import numpy as np
from jaxtyping import Float, Int16
from torch import Tensor

from rizbin.core.measurement import Measurement
from rizbin.nets.masks import jaccards, mass_mask


def measure(
    heads: Float[Tensor, "images heads rows columns"], labels: Int16[Tensor, "images size size"], *, mass: float
) -> list[Measurement]:
    """Jaccard scores of the best head of each image and of the mean over heads (arXiv 2104.14294, figure 4).

    `heads` is CLS-to-patch attention of the last layer; `labels` are 0 on background. The best head is chosen knowing
    the truth, so that untrained heads score more than one head would: read it beside random weights.
    """
    truths = (labels > 0).numpy()
    maps = heads.double().numpy()
    masks, means = mass_mask(maps, mass), mass_mask(maps.mean(axis=1, keepdims=True), mass)
    best = [jaccards(each, truth).max() for each, truth in zip(masks, truths, strict=True)]
    mean = [jaccards(each, truth)[0] for each, truth in zip(means, truths, strict=True)]
    attended = f"the patches that hold {mass:.0%} of the last layer's CLS attention"
    return [
        Measurement(
            name="attention/best_head_jaccard",
            value=100 * float(np.mean(best)),
            protocol=f"Intersection over union of the pixels of all objects with {attended}, for the head where it is "
            f"largest in each image; mean of {len(best)} images.",
            images=len(best),
        ),
        Measurement(
            name="attention/mean_jaccard",
            value=100 * float(np.mean(mean)),
            protocol=f"Intersection over union of the pixels of all objects with {attended}, mean over its heads; mean "
            f"of {len(mean)} images.",
            images=len(mean),
        ),
    ]
