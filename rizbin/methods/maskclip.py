"""MaskCLIP: CLIP with masked self-distillation of images and masked-word prediction of captions.

Source: Dong et al., "MaskCLIP: Masked Self-Distillation Advances Contrastive Language-Image Pretraining", arXiv
2208.12262: CLIP on whole images, beside it a masked copy. Not the training-free MaskCLIP of Zhou et al. Its code was
never released; heads and schedule are taken from what it builds on (iBOT, MAE).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.precision import wide
from rizbin.data.views import View
from rizbin.losses.contrast import contrast
from rizbin.losses.distill import Center, cross_entropy
from rizbin.nets.decoder import Decoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.heads import PrototypeHead
from rizbin.nets.momentum import Teacher
from rizbin.nets.selection import select, take
from rizbin.nets.text import Transformer
from rizbin.training.method import Batch, Method, MethodView, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets


class MaskCLIP(Method):
    """CLIP's loss, masked self-distillation and masked words."""

    arxiv = "2208.12262"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageTextSettings):
        view: View.Settings = View.Settings(crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.3333))
        """The one augmented view."""
        keep_ratio: float = 0.25
        """Share of patches that the masked copy sees, chosen at random (paper: 75 percent removed)."""
        patch_weight: float = 0.05
        """Weight of the patch term (paper: 0.05; at 1 its ImageNet score falls from 44.5 to 38.5)."""
        words_weight: float = 0.05
        """Weight of the masked-word term (paper: 0.05)."""
        masked_words: float = 0.2
        """Share of a caption's tokens that are hidden (paper: 0.2)."""
        words_decoder_layers: int = 4
        """Blocks of the text decoder that guesses hidden words (paper: 4)."""
        prototypes: int = 8192
        """Entries of the online quantizer, here prototypes as in iBOT."""
        head_hidden: int = 2048
        """Width of the prototype head's hidden layers."""
        head_bottleneck: int = 256
        """Size of the unit vectors that are compared with the prototypes."""
        student_temperature: float = 0.1
        """Temperature of the student's distribution."""
        patch_temperature: float = 0.04
        """Temperature of the teacher's distribution."""
        decoder_width: int = 768
        """Channels of the one-block decoder."""
        decoder_heads: int = 16
        """Attention heads of the decoder."""
        momentum: float = 0.999
        """EMA momentum: share of its weights that the teacher keeps at each update, at the start of the run."""
        final_momentum: float = 1.0
        """EMA momentum at the end of the run, reached by a cosine."""

    @classmethod
    def presets(cls) -> Presets:
        small_settings = cls.Settings(
            view=MILD, prototypes=1024, head_hidden=256, head_bottleneck=64, decoder_width=128, decoder_heads=4
        )
        return {
            "small": small(cls.name, small_settings),
            "vits16": vits16(cls.name, cls.Settings(decoder_width=384)),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": yfcc15m(cls.name, cls.Settings()),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if not 0 < settings.keep_ratio < 1:
            raise RizbinError(
                f"keep_ratio is {settings.keep_ratio}; something must be seen and something masked: "
                "choose between 0 and 1."
            )
        self.settings = settings
        self.pair = ImageTextPair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        vision, text = self.pair.vision, settings.pair.text
        self.decoder = Decoder(vision.dim, settings.decoder_width, heads=settings.decoder_heads)
        self.from_decoder = nn.Linear(settings.decoder_width, vision.dim)
        self.head = PrototypeHead(
            vision.dim, settings.prototypes, hidden=settings.head_hidden, bottleneck=settings.head_bottleneck
        )
        self.center = Center(settings.prototypes)
        self.hidden_word = nn.Parameter(torch.randn(text.width) * 0.02)
        self.words_decoder = Transformer(text.width, settings.words_decoder_layers, text.heads)
        self.to_words = nn.Linear(text.width, self.pair.tokenizer.size)
        self.teacher = Teacher(self.taught())
        self.views = (replace(settings.view, size=self.pair.image_size),)

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def taught(self) -> dict[str, nn.Module]:
        return {"vision": self.pair.vision, "head": self.head}

    def optimizers(self) -> dict[str, list[nn.Module]]:
        own = nn.ParameterList([self.hidden_word])
        return {"main": [self.pair, self.decoder, self.from_decoder, self.head, self.words_decoder, self.to_words, own]}

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings, images, pair = self.settings, batch.views[0], self.pair
        assert batch.texts is not None  # who has a tokenizer gets captions
        language = contrast(pair.encode_images(images), pair.encode_texts(batch.texts), pair.scale, pair.logit_bias)
        patch = self._patch_term(images, progress)
        words = self._words_term(batch.texts, progress)
        loss = language + settings.patch_weight * patch + settings.words_weight * words
        yield Minimize(loss, records={"contrast": language, "patch": patch, "words": words, "scale": pair.scale})
        pair.limit_scale()
        momentum = progress.cosine(settings.momentum, settings.final_momentum)
        self.teacher.follow(self.taught(), momentum)

    def _patch_term(self, images: Float[Tensor, "batch 3 height width"], progress: Progress) -> Float[Tensor, ""]:
        """The loss against the teacher's distributions for the patches that the masked copy did not see."""
        grid, settings = self.pair.grid, self.settings
        scores = progress.uniform("removal", len(images), grid[0] * grid[1], images.device)
        keep, removed = select(scores, grid, keep_ratio=settings.keep_ratio, block=1)
        with torch.no_grad():
            scores = self.teacher["head"](take(self.teacher["vision"](images).patches, removed).flatten(0, 1))
            target = self.center.distribution(scores, settings.patch_temperature)
        student = self.pair.vision(images, keep)
        decoded = self.from_decoder(self.decoder(student.cls, student.patches, keep, grid))
        guesses = self.head(take(decoded, removed).flatten(0, 1))
        return cross_entropy(guesses, target, settings.student_temperature).mean()

    def _words_term(self, tokens: Int[Tensor, "batch length"], progress: Progress) -> Float[Tensor, ""]:
        """Cross-entropy of hidden words, guessed from the rest of the caption.

        Start, end and padding are never hidden.
        """
        text, tokenizer = self.pair.text, self.pair.tokenizer
        # Numbers for the longest caption, cut: the batch's own length may differ between processes.
        chance = progress.uniform("words", len(tokens), tokenizer.settings.context, tokens.device)[:, : tokens.shape[1]]
        place = torch.arange(tokens.shape[1], device=tokens.device)
        end = tokens.argmax(dim=1, keepdim=True)
        hidden = (place > 0) & (place < end) & (chance < self.settings.masked_words)
        embedded = torch.where(
            hidden.unsqueeze(-1), self.hidden_word.to(text.token_embedding.weight.dtype), text.token_embedding(tokens)
        )
        caption = (place <= end)[:, None, None]  # padding, whose length depends on the batch, is never looked at
        guesses = self.to_words(self.words_decoder(text.words(embedded), caption))
        losses = F.cross_entropy(wide(guesses.flatten(0, 1)), tokens.flatten().long(), reduction="none")
        losses = losses.view_as(chance)
        # The mean per caption, then over captions: each process weighs its captions alike, as one process would.
        per_caption = (losses * hidden).sum(1) / hidden.sum(1).clamp(min=1)
        return per_caption.mean()

    @torch.no_grad()
    def look(self, images: Float[Tensor, "batch 3 height width"]) -> MethodView | None:
        grid = images.shape[-2] // self.pair.patch_size, images.shape[-1] // self.pair.patch_size
        attention = self.teacher["vision"](images, attend=True).attention
        scores = Progress(0, 1).uniform("look", len(images), grid[0] * grid[1], images.device)
        return MethodView.of(attention, select(scores, grid, keep_ratio=self.settings.keep_ratio, block=1)[1], grid)
