"""SimCLR: two views of an image must find each other among all other images' views.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709,
algorithm 1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import AUGMENTATIONS, Augmentation, View, only
from rizbin.losses.contrast import nt_xent
from rizbin.models.published import build_encoder
from rizbin.nets.heads import mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import STRONG, imagenet_resnet50, nano, small, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets

SECTORS = 36
"""Sectors of the circle on which projections of two numbers lie."""


class SimCLR(Method):
    """NT-Xent on projections, with negatives from the batch of all processes."""

    arxiv = "2002.05709"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        view: View.Settings = View.Settings(
            crop_area=(0.08, 1.0),
            crop_ratio=(0.75, 1.3333),
            flip=0.5,
            jitter=0.8,
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.2,
            grayscale=0.2,
            blur=0.5,
        )
        """Each of the two views (paper: color strength 1, appendix A; CIFAR: half of it and no blur)."""
        augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
        """Augmentations that are applied; leave one out, or name one alone, to measure its effect."""
        temperature: float = 0.1
        """Temperature: cosines are divided by it (paper: 0.1 on ImageNet, 0.5 on CIFAR)."""
        negatives: bool = True
        """Contrast with other images. Off: the loss is minus the cosine of the two views, which a constant output
        minimizes."""
        negative_count: int | None = None
        """How many views of other images each view is compared with. None: all of the batch, 2 * batch - 2 of them."""
        projection_layers: int = 2
        """Linear layers of the projection head (paper: 2; version 2 of the official code: 3)."""
        projection_hidden: int = 2048
        """Width of the projection head."""
        projection: int = 128
        """Size of the projection, in which the loss compares."""
        head_norm: bool = True
        """Batch norm behind each linear layer of the head, as in the official code."""
        together: bool = True
        """Both views in one pass, so that batch norm averages over both. Off: one pass a view."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(view=STRONG, temperature=0.2, projection_hidden=256, projection=64)
        # Rate 0.3 * batch / 256, 1000 epochs (section 2.2).
        paper = imagenet_resnet50(
            cls.name, cls.Settings(), batch=4096, learning_rate=4.8, weight_decay=1e-6, epochs=1000
        )
        return {
            "small": small(cls.name, small_settings),
            "nano": nano(small(cls.name, small_settings)),
            "vits16": vits16(cls.name, cls.Settings()),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": paper,
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if settings.negative_count is not None and settings.negative_count < 1:
            raise RizbinError(
                f"negative_count is {settings.negative_count}; give 1 or more, or set negatives to False."
            )
        self.settings = settings
        self.backbone = build_encoder(settings.encoder)
        self.projector = mlp_head(
            self.backbone.dim,
            settings.projection_hidden,
            settings.projection,
            layers=settings.projection_layers,
            norm=settings.head_norm,
            last_norm=settings.head_norm,
        )
        self.views = (replace(only(settings.view, settings.augmentations), size=settings.encoder.image_size),) * 2

    @property
    def encoder(self) -> ImageEncoder:
        return self.backbone

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        if self.settings.together:
            a, b = self.project(self.backbone(torch.cat(batch.views))).chunk(2)
        else:
            a, b = (self.project(self.backbone(view)) for view in batch.views)
        cosine = F.cosine_similarity(a, b, dim=-1).mean()
        if self.settings.negatives:
            loss = nt_xent(a, b, self.settings.temperature, count=self.settings.negative_count)
        else:
            loss = -cosine
        yield Minimize(loss, records={"cosine": cosine})

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch projection"]:
        return self.projector(features)

    @torch.no_grad()
    def inspect(self, features: Float[Tensor, "batch dim"]) -> dict[str, float]:
        """With projections of two numbers, whose directions are a circle: the percent of images in each sector.

        Source of the figure: Wang and Isola, arXiv 2005.10242, figure 3.
        """
        if self.settings.projection != 2:
            return {}
        training = self.projector.training
        z = self.projector.eval()(features.to(next(self.projector.parameters())))
        self.projector.train(training)
        turns = torch.atan2(z[:, 1], z[:, 0]).double().cpu() / (2 * math.pi) % 1
        counts = torch.bincount((turns * SECTORS).long().clamp(max=SECTORS - 1), minlength=SECTORS)
        return {f"sector/{number:02d}": 100 * int(count) / len(turns) for number, count in enumerate(counts)}
