"""Encoders as ascent asks them: pixels and words in, unit vectors out, whoever trained them.

An `Encoder` has two methods. Those that also show their `module` and how it is fed can be asked for the features of a
layer (`layer_of`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.generation.ascent.augment import fitted
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.foreign import (
    open_clip_by_name,
    open_clip_from_folder,
    timm_by_name,
    timm_from_folder,
    transformers_model,
    transformers_tokenizer,
)
from rizbin.nets.image import ImageEncoder

Views = Float[Tensor, "views 3 _ _"]
"""Pixels from 0 to 1, any size."""


@runtime_checkable
class Encoder(Protocol):
    """What draws, and what judges."""

    name: str
    size: int
    """Side of its square input, pixels."""

    def encode_image(self, pixels: Views) -> Float[Tensor, "views dim"]:
        """Unit vectors of pictures, with gradient."""
        ...

    def encode_text(self, texts: list[str]) -> Float[Tensor, "texts dim"]:
        """Unit vectors of words. Raises RizbinError where no words are read."""
        ...


class Network:
    """An encoder around a network: its normalization, and a module whose layers can be looked into."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        size: int,
        image: Callable[[Tensor], Tensor],
        text: Callable[[list[str]], Tensor] | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        device: str = "cpu",
    ) -> None:
        """Freezes the network.

        Args:
            name: What messages call it.
            module: The image tower; what its layers are called, `named_modules` says.
            size: Side of its input in pixels.
            image: Features from normalized pictures; made unit vectors here.
            text: Features from words; None where it reads none.
            mean: Of the pictures that it was trained on, 0 to 1.
            std: Their deviation.
            device: Where it runs.
        """
        self.name, self.size, self.device = name, size, torch.device(device)
        self.module = module.to(self.device).eval().requires_grad_(False)
        self._image, self._text = image, text
        self._mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(3, 1, 1)

    def prepared(self, pixels: Views) -> Float[Tensor, "views 3 size size"]:
        """What the network is fed."""
        return (fitted(pixels, self.size) - self._mean.to(pixels)) / self._std.to(pixels)

    def encode_image(self, pixels: Views) -> Float[Tensor, "views dim"]:
        """Unit vectors of pictures, with gradient."""
        return F.normalize(self._image(self.prepared(pixels)), dim=-1)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Float[Tensor, "texts dim"]:
        """Unit vectors of words."""
        if self._text is None:
            raise RizbinError(
                f"{self.name} reads no words; give it pictures to follow (--image, --style), or a model with text such "
                "as detailclip-mini."
            )
        return F.normalize(self._text(texts), dim=-1)


def of_model(model: ImageTextPair | ImageEncoder, *, name: str, device: str = "cpu") -> Network:
    """One of Rizbin's own networks."""
    model = model.to(device).eval().requires_grad_(False)
    if isinstance(model, ImageEncoder):
        return Network(name, model, size=model.image_size, image=model, device=device)

    def text(texts: list[str]) -> Tensor:
        return model.encode_texts(model.tokenizer.encode(texts).to(device))

    return Network(name, model.vision, size=model.image_size, image=model.encode_images, text=text, device=device)


def of_open_clip(name: str | Path, *, pretrained: str = "", device: str = "cpu") -> Network:
    """A model of open_clip by its name ("ViT-B-32", with the name of its weights) or by the folder of one."""
    if Path(name).is_dir():
        model, tokenizer = open_clip_from_folder(Path(name), device=device)
    else:
        model, tokenizer = open_clip_by_name(str(name), pretrained=pretrained, device=device)
    return _of_open_clip(model, tokenizer, str(name), device)


def _of_open_clip(model: Any, tokenizer: Any, name: str, device: str) -> Network:
    """The adapter around what open_clip gave."""
    model = model.eval().requires_grad_(False)
    visual = model.visual
    size = _side(visual.image_size, name)
    facts = getattr(visual, "preprocess_cfg", {})
    return Network(
        name,
        visual,
        size=int(size),
        image=model.encode_image,
        text=lambda texts: model.encode_text(tokenizer(texts).to(device)),
        mean=facts.get("mean", getattr(visual, "image_mean", None) or MEAN),
        std=facts.get("std", getattr(visual, "image_std", None) or STD),
        device=device,
    )


