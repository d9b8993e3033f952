"""Published networks as training wants them: an image-text pair or an image encoder whose towers are another library's.

`build_pair` and `build_encoder` are what methods build their networks with: Rizbin's own towers, or the ones that
`published` names in the settings, whose embeddings are then those of the library itself
(tests/models/test_published.py).
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.models.origins import Origin, PublishedTokenizer, open_origin, write_origin
from rizbin.nets.chunks import in_chunks
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.lora import merged
from rizbin.nets.text import TextEncoder
from rizbin.nets.tuning import tune
from rizbin.nets.vision import Features

_CONTEXT = 77
"""Tokens of a text where the model does not say how many it takes: CLIP's."""


def build_pair(settings: ImageTextPair.Settings) -> ImageTextPair:
    """The two towers of the settings, tuned as they say."""
    pair = PublishedPair(settings) if settings.published else ImageTextPair(settings)
    tune(pair, settings.tuning)
    towers: tuple[Any, ...] = (pair.vision, pair.text)
    for tower in towers:
        tower.chunk = settings.chunk
    return pair


def build_encoder(settings: ImageEncoder.Settings) -> ImageEncoder:
    """The image encoder of the settings, tuned as they say."""
    encoder = PublishedEncoder(settings) if settings.published else ImageEncoder(settings)
    tune(encoder, settings.tuning)
    return encoder


