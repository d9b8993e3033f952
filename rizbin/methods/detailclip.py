"""DetailCLIP: CLIP with patch-level self-distillation from an EMA teacher and masked-pixel reconstruction.

An EMA teacher sees each view whole. The student matches image and caption (CLIP), predicts the teacher's CLS and the
teacher's patches (self-distillation), and predicts hidden pixels (reconstruction). Besides, each noun phrase of the
caption must find its own patches (the phrase term): without it nothing says which of two words stands where.

Source: Monsefi et al., "DetailCLIP: Detail-Oriented CLIP for Fine-Grained Tasks", arXiv 2409.06809, equation 10:
    loss = CLIP + a1 * CLS + a2 * patch + a3 * reconstruction.
The paper has one choice: patches that the teacher attends to least are removed, and these are predicted. Here which
patches meet the caption (`selection`) and which are predicted (`hide`) are two choices; hide="removed" is the paper's.
Differs from the official code, each by measurement or because the original is a fault:
- heads run only on the tokens whose loss needs them, so the patch center follows hidden patches alone;
- the teacher moves after the update, not before the forward; centers are buffers and stand in the checkpoint;
- only what the losses need has a teacher (no text teacher: the original moved one and used it only in evaluation).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.precision import wide
from rizbin.data.resolution import lowered
from rizbin.data.views import View
from rizbin.losses import reconstruct
from rizbin.losses.contrast import contrast_of_views
from rizbin.losses.distill import Center, DistillationSettings, cross_entropy
from rizbin.losses.phrases import PhraseSettings, phrase_contrast_of_views, phrase_keys, text_pooled_contrast
from rizbin.losses.reconstruct import patchify
from rizbin.models.published import build_pair
from rizbin.nets import selection
from rizbin.nets.decoder import Decoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.heads import PrototypeHead
from rizbin.nets.momentum import Teacher, TeacherSettings
from rizbin.nets.vision import Features
from rizbin.training.method import Batch, Method, MethodView, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets, check_between


class DetailCLIP(Method):
    """CLIP with attention-based token removal, self-distillation and pixel reconstruction; one flag turns each off."""

    arxiv = "2409.06809"

    @dataclass(frozen=True, kw_only=True)
    class Settings(
        TeacherSettings,
        PhraseSettings,
        reconstruct.ReconstructionSettings,
        DistillationSettings,
        selection.SelectionSettings,
        ImageTextSettings,
    ):
        view: View.Settings = View.Settings(
            crop_area=(0.14, 1.0), crop_ratio=(0.75, 1.3333), jitter=0.8, grayscale=0.2, blur=0.1, solarize=0.2
        )
        """Each of the augmented views (paper's code: these numbers, no mirroring)."""
        view_count: Literal[1, 2] = 2
        """Augmented views of each image (paper: 2). With 1, at half the cost, CLS is compared within the view."""
        early_image_size: int = 0
        """Side in pixels of all views until `early_share` of the run; a larger size at the end sharpens the patches at
        little cost (as CLIP's last epoch at 336, arXiv 2103.00020). 0: the towers' own size from the start."""
        early_share: float = 0.8
        """Share of the run with `early_image_size`."""
        contrast_view: Literal["masked", "clean"] = "masked"
        """What is matched with the caption: the augmented views (paper), or the whole image unaugmented (SigLIP 2), at
        the price of one more pass, before `late_start` the only one. Selection removes nothing of it if `hide` is
        removed."""
        contrast_weight: float = 1.0
        """Weight of the CLIP term (paper: 1)."""
        late_start: float = 0.0
        """Share of the run before which distillation and reconstruction rest and cost nothing (SigLIP 2: 0.8)."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(
            view=MILD,
            head_hidden=256,
            head_bottleneck=64,
            decoder_width=128,
            decoder_heads=4,
            prototypes=512,
            # On scenes that never repeat, a second augmented view teaches little and costs a third of a step.
            view_count=1,
            # The whole image meets the caption: a step costs what CLIP's costs until the techniques start.
            contrast_view="clean",
            # Each object's patches are nearest to its own word in 94 percent instead of 56 (docs/LOG.md).
            phrase_weight=1.0,
            # At equal time the three techniques together do not pay on this world (docs/LOG.md;
            # docs/studies/components.html), so they rest; what follows suits them where a flag turns one on.
            selection="none",
            distillation=False,
            reconstruction=False,
            # Objects must be hidden to be learned of; by the paper's rule 4 percent of their pixels were.
            hide="random",
            teacher_resolution="half",
            # Features teach from the first step; a young head's prototypes stood at ln 512 for hundreds (docs/LOG.md).
            patch_target="features",
            visible_weight=1.0,
            cls_weight=0.1,
            head_norm=True,
            # Seen at half the resolution, to be predicted at the whole one.
            low_resolution=2,
            decoder_blocks=2,
            # A teacher knows nothing before captions taught it, and all terms cost three times the contrast alone.
            late_start=0.7,
            momentum=0.99,
            final_momentum=0.999,
        )
        return {
            "small": small(cls.name, small_settings),
            "vits16": vits16(cls.name, cls.Settings(decoder_width=384)),
            "vitb16": vitb16(cls.name, cls.Settings()),
            # The paper's code stands on timm 0.5, whose CLS token starts like the other weights.
            "paper": yfcc15m(cls.name, cls.Settings(), freeze_patch_embedding=True, cls_std=0.02),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.pair = build_pair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        vision, size = self.pair.vision, self.pair.image_size
        _check(settings, vision.patch_size)
        self.most_phrases = settings.phrases_most if settings.phrase_weight else 0
        self.head: PrototypeHead | None = None
        self.to_features: nn.Linear | None = None
        if settings.distillation:
            self.head = PrototypeHead(
                vision.dim,
                settings.prototypes,
                hidden=settings.head_hidden,
                bottleneck=settings.head_bottleneck,
                norm=settings.head_norm,
            )
            if settings.patch_target == "features":
                self.to_features = nn.Linear(vision.dim, vision.dim)
            self.cls_center, self.patch_center = Center(settings.prototypes), Center(settings.prototypes)
            self.visible_center = Center(settings.prototypes)
        resolves = settings.reconstruction and settings.low_resolution > 1
        width, pixels = settings.decoder_width, vision.patch_size**2 * 3
        self.decoder: Decoder | None = None
        if resolves or (settings.hides and (settings.reconstruction or settings.distillation)):
            self.decoder = Decoder(vision.dim, width, blocks=settings.decoder_blocks, heads=settings.decoder_heads)
        self.from_decoder = _linear(settings.hides and settings.distillation and width != vision.dim, width, vision.dim)
        self.to_pixels = _linear(settings.hides and settings.reconstruction, width, pixels)
        self.to_residual = _linear(resolves, width, pixels)
        if self.to_residual is not None:  # training starts at bicubic upsampling
            nn.init.zeros_(self.to_residual.weight)
            nn.init.zeros_(self.to_residual.bias)
        self.views = (replace(settings.view, size=size),) * settings.view_count
        if settings.contrast_view == "clean":
            predicts = self.head is not None or self.decoder is not None
            self.views = (*(self.views if predicts else ()), View.Settings(size=size))
        self.teacher: Teacher | None = None
        chosen = {settings.selection, settings.hide if self.decoder is not None else "none"}
        if self.taught() and (settings.distillation or {"attention", "inverse"} & chosen):
            self.teacher = Teacher(self.taught())

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [module for name, module in self.named_children() if name != "teacher"]}

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings, pair = self.settings, self.pair
        assert batch.texts is not None  # who has a tokenizer gets captions
        clean = settings.contrast_view == "clean"
        views = [self._sized(view, progress) for view in batch.views]
        images = torch.cat(views[: settings.view_count])  # all in one pass through each network
        predicts = progress.fraction >= settings.late_start and (self.head is not None or self.decoder is not None)
        terms: dict[str, Tensor] = {}
        features = None
        if predicts:
            whole = self._whole(images, attend=True) if self.head is not None else None
            visible, hidden = self._split(images, whole, progress)
            shown = lowered(images, settings.low_resolution)
            # The paper's one pass serves prediction and caption. Where another meets the caption, that one alone says
            # how the stem's batch norm evaluates.
            one_pass = not clean and settings.hide == "removed" and settings.low_resolution == 1
            student = pair.vision(shown, visible, track=one_pass)
            targets = self._targets(whole, visible, hidden, images, progress)
            terms = self._predictions(student, visible, hidden, images, shown, targets)
            features = student if one_pass else None
        if features is None:
            meets = views[-1] if clean else images
            features = pair.vision(meets, self._kept_tokens(meets, progress))

        texts = pair.encode_texts(batch.texts)
        terms["contrast"] = contrast_of_views(pair.embed(features), texts, pair.scale, pair.logit_bias)
        if settings.phrase_weight:
            terms["phrase"] = self._phrase(features.patches, batch)
        if settings.patches_contrast_weight:
            terms["patches_contrast"] = self._patches_contrast(features.patches, texts)
        weights = {
            "contrast": settings.contrast_weight,
            "phrase": settings.phrase_weight,
            "patches_contrast": settings.patches_contrast_weight,
            "cls": settings.cls_weight,
            "patch": settings.patch_weight,
            "visible": settings.visible_weight,
            "pixels": settings.reconstruction_weight,
            "residual": settings.residual_weight,
        }
        loss = sum((weights[name] * term for name, term in terms.items()), images.new_zeros(()))

        yield Minimize(loss, records={**terms, "scale": pair.scale})
        pair.limit_scale()
        if self.teacher is not None:
            self.teacher.follow(self.taught(), progress.cosine(settings.momentum, settings.final_momentum))

    def _phrase(self, patches: Float[Tensor, "views kept dim"], batch: Batch) -> Float[Tensor, ""]:
        """The phrase term, mean of the views that are seen."""
        pair = self.pair
        assert batch.phrases is not None  # `most_phrases` asked for them
        keys = phrase_keys(batch.phrases)
        phrases = pair.encode_phrases(batch.phrases, keys)
        unit = F.normalize(pair.project(patches), dim=-1)
        return phrase_contrast_of_views(unit, phrases, keys, pair.scale, pair.logit_bias, self.settings)

    def _patches_contrast(
        self, patches: Float[Tensor, "views kept dim"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """CLIP's term of the patches without CLS, mean of the views that are seen."""
        pair, settings = self.pair, self.settings
        if settings.patches_pool == "mean":
            images = F.normalize(pair.project(patches.mean(dim=1)), dim=-1)
            return contrast_of_views(images, texts, pair.scale, pair.logit_bias)
        unit = F.normalize(pair.project(patches), dim=-1)
        return text_pooled_contrast(unit, texts, pair.scale, pair.logit_bias, settings.patches_temperature)

    @torch.no_grad()
    def _kept_tokens(
        self, images: Float[Tensor, "views 3 height width"], progress: Progress
    ) -> Int[Tensor, "views kept"] | None:
        """Indices of the tokens that are matched with the caption; None for all."""
        settings, clean = self.settings, self.settings.contrast_view == "clean"
        if not settings.removes(progress.fraction) or (clean and settings.hide == "removed"):
            return None
        assert settings.selection != "none"
        views = 1 if clean else settings.view_count
        scores = self._scores(settings.selection, images, None, progress, "selection", views)
        return selection.select(scores, self._grid(images), keep_ratio=settings.keep_ratio, block=settings.block)[0]

    @torch.no_grad()
    def _split(
        self, images: Float[Tensor, "views 3 height width"], whole: Features | None, progress: Progress
    ) -> tuple[Int[Tensor, "views visible"], Int[Tensor, "views hidden"]]:
        """The patches that the predicting student sees, and those that it must predict."""
        settings, grid, views = self.settings, self._grid(images), self.settings.view_count
        if settings.hide == "removed" and not settings.removes(progress.fraction):
            everything = torch.arange(grid[0] * grid[1], device=images.device).expand(len(images), -1)
            return everything, everything[:, :0]
        if settings.hide == "removed":
            assert settings.selection != "none"
            scores = self._scores(settings.selection, images, whole, progress, "selection", views)
            return selection.select(scores, grid, keep_ratio=settings.keep_ratio, block=settings.block)
        scores = self._scores(settings.hide, images, whole, progress, "hide", views)
        return selection.select(-scores, grid, keep_ratio=1 - settings.hide_ratio, block=settings.block)

    def _scores(
        self,
        rule: selection.Rule,
        images: Float[Tensor, "views 3 height width"],
        whole: Features | None,
        progress: Progress,
        name: str,
        views: int,
    ) -> Float[Tensor, "views patches"]:
        """How much each patch is one that `rule` takes first."""
        grid = self._grid(images)
        if rule in ("attention", "inverse"):
            if whole is None or whole.attention is None:
                whole = self._whole(images, attend=True)
            return selection.rule_scores(rule, grid, self._attention(whole, grid))
        rows, patches = len(images) // views, grid[0] * grid[1]
        return selection.rule_scores(rule, grid, progress.uniform_of_views(name, views, rows, patches, images.device))

    def _predictions(
        self,
        student: Features,
        visible: Int[Tensor, "views visible"],
        hidden: Int[Tensor, "views hidden"],
        images: Float[Tensor, "views 3 height width"],
        shown: Float[Tensor, "views 3 height width"],
        targets: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """CLS across views, hidden patches and pixels through the decoder, visible patches from the encoder."""
        temperature, size, terms = self.settings.student_temperature, self.pair.patch_size, {}
        decoded = everywhere = None
        if self.decoder is not None and self.to_residual is not None:
            everywhere = self.decoder(student.cls, student.patches, visible, self._grid(images))
            decoded = selection.take(everywhere, hidden) if hidden.shape[1] else None
        elif self.decoder is not None and hidden.shape[1]:
            decoded = self.decoder(student.cls, student.patches, visible, self._grid(images), hidden)
        if "cls" in targets and self.head is not None:
            others = torch.cat(targets["cls"].chunk(self.settings.view_count)[::-1])  # each view predicts the other
            terms["cls"] = cross_entropy(self.head(student.cls), others, temperature).mean()
        if "patch" in targets and decoded is not None:
            features = self.from_decoder(decoded) if self.from_decoder is not None else decoded
            terms["patch"] = self._patch_loss(features.flatten(0, 1), targets["patch"])
        if "visible" in targets:
            terms["visible"] = self._patch_loss(student.patches.flatten(0, 1), targets["visible"])
        if decoded is not None and self.to_pixels is not None:
            terms["pixels"] = reconstruct.pixel_loss(self.to_pixels(decoded), patchify(images, size), hidden)
        if everywhere is not None and self.to_residual is not None:
            lost = selection.take(patchify(images - shown, size), visible)
            terms["residual"] = reconstruct.residual_loss(self.to_residual(selection.take(everywhere, visible)), lost)
        return terms

    def _patch_loss(
        self, features: Float[Tensor, "tokens dim"], targets: Float[Tensor, "tokens said"]
    ) -> Float[Tensor, ""]:
        """The loss between the student's patches and the teacher's targets for them."""
        assert self.head is not None  # it is there whenever there are targets
        if self.to_features is not None:  # mean squared error of normalized features; 1 is to know nothing
            return (self.to_features(features).to(targets.dtype) - targets).square().mean()
        return cross_entropy(self.head(features), targets, self.settings.student_temperature).mean()

    @torch.no_grad()
    def _targets(
        self,
        whole: Features | None,
        visible: Int[Tensor, "views visible"],
        hidden: Int[Tensor, "views hidden"],
        images: Float[Tensor, "views 3 height width"],
        progress: Progress,
    ) -> dict[str, Tensor]:
        """The teacher's targets for the views (cls), for their hidden and for their visible patches (patch, visible):
        distributions over prototypes, or of patches their normalized features. Empty without distillation."""
        settings, grid = self.settings, self._grid(images)
        if self.head is None:
            return {}
        assert self.teacher is not None and whole is not None  # a head always has a teacher, which looked
        head, half = self.teacher["head"], settings.teacher_resolution == "half"
        temperature = settings.patch_temperature_at(progress.fraction)

        def at(places: Int[Tensor, "views places"], center: Center) -> Tensor:
            places = selection.half_resolution_places(places, grid) if half else places
            features = selection.take(whole.patches, places).flatten(0, 1)
            if self.to_features is not None:
                return F.layer_norm(wide(features), features.shape[-1:])
            return center.distribution(head(features), temperature)

        targets = {"cls": self.cls_center.distribution(head(whole.cls), settings.teacher_temperature)}
        if settings.patch_weight and hidden.shape[1]:
            targets["patch"] = at(hidden, self.patch_center)
        if settings.visible_weight:
            targets["visible"] = at(visible, self.visible_center)
        return targets

    def taught(self) -> dict[str, nn.Module]:
        """The student's parts that have a teacher."""
        taught: dict[str, nn.Module] = {} if self.settings.teacher_part == "head" else {"vision": self.pair.vision}
        if self.head is not None:
            taught["head"] = self.head
        return taught

    @torch.no_grad()
    def _whole(self, images: Float[Tensor, "views 3 height width"], *, attend: bool) -> Features:
        """The teacher's features of whole views (or the student's tower, where the teacher is a head alone)."""
        tower = self.pair.vision
        if self.teacher is not None and "vision" in self.teacher:
            tower = self.teacher["vision"]
        half = self.settings.teacher_resolution == "half"
        training = tower.training
        tower.eval()
        features = tower(F.avg_pool2d(images, 2) if half else images, attend=attend)
        tower.train(training)
        return features

    def _attention(self, whole: Features, grid: tuple[int, int]) -> Float[Tensor, "views patches"]:
        """The teacher's attention for all patches of the grid, also where it sees half the resolution."""
        assert whole.attention is not None  # asked for by `attend`
        half = self.settings.teacher_resolution == "half"
        return selection.from_half_resolution(whole.attention, grid) if half else whole.attention

    def _grid(self, images: Float[Tensor, "views 3 height width"]) -> tuple[int, int]:
        return images.shape[-2] // self.pair.patch_size, images.shape[-1] // self.pair.patch_size

    def _sized(self, view: Float[Tensor, "batch 3 height width"], progress: Progress) -> Tensor:
        """The view at the size of this part of the run."""
        size = self.settings.early_image_size
        if not size or progress.fraction >= self.settings.early_share:
            return view
        return F.interpolate(view, (size, size), mode="bilinear", antialias=True)

    @torch.no_grad()
    def look(self, images: Float[Tensor, "batch 3 height width"]) -> MethodView | None:
        grid = self._grid(images)
        attention = self._attention(self._whole(images, attend=True), grid)
        if self.settings.teacher_resolution == "half":
            attention = attention / 4  # each coarse patch stands four times; rows still sum to at most 1
        _, hidden = self._split(images.repeat(self.settings.view_count, 1, 1, 1), None, Progress(0, 1))
        # Without a decoder nothing is predicted, and then only the paper's one pass hides anything.
        hides = self.decoder is not None or self.settings.hide == "removed"
        hidden = hidden[: len(images), : hidden.shape[1] if hides else 0]
        look = MethodView.of(attention, hidden, grid)
        return replace(look, reconstruction=self.reconstruct(images, look.removed) if hidden.shape[1] else None)

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 height width"],
        removed: Bool[Tensor, "batch rows columns"],
        low_resolution: int = 1,
    ) -> Float[Tensor, "batch 3 height width"] | None:
        grid, size, hidden = self._grid(images), self.pair.patch_size, removed.flatten(1)
        lacks_pixels, lacks_residual = self.to_pixels is None, self.to_residual is None
        if self.decoder is None or (hidden.any() and lacks_pixels) or (low_resolution > 1 and lacks_residual):
            return None
        visible = (~hidden).nonzero()[:, 1].view(len(images), -1)
        student = self.pair.vision(shown := lowered(images, low_resolution), visible)
        everywhere = self.decoder(student.cls, student.patches, visible, grid)
        patches = patchify(shown, size)
        if low_resolution > 1 and self.to_residual is not None:
            patches = patches + self.to_residual(everywhere)
        if self.to_pixels is not None:
            patches = reconstruct.painted(patches, self.to_pixels(everywhere), patchify(images, size), hidden)
        return reconstruct.unpatchify(patches, size, grid)


def _linear(there: bool, inputs: int, outputs: int) -> nn.Linear | None:
    return nn.Linear(inputs, outputs) if there else None


def _check(settings: DetailCLIP.Settings, patch_size: int) -> None:
    check_between(settings, 0, 1, "selection_share", "keep_ratio", above=True)
    check_between(settings, 0, 1, "hide_ratio", "early_share", above=True, below=True)
    check_between(settings, 0, 1, "late_start", below=True)
    check_between(settings, 0, math.inf, "patches_temperature", "phrase_temperature", above=True)
    check_between(settings, 1, 4, "decoder_blocks")
    check_between(settings, 1, 64, "phrases_most")
    if (size := settings.early_image_size) % patch_size or size < 0:
        raise RizbinError(f"early_image_size is {size}; choose a multiple of the patch size, {patch_size}.")
    if settings.reconstruction and not (settings.hides or settings.distillation or settings.low_resolution > 1):
        raise RizbinError(
            "With selection none and hide removed nothing is hidden, so there is nothing to reconstruct; "
            "turn reconstruction off, or choose what to hide."
        )