def of_hugging_face(name: str | Path, *, device: str = "cpu") -> Network:
    """A CLIP or SigLIP of transformers by name or folder, read from safetensors alone."""
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise RizbinError(
            f"{name} needs transformers, which is not installed: pip install 'rizbin[hf]' brings it."
        ) from error
    # CLS is taken where there are no words, so a pooler is never asked.
    found: Any = transformers_model(AutoModel, name, heads=True, unused=("pooler.",))
    reads = hasattr(found, "get_text_features")
    tokenizer: Any = transformers_tokenizer(name) if reads else None
    try:
        facts, _ = ImageProcessingMixin.get_image_processor_dict(str(name))
    except OSError:
        facts = {}
    model = found.to(device).eval().requires_grad_(False)
    config = getattr(model.config, "vision_config", model.config)
    context = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", 77)

    def pooled(given: Any) -> Tensor:
        return given if isinstance(given, Tensor) else given.pooler_output

    def text(texts: list[str]) -> Tensor:
        # SigLIP was trained on texts of full length; CLIP's mask makes the rest count for nothing.
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
        return pooled(model.get_text_features(**tokens.to(device)))

    def image(pixels: Tensor) -> Tensor:
        if reads:
            return pooled(model.get_image_features(pixel_values=pixels))
        return model(pixel_values=pixels).last_hidden_state[:, 0]

    return Network(
        str(name),
        getattr(model, "vision_model", model),
        size=_side(config.image_size, str(name)),
        image=image,
        text=text if reads else None,
        mean=facts.get("image_mean") or MEAN,
        std=facts.get("image_std") or STD,
        device=device,
    )


def of_timm(name: str | Path, *, pretrained: bool = True, device: str = "cpu") -> Network:
    """An image encoder of timm (DINO, DINOv2, a classifier) by name or folder; it reads no words.

    A classifier keeps its head as the layer "head" or "fc", so that a class can be climbed (`targets.Feature`).
    """
    folder = Path(name)
    trunk: Any = (
        timm_from_folder(folder, pretrained=pretrained)
        if folder.is_dir()
        else timm_by_name(str(name), pretrained=pretrained)
    )
    facts = trunk.pretrained_cfg
    return Network(
        str(name),
        trunk,
        size=_side(facts["input_size"][1:], str(name)),
        image=lambda pixels: trunk.forward_head(trunk.forward_features(pixels), pre_logits=True),
        mean=facts["mean"],
        std=facts["std"],
        device=device,
    )


def _side(sides: Any, name: str) -> int:
    """The side of the square pictures that a network takes. Raises RizbinError when they are no squares."""
    sides = (sides,) if isinstance(sides, int) else tuple(int(side) for side in sides)
    if min(sides) != max(sides):
        raise RizbinError(
            f"{name} takes pictures of {'x'.join(map(str, sides))} pixels; networks for squares can be climbed."
        )
    return sides[0]


def layer_of(encoder: Encoder, pixels: Views, layer: str) -> Tensor:
    """What a layer of the encoder's image tower gives for pictures, with gradient: [views, ...].

    Raises RizbinError when there is no such layer, or the encoder shows none.
    """
    if not isinstance(encoder, Network):
        raise RizbinError(f"{encoder.name} does not show its layers; give one that Rizbin loads itself.")
    modules = dict(encoder.module.named_modules())
    if layer not in modules:
        shown = ", ".join([name for name in modules if name and name.count(".") <= 2][:12])
        raise RizbinError(f"{encoder.name} has no layer {layer!r}; there are {shown} and more.")
    caught: list[Any] = []
    handle = modules[layer].register_forward_hook(lambda module, given, out: caught.append(out))
    try:
        encoder.module(encoder.prepared(pixels))
    finally:
        handle.remove()
    if not caught or not isinstance(caught[0], Tensor):
        raise RizbinError(f"The layer {layer} of {encoder.name} gives nothing that can be followed; choose another.")
    return caught[0]


def middle_layer(encoder: Encoder) -> str:
    """The name of the layer half way through the image tower, where style and content are told by default."""
    if not isinstance(encoder, Network):
        raise RizbinError(f"{encoder.name} does not show its layers; give one that Rizbin loads itself.")
    rows = [
        (name, module)
        for name, module in encoder.module.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
    ]
    if not rows:
        raise RizbinError(f"{encoder.name} has no row of layers; name one with --layer.")
    # Most weights are in the trunk; other rows are its stem or parts of its blocks.
    name, trunk = max(rows, key=lambda row: sum(value.numel() for value in row[1].parameters()))
    return f"{name}.{len(trunk) // 2 - 1}"
