"""The adapter of transformers' models: CLIP and SigLIP with their texts, and ViTs such as DeiT, DINOv2 and DINOv3."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.core.progress import warn
from rizbin.data.views import MEAN, STD
from rizbin.losses.reconstruct import patchify
from rizbin.models.encoder import Encoder, Three, three
from rizbin.models.timm import MOST_PREFIX
from rizbin.nets.foreign import (
    transformers_config,
    transformers_model,
    transformers_tokenizer,
    transformers_untrained,
)

_HALVES: Three = (0.5, 0.5, 0.5)
_OPENAI: tuple[Three, Three] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# What each family was trained with, for folders without preprocessor_config.json; ImageNet's for the others.
_NORMALIZED_BY = {
    "vit": (_HALVES, _HALVES),
    "siglip_vision_model": (_HALVES, _HALVES),
    "siglip2_vision_model": (_HALVES, _HALVES),
    "clip_vision_model": _OPENAI,
}
_POOLED_BY_CLS = ("vit", "deit")
"""Models whose pooler is often not in the file, and then never asked."""
_VITS = (
    "vit",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "clip_vision_model",
    "siglip_vision_model",
    "siglip2_vision_model",
)
"""Models known to keep their patches to the end; what others do shows when they are run on an empty image."""
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
"""Files of which a tokenizer has one or more."""
_CONTEXT = 77
"""Tokens of a text where the model does not say how many it takes: CLIP's."""


class TransformersEncoder(Encoder):
    """A model of transformers that makes tokens [batch prefix+patches dim] of images, alone or with a text tower.

    Any that attends by PyTorch's fused kernel will do.
    """

    any_size = True

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str = "",
        tokenizer: Any = None,
        mean: Three | None = None,
        std: Three | None = None,
        untrained: Callable[[], nn.Module] | None = None,
    ) -> None:
        """`model` as transformers gives it; sets it to evaluation. It reads text where a tokenizer is given.

        Raises RizbinError when it is no model for images in square patches.
        """
        self._model: Any = model.eval()
        self._tower: Any = getattr(model, "vision_model", model)
        self._config = self._tower.config
        kind = str(getattr(self._config, "model_type", ""))
        self.name = name or kind or type(self._tower).__name__
        known = _NORMALIZED_BY.get(kind, (MEAN, STD))
        super().__init__(
            model,
            name=self.name,
            image_size=self._side("image_size"),
            patch_size=self._side("patch_size"),
            mean=mean or known[0],
            std=std or known[1],
            untrained=untrained,
        )
        self.tokenizer = tokenizer
        self.reads_text = tokenizer is not None and hasattr(model, "get_text_features")
        # CLIP's last norm and linear projection take patches too; SigLIP pools by attention.
        projected = hasattr(model, "visual_projection") and hasattr(self._tower, "post_layernorm")
        self.localizes = self.reads_text and projected
        self._cut_before = "spatial_shapes" in inspect.signature(self._tower.forward).parameters
        self._has_position_option = "interpolate_pos_encoding" in inspect.signature(self._tower.forward).parameters
        self._embeds_by_pooling = kind.startswith("siglip")
        # The pooler of a ViT is often not in the file and then random; CLS is what it would take.
        self._cls_is_pooled = kind in _POOLED_BY_CLS
        embeddings = getattr(self._tower, "embeddings", None)
        self.has_patches = kind in _VITS or self._probe()
        self.attends = self.has_patches and any(
            hasattr(embeddings, place) for place in ("cls_token", "class_embedding")
        )

    def _alike(self, network: nn.Module) -> "TransformersEncoder":
        return TransformersEncoder(network, name=self.name, tokenizer=self.tokenizer, mean=self.mean, std=self.std)

    @property
    def module(self) -> nn.Module:
        """The image tower."""
        return self._tower

    @torch.no_grad()
    def _probe(self) -> bool:
        """Whether the tokens that come out are those of the patches."""
        side = self.image_size
        return self._run(torch.zeros(1, 3, side, side, device=self.device, dtype=self.dtype))[2] is not None

    def _side(self, which: str) -> int:
        """A length in the model's configuration, where older ones have height and width."""
        length: Any = getattr(self._config, which, None)
        if length is None and which == "image_size" and (patches := getattr(self._config, "num_patches", None)):
            length = math.isqrt(int(patches)) * int(self._config.patch_size)  # SigLIP 2's for images of any shape
        if isinstance(length, list | tuple) and length:
            if len(set(length)) > 1:  # transformers resizes the positions of squares alone
                raise RizbinError(
                    f"{self.name} is made for the {which.replace('_', ' ')} {'x'.join(map(str, length))} pixels; "
                    "networks of transformers for rectangular images or patches are not read."
                )
            length = length[0]
        if not isinstance(length, int) or length < 1:
            raise RizbinError(f"{self.name} is no model that cuts images into patches; choose a ViT.")
        return length

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        # Positions for other sizes: DINOv2 and DINOv3 make them by themselves, the others when told to.
        option = {"interpolate_pos_encoding": True} if self._has_position_option else {}
        out = self._tower(**self._inputs(batch), **option)
        rows, columns = batch.shape[-2] // self.patch_size, batch.shape[-1] // self.patch_size
        tokens, patches = out.last_hidden_state, None
        if tokens.ndim == 3 and 0 <= tokens.shape[1] - rows * columns <= MOST_PREFIX:
            patches = tokens[:, -rows * columns :].unflatten(1, (rows, columns))
        pooled = None if self._cls_is_pooled else getattr(out, "pooler_output", None)
        if pooled is None:
            pooled = tokens[:, 0] if tokens.shape[1] > rows * columns else tokens.mean(dim=1)
        embedding = None
        if self.reads_text:
            embedding = self._model.visual_projection(pooled) if self.localizes else pooled
            if not (self.localizes or self._embeds_by_pooling):
                embedding = self._embed(batch)  # a second pass, of whatever kind it is
        return pooled, embedding, patches

    def _inputs(self, batch: Tensor) -> dict[str, Tensor]:
        """What the model is given of images; of SigLIP 2 for images of any shape, patches with their grid."""
        if not self._cut_before:
            return {"pixel_values": batch}
        rows, columns = batch.shape[-2] // self.patch_size, batch.shape[-1] // self.patch_size
        return {
            "pixel_values": patchify(batch, self.patch_size),
            "pixel_attention_mask": torch.ones(len(batch), rows * columns, dtype=torch.long, device=batch.device),
            "spatial_shapes": torch.tensor([[rows, columns]] * len(batch), device=batch.device),
        }

    def _embed(self, batch: Tensor) -> Tensor:
        if self.reads_text:
            return _vectors(self._model.get_image_features(**self._inputs(batch)))
        return self._run(batch)[0]

    def _encode_text(self, texts: list[str]) -> Tensor:
        context = getattr(getattr(self._model.config, "text_config", None), "max_position_embeddings", _CONTEXT)
        # SigLIP was trained on texts of full length; CLIP's mask makes the rest count for nothing.
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
        tokens = tokens.to(self.device)
        given = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
        if self._embeds_by_pooling:  # SigLIP was trained without a mask, as its own processor gives none
            given.pop("attention_mask", None)
        return _vectors(self._model.get_text_features(**given))

    def _project(self, patches: Tensor) -> Tensor:
        return self._model.visual_projection(self._tower.post_layernorm(patches))


