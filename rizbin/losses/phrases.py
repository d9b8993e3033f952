"""The phrase term: each noun phrase of a caption finds its own patches, and each patch chooses among the phrases.

CLIP matches one vector of the image with one of the caption; nothing in it asks which of two words stands where.
Pooling patches by their similarity to the whole caption (PACL, arXiv 2212.04994) teaches object patches to resemble
every word of their caption. Here the caption is split into its noun phrases, and each phrase is its own query.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.precision import wide
from rizbin.losses.contrast import contrast_of


@dataclass(frozen=True, kw_only=True)
class PhraseSettings:
    """Settings of the losses between patches and the caption, phrase by phrase or as a whole, without CLS."""

    phrase_weight: float = 0.0
    """Weight of the phrase term, in which each noun phrase of a caption finds its own patches among those that meet
    the caption (paper: 0)."""
    phrases_most: int = 4
    """Most phrases of a caption, the first ones; a caption without any is one phrase."""
    phrase_temperature: float = 0.1
    """Temperature, in cosines, at which a patch chooses among the phrases of its caption."""
    patches_contrast_weight: float = 0.0
    """Weight of a second CLIP term, in which the student's patches, pooled for a caption by `patches_pool`, meet it
    without CLS (paper: 0)."""
    patches_pool: Literal["mean", "text"] = "mean"
    """How that second term pools the patches: their mean, or each weighted by its similarity to the caption (PACL,
    arXiv 2212.04994), which pulls every object patch to all words of its caption."""
    patches_temperature: float = 0.1
    """Temperature, in cosines, of weights of patches for a caption or phrase: lower values weight fewer patches."""


def text_weighted_similarity(
    patches: Float[Tensor, "batch patches embedding"], texts: Float[Tensor, "texts embedding"], temperature: float
) -> Float[Tensor, "batch texts"]:
    """Similarity of each image with each text: the mean of the patches' cosines, weighted by softmax(cosine /
    temperature).

    Takes unit vectors; in [-1, 1]. Source: PACL, arXiv 2212.04994, section 3.2.
    """
    cosines = torch.einsum("ipe,te->itp", patches, texts)
    return ((cosines / temperature).softmax(dim=-1) * cosines).sum(dim=-1)


def phrase_keys(tokens: Int[Tensor, "batch most length"]) -> Int[Tensor, "batch most"]:
    """A number for each phrase, equal for equal tokens; 0 where there is no phrase (all tokens are 0).

    Trailing zeros change nothing, so processes that trimmed their tokens differently agree.
    """
    place = torch.arange(1, tokens.shape[-1] + 1, device=tokens.device)
    # Odd multipliers that differ from place to place; int64 wraps around, as a hash may.
    return (tokens * (place * 0x9E3779B97F4A7C1 + 0x632BE59BD9B4E01)).sum(dim=-1)


def phrase_contrast(
    patches: Float[Tensor, "batch patches embedding"],
    phrases: Float[Tensor, "batch most embedding"],
    keys: Int[Tensor, "batch most"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None,
    *,
    patch_temperature: float,
    phrase_temperature: float,
) -> Float[Tensor, ""]:
    """Contrast of regions and phrases, the mean of both directions. Takes unit vectors.

    A phrase's region is the mean of its image's patches under weights w = softmax over patches of
    (cosine / patch_temperature + log q), where q = softmax over the phrases of the same caption of
    (cosine / phrase_temperature): a patch that another phrase of the caption explains counts less.
    - Regions find phrases: softmax over all different phrases of the batch, those of the same caption among them.
    - Phrases find images: softmax over all images of the batch but for those whose captions hold the same phrase; an
      image's similarity is `text_weighted_similarity` at patch_temperature.
    Each is the mean over a caption's phrases, then over captions, so that processes with equal shares of a batch agree
    with one process. With a bias (SigLIP, arXiv 2303.15343) every image-phrase pair is judged on its own instead.
    `keys` are those of `phrase_keys`; phrases with key 0 do not count, and images without any are negatives only.
    """
    batch, most, _ = phrases.shape
    all_keys = parallel.gather(keys).flatten()
    all_phrases = parallel.gather(phrases).flatten(0, 1)
    # Equal phrases are one: "a cat" of another caption is no negative of "a cat".
    different, number = all_keys.unique(return_inverse=True)
    first = torch.full_like(different, len(all_keys)).scatter_reduce(
        0, number, torch.arange(len(all_keys), device=number.device), "amin"
    )
    held = torch.zeros(parallel.world_size() * batch, len(different), dtype=torch.bool, device=keys.device)
    held.scatter_(1, number.view(-1, most), True)
    vocabulary, held = all_phrases[first[different != 0]], held[:, different != 0]
    own = slice(parallel.rank() * batch, (parallel.rank() + 1) * batch)

    cosines = torch.einsum("ipe,ve->ivp", patches, vocabulary)
    choice = (cosines / phrase_temperature).masked_fill(~held[own, :, None], float("-inf"))
    chosen = torch.where(held[own].any(dim=1)[:, None, None], choice, 0.0).log_softmax(dim=1)
    similarity = ((cosines / patch_temperature).softmax(dim=-1) * cosines).sum(dim=-1)
    image, phrase = held[own].nonzero(as_tuple=True)
    weights = (cosines[image, phrase] / patch_temperature + chosen[image, phrase]).softmax(dim=-1)
    regions = torch.einsum("np,npe->ne", weights, patches[image])
    # How much each row counts: a caption's phrases share its weight.
    share = (1 / held[own].sum(dim=1).to(patches.dtype))[image] / batch
    if bias is not None:
        signs = torch.where(held[own], 1.0, -1.0)
        logits = wide(scale * similarity.index_put((image, phrase), (regions * vocabulary[phrase]).sum(dim=-1)) + bias)
        return -F.logsigmoid(signs * logits).sum(dim=1).mean()

    to_phrases = F.cross_entropy(wide(scale * regions @ vocabulary.T), phrase, reduction="none")
    by_image = wide(scale * parallel.gather(similarity)).T[phrase]
    itself = F.one_hot(image + own.start, len(held)).bool()
    by_image = by_image.masked_fill(held.T[phrase] & ~itself, float("-inf"))
    to_images = F.cross_entropy(by_image, image + own.start, reduction="none")
    return ((to_phrases + to_images) * share).sum() / 2


def phrase_contrast_of_views(
    patches: Float[Tensor, "views patches embedding"],
    phrases: Float[Tensor, "batch most embedding"],
    keys: Int[Tensor, "batch most"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None,
    settings: PhraseSettings,
) -> Float[Tensor, ""]:
    """The mean `phrase_contrast` of several views of each image, the first view's rows first."""
    at = {"patch_temperature": settings.patches_temperature, "phrase_temperature": settings.phrase_temperature}
    losses = [phrase_contrast(view, phrases, keys, scale, bias, **at) for view in patches.split(len(keys))]
    return torch.stack(losses).mean()


def text_pooled_contrast(
    patches: Float[Tensor, "views patches embedding"],
    texts: Float[Tensor, "batch embedding"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None,
    temperature: float,
) -> Float[Tensor, ""]:
    """CLIP's loss of patches pooled by their similarity to each text of all processes, the mean of several views.

    Takes unit vectors, the first view's rows first. See `text_weighted_similarity`.
    """
    views, texts = patches.split(len(texts)), parallel.gather(texts)
    similarities = [text_weighted_similarity(view, texts, temperature) for view in views]
    return torch.stack([contrast_of(each, scale, bias) for each in similarities]).mean()
