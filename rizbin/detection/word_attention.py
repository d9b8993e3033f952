"""Where the words of a prompt look in each layer of Grounding DINO's encoder.

In every layer the text attends to the image and the image to the text (feature fusion, arXiv 2303.05499, figure 3).
What the text attends to is read here; it is known before any box is proposed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.detection.detector import Detector, ImageLike, pixels_of
from rizbin.detection.phrases import PhraseLike, PromptText, batch_of


@contextmanager
def recording_fusion(model: Any) -> Iterator[list[Float[Tensor, "heads tokens places"]]]:
    """Notes the attention of text to image of each fusion layer, first layer first; passes of one image alone."""
    layers: list[Tensor] = []

    def note(module: Any, _: Any, made: Any) -> None:
        # ((image, its weights), (text, its weights)), heads folded into the batch.
        weights = made[1][1]
        layers.append(weights.detach().reshape(-1, module.num_heads, *weights.shape[-2:])[0].float().cpu())

    hooks = [
        module.register_forward_hook(note)
        for module in model.modules()
        if type(module).__name__.endswith("BiMultiHeadAttention")
    ]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def density(
    layers: Sequence[Float[Tensor, "heads tokens places"]],
    tokens: Sequence[int],
    levels: Sequence[tuple[int, int]],
    shape: tuple[int, int],
) -> Float[np.ndarray, "layers height width"]:
    """How densely some tokens of the text attend to each pixel's neighborhood, mean over heads and tokens.

    A layer's mean over the image is 1, which is also what every pixel would have if the tokens attended to all of the
    image alike. levels: rows and columns of the feature levels, in the order of the places. shape: height and width.
    """
    height, width = shape
    maps = []
    for layer in layers:
        shares = layer[:, list(tokens)].mean(dim=(0, 1)).numpy().astype(np.float32)
        whole, start = np.zeros(shape, np.float32), 0
        for rows, columns in levels:
            count = rows * columns
            level = shares[start : start + count].reshape(rows, columns) * count
            whole += cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR)
            start += count
        maps.append(whole / max(float(whole.mean()), 1e-12))
    return np.stack(maps) if maps else np.zeros((0, height, width), np.float32)


@torch.inference_mode()
def word_attention(
    detector: Detector, image: ImageLike, phrases: Sequence[PhraseLike]
) -> Float[np.ndarray, "phrases layers height width"]:
    """Where the words of each phrase look in each layer of the encoder, all phrases in one prompt.

    Args:
        detector: A Grounding DINO with its network.
        image: A file, a PIL image or RGB pixels; the result has its size.
        phrases: As for `Detector.detect`. A phrase with several prompts is the mean of them.

    A number is how densely the phrase's tokens attend to a pixel's neighborhood; 1 is the mean over the image. A phrase
    that cannot be asked for has nan. Raises RizbinError for an exported detector.
    """
    if not detector.has_network:
        raise RizbinError(f"{detector.name} is exported and shows no insides; ask what it was exported from.")
    pixels = pixels_of(image)
    height, width = pixels.shape[:2]
    prompts = detector.build_prompts(phrases)
    view = detector.preparation(pixels, detector.preparation.size(height, width))[None]
    maps: list[list[np.ndarray]] = [[] for _ in prompts.phrases]
    count = 0
    for text in prompts.texts:
        layers, levels = _fused(detector, view, text)
        count = len(layers)
        for span in text.spans:
            maps[span.phrase].append(density(layers, span.deciding, levels, (height, width)))
    nothing = np.full((count, height, width), np.nan, np.float32)
    return np.stack([np.mean(made, axis=0) if made else nothing for made in maps])


def _fused(detector: Detector, view: Tensor, text: PromptText) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """The attention of each layer, and the rows and columns of the levels."""
    ids, known = batch_of([text])
    levels: list[tuple[int, int]] = []

    def note(_: Any, __: Any, named: dict[str, Any]) -> None:
        levels[:] = [(int(rows), int(columns)) for rows, columns in named["spatial_shapes_list"]]

    hook = detector.model.model.encoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with recording_fusion(detector.model) as layers:
            detector.model(
                pixel_values=view.to(detector.device, detector.model.dtype),
                input_ids=ids.to(detector.device),
                attention_mask=known.long().to(detector.device),
            )
    finally:
        hook.remove()
    return layers, levels
