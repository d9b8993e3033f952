"""Segmentation without and with training: patch-text similarity, and a linear layer on patch features.

Zero-shot: each patch takes the category whose text is nearest (Zhou et al., arXiv 2112.01071). Background has no text,
so a pixel is background where no category stands out; how far one must stand out is chosen on training images.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int, Int16, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
from rizbin.data.views import normalize
from rizbin.evaluation.probe import LinearProbe
from rizbin.evaluation.ranks import best_rank
from rizbin.nets.dense import guided_upsample

_VALUES = 2_000_000
"""Upsampled scores held at once: 8 MB stay near the processor."""
_CANDIDATES = 24
"""Thresholds tried: quantiles of the margins, so that they fall where pixels are."""
HEADS = {"zero_shot": "plain", "dense_head": "windows"}
"""Middle part of the measurement's name -> kind of dense head that gives the patch embeddings."""
DENSE_HEADS = {
    "plain": "last-layer patch features pass the image projection and meet the texts by cosine",
    "windows": "the training-free head averages the patch embeddings of the whole image with those of the four windows "
    "of the image enlarged twice (five passes of the network; five to six times the plain CPU time, upsampling "
    "included), they meet the texts by cosine",
}
"""How each kind of dense head makes scores, for protocols."""
POOLED = {"plain": "", "windows": ", each patch by the mean of its four cosines"}
"""How scores are pooled from a finer grid to the network's own patches."""
UPSAMPLED = {
    "plain": "cosines are upsampled bilinearly",
    "windows": "cosines are upsampled along the image's colors (each pixel from the 3x3 patches around it)",
}
"""How scores are upsampled to pixels."""


def confusion(
    truth: Int[Tensor, "*any"], predicted: Int[Tensor, "*any"], classes: int
) -> Int[Tensor, "classes classes"]:
    """How many pixels of class row were called class column."""
    cells = truth.long().flatten() * classes + predicted.long().flatten()
    return torch.bincount(cells, minlength=classes * classes).view(classes, classes)


def mean_iou(counts: Int[Tensor, "classes classes"]) -> float:
    """Intersection over union, 0 to 1, averaged over the classes that are in the truth or were predicted."""
    both = counts.diagonal().double()
    union = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
    return (both[union > 0] / union[union > 0]).mean().item()


