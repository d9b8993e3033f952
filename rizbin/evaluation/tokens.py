"""Token selection: the share of object pixels on the patches that attention keeps, and on those that it hides."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
from rizbin.nets.selection import select

Attention = Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch rows columns"]]
"""Normalized images in, one attention value a patch out."""


def kept_patches(
    attention: Float[Tensor, "images rows columns"], *, keep_ratio: float, block: int
) -> Bool[Tensor, "images rows columns"]:
    """Which patches stay: the most attended `block` x `block` squares (the rule that methods train with)."""
    images, rows, columns = attention.shape
    keep, _ = select(attention.flatten(1), (rows, columns), keep_ratio=keep_ratio, block=block)
    mask = torch.zeros(images, rows * columns, dtype=torch.bool).scatter_(1, keep, True)
    return mask.unflatten(1, (rows, columns))


def object_pixels_on(mask: Bool[Tensor, "images rows columns"], labels: Int16[Tensor, "images size size"]) -> float:
    """The share, 0 to 1, of all object pixels of all images that lie on these patches; nan without objects."""
    on_patch = F.adaptive_avg_pool2d((labels > 0).double(), (mask.shape[1], mask.shape[2]))
    return (on_patch[mask].sum() / on_patch.sum()).item()


def measure(
    attention: Float[Tensor, "images rows columns"],
    labels: Int16[Tensor, "images size size"],
    *,
    keep_ratio: float,
    block: int,
    whose: str,
) -> Measurement:
    """Object pixels kept; beside it what a random choice of as many patches keeps on average, which is their share."""
    mask = kept_patches(attention, keep_ratio=keep_ratio, block=block)
    squares = f"{block}x{block} blocks of patches" if block > 1 else "single patches"
    return Measurement(
        name="tokens/object_pixels_kept",
        value=100 * object_pixels_on(mask, labels),
        chance=100 * mask.double().mean().item(),
        protocol=f"Share of all object pixels of {len(labels)} images on the {int(mask[0].sum())} of "
        f"{mask[0].numel()} patches kept by {whose} (keep ratio {keep_ratio:g}, {squares}); chance keeps as many at "
        "random.",
        images=len(labels),
    )


def measure_hidden(
    removed: Bool[Tensor, "images rows columns"], labels: Int16[Tensor, "images size size"]
) -> Measurement:
    """Object pixels on the patches that the method itself hides; beside it what as many at random would hide.

    Whether much or little is wanted depends on the method: what reconstructs objects must hide them, what only saves
    computation must not.
    """
    return Measurement(
        name="tokens/object_pixels_hidden",
        value=100 * object_pixels_on(removed, labels),
        chance=100 * removed.double().mean().item(),
        higher_is_better=None,
        protocol=f"Share of all object pixels of {len(labels)} images on the patches that the method's own selection "
        "hides from its student; chance hides as many patches at random. The rest of the object pixels is what the "
        "student sees.",
        images=len(labels),
    )
