"""DetailCLIP: CLIP that must also say what stood in the patches it was not shown.

A slowly following teacher sees two views whole. The patches that its CLS token attends to least are removed from what
the student sees. The student matches caption and picture (CLIP), predicts the teacher's CLS of the other view and the
teacher's patches at the removed places (self-distillation), and paints the removed pixels (reconstruction).

Source: Monsefi et al., "DetailCLIP: Detail-Oriented CLIP for Fine-Grained Tasks", arXiv 2409.06809, equation 10:
    loss = CLIP + a1 * CLS + a2 * patch + a3 * reconstruction.
Differs from the official code, each by measurement or because the original is a fault:
- heads run only on the tokens whose loss needs them, so the patch center follows the removed patches, not all of them;
- the teacher moves after the update, not before the forward; centers are buffers and stand in the checkpoint;
- only what the losses need has a teacher (no text teacher: the original moved one and used it only in evaluation).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.errors import RizbinError
from rizbin.data.views import View
from rizbin.losses.contrast import contrast, contrast_of
from rizbin.losses.distill import Center, cross_entropy, teacher_distribution
from rizbin.losses.reconstruct import patch_statistics, patchify, pixel_loss, unpatchify
from rizbin.nets.decoder import Decoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.heads import PrototypeHead
from rizbin.nets.momentum import Teacher
from rizbin.nets.selection import half_resolution_places, select
from rizbin.nets.vision import Features
from rizbin.train.method import Batch, Look, Method, Minimize, Progress


def fit(
    patches: Float[Tensor, "batch patches embedding"], texts: Float[Tensor, "texts embedding"], temperature: float
) -> Float[Tensor, "batch texts"]:
    """How well each picture's patches fit each text: cosines averaged with weights softmax(cosine / temperature).

    Takes unit vectors; in [-1, 1]. Source: PACL, arXiv 2212.04994, section 3.2.
    """
    cosines = torch.einsum("ipe,te->itp", patches, texts)
    return ((cosines / temperature).softmax(dim=-1) * cosines).sum(dim=-1)


class DetailCLIP(Method):
    """CLIP with attention-based token removal, self-distillation and pixel reconstruction; one flag turns each off."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        pair: ImageTextPair.Settings = ImageTextPair.Settings()
        """The two towers."""
        view: View.Settings = View.Settings(
            crop_area=(0.14, 1.0), crop_ratio=(0.75, 1.3333), jitter=0.8, grayscale=0.2, blur=0.1, solarize=0.2
        )
        """Each of the two augmented views (paper's code: these numbers, no mirroring)."""

        selection: Literal["attention", "random", "none"] = "attention"
        """Which tokens the student keeps: those the teacher's CLS attends to most, random ones, or all (no removal)."""
        keep_ratio: float = 0.5
        """Share of the picture that the student sees, above 0 to 1 (the paper's code calls this the mask ratio;
        0.5)."""
        block: int = 2
        """Side in patches of the squares that are kept or removed together (paper's code: 2; its figures show 1)."""

        distillation: bool = True
        """Predict the teacher's CLS and patches. Off: one of the three techniques is gone."""
        cls_weight: float = 1.0
        """Weight a1 of the CLS term (paper: 1)."""
        patch_weight: float = 1.0
        """Weight a2 of the patch term on removed places (paper: 1)."""
        visible_weight: float = 0.0
        """Weight of a patch term on kept places, taken from the encoder itself and normalized on its own (iBOT++, as
        TIPSv2 does; paper: 0)."""
        prototypes: int = 8192
        """How many prototypes CLS and patches are compared with (paper: 8192, shared)."""
        head_hidden: int = 2048
        """Width of the prototype head's two hidden layers."""
        head_bottleneck: int = 256
        """Size of the unit vectors that meet the prototypes."""
        student_temperature: float = 0.1
        """Temperature of the student's distribution."""
        teacher_temperature: float = 0.04
        """Temperature of the teacher's CLS distribution: lower is sharper."""
        patch_temperature: float = 0.07
        """Temperature of the teacher's patch distribution after its warm-up."""
        patch_temperature_start: float = 0.04
        """The same at the first step."""
        patch_temperature_warmup: float = 0.04
        """Share of the run over which it rises (paper's code: 1 epoch of 25)."""

        reconstruction: bool = True
        """Predict the removed pixels. Off: one of the three techniques is gone."""
        reconstruction_weight: float = 1.0
        """Weight a3 of the pixel term (paper: 1; 2 lost 0.7 points there)."""
        decoder_width: int = 768
        """Channels of the decoder through which removed places are predicted."""
        decoder_blocks: int = 1
        """Blocks of the decoder (paper's code: 1)."""
        decoder_heads: int = 16
        """Attention heads of the decoder."""

        contrast_view: Literal["masked", "clean"] = "masked"
        """What meets the caption: both masked views (paper), or the whole picture unaugmented (SigLIP 2), at the price
        of one more pass; before `late_start` it is then the only one, and a step costs as much as CLIP's."""
        contrast_weight: float = 1.0
        """Weight of the CLIP term (paper: 1)."""
        patches_contrast_weight: float = 0.0
        """Weight of a second CLIP term, in which the mean of the student's patches meets the caption without CLS: what
        the attention kept learns the captions' words place by place (paper: 0)."""
        patches_pool: Literal["mean", "text"] = "mean"
        """How that second term pools the patches for a caption: their mean, or each weighted by how well it fits the
        caption (PACL, arXiv 2212.04994), so that a patch of the ground need not say what stands elsewhere."""
        patches_temperature: float = 0.1
        """Temperature of those weights, in cosines: lower listens to fewer patches."""
        late_start: float = 0.0
        """Share of the run before which distillation and reconstruction rest, and cost nothing (SigLIP 2: 0.8;
        paper: 0)."""

        teacher_resolution: Literal["full", "half"] = "full"
        """Pictures for the teacher at full or half the side; half costs a quarter (A-CLIP-eff)."""
        momentum: float = 0.996
        """Share of itself that the teacher keeps at an update, at the start of the run."""
        final_momentum: float = 1.0
        """The same at the end, reached by a cosine. Below 1 the teacher keeps learning from the captions (SILC;
        paper: 1)."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.pair = ImageTextPair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        vision = self.pair.vision
        self.views = (replace(settings.view, size=self.pair.image_size),) * 2
        if settings.contrast_view == "clean":
            self.views += (View.Settings(size=self.pair.image_size),)
        self.head: PrototypeHead | None = None
        self.decoder: Decoder | None = None
        self.from_decoder: nn.Linear | None = None
        self.to_pixels: nn.Linear | None = None
        self.teacher: Teacher | None = None
        removes = settings.selection != "none"
        if settings.distillation:
            self.head = PrototypeHead(
                vision.dim, settings.prototypes, hidden=settings.head_hidden, bottleneck=settings.head_bottleneck
            )
            self.cls_center, self.patch_center = Center(settings.prototypes), Center(settings.prototypes)
            self.visible_center = Center(settings.prototypes)
        if removes and (settings.reconstruction or settings.distillation):
            self.decoder = Decoder(
                vision.dim, settings.decoder_width, blocks=settings.decoder_blocks, heads=settings.decoder_heads
            )
            if settings.decoder_width != vision.dim and settings.distillation:
                self.from_decoder = nn.Linear(settings.decoder_width, vision.dim)
        if removes and settings.reconstruction:
            self.to_pixels = nn.Linear(settings.decoder_width, vision.patch_size**2 * 3)
        if settings.distillation or settings.selection == "attention":
            self.teacher = Teacher(self._taught())

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [module for name, module in self.named_children() if name != "teacher"]}

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings, pair = self.settings, self.pair
        assert batch.texts is not None  # who has a tokenizer gets captions
        texts = pair.encode_texts(batch.texts)
        clean = settings.contrast_view == "clean"
        auxiliary = progress.fraction >= settings.late_start
        told = decoded = student = removed = None
        images = torch.cat(batch.views[:2])  # both views in one pass through each network
        learns = auxiliary and (self.head is not None or self.decoder is not None)
        if learns or not clean:
            whole = self._whole(images, auxiliary)
            keep, removed = self._selected(images, whole, progress)
            told = self._told(whole, keep, removed, self._grid(images), progress) if auxiliary else None
            # Where the whole picture meets the caption, it alone says how the stem's batch norm evaluates.
            student = pair.vision(images, keep, track=not clean)
            if auxiliary and self.decoder is not None and removed.shape[1]:
                everywhere = self.decoder(student.cls, student.patches, keep, self._grid(images))
                decoded = everywhere.gather(1, removed.unsqueeze(-1).expand(-1, -1, everywhere.shape[-1]))

        met = pair.vision(batch.views[2]) if clean or student is None else student
        terms = {"contrast": self._contrast(pair.embed(met), texts)}
        if settings.patches_contrast_weight:
            terms["patches_contrast"] = self._patches_contrast(met.patches, texts)
        if told is not None and student is not None:
            terms |= self._distilled(student, decoded, told)
        if decoded is not None and removed is not None and self.to_pixels is not None:
            terms["pixels"] = pixel_loss(self.to_pixels(decoded), patchify(images, pair.patch_size), removed)
        weights = {
            "contrast": settings.contrast_weight,
            "patches_contrast": settings.patches_contrast_weight,
            "cls": settings.cls_weight,
            "patch": settings.patch_weight,
            "visible": settings.visible_weight,
            "pixels": settings.reconstruction_weight,
        }
        loss = sum((weights[name] * term for name, term in terms.items()), images.new_zeros(()))

        yield Minimize(loss, records={**terms, "scale": pair.scale})
        pair.limit_scale()
        if self.teacher is not None:
            self.teacher.follow(self._taught(), progress.cosine(settings.momentum, settings.final_momentum))

    def _contrast(
        self, images: Float[Tensor, "views embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """CLIP's term, mean of the views that are seen."""
        views = images.split(len(texts))
        return torch.stack([contrast(view, texts, self.pair.scale, self.pair.logit_bias) for view in views]).mean()

    def _patches_contrast(
        self, patches: Float[Tensor, "views kept dim"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """CLIP's term of the patches without CLS, mean of the views that are seen."""
        pair, settings = self.pair, self.settings
        if settings.patches_pool == "mean":
            return self._contrast(F.normalize(pair.image_projection(patches.mean(dim=1)), dim=-1), texts)
        views = F.normalize(pair.image_projection(patches), dim=-1).split(len(texts))
        fits = [fit(view, parallel.gather(texts), settings.patches_temperature) for view in views]
        return torch.stack([contrast_of(one, pair.scale, pair.logit_bias) for one in fits]).mean()

    def _taught(self) -> dict[str, nn.Module]:
        """The student's parts that have a teacher."""
        taught: dict[str, nn.Module] = {"vision": self.pair.vision}
        if self.head is not None:
            taught["head"] = self.head
        return taught

    @torch.no_grad()
    def _whole(self, images: Float[Tensor, "views 3 height width"], auxiliary: bool) -> Features | None:
        """What the teacher sees in the whole views, in one pass for all that needs it; None when nothing does."""
        attend = self.settings.selection == "attention"
        if self.teacher is None or not (attend or auxiliary):
            return None
        half = self.settings.teacher_resolution == "half"
        return self.teacher["vision"](F.avg_pool2d(images, 2) if half else images, attend=attend)

    @torch.no_grad()
    def _selected(
        self, images: Float[Tensor, "views 3 height width"], whole: Features | None, progress: Progress
    ) -> tuple[Int[Tensor, "views kept"], Int[Tensor, "views removed"]]:
        """Which patches the student keeps, and which are removed."""
        settings, grid = self.settings, self._grid(images)
        places = grid[0] * grid[1]
        if settings.selection == "none":
            keep = torch.arange(places, device=images.device).expand(len(images), -1)
            return keep, keep[:, :0]
        if settings.selection == "random":
            # Numbers for both views side by side, so that each picture keeps its own numbers however the batch is
            # shared.
            scores = progress.uniform("removal", len(images) // 2, 2 * places, images.device)
            scores = torch.cat(scores.chunk(2, dim=1))
        else:
            assert whole is not None and whole.attention is not None  # the teacher always looks for this selection
            scores = _to_grid(whole.attention, grid, settings.teacher_resolution == "half")
        return select(scores, grid, keep_ratio=settings.keep_ratio, block=settings.block)

    @torch.no_grad()
    def _told(
        self,
        whole: Features | None,
        keep: Int[Tensor, "views kept"],
        removed: Int[Tensor, "views removed"],
        grid: tuple[int, int],
        progress: Progress,
    ) -> "_Told | None":
        """What the teacher says of the views, of their removed and of their kept patches; None without distillation."""
        settings = self.settings
        if self.head is None:
            return None
        assert self.teacher is not None and whole is not None  # a head always has a teacher, which looked
        head, seen = self.teacher["head"], whole
        half = settings.teacher_resolution == "half"
        warm = progress.linear(
            settings.patch_temperature_start, settings.patch_temperature, over=settings.patch_temperature_warmup
        )

        def distributions(features: Tensor, center: Center, temperature: float) -> Tensor:
            scores = head(features)
            told = teacher_distribution(scores, center.value, temperature)
            center.update(scores)
            return told

        def at(places: Int[Tensor, "views places"], center: Center) -> Tensor:
            places = half_resolution_places(places, grid) if half else places
            wanted = seen.patches.gather(1, places.unsqueeze(-1).expand(-1, -1, seen.patches.shape[-1]))
            return distributions(wanted.flatten(0, 1), center, warm)

        return _Told(
            cls=distributions(seen.cls, self.cls_center, settings.teacher_temperature),
            removed=at(removed, self.patch_center) if settings.patch_weight and removed.shape[1] else None,
            visible=at(keep, self.visible_center) if settings.visible_weight else None,
        )

    def _distilled(
        self, student: Features, decoded: Float[Tensor, "views removed width"] | None, told: "_Told"
    ) -> dict[str, Tensor]:
        """The terms of self-distillation.

        CLS across views, removed patches through the decoder, kept patches from the encoder.
        """
        assert self.head is not None  # it is there whenever the teacher tells
        temperature = self.settings.student_temperature
        u, v = told.cls.chunk(2)
        terms = {"cls": cross_entropy(self.head(student.cls), torch.cat([v, u]), temperature).mean()}
        if told.removed is not None and decoded is not None:
            features = self.from_decoder(decoded) if self.from_decoder is not None else decoded
            terms["patch"] = cross_entropy(self.head(features.flatten(0, 1)), told.removed, temperature).mean()
        if told.visible is not None:
            terms["visible"] = cross_entropy(self.head(student.patches.flatten(0, 1)), told.visible, temperature).mean()
        return terms

    def _grid(self, images: Float[Tensor, "views 3 height width"]) -> tuple[int, int]:
        return images.shape[-2] // self.pair.patch_size, images.shape[-1] // self.pair.patch_size

    @torch.no_grad()
    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look | None:
        grid, settings = self._grid(images), self.settings
        half = settings.teacher_resolution == "half" and self.teacher is not None
        eye = self.teacher["vision"] if self.teacher is not None else self.pair.vision
        attention = _to_grid(eye(F.avg_pool2d(images, 2) if half else images, attend=True).attention, grid, half)
        if half:
            attention = attention / 4  # each coarse patch stands four times; rows still sum to at most 1
        if settings.selection == "none":
            nothing = torch.zeros(len(images), *grid, dtype=torch.bool, device=images.device)
            return Look(attention.unflatten(1, grid), nothing, None)
        scores = attention
        if settings.selection == "random":
            scores = Progress(0, 1).uniform("look", len(images), grid[0] * grid[1], images.device)
        keep, removed = select(scores, grid, keep_ratio=settings.keep_ratio, block=settings.block)
        gone = torch.zeros_like(attention, dtype=torch.bool).scatter_(1, removed, True)
        painted = None
        if self.to_pixels is not None and self.decoder is not None:
            seen = self.pair.vision(images, keep)
            patches = patchify(images, self.pair.patch_size)
            mean, deviation = patch_statistics(patches)
            # The network predicts patches normalized by their own statistics; the truth's are put back to show them,
            # as MAE does.
            predicted = self.to_pixels(self.decoder(seen.cls, seen.patches, keep, grid)) * deviation + mean
            painted = unpatchify(torch.where(gone.unsqueeze(-1), predicted, patches), self.pair.patch_size, grid)
        return Look(attention.unflatten(1, grid), gone.unflatten(1, grid), painted)


@dataclass(frozen=True)
class _Told:
    """The teacher's distributions."""

    cls: Float[Tensor, "views prototypes"]
    removed: Float[Tensor, "gone prototypes"] | None
    visible: Float[Tensor, "seen prototypes"] | None


def _to_grid(
    attention: Float[Tensor, "views tokens"], grid: tuple[int, int], half: bool
) -> Float[Tensor, "views patches"]:
    if not half:
        return attention
    coarse = attention.view(-1, 1, grid[0] // 2, grid[1] // 2)
    return F.interpolate(coarse, scale_factor=2, mode="nearest").flatten(1)


def _check(settings: DetailCLIP.Settings) -> None:
    if not 0 < settings.keep_ratio <= 1:
        raise RizbinError(
            f"keep_ratio is {settings.keep_ratio}; the student must see something: choose a number above 0, up to 1."
        )
    if not 0 <= settings.late_start < 1:
        raise RizbinError(f"late_start is {settings.late_start}; choose a share of the run from 0 to below 1.")
    if settings.patches_temperature <= 0:
        raise RizbinError(f"patches_temperature is {settings.patches_temperature}; choose a number above 0.")
    if settings.selection == "none" and settings.reconstruction and not settings.distillation:
        raise RizbinError(
            "With selection none nothing is removed, so there is nothing to reconstruct; "
            "turn reconstruction off or removal on."
        )
