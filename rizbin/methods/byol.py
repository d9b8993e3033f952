"""BYOL: a network predicts the projection of another view by an EMA copy of itself, without negatives.

Source: Grill et al., "Bootstrap Your Own Latent", arXiv 2006.07733, equations 2 and 8, appendices A and B. Its switches
span the paper's table 19 from BYOL to SimCLR and to what collapses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import AUGMENTATIONS, Augmentation, View, only
from rizbin.losses.contrast import nt_xent
from rizbin.losses.distill import regression
from rizbin.models.published import build_encoder
from rizbin.nets.heads import mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.nets.momentum import Teacher
from rizbin.training.method import Batch, Method, Minimize, Progress, Work
from rizbin.training.presets import STRONG, imagenet_resnet50, nano, small, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets

_VIEW = View.Settings(crop_area=(0.08, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5, jitter=0.8, grayscale=0.2, blur=1.0)

Projected = tuple[Float[Tensor, "batch projection"], Float[Tensor, "batch projection"]]
"""One of each view."""


def eigen_alignment(predictor: Float[Tensor, "dim dim"], projections: Float[Tensor, "batch dim"]) -> float:
    """How nearly the eigenvectors of the projections' correlation are the predictor's own, 0 to 1.

    Mean of cos(W u, u) over the eigenvectors u of the uncentered correlation z'z / n, weighted by their eigenvalues.
    Source: Tian et al., "Understanding self-supervised learning dynamics without contrastive pairs", arXiv 2102.06810,
    figure 2. Differs: weighted, so that directions without any data say nothing.
    """
    values, vectors = torch.linalg.eigh(projections.T @ projections / len(projections))
    cosines = F.cosine_similarity(predictor @ vectors, vectors, dim=0)
    values = values.clamp(min=0)
    return float((cosines * values).sum() / values.sum().clamp(min=1e-30))


class BYOL(Method):
    """Regression onto a momentum target; each part that prevents collapse can be turned off by a flag."""

    arxiv = "2006.07733"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        view_1: View.Settings = _VIEW
        """The first view: always blurred, never solarized (paper, table 6)."""
        view_2: View.Settings = replace(_VIEW, blur=0.1, solarize=0.2)
        """The second view: seldom blurred, sometimes solarized."""
        augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
        """Augmentations that are applied; leave one out, or name one alone, to measure its effect."""
        predictor: bool = True
        """The online network predicts through one more head. Off: its projection itself must equal the target's."""
        predictor_layers: int = 2
        """Linear layers of the predictor (paper: 2); 1 is DirectPred's linear predictor (arXiv 2102.06810)."""
        stop_gradient: bool = True
        """No gradient into the target. Off: the online network is its own target and moves towards itself from both
        sides, whatever `target` says."""
        target: Literal["ema", "copy", "fixed"] = "ema"
        """Whose projection is predicted: that of an EMA copy (paper), of the online network as it is
        (SimSiam, arXiv 2011.10566), or of a random network that never moves."""
        negatives: bool = False
        """Contrast predictions with targets of other images as well (paper, equation 8 with beta 1). With neither
        predictor nor stop-gradient this is SimCLR."""
        temperature: float = 0.1
        """Temperature of the contrastive loss, where there are negatives."""
        projection_layers: int = 2
        """Linear layers of the projection head."""
        projection_hidden: int = 4096
        """Width of projector and predictor."""
        projection: int = 256
        """Size of the projection."""
        head_norm: bool = True
        """Batch norm between the heads' layers."""
        momentum: float = 0.996
        """EMA momentum: share of its weights that the target keeps at each update, at the start of the run (paper:
        0.996 for 1000 epochs, 0.99 for 100 and 300)."""
        final_momentum: float = 1.0
        """EMA momentum at the end of the run, reached by a cosine."""
        together: bool = False
        """Both views in one pass, which is faster; batch norm then averages over both. Off (paper): one pass a view."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(
            view_1=STRONG, view_2=STRONG, projection_hidden=512, projection=64, momentum=0.97, together=True
        )
        # Rate 0.2 * batch / 256, 1000 epochs (appendix B).
        paper = imagenet_resnet50(
            cls.name, cls.Settings(), batch=4096, learning_rate=3.2, weight_decay=1.5e-6, epochs=1000
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
        for name in ("momentum", "final_momentum"):
            if not 0 <= getattr(settings, name) <= 1:
                raise RizbinError(f"{name} is {getattr(settings, name)}; it is a share, so give 0 to 1.")
        self.settings = settings
        self.backbone = build_encoder(settings.encoder)
        hidden, size, norm = settings.projection_hidden, settings.projection, settings.head_norm
        self.projector = mlp_head(self.backbone.dim, hidden, size, layers=settings.projection_layers, norm=norm)
        self.predictor: nn.Module | None = None
        if settings.predictor:
            self.predictor = mlp_head(size, hidden, size, layers=settings.predictor_layers, norm=norm)
        self.teacher: Teacher | None = None
        if settings.stop_gradient and settings.target != "copy":
            self.teacher = Teacher(self.taught(), norms="batch")
        self.views = tuple(
            replace(only(view, settings.augmentations), size=settings.encoder.image_size)
            for view in (settings.view_1, settings.view_2)
        )

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [self.backbone, self.projector, *([self.predictor] if self.predictor is not None else [])]}

    @property
    def encoder(self) -> ImageEncoder:
        return self.backbone

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings = self.settings
        projections = self._projected(batch.views, self.backbone, self.projector)
        a, b = projections if self.predictor is None else self._predicted(projections, self.predictor)
        u, v = self._targets(batch.views, projections)
        if settings.negatives:
            loss = nt_xent(a, b, settings.temperature, keys=(u, v))
        else:
            loss = regression(a, v, stop_gradient=settings.stop_gradient)
            loss = loss + regression(b, u, stop_gradient=settings.stop_gradient)
        yield Minimize(loss, records={"cosine": F.cosine_similarity(a, v, dim=-1).mean()})
        if self.teacher is not None and settings.target == "ema":
            self.teacher.follow(self.taught(), progress.cosine(settings.momentum, settings.final_momentum))

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch projection"]:
        return self.projector(features)

    @torch.no_grad()
    def inspect(self, features: Float[Tensor, "batch dim"]) -> dict[str, float]:
        """How well a linear predictor's eigenvectors match the projections' correlation (DirectPred's figure)."""
        if not isinstance(self.predictor, nn.Sequential) or len(self.predictor) != 1:
            return {}
        layer = self.predictor[0]
        assert isinstance(layer, nn.Linear)  # a head of one layer is that layer
        training = self.projector.training
        z = self.projector.eval()(features.to(layer.weight)).double().cpu()
        self.projector.train(training)
        return {"eigen_alignment": eigen_alignment(layer.weight.double().cpu(), z)}

    def taught(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "projector": self.projector}

    def _targets(self, views: list[Tensor], projections: Projected) -> Projected:
        """The target of each view's prediction."""
        if not self.settings.stop_gradient:
            return projections
        if self.teacher is None:
            return projections[0].detach(), projections[1].detach()
        with torch.no_grad():
            return self._projected(views, self.teacher["backbone"], self.teacher["projector"])

    def _projected(self, views: list[Tensor], backbone: nn.Module, projector: nn.Module) -> Projected:
        if self.settings.together:
            a, b = projector(backbone(torch.cat(views))).chunk(2)
        else:
            a, b = (projector(backbone(view)) for view in views)
        return a, b

    def _predicted(self, projections: Projected, predictor: nn.Module) -> Projected:
        if self.settings.together:
            a, b = predictor(torch.cat(projections)).chunk(2)
        else:
            a, b = (predictor(projection) for projection in projections)
        return a, b

    def cautions(self, work: Work) -> list[str]:
        settings = self.settings
        # The target's memory is 1 / (1 - momentum) updates; a run of fewer than four of those never leaves its start.
        if self.teacher is not None and settings.target == "ema" and work.steps * (1 - settings.momentum) < 4:
            return [
                f"A momentum of {settings.momentum:g} in {work.steps} steps leaves the target near its random start; "
                f"set --method.momentum {max(1 - 10 / work.steps, 0.9):.3g}."
            ]
        return []
