"""Supervised: an image encoder trained as a multi-label classifier of the names of the objects in an image.

The baseline that shows what captions add: a classifier learns what tells names apart, and may forget the rest. Several
objects stand in an image, so each name is a question of its own.
Source: binary cross-entropy over all names as in Wightman et al., "ResNet strikes back", arXiv 2110.00476, section 3.1.
Differs: no mixed images and no smoothed labels, which that recipe for hundreds of epochs has.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Named
from rizbin.data.views import View
from rizbin.models.published import build_encoder
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import MILD, SMALL_ENCODER, imagenet_resnet50, nano, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets, TrainerSettings, Training

SEEN = 0.3
"""Least share of an object's box that a crop must leave, so that its name still holds."""


class Supervised(Method):
    """One linear layer on the image's feature, a logit for each name."""

    arxiv = "2110.00476"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        view: View.Settings = View.Settings(crop_area=(0.08, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5)
        """The one augmented view (ImageNet's usual crop and mirror)."""
        names: tuple[str, ...] = ()
        """Names that are trained on; empty: all names of the data."""

    @classmethod
    def presets(cls) -> Presets:
        # Several names an image, and crops that keep what stands in it, as with captions.
        small = Training(
            method=cls.name,
            settings=cls.Settings(encoder=SMALL_ENCODER, view=MILD),
            batch=32,
            trainer=TrainerSettings(learning_rate=5e-4),
        )
        # 90 epochs (He et al., arXiv 1512.03385, section 3.4, with a cosine in place of its steps).
        paper = imagenet_resnet50(
            cls.name,
            cls.Settings(),
            batch=256,
            learning_rate=0.1,
            weight_decay=1e-4,
            epochs=90,
            optimizer="sgd",
            warmup_epochs=0,
        )
        return {
            "small": small,
            "nano": nano(small),
            "vits16": vits16(cls.name, cls.Settings()),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": paper,
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if len(settings.names) < 2:
            raise RizbinError(
                "The data name fewer than two kinds of objects; give data with names, or captions to clip."
            )
        self.settings = settings
        self.number = {name: place for place, name in enumerate(settings.names)}
        self.backbone = build_encoder(settings.encoder)
        self.classifier = nn.Linear(self.backbone.dim, len(settings.names))
        # Few of many names stand in an image: a logit begins where that is said already.
        nn.init.constant_(self.classifier.bias, -math.log(len(settings.names) - 1))
        self.views = (replace(settings.view, size=settings.encoder.image_size),)

    @classmethod
    def completed(cls, settings: "Supervised.Settings", categories: Sequence[str]) -> "Supervised.Settings":
        return settings if settings.names else replace(settings, names=tuple(categories))

    @property
    def encoder(self) -> ImageEncoder:
        return self.backbone

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        logits = self.classifier(self.backbone(batch.views[0]))
        targets = torch.zeros_like(logits)
        for row, (objects, crop) in enumerate(zip(batch.objects, batch.crops[0].tolist(), strict=True)):
            for named in objects:
                if named.name in self.number and _visible_share(named, crop) >= SEEN:
                    targets[row, self.number[named.name]] = 1
        # Summed over names: with their mean each of many would count next to nothing.
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
        yield Minimize(loss, records={"named": targets.sum(dim=1).mean()})

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch names"]:
        return self.classifier(features)


def _visible_share(named: Named, crop: Sequence[float]) -> float:
    """The share of the object's box that lies inside the crop; both are left, top, right, bottom."""
    left, top, right, bottom = named.box
    wide = min(right, crop[2]) - max(left, crop[0])
    high = min(bottom, crop[3]) - max(top, crop[1])
    return max(wide, 0) * max(high, 0) / max((right - left) * (bottom - top), 1e-12)
