"""SLIP: CLIP on one view of the image, SimCLR on two more.

Source: Mu et al., "SLIP: Self-supervision meets Language-Image Pre-training", arXiv 2112.12750, algorithm 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from rizbin.data.views import View
from rizbin.losses.contrast import contrast, nt_xent
from rizbin.models.published import build_pair
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.heads import mlp_head
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets

STRONG = View.Settings(crop_area=(0.08, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5, jitter=0.8, grayscale=0.2, blur=0.5)


class SLIP(Method):
    """CLIP's loss plus `simclr_weight` times SimCLR's."""

    arxiv = "2112.12750"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageTextSettings):
        view: View.Settings = View.Settings(crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.3333))
        """The mildly augmented view that is matched with the caption."""
        strong_view: View.Settings = STRONG
        """Each of the two views that SimCLR compares."""
        simclr_weight: float = 1.0
        """Weight of SimCLR's loss (paper: 1)."""
        simclr_temperature: float = 0.1
        """SimCLR's temperature (paper: 0.1)."""
        projection_hidden: int = 4096
        """Width of SimCLR's three-layer projection head."""
        projection: int = 256
        """Size of SimCLR's projection."""

    @classmethod
    def presets(cls) -> Presets:
        return {
            "small": small(cls.name, cls.Settings(view=MILD, projection_hidden=512, projection=128)),
            "vits16": vits16(cls.name, cls.Settings()),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": yfcc15m(cls.name, cls.Settings()),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.pair = build_pair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        self.head = mlp_head(self.pair.vision.dim, settings.projection_hidden, settings.projection)
        size = self.pair.image_size
        strong = replace(settings.strong_view, size=size)
        self.views = (replace(settings.view, size=size), strong, strong)

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        assert batch.texts is not None  # who has a tokenizer gets captions
        mild, a, b = batch.views
        # One pass for all three views; where a tower has batch norm (the small stem), its statistics are of all three.
        pooled = self.pair.vision(torch.cat([mild, a, b]))
        features = self.pair.pool(pooled)
        rows = len(mild)
        images = self.pair.embed_pooled(features[:rows])
        language = contrast(images, self.pair.encode_texts(batch.texts), self.pair.scale, self.pair.logit_bias)
        simclr = nt_xent(
            self.head(features[rows : 2 * rows]), self.head(features[2 * rows :]), self.settings.simclr_temperature
        )
        loss = language + self.settings.simclr_weight * simclr
        yield Minimize(loss, records={"contrast": language, "simclr": simclr, "scale": self.pair.scale})
        self.pair.limit_scale()
