"""Methods and batches at toy size, for tests of methods and of the trainer."""

import dataclasses
from dataclasses import replace
from typing import Any

import torch

from rizbin import methods
from rizbin.data.sample import Named
from rizbin.data.views import View
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.text import TextEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.training.method import Batch, Method

NANO = ImageTextPair.Settings(
    vision=VisionEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32),
    text=TextEncoder.Settings(width=32, layers=1, heads=2),
    embedding=16,
)
ENCODER = ImageEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32)
NAMES = (("cat",), ("dog", "bus"), ("pizza", "a name that nobody asked for"), ())
"""Of the objects in the rows of a toy batch."""
TINY: dict[str, Any] = {
    "pair": NANO,
    "encoder": ENCODER,
    "local_view": View.Settings(size=16, crop_area=(0.2, 0.5)),
    "local_crops": 2,
    "queue": 32,
    "affinity_hidden": 16,
    "prototypes": 32,
    "head_hidden": 32,
    "head_bottleneck": 16,
    "decoder_width": 32,
    "decoder_heads": 2,
    "projection_hidden": 32,
    "projection": 16,
    "words_decoder_layers": 1,
    "names": ("cat", "dog", "bus", "pizza"),
}


def tiny(name: str, extra: dict[str, Any] | None = None) -> Any:
    """The method's settings at toy size."""
    settings = methods.find(name).Settings()
    own = {field.name for field in dataclasses.fields(settings)}
    return replace(settings, **{**{key: value for key, value in TINY.items() if key in own}, **(extra or {})})


def build(name: str, extra: dict[str, Any] | None = None) -> Method:
    torch.manual_seed(0)
    return methods.find(name)(tiny(name, extra))


def batch_for(method: Method, rows: int = 8, own: slice = slice(None)) -> Batch:
    generator = torch.Generator().manual_seed(5)
    views = [torch.randn(rows, 3, view.size, view.size, generator=generator)[own] for view in method.views]
    corner = torch.rand(len(method.views), rows, 2, generator=generator) * 0.4
    crops = torch.cat([corner, corner + 0.6], dim=-1)
    texts = None
    if method.tokenizer is not None:
        words = [
            "a cat",
            "two dogs left of a bus",
            "a large pizza",
            "a frog at the top",
            "an owl",
            "a fox",
            "a bee",
            "one taxi and a tree",
        ]
        texts = method.tokenizer.trim(method.tokenizer.encode([words[row % 8] for row in range(rows)])[own])
    phrases = None
    if method.most_phrases and method.tokenizer is not None:
        # As many as a caption may have, rows of zeros where it has fewer, equal ones in several captions.
        split = [["a cat"], ["two dogs", "a bus"], ["a large pizza"], ["a frog"], ["an owl"], ["a cat", "a bee"]]
        phrases = torch.zeros(rows, method.most_phrases, method.tokenizer.settings.context, dtype=torch.long)
        for row in range(rows):
            parts = split[row % len(split)][: method.most_phrases]
            phrases[row, : len(parts)] = method.tokenizer.encode(parts)
        phrases = phrases[own, :, :8]
    box = (0.2, 0.2, 0.8, 0.8)
    things = [tuple(Named(name, box) for name in NAMES[row % 4]) for row in range(rows)][own]
    whole = torch.zeros(len(views), rows, dtype=torch.bool)[:, own]
    return Batch(views, crops[:, own], whole, texts, things, phrases)
