"""DINO: small crops must predict an EMA teacher's distribution over learned prototypes for the large crops.

The teacher's scores are centered, so that no prototype wins always, and sharpened, so that not all win equally.

Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294, algorithm 1.
Differs from the official code: the center is a buffer and stands in the checkpoint, as all schedules follow from the
step; the gradient is clipped as a whole (as DINOv2 does), not each tensor's.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.data.views import AUGMENTATIONS, Augmentation, View, only
from rizbin.losses.distill import Center, cross_entropy, teacher_distribution
from rizbin.models.published import build_encoder
from rizbin.nets.heads import PrototypeHead
from rizbin.nets.image import ImageEncoder
from rizbin.nets.momentum import Teacher
from rizbin.training.method import Batch, Method, Minimize, Progress, Work
from rizbin.training.presets import IMAGENET, STRONG, STRONG_SMALL, VITS16, nano, small, vitb16, vits16
from rizbin.training.settings import ImageSettings, Presets, TrainerSettings, Training

_GLOBAL = View.Settings(crop_area=(0.4, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5, jitter=0.8, grayscale=0.2, blur=1.0)


def multi_crop_loss(
    student: list[Float[Tensor, "batch prototypes"]],
    teacher: list[Float[Tensor, "batch prototypes"]],
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean cross-entropy over all pairs of a teacher's view and a student's other view (equation 3).

    `student` are scores of all views, the large ones first; `teacher` are distributions of the large ones.
    """
    terms = [
        cross_entropy(scores, target, temperature).mean()
        for large, target in enumerate(teacher)
        for number, scores in enumerate(student)
        if number != large
    ]
    return torch.stack(terms).mean()