def load_transformers(what: str | Path, *, pretrained: bool = True) -> TransformersEncoder:
    """A model of transformers by its name on Hugging Face or from a folder, with the normalization kept beside it.

    pretrained: False gives random weights, for comparison.
    """
    name = str(what)
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise RizbinError(
            f"{name} needs transformers, which is not installed: pip install 'rizbin[hf]' brings it."
        ) from error
    fused = {"attn_implementation": "sdpa"}
    untrained = partial(transformers_untrained, name, **fused)
    with _silent():
        if pretrained:
            kind = str(getattr(transformers_config(name), "model_type", ""))
            unused = ("pooler.",) if kind in _POOLED_BY_CLS else ()
            model = transformers_model(AutoModel, name, heads=True, unused=unused, **fused)
        else:
            model = untrained()
    tokenizer: Any = None
    if hasattr(model, "get_text_features"):
        if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _TOKENIZERS):
            warn(f"{name} has no tokenizer beside it, so its texts are not read and it is an image encoder here.")
        else:
            tokenizer = transformers_tokenizer(name)
    try:
        facts, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        facts = {}
    mean, std = three(facts.get("image_mean")), three(facts.get("image_std"))
    return TransformersEncoder(model, name=name, tokenizer=tokenizer, mean=mean, std=std, untrained=untrained)


def _vectors(given: Any) -> Tensor:
    """What newer and older versions give."""
    return given if isinstance(given, torch.Tensor) else given.pooler_output


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings and bars of transformers; what matters of them becomes an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