def boundary_band(
    labels: Int16[Tensor, "images size size"], width: int, *, frame: bool = True
) -> Bool[Tensor, "images size size"]:
    """Which pixels have a pixel of another label within `width` rows and columns.

    With `frame` the image's edge counts as another label, as in the code of Boundary IoU.
    """
    band = []
    for some in labels.split(max(1, _VALUES // labels[0].numel())) if len(labels) else ():
        values = some[:, None].float()
        around = (width,) * 4
        values = F.pad(values, around, value=-1) if frame else F.pad(values, around, mode="replicate")
        highest = F.max_pool2d(values, 2 * width + 1, stride=1)
        lowest = -F.max_pool2d(-values, 2 * width + 1, stride=1)
        band.append((highest != lowest)[:, 0])
    return torch.cat(band) if band else torch.zeros_like(labels, dtype=torch.bool)


def boundary_iou(
    predicted: Int16[Tensor, "images size size"], truth: Int16[Tensor, "images size size"], classes: int, width: int
) -> float:
    """Boundary IoU, 0 to 1, averaged over the categories (background is none) that are in the truth or predicted.

    Of each category's true and predicted region only the pixels within `width` of the region's own boundary enter
    intersection and union; both are pooled over images. nan where there are no categories.
    Source: Cheng et al., arXiv 2103.16562, equation 3, with the square neighborhood of its code.
    """
    bands = [torch.where(boundary_band(labels, width), labels, 0) for labels in (truth, predicted)]
    counts = confusion(bands[0], bands[1], classes)
    both = counts.diagonal()[1:].double()
    union = (counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal())[1:]
    return (both[union > 0] / union[union > 0]).mean().item()


def _boundary_measurement(
    predicted: Int16[Tensor, "images size size"],
    truth: Int16[Tensor, "images size size"],
    classes: int,
    width: int,
    *,
    room: str,
    how: str,
) -> Measurement:
    size = truth.shape[-1]
    return Measurement(
        name=f"segmentation/{room}/boundary_iou",
        value=100 * boundary_iou(predicted, truth, classes, width),
        protocol=f"Mean over {classes - 1} categories of the intersection over union of what lies within {width} "
        "pixels of the boundaries of the true and the predicted region (arXiv 2103.16562; the image's edge is a "
        f"boundary, background is no category), pooled over {len(truth)} images at {size}x{size}: {how}.",
        images=len(truth),
    )


def upsampled(
    scores: Float[Tensor, "images classes rows columns"],
    size: int,
    images: UInt8[Tensor, "images size size 3"] | None = None,
) -> Iterator[tuple[int, Float[Tensor, "chunk classes size size"]]]:
    """(first image, scores at pixel resolution) of a few images at a time.

    Bilinear, or along the colors of the images where these are given.
    """
    chunk = max(1, _VALUES // (scores.shape[1] * size * size))
    for start in range(0, len(scores), chunk):
        if images is not None:
            yield start, guided_upsample(scores[start : start + chunk], normalize(images[start : start + chunk]))
            continue
        # Classes innermost: interpolation and the maximum over classes then take a seventh of the time.
        some = scores[start : start + chunk].contiguous(memory_format=torch.channels_last)
        yield start, F.interpolate(some, size=(size, size), mode="bilinear", align_corners=False)


def standing_out(
    scores: Float[Tensor, "images categories rows columns"],
    size: int,
    images: UInt8[Tensor, "images size size 3"] | None = None,
) -> tuple[Float[Tensor, "images size size"], Int16[Tensor, "images size size"]]:
    """How far each pixel's best category stands above the mean of all, and that category as a label (1 + category)."""
    margins, labels = [], []
    for _, pixels in upsampled(scores, size, images):
        best, category = pixels.max(dim=1)
        margins.append(best - pixels.mean(dim=1))
        labels.append((category + 1).to(torch.int16))
    return torch.cat(margins), torch.cat(labels)


def choose_threshold(
    margins: Float[Tensor, "*pixels"],
    predicted: Int16[Tensor, "*pixels"],
    truth: Int16[Tensor, "*pixels"],
    classes: int,
) -> float:
    """The margin under which a pixel is best called background: that of the greatest mIoU, the smallest of equals."""
    flat = margins.flatten()
    sample = flat[:: 1 + len(flat) // 1_000_000]
    candidates = sample.quantile(torch.arange(_CANDIDATES) / _CANDIDATES).tolist()
    quality = [mean_iou(confusion(truth, _with_background(margins, predicted, at), classes)) for at in candidates]
    return candidates[quality.index(max(quality))]


def _with_background(margins: Tensor, predicted: Tensor, threshold: float) -> Tensor:
    return torch.where(margins >= threshold, predicted, 0)


def zero_shot_segmentation(
    scores: Float[Tensor, "images categories rows columns"],
    labels: Int16[Tensor, "images size size"],
    train_scores: Float[Tensor, "train categories rows columns"],
    train_labels: Int16[Tensor, "train size size"],
    room: str,
    how: str,
    *,
    boundary_width: int,
    images: UInt8[Tensor, "images size size 3"] | None = None,
    train_images: UInt8[Tensor, "train size size 3"] | None = None,
) -> list[Measurement]:
    """mIoU over all categories and background, and boundary IoU; the threshold comes from the training images."""
    size, classes = labels.shape[-1], scores.shape[1] + 1
    threshold = choose_threshold(*standing_out(train_scores, size, train_images), train_labels, classes)
    margins, best = standing_out(scores, size, images)
    predicted = _with_background(margins, best, threshold)
    rule = (
        f"{DENSE_HEADS[how]}, {UPSAMPLED[how]}, a pixel is background where its best category is less than "
        f"{threshold:.4f} above the mean of all, which was best on {len(train_labels)} training images"
    )
    return [
        Measurement(
            name=f"segmentation/{room}/miou",
            value=100 * mean_iou(confusion(labels, predicted, classes)),
            protocol=f"Mean intersection over union of {classes - 1} categories and background, pooled over all pixels "
            f"of {len(labels)} images at {size}x{size}: {rule}.",
            images=len(labels),
        ),
        _boundary_measurement(predicted, labels, classes, boundary_width, room=room, how=rule),
    ]


def objects_miou(
    scores: Float[Tensor, "images categories rows columns"],
    labels: Int16[Tensor, "images size size"],
    room: str,
    how: str,
    *,
    images: UInt8[Tensor, "images size size 3"] | None = None,
) -> Measurement:
    """mIoU over the categories on the objects' pixels alone, as benchmarks without a background class count it."""
    size, categories = labels.shape[-1], scores.shape[1]
    counts = torch.zeros(categories, categories, dtype=torch.long)
    for first, pixels in upsampled(scores, size, images):
        truth = labels[first : first + len(pixels)]
        counts += confusion(truth[truth > 0] - 1, pixels.argmax(dim=1)[truth > 0], categories)
    return Measurement(
        name=f"segmentation/{room}/objects_miou",
        value=100 * mean_iou(counts),
        protocol=f"Mean intersection over union of {categories} categories, pooled over the {int(counts.sum())} pixels "
        f"of {len(labels)} images at {size}x{size} that belong to an object (background is not asked about): "
        f"{DENSE_HEADS[how]}, {UPSAMPLED[how]}, a pixel takes the category of its greatest.",
        images=len(labels),
        items=f"{int(counts.sum()):,} object pixels",
    )


def patch_shares(
    labels: Int16[Tensor, "images size size"], grid: tuple[int, int], classes: int
) -> Float[Tensor, "images patches classes"]:
    """Which share of each patch (row order) belongs to each class, 0 to 1; class 0 is background."""
    images, size, _ = labels.shape
    rows, columns = grid
    inside = labels.view(images, rows, size // rows, columns, size // columns).transpose(2, 3).flatten(3).flatten(1, 2)
    shares = torch.zeros(*inside.shape[:2], classes)
    return shares.scatter_add_(2, inside.long(), torch.full(inside.shape, 1 / inside.shape[2]))


def patch_accuracy(
    scores: Float[Tensor, "images categories rows columns"],
    shares: Float[Tensor, "images patches classes"],
    room: str,
    how: str,
) -> list[Measurement]:
    """The share of patches, at least half covered by one category, that are nearest to it.

    Once among all categories, once among those in the image.
    """
    most, category = shares[:, :, 1:].max(dim=2)
    covered = most >= 0.5
    patches = scores.flatten(2).transpose(1, 2)
    truth = F.one_hot(category, scores.shape[1]).bool()
    present = (shares[:, :, 1:].sum(dim=1) > 0).unsqueeze(1).expand_as(truth)
    several = covered & (present.sum(dim=2) > 1)
    measurements = []
    for name, chosen, among, candidates in (
        ("patch_accuracy", covered, torch.ones_like(present), f"all {scores.shape[1]} categories"),
        ("patch_accuracy_present", several, present, "the categories in its image, where these are two or more"),
    ):
        if not bool(chosen.any()):
            continue
        right = best_rank(patches[chosen].masked_fill(~among[chosen], -torch.inf), truth[chosen]) == 1
        measurements.append(
            Measurement(
                name=f"segmentation/{room}/{name}",
                value=100 * right.double().mean().item(),
                chance=100 * (1 / among[chosen].sum(dim=1).double()).mean().item(),
                protocol=f"Share of {len(right)} patches, at least half covered by one category, whose nearest text "
                f"among {candidates} is that category's (ties are wrong): {DENSE_HEADS[how]}{POOLED[how]}.",
                images=int(chosen.any(dim=1).sum()),
                items=f"{len(right):,} patches",
            )
        )
    return measurements


def linear_segmentation(
    probe: LinearProbe,
    patches: Float[Tensor, "images patches dim"],
    labels: Int16[Tensor, "images size size"],
    grid: tuple[int, int],
    *,
    taught: str,
    boundary_width: int,
) -> list[Measurement]:
    """mIoU of a linear layer on patch features over categories and background, and boundary IoU."""
    size, classes = labels.shape[-1], len(probe.bias)
    parts = []
    for some in patches.split(100):
        logits = probe(some.float()).transpose(1, 2).unflatten(2, grid)
        parts += [pixels.argmax(dim=1).to(torch.int16) for _, pixels in upsampled(logits, size)]
    predicted = torch.cat(parts)
    rule = (
        f"a linear layer on standardized last-layer patch features {taught}, weight decay {probe.decay:g}, logits "
        "upsampled bilinearly"
    )
    return [
        Measurement(
            name="segmentation/linear/miou",
            value=100 * mean_iou(confusion(labels, predicted, classes)),
            protocol=f"Mean intersection over union of {classes - 1} categories and background, pooled over all pixels "
            f"of {len(labels)} images at {size}x{size}, of {rule}.",
            images=len(labels),
        ),
        _boundary_measurement(predicted, labels, classes, boundary_width, room="linear", how=rule),
    ]