class PublishedText(nn.Module):
    """The text tower of a library's model, run by the model itself; the modules are the model's own."""

    def __init__(self, model: Any, tokenizer: PublishedTokenizer, *, of_open_clip: bool) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.chunk = 0
        self._of_open_clip = of_open_clip
        self._model = (model,)  # in a tuple, so that its image tower is not registered here as well
        if of_open_clip:
            for name, module in model.named_children():
                if name != "visual":
                    self.add_module(name, module)
            for name, parameter in model.named_parameters(recurse=False):
                if not name.startswith("logit_"):
                    self.register_parameter(name, parameter)
        else:
            self.text_model = model.text_model
            self.text_projection = getattr(model, "text_projection", None)
        kind = str(getattr(getattr(model, "config", None), "model_type", ""))
        # SigLIP was trained on texts filled up to their length without a mask, CLIP looks only at what stands before.
        self._masked = not of_open_clip and not kind.startswith(("siglip", "clip"))

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embedding"]:
        """Embeddings, not yet of unit length."""
        if 0 < self.chunk < len(tokens):
            return in_chunks(lambda some: (self._read(some),), len(tokens), self.chunk, tokens)[0]
        return self._read(tokens)

    def _read(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embedding"]:
        model = self._model[0]
        weight = next(self.parameters())
        # What the model holds beside its modules, such as CLIP's causal mask, does not follow them to a device.
        strays = [buffer for _, buffer in model.named_buffers(recurse=False)]
        if any(stray.device != weight.device or stray.dtype != weight.dtype for stray in strays):
            model.to(device=weight.device, dtype=weight.dtype)
        if self._of_open_clip:
            missing = self.tokenizer.settings.context - tokens.shape[1]
            if missing > 0:  # open_clip reads rows of the whole length
                tokens = F.pad(tokens, (0, missing), value=int(getattr(getattr(model, "text", model), "pad_id", 0)))
            return model.encode_text(tokens)
        masked = {"attention_mask": self._mask(tokens)} if self._masked else {}
        out = model.get_text_features(input_ids=tokens, **masked)
        return out if isinstance(out, Tensor) else out.pooler_output

    def _mask(self, tokens: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
        """1 on words, and on the first token that only fills up: it may be the one that ends the text."""
        empty = tokens == int(self.tokenizer.inner.pad_token_id)
        return (empty.long().cumsum(dim=1) <= 1).long()


class PublishedPair(ImageTextPair):
    """An image-text pair that a library wrote; of an image tower alone, with a text tower that begins at random."""

    def __init__(self, settings: ImageTextPair.Settings) -> None:
        nn.Module.__init__(self)
        self.settings = settings
        self.origin = open_origin(
            settings.published, pretrained=settings.pretrained, image_size=settings.vision.image_size
        )
        self.vision: Any = self.origin.tower()
        network = self.origin.network
        self._reads = self.origin.reads_text
        self.head: nn.Module | None = None
        if not self._reads:
            self.text: Any = TextEncoder(settings.text, settings.embedding)
            self.image_projection = nn.Linear(self.vision.dim, settings.embedding, bias=False)
            nn.init.normal_(self.image_projection.weight, std=self.vision.dim**-0.5)
            scale, bias = _fresh_scale(settings)
        else:
            of_text = getattr(getattr(network, "config", None), "text_config", None)
            context = int(getattr(of_text, "max_position_embeddings", _CONTEXT))
            tokenizer = PublishedTokenizer(self.origin.tokenizer, context)
            self.text = PublishedText(network, tokenizer, of_open_clip=self.origin.library == "open_clip")
            self.head = getattr(network, "visual_projection", None)
            scale, bias = network.logit_scale, getattr(network, "logit_bias", None)
        self.log_scale, self.bias_of_pairs = scale, bias

    @property
    def logit_scale(self) -> Any:
        """The logarithm of what cosines are multiplied by."""
        return self.log_scale.view(())

    @property
    def logit_bias(self) -> Any:
        """What is added to scaled cosines (SigLIP); None where a softmax tells pairs from others."""
        return None if self.bias_of_pairs is None else self.bias_of_pairs.view(())

    @property
    def tokenizer(self) -> Any:
        """Turns captions into tokens for `encode_texts`."""
        return self.text.tokenizer

    def pool(self, features: Features) -> Float[Tensor, "batch dim"]:
        """What the library pools."""
        return features.cls

    def _projected(self, pooled: Tensor) -> Tensor:
        if not self._reads:
            return self.image_projection(pooled)
        return self.vision.project(pooled) if self.head is None else self.head(pooled)

    def project(self, patches: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any embedding"]:
        """Patch features in the space of the texts, of any length: each as if it were the only one that is pooled."""
        return self._projected(self.vision.alone(patches))

    def embed_pooled(self, pooled: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch embedding"]:
        """Unit-length image embeddings from what `pool` gave."""
        return F.normalize(self._projected(pooled), dim=-1)

    @torch.no_grad()
    def limit_scale(self) -> None:
        """Keeps `scale` in [1, 100], as CLIP does for stability; SigLIP's, which began higher, is left alone."""
        if self.bias_of_pairs is None:
            super().limit_scale()


class PublishedEncoder(ImageEncoder):
    """An image encoder that a library wrote; the image tower of a pair, without its projection."""

    def __init__(self, settings: ImageEncoder.Settings) -> None:
        nn.Module.__init__(self)
        self.settings = settings
        self.origin = open_origin(settings.published, pretrained=settings.pretrained, image_size=settings.image_size)
        tower: Any = self.origin.tower()
        self.vision, self.convolutions = tower, None
        self.dim, self.grid = tower.dim, tower.grid


def _fresh_scale(settings: ImageTextPair.Settings) -> tuple[nn.Parameter, nn.Parameter | None]:
    sigmoid = settings.contrast == "sigmoid"
    scale = nn.Parameter(torch.tensor(math.log(10.0 if sigmoid else 1 / 0.07)))
    return scale, nn.Parameter(torch.tensor(-10.0)) if sigmoid else None


def is_published(encoder: nn.Module) -> TypeGuard[PublishedPair | PublishedEncoder]:
    """Whether its towers are another library's."""
    return isinstance(encoder, PublishedPair | PublishedEncoder)


def origin_of(encoder: nn.Module) -> Origin:
    """What the encoder's network came as, with the weights as they are now and adapters merged into them."""
    if not isinstance(encoder, PublishedPair | PublishedEncoder):
        raise RizbinError("The encoder has Rizbin's own towers, and no other library's.")
    return replace(encoder.origin, network=merged(encoder.origin.network))


def can_give_back(encoder: nn.Module) -> str:
    """Empty where the encoder can be written in the form in which it came, else the reason in a sentence."""
    if isinstance(encoder, PublishedPair) and not encoder.origin.reads_text:
        return (
            f"The image tower is of {encoder.origin.library} and the text tower began here, so no library knows the "
            "two together."
        )
    return ""


def save_published(encoder: nn.Module, folder: Path, *, half: bool = False) -> None:
    """Writes the encoder in the form in which it came; of a pair whose text tower began here the image tower alone."""
    write_origin(origin_of(encoder), folder, half=half)


def keep_origin(encoder: nn.Module, folder: Path) -> None:
    """Writes all that is not weights, from which `build_pair` and `build_encoder` build the network again."""
    assert isinstance(encoder, PublishedPair | PublishedEncoder)  # `is_published`
    write_origin(encoder.origin, folder, weights=False)
