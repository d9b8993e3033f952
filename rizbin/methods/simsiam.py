"""SimSiam: a network predicts its own output for another view, which gets no gradient; no negatives, no second network.

Source: Chen and He, "Exploring Simple Siamese Representation Learning", arXiv 2011.10566, algorithm 1 and equations 1
to 4; its switches are the paper's ablations of stop-gradient, predictor and batch norm (sections 4.1, 4.2, 4.4).
    loss = D(p1, stop(z2)) / 2 + D(p2, stop(z1)) / 2,   D(p, z) = -cos(p, z),   z = projector(backbone(view)),
    p = predictor(z)
Differs: the predictor's learning rate falls along the cosine like all others, the paper's baseline (67.7 percent); kept
where it starts it gave 68.1 there, and is a switch of the official code. Norms and biases do not decay.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import AUGMENTATIONS, Augmentation, View, only
from rizbin.models.published import build_encoder
from rizbin.nets.heads import GatheredBatchNorm, mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import STRONG, imagenet_resnet50, nano, small, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets


def negative_cosine(
    prediction: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"], *, stop_gradient: bool = True
) -> Float[Tensor, ""]:
    """Mean of -cos(p, z), in [-1, 1] (equation 1); `target` gets no gradient, unless an experiment asks for it."""
    target = target.detach() if stop_gradient else target
    return -F.cosine_similarity(prediction, target, dim=-1).mean()


@torch.no_grad()
def output_std(projections: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """sqrt(dim) times the mean deviation of unit-length outputs: 1 where they are spread evenly, 0 where they are one.

    The paper's measure of collapse (section 4.1, figure 2), which it plots without sqrt(dim).
    """
    unit = F.normalize(projections.detach(), dim=-1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(projections.shape[-1])


class SimSiam(Method):
    """Negative cosine with a stopped gradient; each part that prevents collapse can be turned off by a flag."""

    arxiv = "2011.10566"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        view: View.Settings = View.Settings(
            crop_area=(0.2, 1.0),
            crop_ratio=(0.75, 1.3333),
            flip=0.5,
            jitter=0.8,
            saturation=0.4,
            grayscale=0.2,
            blur=0.5,
        )
        """Each of the two views (paper, section 3; that of MoCo v2)."""
        augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
        """Augmentations that are applied; leave one out, or name one alone, to measure its effect."""
        predictor: bool = True
        """The network predicts through one more head. Off: its projection itself must equal the other one, and with a
        symmetrized loss the stopped gradient then changes the gradient's length alone (section 4.2)."""
        stop_gradient: bool = True
        """No gradient into the target. Off: the network moves towards itself from both sides (section 4.1)."""
        projection_layers: int = 3
        """Linear layers of the projection head (paper: 3; 2 on CIFAR)."""
        projection_hidden: int = 2048
        """Width of the projection head."""
        projection: int = 2048
        """Size of the projection."""
        bottleneck: int = 4
        """How many times narrower than the projection the predictor's hidden layer is (paper: 4)."""
        head_norm: bool = True
        """Batch norm between the heads' layers and behind the projection, there without scale and shift."""
        together: bool = False
        """Both views in one pass, which is faster; batch norm then averages over both. Off (paper): one pass a view."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(view=STRONG, projection_hidden=512, projection=256, together=True)
        # Rate 0.05 * batch / 256, 100 epochs (section 3).
        paper = imagenet_resnet50(
            cls.name,
            cls.Settings(),
            batch=512,
            learning_rate=0.1,
            weight_decay=1e-4,
            epochs=100,
            optimizer="sgd",
            warmup_epochs=0,
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
        for name in ("projection_layers", "bottleneck"):
            if getattr(settings, name) < 1:
                raise RizbinError(f"{name} is {getattr(settings, name)}; give 1 or more.")
        self.settings = settings
        self.backbone = build_encoder(settings.encoder)
        size, norm = settings.projection, settings.head_norm
        self.projector = mlp_head(
            self.backbone.dim,
            settings.projection_hidden,
            size,
            layers=settings.projection_layers,
            norm=norm,
            last_norm=norm,
        )
        if norm:
            self.projector[-1] = GatheredBatchNorm(size, affine=False)
        self.predictor: nn.Module | None = None
        if settings.predictor:
            self.predictor = mlp_head(size, max(size // settings.bottleneck, 1), size, layers=2, norm=norm)
        self.views = (replace(only(settings.view, settings.augmentations), size=settings.encoder.image_size),) * 2

    @property
    def encoder(self) -> ImageEncoder:
        return self.backbone

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        z1, z2 = self._of_each(lambda view: self.projector(self.backbone(view)), batch.views)
        p1, p2 = (z1, z2) if self.predictor is None else self._of_each(self.predictor, [z1, z2])
        stop = self.settings.stop_gradient
        loss = (negative_cosine(p1, z2, stop_gradient=stop) + negative_cosine(p2, z1, stop_gradient=stop)) / 2
        yield Minimize(loss, records={"cosine": -loss.detach(), "output_std": output_std(z1)})

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch projection"]:
        return self.projector(features)

    def _of_each(self, network: Callable[[Tensor], Tensor], views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The outputs of a network for both views."""
        if self.settings.together:
            a, b = network(torch.cat(views)).chunk(2)
        else:
            a, b = (network(view) for view in views)
        return a, b
