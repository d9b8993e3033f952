"""What a technique of DetailCLIP does inside a step: what is hidden, what the target says, where the gradient goes.

A technique whose treatment did not arrive answers nothing: if no object pixel was hidden, nothing was learned of
objects.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.data.views import normalize
from rizbin.evaluation.embed import LabeledImages
from rizbin.losses.distill import teacher_distribution
from rizbin.methods.detailclip import DetailCLIP
from rizbin.reports.architecture import trace

MOST = 128
"""Images of one batch: shares of gradient then move by less than a percent from batch to batch."""


def mechanism(method: DetailCLIP, images: LabeledImages) -> dict[str, float]:
    """Numbers of one step on test images whose masks are known.

    hidden/object_pixels, hidden/chance: percent of object pixels on patches that must be predicted, and of all patches.
    gradient/TERM: how much of the term's squared gradient with respect to the pixels lies on objects, divided by the
    objects' share of the pixels; 1 is no preference. target/objects, target/ground: what the teacher's patch target
    says of hidden patches, in nats: entropy of the mean target less the mean entropy of a target; 0: the same for all.
    """
    masked = images.masked[:MOST]
    pixels = normalize(images.pixels[masked])
    objects = images.labels[: len(masked)] > 0
    numbers: dict[str, float] = {}
    look = method.look(pixels)
    assert look is not None  # DetailCLIP always has something to show
    on_patch = F.adaptive_avg_pool2d(objects.float(), (look.removed.shape[1], look.removed.shape[2]))
    if look.removed.any():
        numbers["hidden/object_pixels"] = 100 * (on_patch[look.removed].sum() / on_patch.sum()).item()
        numbers["hidden/chance"] = 100 * look.removed.double().mean().item()
    numbers |= _gradients(method, pixels, [images.captions[int(place)] for place in masked], objects)
    if method.teacher is not None and method.head is not None and look.removed.any():
        numbers |= _targets(method, pixels, look.removed, on_patch)
    return numbers


def _gradients(method: DetailCLIP, images: Tensor, captions: list[str], objects: Tensor) -> dict[str, float]:
    """Where each term's gradient falls."""
    numbers = {}
    for name, gradient in trace(method, images, captions).gradients.items():
        energy = gradient.double().square()
        share = (energy * objects).sum() / energy.sum().clamp(min=1e-30)
        numbers[f"gradient/{name}"] = (share / objects.double().mean()).item()
    return numbers


@torch.no_grad()
def _targets(
    method: DetailCLIP, images: Tensor, removed: Tensor, on_patch: Float[Tensor, "batch rows columns"]
) -> dict[str, float]:
    """What the teacher's patch target tells apart."""
    assert method.teacher is not None
    tower = dict(method.teacher.items()).get("vision", method.pair.vision)
    scores = method.teacher["head"](tower(images).patches.flatten(0, 1))
    targets = teacher_distribution(scores, method.patch_center.value, method.settings.patch_temperature)
    numbers = {}
    for name, chosen in (("objects", on_patch > 0.5), ("ground", on_patch == 0)):
        these = targets[(chosen & removed).flatten()]
        if len(these) > 1:
            of_mean = torch.special.entr(these.mean(dim=0)).sum()
            numbers[f"target/{name}"] = (of_mean - torch.special.entr(these).sum(dim=1).mean()).item()
    return numbers
