"""The image part of the report of an encoder without text: attention maps and nearest neighbors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from rizbin.data.sample import Sample
from rizbin.data.views import whole
from rizbin.models.protocol import FeatureExtractor
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.visualization.attention import overlay

ALIKE = 5
"""Nearest neighbors shown of each image."""


@torch.no_grad()
def images_of(page: Page, encoder: FeatureExtractor, samples: Sequence[Sample], shown: int) -> None:
    """Adds a card for each of the first `shown` samples: each head's attention, and the nearest of all samples."""
    squares = np.stack([whole(sample.image, encoder.image_size) for sample in samples])
    images = encoder.normalized(torch.from_numpy(squares).to(encoder.device))
    features = F.normalize(torch.cat([encoder.pooled(some).float().cpu() for some in images.split(64)]), dim=-1)
    page.heading("Attention and nearest neighbors")
    page.text(
        "The first images of the test part, not chosen. "
        + ("Each head of the last layer shows where its CLS token looks. " if encoder.attends else "")
        + f"Then the {ALIKE} nearest of {len(samples)} images by cosine of the features; a frame says whether they "
        "share a name with it."
    )
    for index in range(min(shown, len(samples))):
        cosines = features @ features[index]
        cosines[index] = -2.0  # not itself
        near = cosines.topk(min(ALIKE, len(samples) - 1)).indices.tolist()
        cells = [PageImage(image=squares[index], caption="the image", alt=samples[index].caption or "an image")]
        if encoder.attends:
            maps = encoder.attention_rows(images[index : index + 1])[0].float().cpu().numpy()
            cells += [
                PageImage(image=overlay(squares[index], head), caption=f"head {number}", alt="attention", smooth=True)
                for number, head in enumerate(maps, 1)
            ]
        for other in near:
            names = samples[index].names
            good = bool(names & samples[other].names) if names else None
            caption = ", ".join(sorted(samples[other].names)) or samples[other].key
            cells.append(
                PageImage(image=squares[other], caption=f"cosine {cosines[other]:.2f}", alt=caption, good=good)
            )
        page.card(samples[index].caption or samples[index].key, cells)
