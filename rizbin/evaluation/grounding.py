"""Grounding: which of the words that are true of an image belongs to which of its objects.

An encoder can name everything in an image and still not know what stands where: every patch then answers to the same
word, and the scene comes out painted in one. Here only the words of objects that are in the image compete, so that
naming does not help. Winoground (arXiv 2204.03162) asks the same of whole images and captions: each right, and both.
"""

import torch
from jaxtyping import Bool, Float, Int, Int16, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
from rizbin.evaluation.embed import Objects
from rizbin.evaluation.ranks import best_rank
from rizbin.evaluation.segmentation import DENSE_HEADS, POOLED, UPSAMPLED, upsampled
from rizbin.evaluation.sizes import under_masks


def present_words(objects: Objects, categories: int) -> Bool[Tensor, "objects categories"]:
    """For each object, which categories the objects of its image have, its own included."""
    images, row = objects.image.unique(return_inverse=True)
    present = torch.zeros(len(images), categories, dtype=torch.bool)
    present[row, objects.category] = True
    return present[row]


def own_word_first(
    scores: Float[Tensor, "rows categories"], category: Int[Tensor, "rows"], present: Bool[Tensor, "rows categories"]
) -> Bool[Tensor, "rows"]:
    """Whether each row's own category scores above all others that are present. Ties are wrong."""
    own = torch.zeros_like(present).scatter_(1, category[:, None], True)
    return best_rank(scores.masked_fill(~present, -torch.inf), own) == 1


def confused(
    scores: Float[Tensor, "images categories rows columns"],
    labels: Int16[Tensor, "images size size"],
    pixels: UInt8[Tensor, "images size size 3"] | None = None,
) -> tuple[int, int, float, int]:
    """Object pixels given to another present object's word, all object pixels, how many guessing confuses, and images.

    Of images with two or more categories. Scores are upsampled bilinearly, or along the colors of the images' `pixels`
    where these are given, and a pixel takes the greatest of the words present; a tie is confused. Guessing confuses
    n - 1 of n.
    """
    images, size, _ = labels.shape
    present = torch.zeros(images, scores.shape[1] + 1, dtype=torch.bool).scatter_(1, labels.flatten(1).long(), True)
    present = present[:, 1:]
    several = present.sum(dim=1) > 1
    scores, labels, present = scores[several], labels[several], present[several]
    if not len(labels):
        return 0, 0, 0.0, 0
    counts = present.sum(dim=1)
    # Only the words present are upsampled: a few of hundreds.
    valid, words = present.byte().topk(int(counts.max()), dim=1)
    chosen = scores.gather(1, words[:, :, None, None].expand(-1, -1, *scores.shape[2:]))
    wrong, total, guessed = 0, 0, 0.0
    for first, fine in upsampled(chosen, size, pixels[several] if pixels is not None else None):
        part = slice(first, first + len(fine))
        truth, known = labels[part], valid[part].bool()[:, :, None, None]
        own = (words[part, :, None, None] + 1 == truth[:, None]) & known
        own_score = fine.masked_fill(~own, -torch.inf).amax(dim=1)
        rival = fine.masked_fill(own | ~known, -torch.inf).amax(dim=1)
        on_object = truth > 0
        wrong += int((on_object & (own_score <= rival)).sum())
        in_image = on_object.sum(dim=(1, 2)).double()
        total += int(in_image.sum())
        guessed += (in_image * (1 - 1 / counts[part].double())).sum().item()
    return wrong, total, guessed, len(labels)


