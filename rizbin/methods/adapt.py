"""Adaptation: an encoder that was trained before learns the detail of one's own images and stays near what it was.

Three things teach it, and one holds it. Captions, where there are any, meet the image (CLIP) and their noun phrases the
patches (the phrase term). Without words, DetailCLIP's dense terms: from half of a view's patches the student predicts
what an EMA teacher says of the others, what it says of the visible ones, and the hidden pixels. What holds it is
distillation from the start: embeddings of images, patches and texts are pulled to those that the start gives of the
same batch. `rizbin adapt` trains with this, interpolates weights between start and end, and chooses by a validation
split (`rizbin.workflows.adapt`).

Sources: Monsefi et al., "DetailCLIP", arXiv 2409.06809 (the dense terms, with features in the place of prototypes);
Li and Hoiem, "Learning without forgetting", arXiv 1606.09282 (distillation from the start); Wortsman et al., "Robust
fine-tuning of zero-shot models" (WiSE-FT), arXiv 2109.01903 (interpolation).
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.precision import wide
from rizbin.data.views import View
from rizbin.losses.contrast import contrast
from rizbin.losses.phrases import PhraseSettings, phrase_contrast_of_views, phrase_keys
from rizbin.losses.reconstruct import patchify, pixel_loss
from rizbin.models.published import build_pair
from rizbin.nets import selection
from rizbin.nets.decoder import Decoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.momentum import Teacher
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets, check_between


class Adaptation(Method):
    """DetailCLIP's dense terms on images of one's own, held near the start by distillation from it."""

    arxiv = "2409.06809"

    @dataclass(frozen=True, kw_only=True)
    class Settings(PhraseSettings, ImageTextSettings):
        view: View.Settings = MILD
        """The view whose patches are predicted; gentle, so that it looks like the images that the encoder is for."""
        captions: bool = True
        """Learn from captions as well. Off: the dense terms and the distillation alone, of images without words."""
        contrast_weight: float = 1.0
        """Weight of the CLIP term of images and captions."""
        phrase_weight: float = 1.0
        """Weight of the phrase term, in which each noun phrase of a caption finds its own patches."""
        hide_ratio: float = 0.5
        """Share of a view's patches that the student must predict, above 0 and below 1."""
        patch_weight: float = 1.0
        """Weight of the prediction of the teacher's features, of hidden patches and of visible ones alike."""
        pixels_weight: float = 0.1
        """Weight of the prediction of hidden pixels."""
        keep_weight: float = 1.0
        """Weight of the distillation from the start; 0: nothing holds the encoder, and it forgets more."""
        decoder_width: int = 128
        """Channels of the decoder through which hidden places are predicted."""
        decoder_heads: int = 4
        """Attention heads of the decoder."""
        momentum: float = 0.99
        """Share of itself that the teacher keeps at an update."""

    @classmethod
    def presets(cls) -> Presets:
        gentle = {"learning_rate": 1e-4, "final_learning_rate": 1e-6, "warmup": 0.1}
        made = {
            "small": small(cls.name, cls.Settings()),
            "vits16": vits16(cls.name, cls.Settings(decoder_width=384)),
            "vitb16": vitb16(cls.name, cls.Settings(decoder_width=512, decoder_heads=8)),
            "paper": yfcc15m(cls.name, cls.Settings(decoder_width=512, decoder_heads=8)),
        }
        return {
            name: replace(training, steps=1000, trainer=replace(training.trainer, **gentle))
            for name, training in made.items()
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        check_between(settings, 0, 1, "hide_ratio", above=True, below=True)
        self.settings = settings
        self.pair = build_pair(settings.pair)
        self.tokenizer = self.pair.tokenizer if settings.captions else None
        self.most_phrases = settings.phrases_most if settings.captions and settings.phrase_weight else 0
        dim, width = self.pair.vision.dim, settings.decoder_width
        self.decoder = Decoder(dim, width, heads=settings.decoder_heads)
        self.from_decoder, self.to_features = nn.Linear(width, dim), nn.Linear(dim, dim)
        self.to_pixels = nn.Linear(width, self.pair.patch_size**2 * 3)
        self.teacher = Teacher(self.taught())
        size = self.pair.image_size
        self.views = (replace(settings.view, size=size), View.Settings(size=size))
        # A published network is a start from the first; another one comes by `begin_with`.
        self.teacher_start = Teacher({"pair": self.pair})
        self.began: Tensor
        self.register_buffer("began", torch.tensor(bool(settings.pair.published and settings.pair.pretrained)))

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [module for name, module in self.named_children() if name not in ("teacher", "teacher_start")]}

    def begin_with(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Puts the weights of another encoder in, and keeps them as what the encoder is held near."""
        super().begin_with(weights, source)
        self.teacher_start["pair"].load_state_dict(copy.deepcopy(self.pair.state_dict()))
        self.began.fill_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Adaptation":
        """Batch norms of an encoder that was trained keep its statistics: it shall see as the start sees."""
        super().train(mode)
        if bool(self.began):
            for module in self.pair.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(False)
        return self

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def taught(self) -> dict[str, nn.Module]:
        return {"vision": self.pair.vision}

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings, pair = self.settings, self.pair
        view, clean = batch.views
        terms = self._dense(view, progress)
        features = pair.vision(clean)
        images = pair.embed(features)
        patches = F.normalize(pair.project(features.patches), dim=-1)
        texts = None
        if batch.texts is not None:
            texts = pair.encode_texts(batch.texts)
            terms["contrast"] = contrast(images, texts, pair.scale, pair.logit_bias)
        if batch.phrases is not None:
            keys = phrase_keys(batch.phrases)
            phrases = pair.encode_phrases(batch.phrases, keys)
            terms["phrase"] = phrase_contrast_of_views(patches, phrases, keys, pair.scale, pair.logit_bias, settings)
        if settings.keep_weight and bool(self.began):
            terms["keep"] = self._kept(clean, images, patches, batch.texts, texts)
        weights = {
            "contrast": settings.contrast_weight,
            "phrase": settings.phrase_weight,
            "patch": settings.patch_weight,
            "pixels": settings.pixels_weight,
            "keep": settings.keep_weight,
        }
        loss = sum((weights[name] * term for name, term in terms.items()), clean.new_zeros(()))
        yield Minimize(loss, records={**terms, "scale": pair.scale})
        pair.limit_scale()
        self.teacher.follow(self.taught(), settings.momentum)

    def _dense(self, images: Float[Tensor, "batch 3 height width"], progress: Progress) -> dict[str, Tensor]:
        """What the student predicts from a part of the view: the teacher's features of all patches, hidden pixels."""
        pair, size = self.pair, self.pair.patch_size
        grid = images.shape[-2] // size, images.shape[-1] // size
        chances = progress.uniform("hide", len(images), grid[0] * grid[1], images.device)
        visible, hidden = selection.select(chances, grid, keep_ratio=1 - self.settings.hide_ratio, block=1)
        with torch.no_grad():
            teacher = self.teacher["vision"](images).patches
            targets = F.layer_norm(wide(teacher), teacher.shape[-1:])
        student = pair.vision(images, visible, track=False)
        decoded = self.decoder(student.cls, student.patches, visible, grid, hidden)
        predicted = self.to_features(torch.cat([self.from_decoder(decoded), student.patches], dim=1))
        target_features = torch.cat([selection.take(targets, hidden), selection.take(targets, visible)], dim=1)
        return {
            "patch": (predicted.to(target_features.dtype) - target_features).square().mean(),
            "pixels": pixel_loss(self.to_pixels(decoded), patchify(images, size), hidden),
        }

    def _kept(
        self,
        clean: Float[Tensor, "batch 3 height width"],
        images: Float[Tensor, "batch embedding"],
        patches: Float[Tensor, "batch patches embedding"],
        tokens: Tensor | None,
        texts: Float[Tensor, "batch embedding"] | None,
    ) -> Float[Tensor, ""]:
        """How far the embeddings are from the start's: 1 less their cosine, of images and texts, a tenth of patches.

        Patches are held more loosely, for it is they that shall become better.
        """
        start = self.teacher_start["pair"]
        assert isinstance(start, ImageTextPair)  # a copy of the pair
        with torch.no_grad():
            features = start.vision(clean)
            before = start.embed(features)
            patches_before = F.normalize(start.project(features.patches), dim=-1)
        away = 1 - wide(images * before).sum(dim=-1).mean()
        away = away + 0.1 * (1 - wide(patches * patches_before).sum(dim=-1).mean())
        if texts is not None and tokens is not None:
            with torch.no_grad():
                start_texts = start.encode_texts(tokens)
            away = away + 1 - wide(texts * start_texts).sum(dim=-1).mean()
        return away
