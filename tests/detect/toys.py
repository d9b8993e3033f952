"""A Grounding DINO small enough for tests, and pictures of colored shapes."""

import functools
from typing import Any

import torch

from rizbin.detect.models import Size, new_model, words_tokenizer
from rizbin.detect.phrases import Text, ask, batch_of, read_phrases

COLORS, SHAPES = ("red", "green", "blue"), ("disc", "square")
TINY = Size(width=32, queries=10, feedforward=64, backbone_width=16, text_width=32, text_tokens=64)


@functools.cache
def tokenizer() -> Any:
    return words_tokenizer((*COLORS, *SHAPES, "cat", "dog", "a", "bird", "tree"))


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return new_model(TINY, tokenizer(), image_size=64)


def text_of(*names: str) -> Text:
    (text,) = ask(read_phrases(list(names)), tokenizer()).texts
    return text


def run(model: Any, images: torch.Tensor, texts: list[Text]) -> tuple[Any, torch.Tensor]:
    """The model's outputs, and the mask of its text."""
    ids, known = batch_of(texts)
    return model(pixel_values=images, input_ids=ids, attention_mask=known.long()), known
