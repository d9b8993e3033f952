"""Layers of an encoder's image tower by name, with gradient: where style, content and classes are followed."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.models.protocol import Embedder, FeatureExtractor

Views = Float[Tensor, "views 3 _ _"]
"""Pixels from 0 to 1, any size."""


def layer_of(encoder: Embedder, pixels: Views, layer: str) -> Tensor:
    """What a layer of the encoder's image tower gives for images, with gradient: [views, ...].

    Raises RizbinError when there is no such layer, or the encoder shows none.
    """
    tower = _opened(encoder)
    modules = dict(tower.module.named_modules())
    if layer not in modules:
        shown = ", ".join([name for name in modules if name and name.count(".") <= 2][:12])
        raise RizbinError(f"{encoder.name} has no layer {layer!r}; there are {shown} and more.")
    caught: list[Any] = []
    handle = modules[layer].register_forward_hook(lambda module, given, out: caught.append(out))
    try:
        tower.module(tower.from_pixels(pixels))
    finally:
        handle.remove()
    if not caught or not isinstance(caught[0], Tensor):
        raise RizbinError(f"The layer {layer} of {encoder.name} gives nothing that can be followed; choose another.")
    return caught[0]


def middle_layer(encoder: Embedder) -> str:
    """The name of the layer half way through the image tower, where style and content are followed by default."""
    rows = [
        (name, module)
        for name, module in _opened(encoder).module.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
    ]
    if not rows:
        raise RizbinError(f"{encoder.name} has no row of layers; name one with --layer.")
    # Most weights are in the trunk; other rows are its stem or parts of its blocks.
    name, trunk = max(rows, key=lambda row: sum(value.numel() for value in row[1].parameters()))
    return f"{name}.{len(trunk) // 2 - 1}"


def _opened(encoder: Embedder) -> FeatureExtractor:
    """The encoder with its layers. Raises RizbinError for one that shows none."""
    if not isinstance(encoder, FeatureExtractor):
        raise RizbinError(f"{encoder.name} does not show its layers; give one that Rizbin loads itself.")
    return encoder
