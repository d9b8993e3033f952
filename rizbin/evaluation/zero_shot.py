"""Zero-shot classification: the category whose prompts are nearest to the image (CLIP, arXiv 2103.00020, 3.1)."""

import re
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
from rizbin.data.scenes.captions import article
from rizbin.evaluation.embed import embed_texts
from rizbin.evaluation.ranks import average_precision, best_rank, chance_precision, chance_within, share_within
from rizbin.models.wrap import AnyEncoder

TemplateSet = Literal["scenes", "plain", "openai80"]

SCENES = ("a {}", "a picture of a {}", "a scene with a {}", "here we see a {}", "a small {}", "a large {}")
"""Templates in the words of the embedded world's captions."""
PLAIN = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a good photo of a {}.",
    "a drawing of a {}.",
    "a painting of a {}.",
    "a rendering of a {}.",
)
"""The simplest of the 80 that OpenAI chose for ImageNet."""


def templates(which: TemplateSet) -> tuple[str, ...]:
    """The templates of a set; {} stands for the category. "openai80" are the 80 that CLIP was published with."""
    if which == "openai80":
        from open_clip import OPENAI_IMAGENET_TEMPLATES  # here: importing it costs a second

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    return {"scenes": SCENES, "plain": PLAIN}[which]


def prompt(template: str, name: str) -> str:
    """The template with the name in place and the article before it right: "an apple", "a unicorn"."""
    right = article(name.lower()).split(" ", 1)[0]
    return re.sub(r"\ba \{\}", f"{right} {{}}", template).replace("{}", name)


def embed_categories(
    encoder: AnyEncoder, categories: tuple[str, ...], which: TemplateSet, *, batch: int
) -> Float[Tensor, "categories embedding"]:
    """One unit embedding a category: the mean of its prompts' unit embeddings, brought back to unit length."""
    chosen = templates(which)
    texts = [prompt(template, name) for name in categories for template in chosen]
    if not texts:
        return torch.zeros(0, 0)
    return ensemble(embed_texts(encoder, texts, batch=batch).unflatten(0, (len(categories), len(chosen))))


def ensemble(prompts: Float[Tensor, "categories templates embedding"]) -> Float[Tensor, "categories embedding"]:
    """The mean of unit embeddings, brought back to unit length."""
    return F.normalize(F.normalize(prompts, dim=-1).mean(dim=1), dim=-1)


def describe(which: TemplateSet) -> str:
    """Says in half a sentence what stands for a category."""
    chosen = templates(which)
    shown = ", ".join(f'"{template}"' for template in chosen[:3]) + (", ..." if len(chosen) > 3 else "")
    return (
        f"a category is the re-normalized mean of {len(chosen)} prompts' unit embeddings "
        f"(template set {which}: {shown})"
    )


def measure(
    images: Float[Tensor, "images embedding"],
    words: Float[Tensor, "categories embedding"],
    right: Bool[Tensor, "images categories"],
    which: TemplateSet,
) -> list[Measurement]:
    """Top-1, top-5 and, where images hold several categories, mean average precision; of images with a name."""
    known = right.any(dim=1)
    right = right[known]
    return rank_measurements(
        "zero_shot", images[known] @ words.T, right, f"cosine of image and category; {describe(which)}"
    )


def rank_measurements(
    room: str, scores: Float[Tensor, "images categories"], right: Bool[Tensor, "images categories"], how: str
) -> list[Measurement]:
    """Measurements of category scores where images may hold several categories; k-NN and probe use them too."""
    images, categories = right.shape
    counts, ranks = right.sum(dim=1), best_rank(scores, right)
    held = f"{counts.double().mean():.2f} of {categories} categories are right on average over {images} images"
    measurements = []
    for k in (1, 5):
        if k < categories:
            measurements.append(
                Measurement(
                    name=f"{room}/top{k}",
                    value=100 * share_within(ranks, k),
                    chance=100 * chance_within(counts, categories, k),
                    protocol=f"Share of images with a right category among the {k} best scored (ties are wrong); "
                    f"{held}; {how}.",
                    images=images,
                )
            )
    if bool((counts > 1).any()):
        present = right.sum(dim=0)
        appear = present > 0
        measurements.append(
            Measurement(
                name=f"{room}/map",
                value=100 * average_precision(scores, right)[appear].mean().item(),
                chance=100 * chance_precision(present, images)[appear].mean().item(),
                protocol=f"Mean over {int(appear.sum())} categories of the average precision with which their images "
                f"are ranked; {held}; {how}.",
                images=images,
            )
        )
    return measurements