class DINO(Method):
    """Self-distillation without labels, with multi-crop; flags turn off centering, sharpening and small crops."""

    arxiv = "2104.14294"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        encoder: ImageEncoder.Settings = ImageEncoder.Settings(drop_path=0.1)
        """The backbone, which is kept; the teacher's copy drops no path."""
        global_view_1: View.Settings = _GLOBAL
        """The first large crop (official code; 0.25 to 1 in the multi-crop ablation; 0.14 to 1 without small crops)."""
        global_view_2: View.Settings = replace(_GLOBAL, blur=0.1, solarize=0.2)
        """The second large crop."""
        local_view: View.Settings = replace(_GLOBAL, crop_area=(0.05, 0.4), blur=0.5, size=96)
        """Each small crop; its size in pixels must divide into patches."""
        local_crops: int = 8
        """Number of small crops of each image for the student (paper: 10 at best, code: 8); 0 for none."""
        augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
        """Augmentations that are applied; leave one out, or name one alone, to measure its effect."""
        prototypes: int = 65536
        """K, the number of prototypes (paper: 65536; 2048 to 8192 for small sets)."""
        head_hidden: int = 2048
        """Width of the head's two hidden layers."""
        head_bottleneck: int = 256
        """Size of the unit vectors that are compared with the prototypes."""
        head_norm: bool = False
        """Batch norm in the head (paper: none for ViTs)."""
        centering: bool = True
        """Subtract the running mean from the teacher's scores. Off: one prototype wins for every image."""
        center_momentum: float = 0.9
        """EMA momentum of the center."""
        sharpening: bool = True
        """A teacher's temperature below the student's. Off: the same for both, and the code becomes uniform."""
        student_temperature: float = 0.1
        """Temperature of the student's distribution."""
        teacher_temperature: float = 0.04
        """Temperature of the teacher's distribution after its warm-up (0.07 is recommended for long runs)."""
        teacher_temperature_start: float = 0.04
        """Temperature of the teacher's distribution at the first step."""
        teacher_temperature_warmup: float = 0.3
        """Share of the run over which the teacher's temperature rises linearly (recommended: 30 epochs of 100)."""
        freeze_last_layer: float = 0.01
        """Share of the run in which the prototypes stay fixed (paper's code: 1 epoch of 100)."""
        stop_gradient: bool = True
        """No gradient into the teacher. Off: the student is its own teacher and moves towards itself from both
        sides."""
        momentum: float = 0.996
        """EMA momentum: share of its weights that the teacher keeps at each update, at the start of the run (0.9995 at
        batch 256 on ImageNet; 0.99 for small sets)."""
        final_momentum: float = 1.0
        """EMA momentum at the end of the run, reached by a cosine."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(
            global_view_1=STRONG,
            global_view_2=STRONG,
            local_view=STRONG_SMALL,
            local_crops=2,
            prototypes=256,
            head_hidden=256,
            head_bottleneck=64,
            # Without batch norm the head of a young network says the same of every image, and in some hundred steps
            # nothing teaches it otherwise: uniform code in every run tried (docs/LOG.md).
            head_norm=True,
            momentum=0.97,
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
        """ViT-S/16, batch 1024, AdamW with rate 5e-4 * batch / 256, 300 epochs of ImageNet (appendix A)."""
        settings = cls.Settings(
            encoder=ImageEncoder.Settings(name=VITS16, image_size=224, drop_path=0.1),
            # With eight small crops the large ones start at 0.25, the small ones end there (appendix E).
            local_crops=10,
            teacher_temperature=0.07,
            teacher_temperature_warmup=0.1,
            freeze_last_layer=1 / 300,
        )
        return Training(
            method=cls.name,
            steps=300 * IMAGENET // 1024,
            batch=1024,
            checkpoint_every=1000,
            settings=settings,
            trainer=TrainerSettings(
                learning_rate=2e-3,
                final_learning_rate=1e-6,
                weight_decay=0.04,
                weight_decay_growth=10.0,
                beta2=0.999,
                warmup=10 / 300,
                warmup_start=0.0,
                clip=3.0,
                precision="bf16",
                workers=8,
            ),
        )

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.backbone = build_encoder(settings.encoder)
        self.head = PrototypeHead(
            self.backbone.dim,
            settings.prototypes,
            hidden=settings.head_hidden,
            bottleneck=settings.head_bottleneck,
            norm=settings.head_norm,
        )
        self.center = Center(settings.prototypes, settings.center_momentum)
        self.teacher = Teacher(self.taught(), norms="batch") if settings.stop_gradient else None
        size, chosen = settings.encoder.image_size, settings.augmentations
        large = tuple(
            replace(only(view, chosen), size=size) for view in (settings.global_view_1, settings.global_view_2)
        )
        self.views = large + (only(settings.local_view, chosen),) * settings.local_crops
        if settings.local_crops:
            self.backbone.check_crop(settings.local_view.size, "--method.local-view.size")

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [self.backbone, self.head]}

    @property
    def encoder(self) -> ImageEncoder:
        """The teacher's backbone, which is the better one all along (paper, section 5.2)."""
        if self.teacher is None:
            return self.backbone
        teacher = self.teacher["backbone"]
        assert isinstance(teacher, ImageEncoder)  # a copy of the student's
        return teacher

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings = self.settings
        # Crops of one size in one pass; the head once for all. Evaluation sees whole images, so the large crops
        # alone say how batch norm evaluates.
        features = [self.backbone(torch.cat(batch.views[:2]))]
        if settings.local_crops:
            features.append(self.backbone(torch.cat(batch.views[2:]), track=False))
        frozen = progress.fraction < settings.freeze_last_layer
        scores = self.head(torch.cat(features), frozen=frozen)
        targets = self._teacher_targets(batch.views[:2], scores, progress)
        loss = multi_crop_loss(
            list(scores.chunk(len(batch.views))), list(targets.chunk(2)), settings.student_temperature
        )

        yield Minimize(loss, records=self._health(targets.detach(), loss.detach()))
        if self.teacher is not None:
            self.teacher.follow(self.taught(), progress.cosine(settings.momentum, settings.final_momentum))

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch prototypes"]:
        head = self.head if self.teacher is None else self.teacher["head"]
        return head(features)

    def taught(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "head": self.head}

    def _teacher_targets(
        self, large: list[Tensor], scores: Tensor, progress: Progress
    ) -> Float[Tensor, "views prototypes"]:
        """The teacher's distributions of the large crops, the first view's rows first."""
        settings = self.settings
        temperature = settings.student_temperature
        if settings.sharpening:
            temperature = progress.linear(
                settings.teacher_temperature_start,
                settings.teacher_temperature,
                over=settings.teacher_temperature_warmup,
            )
        if self.teacher is None:
            teacher_scores = scores[: 2 * len(large[0])]
        else:
            with torch.no_grad():
                teacher_scores = self.teacher["head"](self.teacher["backbone"](torch.cat(large)))
        targets = teacher_distribution(teacher_scores, self.center.value.clone(), temperature)
        if settings.centering:
            self.center.update(teacher_scores.detach())
        return targets

    def _health(self, targets: Float[Tensor, "views prototypes"], loss: Tensor) -> dict[str, Tensor]:
        """Cross-entropy split into the teacher's entropy and the rest, and how the code is used (section 5.3)."""
        mean = targets.mean(dim=0)
        entropy = torch.special.entr(targets).sum(dim=-1).mean()
        return {
            "teacher_entropy": entropy,
            "kl": loss - entropy,
            "code_entropy": torch.special.entr(mean).sum(),
            "top_share": torch.bincount(targets.argmax(dim=-1), minlength=len(mean)).max() / len(targets),
        }

    def alarms(self, records: Mapping[str, float]) -> list[str]:
        settings, alarms = self.settings, []
        uniform = math.log(settings.prototypes)
        if records.get("loss", 0.0) > 0.99 * uniform and records.get("teacher_entropy", 0.0) > 0.97 * uniform:
            alarms.append(
                f"The loss is ln K = {uniform:.4f}: the teacher's code is uniform and says nothing. Lower "
                f"--method.momentum (now {settings.momentum:g}) or --method.teacher-temperature (now "
                f"{settings.teacher_temperature:g}), or use fewer --method.prototypes (now {settings.prototypes})."
            )
        if records.get("top_share", 0.0) > 0.9 and records.get("code_entropy", uniform) < 0.1 * uniform:
            alarms.append(
                f"One prototype wins for {100 * records['top_share']:.0f} percent of the images: the teacher's code "
                "says the same of all. Turn --method.centering on, or raise --method.teacher-temperature (now "
                f"{settings.teacher_temperature:g})."
            )
        return alarms

    def cautions(self, work: Work) -> list[str]:
        settings, cautions = self.settings, []
        if settings.prototypes > max(work.images // 4, 4096):
            fewer = 2 ** max(int(math.log2(max(work.images / 16, 256))), 8)
            cautions.append(
                f"{settings.prototypes} prototypes are ImageNet's number, and this run has {work.images:,} images; "
                f"set --method.prototypes {min(fewer, 8192)}."
            )
        # The teacher's memory is 1 / (1 - momentum) updates; in fewer than four of those it teaches its random start.
        if self.teacher is not None and work.steps * (1 - settings.momentum) < 4:
            cautions.append(
                f"A momentum of {settings.momentum:g} in {work.steps:,} steps leaves the teacher near its random "
                f"start; set --method.momentum {max(1 - 10 / work.steps, 0.9):.3g}."
            )
        return cautions


def _check(settings: DINO.Settings) -> None:
    if settings.local_crops < 0:
        raise RizbinError(f"local_crops is {settings.local_crops}; give 0 or more.")
    for name in ("student_temperature", "teacher_temperature", "teacher_temperature_start"):
        if getattr(settings, name) <= 0:
            raise RizbinError(f"{name} is {getattr(settings, name)}; give a number above 0.")
    for name in ("momentum", "final_momentum", "center_momentum"):
        if not 0 <= getattr(settings, name) <= 1:
            raise RizbinError(f"{name} is {getattr(settings, name)}; it is a share, so give 0 to 1.")
