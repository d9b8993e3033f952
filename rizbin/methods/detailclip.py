"""DetailCLIP: CLIP whose image tower must also say what stands in the patches that it was not shown.

An EMA teacher sees each view whole. The student matches image and caption (CLIP), predicts the teacher's CLS and the
teacher's patches (self-distillation), and predicts hidden pixels (reconstruction). Besides, each noun phrase of the
caption must find its own patches (the phrase term): without it nothing says which of two words stands where.

Source: Monsefi et al., "DetailCLIP: Detail-Oriented CLIP for Fine-Grained Tasks", arXiv 2409.06809, equation 10:
    loss = CLIP + a1 * CLS + a2 * patch + a3 * reconstruction.
The paper has one choice: patches that the teacher attends to least are removed, and these are predicted. Here which
patches meet the caption (`selection`) and which are predicted (`hide`) are two choices; hide="removed" is the paper's.
Differs from the official code, each by measurement or because the original is a fault:
- heads run only on the tokens whose loss needs them, so the patch center follows the hidden patches, not all of them;
- the teacher moves after the update, not before the forward; centers are buffers and stand in the checkpoint;
- only what the losses need has a teacher (no text teacher: the original moved one and used it only in evaluation).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.errors import RizbinError
from rizbin.core.precision import wide
from rizbin.data.resolution import lowered
from rizbin.data.views import View
from rizbin.losses.contrast import contrast, contrast_of
from rizbin.losses.distill import Center, cross_entropy, teacher_distribution
from rizbin.losses.phrases import phrase_contrast, phrase_keys, text_weighted_similarity
from rizbin.losses.reconstruct import patch_statistics, patchify, pixel_loss, residual_loss, unpatchify
from rizbin.nets.decoder import Decoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.heads import PrototypeHead
from rizbin.nets.momentum import Teacher
from rizbin.nets.selection import Rule, block_scores, half_resolution_places, select
from rizbin.nets.vision import Features
from rizbin.training.method import Batch, Look, Method, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets


class DetailCLIP(Method):
    """CLIP with attention-based token removal, self-distillation and pixel reconstruction; one flag turns each off."""

    arxiv = "2409.06809"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageTextSettings):
        view: View.Settings = View.Settings(
            crop_area=(0.14, 1.0), crop_ratio=(0.75, 1.3333), jitter=0.8, grayscale=0.2, blur=0.1, solarize=0.2
        )
        """Each of the augmented views (paper's code: these numbers, no mirroring)."""
        view_count: Literal[1, 2] = 2
        """Augmented views of each image (paper: 2). With 1 the CLS term compares a view with itself, at half the
        cost."""
        early_image_size: int = 0
        """Side in pixels of all views until `early_share` of the run; a larger size at the end sharpens the patches at
        little cost (as CLIP's last epoch at 336, arXiv 2103.00020). 0: the towers' own size from the start."""
        early_share: float = 0.8
        """Share of the run with `early_image_size`."""

        selection: Literal["attention", "random", "block", "inverse", "none"] = "attention"
        """Which tokens meet the caption: those that the teacher's CLS attends to most, random ones, a random block, the
        least attended ones, or all (no removal)."""
        keep_ratio: float = 0.5
        """Share of tokens that selection keeps, above 0 to 1 (the paper's code calls this the mask ratio; 0.5)."""
        selection_share: float = 1.0
        """Share of the run in which selection removes tokens, above 0 to 1; after it all are seen, as at inference
        (FLIP's unmasked tuning, arXiv 2212.00794). 1: to the end (paper)."""
        block: int = 2
        """Side in patches of the squares that are kept or hidden together (paper's code: 2; its figures show 1)."""
        hide: Literal["removed", "attention", "random", "block", "inverse"] = "removed"
        """Which patches must be predicted: those that selection removes from the views (paper), or in a pass of its own
        the most attended ones (AttMask, arXiv 2203.12719), random ones, a random block, or the least attended ones.
        Selection then removes tokens from what meets the caption alone."""
        hide_ratio: float = 0.5
        """Share of patches that `hide` takes, above 0 and below 1; with "removed" it is what selection leaves."""

        distillation: bool = True
        """Predict the teacher's CLS and patches. Off: one of the three techniques is gone."""
        cls_weight: float = 1.0
        """Weight a1 of the CLS term (paper: 1)."""
        patch_weight: float = 1.0
        """Weight a2 of the patch term on hidden places (paper: 1)."""
        visible_weight: float = 0.0
        """Weight of a patch term on visible places, taken from the encoder itself and normalized on its own (iBOT++ of
        TIPSv2, arXiv 2604.12012; paper: 0)."""
        patch_target: Literal["prototypes", "features"] = "prototypes"
        """What the teacher says of a patch: a distribution over prototypes (iBOT; paper), or its features themselves,
        normalized, predicted by a linear layer (as data2vec, arXiv 2202.03555), which teaches from the first step,
        where a young head says nearly the same of every patch."""
        prototypes: int = 8192
        """How many prototypes CLS and patches are compared with (paper: 8192, shared)."""
        head_hidden: int = 2048
        """Width of the prototype head's two hidden layers."""
        head_bottleneck: int = 256
        """Size of the unit vectors that meet the prototypes."""
        head_norm: bool = False
        """Batch norm in the prototype head. Without it the head of a young network says the same of everything for
        some hundred steps (paper: none)."""
        student_temperature: float = 0.1
        """Temperature of the student's distribution."""
        teacher_temperature: float = 0.04
        """Temperature of the teacher's CLS distribution: lower is sharper."""
        patch_temperature: float = 0.07
        """Temperature of the teacher's patch distribution after its warm-up."""
        patch_temperature_start: float = 0.04
        """The same during the warm-up."""
        patch_temperature_warmup: float = 0.04
        """Share of the run with the first of the two (paper's code: 1 epoch of 25)."""

        reconstruction: bool = True
        """Predict the hidden pixels. Off: one of the three techniques is gone."""
        reconstruction_weight: float = 1.0
        """Weight a3 of the pixel term (paper: 1; 2 lost 0.7 points there)."""
        low_resolution: Literal[1, 2, 4] = 1
        """The predicting student sees its view at 1/2 or 1/4 of the resolution (brought back to size), and must predict
        from visible patches what that took away. 1: full resolution (paper)."""
        residual_weight: float = 1.0
        """Weight of that second pixel term, whose error is 1 for bicubic upsampling; idle at full resolution."""
        decoder_width: int = 768
        """Channels of the decoder through which hidden places are predicted."""
        decoder_blocks: int = 1
        """Blocks of the decoder, 1 to 4 (paper's code: 1)."""
        decoder_heads: int = 16
        """Attention heads of the decoder."""

        contrast_view: Literal["masked", "clean"] = "masked"
        """What meets the caption: the augmented views (paper), or the whole image unaugmented (SigLIP 2), at the price
        of one more pass. Of the clean image selection removes tokens only where `hide` is not "removed". Before
        `late_start` it is the only pass, and a step costs about as much as CLIP's."""
        contrast_weight: float = 1.0
        """Weight of the CLIP term (paper: 1)."""
        phrase_weight: float = 0.0
        """Weight of the phrase term, in which each noun phrase of a caption finds its own patches among those that meet
        the caption (paper: 0)."""
        phrases_most: int = 4
        """Most phrases of a caption, the first ones; a caption without any is one phrase."""
        phrase_temperature: float = 0.1
        """Temperature, in cosines, at which a patch chooses among the phrases of its caption."""
        patches_contrast_weight: float = 0.0
        """Weight of a second CLIP term, in which the student's patches, pooled for a caption by `patches_pool`, meet it
        without CLS (paper: 0)."""
        patches_pool: Literal["mean", "text"] = "mean"
        """How that second term pools the patches: their mean, or each weighted by its similarity to the caption (PACL,
        arXiv 2212.04994), which pulls every object patch to all words of its caption."""
        patches_temperature: float = 0.1
        """Temperature, in cosines, of weights of patches for a caption or phrase: lower listens to fewer patches."""
        late_start: float = 0.0
        """Share of the run before which distillation and reconstruction rest, and cost nothing (SigLIP 2: 0.8;
        paper: 0)."""

        teacher_resolution: Literal["full", "half"] = "full"
        """Images for the teacher at full or half the side; half costs a quarter (A-CLIP-eff)."""
        teacher_part: Literal["all", "head"] = "all"
        """What of the teacher is a moving average: image tower and head, or the head alone, the tower being the
        student's own (TIPSv2, arXiv 2604.12012), which saves a tower's memory."""
        momentum: float = 0.996
        """Share of itself that the teacher keeps at an update, at the start of the run."""
        final_momentum: float = 1.0
        """The same at the end, reached by a cosine. Below 1 the teacher keeps learning from the captions (SILC;
        paper: 1)."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(
            view=MILD,
            head_hidden=256,
            head_bottleneck=64,
            decoder_width=128,
            decoder_heads=4,
            prototypes=512,
            # One view beside the clean one: on scenes that never repeat a second view of the same teaches little, and
            # costs a third of a step.
            view_count=1,
            # The whole image meets the caption: a step costs what CLIP's costs until the techniques start.
            contrast_view="clean",
            # What makes patches speak, and each object of its own word: from 56 to 94 percent in 900 steps
            # (docs/LOG.md).
            phrase_weight=1.0,
            # At equal time none of the three techniques pays on this world: removal costs captions and names, the more
            # the more there is that captions leave out, and the other two change nothing that seeds can tell at two to
            # three times the cost (docs/studies/components.html, tokens.html; docs/LOG.md). They rest here; what
            # follows is what was found to suit them, where a flag turns one on: --method.selection attention,
            # --method.distillation, --method.reconstruction.
            selection="none",
            distillation=False,
            reconstruction=False,
            # Objects must be hidden for anything to be learned of them; by the paper's rule 4 percent of their pixels
            # were.
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
            # In a run of minutes the teacher has nothing to teach before the captions have taught it, and a step with
            # all terms costs about three with the contrast alone.
            late_start=0.7,
            momentum=0.99,
            final_momentum=0.999,
        )
        paper = yfcc15m(cls.name, cls.Settings())
        # The paper's code stands on timm 0.5, whose CLS token starts like the other weights.
        vision = replace(paper.settings.pair.vision, freeze_patch_embedding=True, cls_std=0.02)
        settings = replace(paper.settings, pair=replace(paper.settings.pair, vision=vision))
        return {
            "small": small(cls.name, small_settings),
            "vits16": vits16(cls.name, cls.Settings(decoder_width=384)),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": replace(paper, settings=settings),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.pair = ImageTextPair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        vision, size = self.pair.vision, self.pair.image_size
        _check(settings, vision.patch_size)
        self.most_phrases = settings.phrases_most if settings.phrase_weight else 0
        self.head: PrototypeHead | None = None
        self.decoder: Decoder | None = None
        self.from_decoder: nn.Linear | None = None
        self.to_pixels: nn.Linear | None = None
        self.to_residual: nn.Linear | None = None
        self.to_features: nn.Linear | None = None
        self.teacher: Teacher | None = None
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
        hides = settings.hide != "removed" or settings.selection != "none"
        resolves = settings.reconstruction and settings.low_resolution > 1
        width, pixels = settings.decoder_width, vision.patch_size**2 * 3
        if resolves or (hides and (settings.reconstruction or settings.distillation)):
            self.decoder = Decoder(vision.dim, width, blocks=settings.decoder_blocks, heads=settings.decoder_heads)
        if hides and settings.distillation and width != vision.dim:
            self.from_decoder = nn.Linear(width, vision.dim)
        if hides and settings.reconstruction:
            self.to_pixels = nn.Linear(width, pixels)
        if resolves:
            self.to_residual = nn.Linear(width, pixels)
            nn.init.zeros_(self.to_residual.weight)  # training starts at bicubic upsampling
            nn.init.zeros_(self.to_residual.bias)
        self.views = (replace(settings.view, size=size),) * settings.view_count
        if settings.contrast_view == "clean":
            predicts = self.head is not None or self.decoder is not None
            self.views = (*(self.views if predicts else ()), View.Settings(size=size))
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
            features = pair.vision(meets, self._kept(meets, progress))

        texts = pair.encode_texts(batch.texts)
        terms["contrast"] = self._contrast(pair.embed(features), texts)
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

    # Terms that meet the caption

    def _contrast(
        self, images: Float[Tensor, "views embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """CLIP's term, mean of the views that are seen."""
        views = images.split(len(texts))
        return torch.stack([contrast(view, texts, self.pair.scale, self.pair.logit_bias) for view in views]).mean()

    def _phrase(self, patches: Float[Tensor, "views kept dim"], batch: Batch) -> Float[Tensor, ""]:
        """The phrase term, mean of the views that are seen."""
        pair, settings = self.pair, self.settings
        assert batch.phrases is not None  # `most_phrases` asked for them
        keys = phrase_keys(batch.phrases)
        # Equal phrases are read once.
        _, number = keys.unique(return_inverse=True)
        tokens = torch.zeros(int(number.max()) + 1, batch.phrases.shape[-1], dtype=torch.long, device=keys.device)
        tokens[number.flatten()] = batch.phrases.flatten(0, 1)
        phrases = pair.encode_texts(pair.tokenizer.trim(tokens))[number]
        views = F.normalize(pair.image_projection(patches), dim=-1).split(len(keys))
        temperatures = {
            "patch_temperature": settings.patches_temperature,
            "phrase_temperature": settings.phrase_temperature,
        }
        losses = [phrase_contrast(view, phrases, keys, pair.scale, pair.logit_bias, **temperatures) for view in views]
        return torch.stack(losses).mean()

    def _patches_contrast(
        self, patches: Float[Tensor, "views kept dim"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """CLIP's term of the patches without CLS, mean of the views that are seen."""
        pair, settings = self.pair, self.settings
        if settings.patches_pool == "mean":
            return self._contrast(F.normalize(pair.image_projection(patches.mean(dim=1)), dim=-1), texts)
        views = F.normalize(pair.image_projection(patches), dim=-1).split(len(texts))
        texts, temperature = parallel.gather(texts), settings.patches_temperature
        similarities = [text_weighted_similarity(view, texts, temperature) for view in views]
        return torch.stack([contrast_of(each, pair.scale, pair.logit_bias) for each in similarities]).mean()

    # What is kept, and what is hidden

    def _removes(self, progress: Progress) -> bool:
        """Whether selection removes tokens at this part of the run."""
        return self.settings.selection != "none" and progress.fraction < self.settings.selection_share

    @torch.no_grad()
    def _kept(
        self, images: Float[Tensor, "views 3 height width"], progress: Progress
    ) -> Int[Tensor, "views kept"] | None:
        """The tokens that meet the caption; None for all."""
        settings = self.settings
        clean = settings.contrast_view == "clean"
        if not self._removes(progress) or (clean and settings.hide == "removed"):
            return None
        assert settings.selection != "none"
        views = 1 if clean else settings.view_count
        scores = self._scores(settings.selection, images, None, progress, "selection", views)
        return select(scores, self._grid(images), keep_ratio=settings.keep_ratio, block=settings.block)[0]

    @torch.no_grad()
    def _split(
        self, images: Float[Tensor, "views 3 height width"], whole: Features | None, progress: Progress
    ) -> tuple[Int[Tensor, "views visible"], Int[Tensor, "views hidden"]]:
        """The patches that the predicting student sees, and those that it must predict."""
        settings, grid, views = self.settings, self._grid(images), self.settings.view_count
        if settings.hide == "removed" and not self._removes(progress):
            everything = torch.arange(grid[0] * grid[1], device=images.device).expand(len(images), -1)
            return everything, everything[:, :0]
        if settings.hide == "removed":
            assert settings.selection != "none"
            scores = self._scores(settings.selection, images, whole, progress, "selection", views)
            return select(scores, grid, keep_ratio=settings.keep_ratio, block=settings.block)
        scores = self._scores(settings.hide, images, whole, progress, "hide", views)
        return select(-scores, grid, keep_ratio=1 - settings.hide_ratio, block=settings.block)

    def _scores(
        self,
        rule: Rule,
        images: Float[Tensor, "views 3 height width"],
        whole: Features | None,
        progress: Progress,
        name: str,
        views: int,
    ) -> Float[Tensor, "views patches"]:
        """How much each patch is one that `rule` takes first."""
        grid = self._grid(images)
        if rule in ("attention", "inverse"):
            features = whole if whole is not None and whole.attention is not None else self._whole(images, attend=True)
            attention = features.attention
            assert attention is not None
            attention = _to_grid(attention, grid, self.settings.teacher_resolution == "half")
            return attention if rule == "attention" else -attention
        # Numbers of all views side by side, so that each image keeps its own however the batch is shared.
        numbers = progress.uniform(name, len(images) // views, views * grid[0] * grid[1], images.device)
        numbers = torch.cat(numbers.chunk(views, dim=1))
        return numbers if rule == "random" else block_scores(numbers, grid)

    # What the student must predict

    def _predictions(
        self,
        student: Features,
        visible: Int[Tensor, "views visible"],
        hidden: Int[Tensor, "views hidden"],
        images: Float[Tensor, "views 3 height width"],
        shown: Float[Tensor, "views 3 height width"],
        targets: "_Targets | None",
    ) -> dict[str, Tensor]:
        """CLS across views, hidden patches and pixels through the decoder, visible patches from the encoder."""
        temperature, size, terms = self.settings.student_temperature, self.pair.patch_size, {}
        decoded = everywhere = None
        if self.decoder is not None and self.to_residual is not None:
            everywhere = self.decoder(student.cls, student.patches, visible, self._grid(images))
            decoded = _take(everywhere, hidden) if hidden.shape[1] else None
        elif self.decoder is not None and hidden.shape[1]:
            decoded = self.decoder(student.cls, student.patches, visible, self._grid(images), hidden)
        if targets is not None and self.head is not None:
            others = torch.cat(targets.cls.chunk(self.settings.view_count)[::-1])  # each view predicts the other
            terms["cls"] = cross_entropy(self.head(student.cls), others, temperature).mean()
            if targets.hidden is not None and decoded is not None:
                features = self.from_decoder(decoded) if self.from_decoder is not None else decoded
                terms["patch"] = self._patch_loss(features.flatten(0, 1), targets.hidden)
            if targets.visible is not None:
                terms["visible"] = self._patch_loss(student.patches.flatten(0, 1), targets.visible)
        if decoded is not None and self.to_pixels is not None:
            terms["pixels"] = pixel_loss(self.to_pixels(decoded), patchify(images, size), hidden)
        if everywhere is not None and self.to_residual is not None:
            lost = _take(patchify(images - shown, size), visible)
            terms["residual"] = residual_loss(self.to_residual(_take(everywhere, visible)), lost)
        return terms

    def _patch_loss(
        self, features: Float[Tensor, "tokens dim"], targets: Float[Tensor, "tokens said"]
    ) -> Float[Tensor, ""]:
        """How far the student's patches are from what the teacher says of them."""
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
    ) -> "_Targets | None":
        """What the teacher says of the views, of their hidden and of their visible patches; None without
        distillation."""
        settings, grid = self.settings, self._grid(images)
        if self.head is None:
            return None
        assert self.teacher is not None and whole is not None  # a head always has a teacher, which looked
        head, half = self.teacher["head"], settings.teacher_resolution == "half"
        warm = progress.fraction < settings.patch_temperature_warmup
        patch_temperature = settings.patch_temperature_start if warm else settings.patch_temperature

        def distributions(features: Tensor, center: Center, temperature: float) -> Tensor:
            scores = head(features)
            targets = teacher_distribution(scores, center.value, temperature)
            center.update(scores)
            return targets

        def at(places: Int[Tensor, "views places"], center: Center) -> Tensor:
            places = half_resolution_places(places, grid) if half else places
            features = _take(whole.patches, places).flatten(0, 1)
            if self.to_features is not None:
                return F.layer_norm(wide(features), features.shape[-1:])
            return distributions(features, center, patch_temperature)

        return _Targets(
            cls=distributions(whole.cls, self.cls_center, settings.teacher_temperature),
            hidden=at(hidden, self.patch_center) if settings.patch_weight and hidden.shape[1] else None,
            visible=at(visible, self.visible_center) if settings.visible_weight else None,
        )

    def taught(self) -> dict[str, nn.Module]:
        """The student's parts that have a teacher."""
        taught: dict[str, nn.Module] = {} if self.settings.teacher_part == "head" else {"vision": self.pair.vision}
        if self.head is not None:
            taught["head"] = self.head
        return taught

    @torch.no_grad()
    def _whole(self, images: Float[Tensor, "views 3 height width"], *, attend: bool) -> Features:
        """What the teacher sees in whole views (or the student's tower, where the teacher is a head alone)."""
        tower = self.pair.vision
        if self.teacher is not None and "vision" in self.teacher:
            tower = self.teacher["vision"]
        half = self.settings.teacher_resolution == "half"
        training = tower.training
        tower.eval()
        features = tower(F.avg_pool2d(images, 2) if half else images, attend=attend)
        tower.train(training)
        return features

    def _grid(self, images: Float[Tensor, "views 3 height width"]) -> tuple[int, int]:
        return images.shape[-2] // self.pair.patch_size, images.shape[-1] // self.pair.patch_size

    def _sized(self, view: Float[Tensor, "batch 3 height width"], progress: Progress) -> Tensor:
        """The view at the size of this part of the run."""
        size = self.settings.early_image_size
        if not size or progress.fraction >= self.settings.early_share:
            return view
        return F.interpolate(view, (size, size), mode="bilinear", antialias=True)

    @torch.no_grad()
    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look | None:
        grid = self._grid(images)
        half = self.settings.teacher_resolution == "half"
        whole = self._whole(images, attend=True)
        assert whole.attention is not None
        attention = _to_grid(whole.attention, grid, half)
        if half:
            attention = attention / 4  # each coarse patch stands four times; rows still sum to at most 1
        _, hidden = self._split(images.repeat(self.settings.view_count, 1, 1, 1), None, Progress(0, 1))
        # Without a decoder nothing is predicted, and then only the paper's one pass hides anything.
        hides = self.decoder is not None or self.settings.hide == "removed"
        hidden = hidden[: len(images), : hidden.shape[1] if hides else 0]
        removed = torch.zeros_like(attention, dtype=torch.bool).scatter_(1, hidden, True).unflatten(1, grid)
        painted = self.reconstruct(images, removed) if hidden.shape[1] else None
        return Look(attention.unflatten(1, grid), removed, painted)

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 height width"],
        removed: Bool[Tensor, "batch rows columns"],
        low_resolution: int = 1,
    ) -> Float[Tensor, "batch 3 height width"] | None:
        grid, size = self._grid(images), self.pair.patch_size
        gone = removed.flatten(1)
        if self.decoder is None or (gone.any() and self.to_pixels is None):
            return None
        if low_resolution > 1 and self.to_residual is None:
            return None
        visible = (~gone).nonzero()[:, 1].view(len(images), -1)
        shown = lowered(images, low_resolution)
        student = self.pair.vision(shown, visible)
        everywhere = self.decoder(student.cls, student.patches, visible, grid)
        patches = patchify(shown, size)
        if low_resolution > 1 and self.to_residual is not None:
            patches = patches + self.to_residual(everywhere)
        if self.to_pixels is not None:
            # Predicted patches are normalized by their own statistics; the truth's are put back to show them, as MAE
            # does.
            mean, deviation = patch_statistics(patchify(images, size))
            patches = torch.where(gone.unsqueeze(-1), self.to_pixels(everywhere) * deviation + mean, patches)
        return unpatchify(patches, size, grid)


@dataclass(frozen=True)
class _Targets:
    """What the teacher says: distributions over prototypes, or of patches their normalized features."""

    cls: Float[Tensor, "views prototypes"]
    hidden: Float[Tensor, "gone said"] | None
    visible: Float[Tensor, "seen said"] | None


def _take(
    tokens: Float[Tensor, "views all dim"], places: Int[Tensor, "views places"]
) -> Float[Tensor, "views places dim"]:
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _to_grid(
    attention: Float[Tensor, "views tokens"], grid: tuple[int, int], half: bool
) -> Float[Tensor, "views patches"]:
    if not half:
        return attention
    coarse = attention.view(-1, 1, grid[0] // 2, grid[1] // 2)
    return F.interpolate(coarse, scale_factor=2, mode="nearest").flatten(1)


def _check(settings: DetailCLIP.Settings, patch_size: int) -> None:
    if not 0 < settings.selection_share <= 1:
        raise RizbinError(f"selection_share is {settings.selection_share}; choose a share above 0, up to 1.")
    if not 0 < settings.keep_ratio <= 1:
        raise RizbinError(
            f"keep_ratio is {settings.keep_ratio}; the student must see something: choose a number above 0, up to 1."
        )
    for name in ("hide_ratio", "early_share"):
        if not 0 < (share := getattr(settings, name)) < 1:
            raise RizbinError(f"{name} is {share}; choose a share above 0 and below 1.")
    if not 0 <= settings.late_start < 1:
        raise RizbinError(f"late_start is {settings.late_start}; choose a share of the run from 0 to below 1.")
    for name in ("patches_temperature", "phrase_temperature"):
        if (temperature := getattr(settings, name)) <= 0:
            raise RizbinError(f"{name} is {temperature}; choose a number above 0.")
    for name, least, most in (("decoder_blocks", 1, 4), ("phrases_most", 1, 64)):
        if not least <= (number := getattr(settings, name)) <= most:
            raise RizbinError(f"{name} is {number}; choose a number from {least} to {most}.")
    if settings.early_image_size % patch_size or settings.early_image_size < 0:
        raise RizbinError(
            f"early_image_size is {settings.early_image_size}; choose a multiple of the patch size, {patch_size}."
        )
    hides = settings.hide != "removed" or settings.selection != "none"
    if settings.reconstruction and not (hides or settings.distillation or settings.low_resolution > 1):
        raise RizbinError(
            "With selection none and hide removed nothing is hidden, so there is nothing to reconstruct; "
            "turn reconstruction off, or choose what to hide."
        )
