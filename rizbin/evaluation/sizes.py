"""Recall by object size: small objects may be lost where large ones are recognized."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rizbin.core.measurement import Measurement
from rizbin.evaluation.embed import Objects
from rizbin.evaluation.ranks import best_rank


def above_absent(
    scores: Float[Tensor, "objects categories"],
    category: Int[Tensor, "objects"],
    present: Bool[Tensor, "objects categories"],
) -> Bool[Tensor, "objects"]:
    """Whether each object's category scores above all categories that are not in its image. Ties are wrong."""
    own = torch.zeros_like(present).scatter_(1, category[:, None], True)
    # The other categories in the image are neither right nor wrong.
    return best_rank(scores.masked_fill(present & ~own, -torch.inf), own) == 1


def under_masks(
    scores: Float[Tensor, "images categories rows columns"],
    cover: Float[Tensor, "objects rows columns"],
    image: Int[Tensor, "objects"],
) -> Float[Tensor, "objects categories"]:
    """Mean patch scores under each object's mask, patches weighted by how much of them it covers."""
    weights = cover.flatten(1) / cover.sum(dim=(1, 2))[:, None].clamp_min(1e-12)
    # By pieces: one row of patch scores for every object at once would be the largest tensor of the evaluation.
    pieces = zip(weights.split(512), image.split(512), strict=True)
    return torch.cat([torch.einsum("op,ocp->oc", weight, scores[place].flatten(2)) for weight, place in pieces])


def measure(
    images: Float[Tensor, "images embedding"],
    words: Float[Tensor, "categories embedding"],
    right: Bool[Tensor, "images categories"],
    objects: Objects,
    masked: Int[Tensor, "masked"],
    patch_scores: Float[Tensor, "scored categories rows columns"],
    edges: tuple[float, float],
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Recall by size from the whole image's embedding ("classified") and from the objects' patches ("localized").

    Without patch scores there is no "localized". Second comes what was left out: sizes of which there are no objects.
    """
    present = right[objects.image]
    place = torch.searchsorted(masked, objects.image)
    judged = {"classified": above_absent((images @ words.T)[objects.image], objects.category, present)}
    if len(patch_scores):
        scores = under_masks(patch_scores, objects.cover, place)
        judged["localized"] = above_absent(scores, objects.category, present)
    source = {
        "classified": "the cosine of the whole image's embedding with its text",
        "localized": "the mean cosine of the patches under its visible mask, weighted by coverage, with its text",
    }
    chance = 1 / (1 + (~present).sum(dim=1).double())
    low, high = edges
    sizes = {
        "small": (objects.area < low, f"under {low:.3g} of"),
        "medium": ((objects.area >= low) & (objects.area < high), f"{low:.3g} up to {high:.3g} of"),
        "large": (objects.area >= high, f"{high:.3g} or more of"),
    }
    measurements, left_out = [], []
    for size, (chosen, extent) in sizes.items():
        if not bool(chosen.any()):
            left_out.append((f"sizes/{size}", f"No object covers {extent} its image."))
            continue
        for how, hits in judged.items():
            measurements.append(
                Measurement(
                    name=f"sizes/{size}/{how}",
                    value=100 * hits[chosen].double().mean().item(),
                    chance=100 * chance[chosen].mean().item(),
                    protocol=f"Share of the {int(chosen.sum())} objects whose visible part covers {extent} the "
                    f"image's area for which {source[how]} is above that of every category absent from the image "
                    "(ties are wrong).",
                    images=len(objects.image[chosen].unique()),
                    items=f"{int(chosen.sum()):,} objects",
                )
            )
    return measurements, left_out
