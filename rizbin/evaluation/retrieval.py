"""Retrieval: the caption of an image among all captions, the image of a caption among all images."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rizbin.core.measurement import Measurement
from rizbin.evaluation.ranks import best_rank, chance_within, share_within

_ROWS = 1000
"""Queries ranked at once: 25,000 answers then cost 100 MB."""


def same_caption(captions: list[str]) -> Bool[Tensor, "captions captions"]:
    """Which captions say the same, letter case apart."""
    numbers: dict[str, int] = {}
    ids = torch.tensor([numbers.setdefault(caption.lower(), len(numbers)) for caption in captions])
    return ids[:, None] == ids[None, :]


def measure(
    images: Float[Tensor, "pairs embedding"], texts: Float[Tensor, "pairs embedding"], captions: list[str]
) -> list[Measurement]:
    """Recall at 1, 5 and 10 and the median rank, both ways; row i of images, texts and captions belong together."""
    right = same_caption(captions)
    pairs, unique = len(captions), len({caption.lower() for caption in captions})
    measurements = []
    for way, queries, answers in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        ranks = torch.cat(
            [
                best_rank(queries[start : start + _ROWS] @ answers.T, right[start : start + _ROWS])
                for start in range(0, pairs, _ROWS)
            ]
        )
        query, sought = ("image", "caption") if way == "image_to_text" else ("caption", "image")
        how = (
            f"each of {pairs} {query}s against all {pairs} {sought}s by cosine, no prompt; of the captions {unique} "
            f"differ, and the {sought} of an identical caption is right too; ties are wrong"
        )
        measurements += [
            Measurement(
                name=f"retrieval/{way}/r{k}",
                value=100 * share_within(ranks, k),
                chance=100 * chance_within(right.sum(dim=1), pairs, k),
                protocol=f"Share of {query}s with a right {sought} among the first {k}: {how}.",
            )
            for k in (1, 5, 10)
            if k < pairs
        ]
        measurements.append(
            Measurement(
                name=f"retrieval/{way}/median_rank",
                value=ranks.double().quantile(0.5).item(),
                unit="rank",
                higher_is_better=False,
                chance=(pairs + 1) / 2 if unique == pairs else None,
                protocol=f"Median rank, from 1, of the best right {sought}: {how}.",
            )
        )
    return measurements