def measure(
    scores: Float[Tensor, "masked categories rows columns"],
    labels: Int16[Tensor, "masked size size"],
    objects: Objects,
    masked: Int[Tensor, "masked"],
    room: str,
    head: str,
    *,
    images: UInt8[Tensor, "masked size size 3"] | None = None,
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Own word against the other words present: by object, by patch, by pixel. Second what was left out.

    `room` is the middle of the measurements' names, `head` the kind of dense head that gave the scores. These may stand
    on a finer grid than the objects' cover: objects and patches then take their mean in each of the cover's patches.
    `images` guide the upsampling to pixels.
    """
    place = torch.searchsorted(masked, objects.image)
    present = present_words(objects, scores.shape[1])
    words = present.sum(dim=1)
    if not bool((words > 1).any()):
        return [], [(f"grounding/{room}", "No image has objects of two or more categories with known masks.")]
    coarse = F.adaptive_avg_pool2d(scores, (objects.cover.shape[1], objects.cover.shape[2]))
    first = own_word_first(under_masks(coarse, objects.cover, place), objects.category, present)
    measurements, left_out = _pairs(coarse, objects, place, present, first, room, head)
    several = words > 1
    measurements.append(
        Measurement(
            name=f"grounding/{room}/present_objects",
            value=100 * first[several].double().mean().item(),
            chance=100 * (1 / words[several].double()).mean().item(),
            protocol=f"Share of {int(several.sum())} objects, in images with objects of two or more categories "
            f"({words[several].double().mean():.2f} on average), whose own word has the greatest mean cosine with the "
            "patches under the object's visible mask, weighted by coverage, among the words of the objects in the "
            f"image (ties are wrong): {DENSE_HEADS[head]}{POOLED[head]}.",
            images=len(objects.image[several].unique()),
            items=f"{int(several.sum()):,} objects",
        )
    )
    wrong, total, guessed, counted = confused(scores, labels, images)
    if total:
        measurements.append(
            Measurement(
                name=f"grounding/{room}/confused_pixels",
                value=100 * wrong / total,
                chance=100 * guessed / total,
                higher_is_better=False,
                protocol=f"Share of {total} object pixels, in images with objects of two or more categories, that take "
                "the word of another object in the image, when each pixel takes the greatest of the words of the "
                "objects in the image (ties are confused); a scene painted whole in one of two equally large objects' "
                f"words is at 50, chance gives every pixel one of them at random: {DENSE_HEADS[head]}, "
                f"{UPSAMPLED[head]}.",
                images=counted,
                items=f"{total:,} object pixels",
            )
        )
    return measurements, left_out


_PAIRS = "in images with exactly two objects, of different categories"


def _pairs(
    scores: Float[Tensor, "masked categories rows columns"],
    objects: Objects,
    place: Int[Tensor, "objects"],
    present: Bool[Tensor, "objects categories"],
    first: Bool[Tensor, "objects"],
    room: str,
    head: str,
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Images with exactly two objects, of two categories: objects right, both right, patches right."""
    _, row, count = objects.image.unique(return_inverse=True, return_counts=True)
    pair = (count[row] == 2) & (present.sum(dim=1) == 2)
    if not bool(pair.any()):
        return [], [(f"grounding/{room}/pair_objects", "No image has exactly two objects, of different categories.")]
    right = first[pair]
    images, row = objects.image[pair].unique(return_inverse=True)
    both = torch.zeros(len(images), dtype=torch.long).index_add_(0, row, right.long()) == 2
    measurements = [
        Measurement(
            name=f"grounding/{room}/pair_objects",
            value=100 * right.double().mean().item(),
            chance=50.0,
            protocol=f"Share of {len(right)} objects, {_PAIRS}, whose mean cosine of the patches under the object's "
            "visible mask, weighted by coverage, is greater with its own word than with the other object's (ties are "
            f"wrong): {DENSE_HEADS[head]}{POOLED[head]}.",
            images=len(images),
            items=f"{len(right):,} objects",
        ),
        Measurement(
            name=f"grounding/{room}/pair_both",
            value=100 * both.double().mean().item(),
            chance=25.0,
            protocol=f"Share of {len(images)} images with exactly two objects, of different categories, in which both "
            "objects have a greater mean cosine under their visible masks with their own word than with the other's "
            "(ties are wrong); chance is right about each by itself, and a scene painted whole in one word is at 0: "
            f"{DENSE_HEADS[head]}{POOLED[head]}.",
            images=len(images),
        ),
    ]
    name = f"grounding/{room}/pair_patches"
    category, cover = objects.category[pair], objects.cover[pair]
    other = present[pair].scatter(1, category[:, None], False).byte().argmax(dim=1)
    of_patches = _pair_patches(scores, cover, place[pair], category, other, name, head)
    if of_patches is None:
        return measurements, [(name, "No patch is more than half covered by one of two objects.")]
    return [*measurements, of_patches], []


def _pair_patches(
    scores: Float[Tensor, "masked categories rows columns"],
    cover: Float[Tensor, "objects rows columns"],
    place: Int[Tensor, "objects"],
    category: Int[Tensor, "objects"],
    other: Int[Tensor, "objects"],
    name: str,
    head: str,
) -> Measurement | None:
    """The share of patches of objects in pairs that are nearer to their object's word (`category`) than to the other
    object's (`other`). `place` is each object's row in `scores`. None when no patch is more than half covered."""
    item, down, across = (cover > 0.5).nonzero(as_tuple=True)
    if not len(item):
        return None
    at = place[item]
    hits = scores[at, category[item], down, across] > scores[at, other[item], down, across]
    return Measurement(
        name=name,
        value=100 * hits.double().mean().item(),
        chance=50.0,
        protocol=f"Share of {len(hits)} patches, {_PAIRS}, more than half covered by one of them, whose cosine with "
        f"that one's word is greater than with the other's (ties are wrong): {DENSE_HEADS[head]}{POOLED[head]}.",
        images=len(at.unique()),
        items=f"{len(hits):,} patches",
    )
