"""SimCLR: two views of a picture must find each other among all other pictures' views.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709,
algorithm 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.data.views import AUGMENTATIONS, Augmentation, View, only
from rizbin.losses.contrast import nt_xent
from rizbin.models.published import build_encoder
from rizbin.nets.heads import mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import STRONG, imagenet_resnet50, nano, small, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets


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
        """Which of the view's changes are made: leave one out, or name one alone, to see what it is good for."""
        temperature: float = 0.1
        """What cosines are divided by (paper: 0.1 on ImageNet, 0.5 on CIFAR)."""
        negatives: bool = True
        """Other pictures push away. Off, the loss is minus the siblings' cosine, whose best answer is a constant."""
        projection_layers: int = 2
        """Linear layers of the projection head (paper: 2; version 2 of the official code: 3)."""
        projection_hidden: int = 2048
        """Width of the projection head."""
        projection: int = 128
        """Size of the projection, in which the loss compares."""
        head_norm: bool = True
        """Batch norm behind each linear layer of the head, as in the official code."""
        together: bool = True
        """Both views in one pass, so that batch norm counts both; off, one by one."""

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
        loss = nt_xent(a, b, self.settings.temperature) if self.settings.negatives else -cosine
        yield Minimize(loss, records={"cosine": cosine})

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch projection"]:
        return self.projector(features)
