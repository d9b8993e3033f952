"""LoGo: large crops of an image attract each other, small crops are attracted to large ones, and small crops repel.

Two small crops may show different objects, so nothing should pull them together. How much two embeddings look as if
they came from one image is judged by a small network that is trained against the encoder: of all directions in which a
cosine could be lowered, most mean nothing.

Source: Zhang et al., "Leverage Your Local and Global Representations: A New Self-Supervised Learning Strategy",
arXiv 2203.17205, equations 3 to 6 and 9:
    attraction = l_s(g1, g2) + sum over small i of l_s(l_i, sg(g1)) + l_s(l_i, sg(g2))  (or, as released, the mean)
    encoder minimizes attraction + weight * l_a(l1, l2); the affinity l_a learns to tell one image's pairs from two's.
Differs:
- the affinity learns by a logistic loss (as the released code does), not by the plain difference of means (equation 9),
  which has no lower bound;
- "bound" is the released code's ratio of gradients, but both are of this step and make one update: the original moves
  the encoder twice, by two optimizers, and takes the ratio to the step before;
- pairs of two images are each image and the next one of the batch of all processes, not the reversed batch, whose
  middle may meet itself;
- the key encoder moves once a step and sees large crops only.
What repulsion does, by measurement (docs/LOG.md): pairs of one image become harder to tell from pairs of two, but
not by a smaller cosine. A vector added to all embeddings changes no contrast, so the encoder draws all small crops
together: their cosine rises within an image, and more between two. With affinity="cosine" it falls.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.errors import RizbinError
from rizbin.core.precision import wide
from rizbin.data.views import AUGMENTATIONS, Augmentation, View, only
from rizbin.losses.distill import regression
from rizbin.models.published import build_encoder
from rizbin.nets.heads import mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.nets.momentum import Teacher
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import STRONG, STRONG_SMALL, nano, small, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets, TrainerSettings, Training

_GLOBAL = View.Settings(
    crop_area=(0.4, 1.0),
    crop_ratio=(0.75, 1.3333),
    flip=0.5,
    jitter=0.8,
    saturation=0.4,
    grayscale=0.2,
    blur=0.5,
)


def queue_contrast(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "queue dim"],
    temperature: float,
) -> Float[Tensor, ""]:
    """MoCo's loss: each query must pick its key among all of the queue (arXiv 1911.05722, equation 1).

    Takes unit vectors. Mean of -log softmax over (own key, queue).
    """
    logits = torch.cat([(queries * keys).sum(dim=-1, keepdim=True), queries @ queue.T], dim=1) / temperature
    # A softmax over thousands of keys in bf16 loses the small ones.
    return F.cross_entropy(wide(logits), torch.zeros(len(queries), dtype=torch.long, device=queries.device))


def tell_apart(same: Float[Tensor, " batch"], different: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """What the affinity minimizes: mean softplus(-same) + mean softplus(different), the logistic loss of both kinds."""
    return F.softplus(-same).mean() + F.softplus(different).mean()


class LoGo(Method):
    """Global-global and local-global attraction, local-local repulsion, on SimSiam, MoCo or BYOL."""

    arxiv = "2203.17205"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        base: Literal["simsiam", "moco", "byol"] = "moco"
        """How crops are attracted: by a predictor and the stopped gradient (SimSiam), contrast with a queue of keys
        (MoCo, as released), or a predictor and a momentum target (BYOL)."""
        affinity: Literal["learned", "cosine", "none"] = "learned"
        """What makes small crops of one image repel each other: a learned affinity (paper), their cosine, or
        nothing."""
        weighting: Literal["weight", "bound"] = "bound"
        """How strong repulsion is: by a fixed weight (the paper's lambda), or its gradient cut to a share of the
        attraction's (as released)."""
        repulsion_weight: float = 1e-4
        """Lambda, where weighting is weight (SimSiam-LoGo: 1e-4)."""
        repulsion_bound: float = 0.015
        """Largest norm of the repulsion's gradient divided by the attraction's, where weighting is bound (released
        code: 0.015)."""
        local_global: bool = True
        """Attract small crops to the large ones."""
        global_view: View.Settings = _GLOBAL
        """Each of the two large crops (released code: 0.4 to 1 of the area at 224 pixels)."""
        local_view: View.Settings = replace(_GLOBAL, crop_area=(0.05, 0.4), size=96)
        """Each of the two small crops (0.05 to 0.4 at 96 pixels; CIFAR: at the size of the large ones)."""
        augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
        """Augmentations that are applied; leave one out, or name one alone, to measure its effect."""
        projection_layers: int = 2
        """Linear layers of the projection head (released MoCo: 2; SimSiam: 3)."""
        projection_hidden: int = 2048
        """Width of projector and predictor."""
        projection: int = 128
        """Size of the projection."""
        head_norm: bool = False
        """Batch norm in projector and predictor (MoCo: none; SimSiam and BYOL need it)."""
        queue: int = 4096
        """Keys of earlier batches that MoCo contrasts with."""
        temperature: float = 0.07
        """Temperature of MoCo's contrastive loss."""
        momentum: float = 0.999
        """EMA momentum of MoCo's key encoder or BYOL's target (MoCo: 0.999)."""
        affinity_hidden: int = 256
        """Width of the affinity's network (released code: 256; the unofficial one: 64)."""
        affinity_layers: int = 3
        """Linear layers of the affinity's network (released code: 3)."""
        affinity_rate: float = 1.0
        """Learning rate of the affinity's network, relative to the encoder's."""
        affinity_noise: float = 0.3
        """Length of the Gaussian noise on the embeddings of one image that it learns from (released code: 0.3)."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(
            global_view=STRONG,
            local_view=STRONG_SMALL,
            projection_hidden=256,
            projection=64,
            # As in DINO's: without batch norm the projections of a young network lie in two directions.
            head_norm=True,
            queue=1024,
            temperature=0.2,
            momentum=0.97,
            affinity_hidden=64,
        )
        nano_settings = replace(small_settings, local_view=replace(STRONG_SMALL, size=16))
        return {
            "small": small(cls.name, small_settings),
            "nano": nano(small(cls.name, nano_settings)),
            "vits16": vits16(cls.name, cls.Settings()),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": cls._paper(),
        }

    @classmethod
    def _paper(cls) -> Training[Settings]:
        """MoCo-LoGo as released: ResNet-34, batch 256, SGD 0.03, 200 epochs of ImageNet-100."""
        return Training(
            method=cls.name,
            steps=200 * 126_689 // 256,
            batch=256,
            checkpoint_every=1000,
            settings=cls.Settings(encoder=ImageEncoder.Settings(name="resnet34", image_size=224)),
            trainer=TrainerSettings(
                optimizer="sgd",
                learning_rate=0.03,
                final_learning_rate=0.0,
                weight_decay=1e-4,
                warmup=0.0,
                clip=100.0,
                precision="bf16",
                workers=8,
            ),
        )

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if not 0 <= settings.momentum <= 1:
            raise RizbinError(f"momentum is {settings.momentum}; it is a share, so give 0 to 1.")
        self.settings = settings
        self.backbone = build_encoder(settings.encoder)
        hidden, size, norm = settings.projection_hidden, settings.projection, settings.head_norm
        self.projector = mlp_head(self.backbone.dim, hidden, size, layers=settings.projection_layers, norm=norm)
        self.predictor = None if settings.base == "moco" else mlp_head(size, hidden, size, layers=2, norm=norm)
        self.regressor: nn.Module | None = None
        if settings.affinity == "learned":
            self.regressor = mlp_head(2 * size, settings.affinity_hidden, 1, layers=settings.affinity_layers)
        self.teacher = None if settings.base == "simsiam" else Teacher(self.taught(), norms="batch")
        if settings.base == "moco":
            self.register_buffer("queue", F.normalize(torch.randn(settings.queue, size), dim=-1))
        large = replace(only(settings.global_view, settings.augmentations), size=settings.encoder.image_size)
        small = only(settings.local_view, settings.augmentations)
        self.views = (large, large, small, small)
        self.backbone.check_crop(small.size, "--method.local-view.size")

    def optimizers(self) -> dict[str, list[nn.Module]]:
        main = [self.backbone, self.projector, *([self.predictor] if self.predictor is not None else [])]
        return {"main": main, **({"affinity": [self.regressor]} if self.regressor is not None else {})}

    @property
    def encoder(self) -> ImageEncoder:
        return self.backbone

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings = self.settings
        large_crops = torch.cat(batch.views[:2])
        large = self.projector(self.backbone(large_crops))
        small = self.projector(self.backbone(torch.cat(batch.views[2:]), track=False))
        keys = self._keys(large_crops, large)
        # Unit vectors, as released: by their lengths alone the encoder could please the affinity and turn nothing.
        l1, l2 = F.normalize(small, dim=-1).chunk(2)
        if self.regressor is not None:
            same, different = self._judged(l1.detach(), l2.detach(), progress)
            right = ((same > 0).float().mean() + (different <= 0).float().mean()) / 2
            records = {"same": same.mean(), "different": different.mean(), "right": right}
            yield Minimize(tell_apart(same, different), by="affinity", records=records, rate=settings.affinity_rate)

        attraction = self._attraction(large, small, keys)
        repulsion = self._repulsion(l1, l2)
        records = {"attraction": attraction, "repulsion": repulsion, **self._cosines(large, small)}
        if settings.affinity != "none" and settings.weighting == "bound":
            yield Minimize(attraction, records=records, bounded=repulsion, bound=settings.repulsion_bound)
        else:
            yield Minimize(attraction + settings.repulsion_weight * repulsion, records=records)
        if self.teacher is not None:
            self.teacher.follow(self.taught(), settings.momentum)
        if settings.base == "moco":
            newest = [parallel.gather(key) for key in keys.chunk(2)]
            self.queue = torch.cat([*newest, self.queue])[: settings.queue]

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch projection"]:
        return self.projector(features)

    def taught(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "projector": self.projector}

    @torch.no_grad()
    def _keys(self, large_crops: Tensor, large: Float[Tensor, "views projection"]) -> Float[Tensor, "views projection"]:
        """The targets of the large crops: unit vectors without gradient."""
        outputs = large if self.teacher is None else self.teacher["projector"](self.teacher["backbone"](large_crops))
        keys = F.normalize(outputs.detach(), dim=-1)
        if self.settings.base == "moco" and len(keys) * parallel.world_size() > self.settings.queue:
            raise RizbinError(
                f"A queue of {self.settings.queue} keys holds less than the {len(keys) * parallel.world_size()} of one "
                "batch; set a larger --method.queue or a smaller --batch."
            )
        return keys

    def _attraction(self, large: Tensor, small: Tensor, keys: Tensor) -> Float[Tensor, ""]:
        """Large crops to each other, small ones to both: the mean of the six terms where repulsion is bounded (released
        code), else the paper's sum, by which its weight is meant."""
        projections = torch.cat([large, small])
        predicted = projections if self.predictor is None else self.predictor(projections)
        g1, g2, l1, l2 = F.normalize(predicted, dim=-1).chunk(4)
        key1, key2 = keys.chunk(2)
        between_large = torch.stack([self._similar(g1, key2), self._similar(g2, key1)])
        if not self.settings.local_global:
            return between_large.mean()
        to_large = torch.stack([self._similar(small, key) for small in (l1, l2) for key in (key1, key2)])
        if self.settings.weighting == "bound":
            return torch.cat([between_large, to_large]).mean()
        return between_large.mean() + to_large.sum()

    def _similar(self, queries: Tensor, keys: Tensor) -> Float[Tensor, ""]:
        if self.settings.base == "moco":
            return queue_contrast(queries, keys, self.queue, self.settings.temperature)
        return regression(queries, keys) / 2 - 1  # minus the cosine, as SimSiam has it

    def _repulsion(self, l1: Tensor, l2: Tensor) -> Float[Tensor, ""]:
        """How much the small crops of one image, unit vectors, look like it."""
        if self.settings.affinity == "none":
            return l1.new_zeros(())
        if self.regressor is None:
            return (l1 * l2).sum(dim=-1).mean()
        # By running statistics: those of one kind of pairs alone would norm away what tells the kinds apart.
        self.regressor.eval()
        score = (self._affinity(l1, l2) + self._affinity(l2, l1)) / 2
        self.regressor.train(self.training)
        return F.softplus(score).mean() if self.settings.weighting == "bound" else score.mean()

    def _judged(
        self, l1: Float[Tensor, "batch dim"], l2: Float[Tensor, "batch dim"], progress: Progress
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The affinity of pairs from one image, blurred by noise, and of pairs from two."""
        assert self.regressor is not None  # asked for only where it is learned
        rows, dim = l1.shape
        shift = (parallel.rank() * rows + 1 + torch.arange(rows, device=l1.device)) % (rows * parallel.world_size())
        other = parallel.gather(l2)[shift]
        scale = self.settings.affinity_noise / math.sqrt(dim)
        # From uniform to Gaussian numbers, in float32 and with a clamp: at its ends the function is infinite.
        uniform = progress.uniform("affinity", rows, 2 * dim, l1.device)
        noise = (scale * math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + 1e-6, 1 - 1e-6))).to(l1)
        noisy1, noisy2 = l1 + noise[:, :dim], l2 + noise[:, dim:]
        pairs = ((noisy1, noisy2), (noisy2, noisy1), (l1, other), (other, l1))
        scores = self.regressor(torch.cat([torch.cat(pair, dim=1) for pair in pairs])).squeeze(1)
        a, b, c, d = scores.chunk(4)
        return (a + b) / 2, (c + d) / 2

    def _affinity(self, a: Tensor, b: Tensor) -> Float[Tensor, " batch"]:
        assert self.regressor is not None
        return self.regressor(torch.cat([a, b], dim=1)).squeeze(1)

    @torch.no_grad()
    def _cosines(self, large: Tensor, small: Tensor) -> dict[str, Tensor]:
        """Mean cosines between the crops of one image, which a study plots."""
        (g1, g2), (l1, l2) = (F.normalize(crops, dim=-1).chunk(2) for crops in (large, small))
        return {
            "global_global": (g1 * g2).sum(-1).mean(),
            "local_global": ((l1 + l2) * (g1 + g2)).sum(-1).mean() / 4,
            "local_local": (l1 * l2).sum(-1).mean(),
            "local_other": (l1 * l2.roll(1, 0)).sum(-1).mean(),
        }
