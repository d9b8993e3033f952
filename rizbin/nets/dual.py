"""The image-text pair: two towers, one space. What every image-text method trains and every other room uses."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.settings import added
from rizbin.data.tokens import Tokenizer
from rizbin.nets.dense import DenseHead, windows
from rizbin.nets.text import TextEncoder
from rizbin.nets.tuning import TuningSettings
from rizbin.nets.vision import Features, VisionEncoder


class ImageTextPair(nn.Module):
    """An image encoder and a text encoder that embed into one space. Building it gives random weights.

    Images are normalized floats [batch 3 height width] (`rizbin.data.views.normalize`); tokens come from
    `pair.tokenizer`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        vision: VisionEncoder.Settings = VisionEncoder.Settings()
        """The image tower."""
        text: TextEncoder.Settings = TextEncoder.Settings()
        """The text tower."""
        embedding: int = 128
        """Size of the shared space; 512 in CLIP's base models."""
        pool: Literal["cls", "mean", "both"] = "mean"
        """What of the image meets the text: the CLS token (CLIP, DetailCLIP); the mean of the patch tokens, which
        ties each patch to words and learns small images faster; or the mean of those two, in which the words teach
        CLS where to look as well."""
        contrast: Literal["softmax", "sigmoid"] = "softmax"
        """How pairs are told from non-pairs: CLIP's softmax over the batch, or SigLIP's sigmoid for each (arXiv
        2303.15343), which adds a learned bias."""
        published: str = added("")
        """Towers of another library in the place of those above, which `--start` puts here: open_clip:NAME/WEIGHTS,
        timm:NAME, hf:OWNER/NAME, or a folder. An image tower alone gets the text tower above. Empty: those above."""
        pretrained: bool = added(True)
        """Begin with the weights of `published`; off: at random."""
        tuning: TuningSettings = added(TuningSettings())
        """How far training moves towers that were trained before."""
        chunk: int = added(0)
        """Rows of a batch that go through a tower at once; the numbers and the gradient stay those of the whole batch
        (GradCache, arXiv 2101.06983), for one more forward pass. 0: all, at the memory that takes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if settings.published:
            raise RizbinError(f"This is done with Rizbin's own towers, not with those of {settings.published}.")
        self.settings = settings
        self.vision = VisionEncoder(settings.vision)
        self.text = TextEncoder(settings.text, settings.embedding)
        self.image_projection = nn.Linear(self.vision.dim, settings.embedding, bias=False)
        nn.init.normal_(self.image_projection.weight, std=self.vision.dim**-0.5)
        # CLIP starts at temperature 0.07 and learns its logarithm (section 2.5); SigLIP at 0.1 with bias -10 (section
        # 3.2).
        sigmoid = settings.contrast == "sigmoid"
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0 if sigmoid else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None

    @property
    def tokenizer(self) -> Tokenizer:
        """Turns captions into tokens for `encode_texts`."""
        return self.text.tokenizer

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.settings.vision.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in patches."""
        return self.vision.grid

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.vision.patch_size

    def pool(self, features: Features) -> Float[Tensor, "batch dim"]:
        """The one feature of the image: CLS, the mean of the patches that were run, or the mean of both."""
        if self.settings.pool == "cls":
            return features.cls
        patches = features.patches.mean(dim=1)
        return patches if self.settings.pool == "mean" else (features.cls + patches) / 2

    def project(self, patches: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any embedding"]:
        """Patch features in the space of the texts, of any length."""
        return self.image_projection(patches)

    def embed(self, features: Features) -> Float[Tensor, "batch embedding"]:
        """Unit-length image embeddings from features."""
        return self.embed_pooled(self.pool(features))

    def embed_pooled(self, pooled: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch embedding"]:
        """Unit-length image embeddings from what `pool` gave."""
        return F.normalize(self.image_projection(pooled), dim=-1)

    def encode_images(
        self, images: Float[Tensor, "batch 3 height width"], keep: Int[Tensor, "batch kept"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Unit-length embeddings of images, or of their kept patches."""
        return self.embed(self.vision(images, keep))

    def encode_texts(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embedding"]:
        """Unit-length embeddings of captions."""
        return F.normalize(self.text(tokens), dim=-1)

    def encode_phrases(
        self, tokens: Int[Tensor, "batch most words"], keys: Int[Tensor, "batch most"]
    ) -> Float[Tensor, "batch most embedding"]:
        """Unit-length embeddings of captions' noun phrases; phrases with equal keys are read once."""
        _, number = keys.unique(return_inverse=True)
        different = torch.zeros(int(number.max()) + 1, tokens.shape[-1], dtype=torch.long, device=keys.device)
        different[number.flatten()] = tokens.flatten(0, 1)
        return self.encode_texts(self.tokenizer.trim(different))[number]

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """CLS and patch features with attention, before any projection."""
        return self.vision(images, attend=True)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by: 1 / temperature."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def limit_scale(self) -> None:
        """Keeps `scale` in [1, 100], as CLIP does for stability; called after each update."""
        self.logit_scale.clamp_(0.0, math.log(100.0))

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature an image before the projection: what k-NN and probes are measured on."""
        return self.pool(self.vision(images))

    def dense(
        self, images: Float[Tensor, "batch 3 height width"], how: DenseHead = "plain"
    ) -> Float[Tensor, "batch rows columns embedding"]:
        """Unit-length patch embeddings in the text space.

        plain: projected last-layer patches; windows: those averaged with sliding windows of the enlarged image, on a
        grid twice as fine and at five times the cost (`rizbin.nets.dense`).
        """
        if how == "windows":
            return windows(self, images)
        patches = self.vision(images).patches
        rows, columns = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        return F.normalize(self.project(patches), dim=-1).unflatten(1, (rows, columns))

    def attention(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """CLS-to-patch attention, mean over all layers and heads."""
        rows, columns = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        attention = self.vision(images, attend=True).attention
        assert attention is not None
        return attention.unflatten(1, (rows, columns))

    def attention_heads(
        self, images: Float[Tensor, "batch 3 height width"], layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """CLS-to-patch attention of each head of one layer."""
        return self.vision.attention_heads(images, layer)
