"""Targets of gradient ascent: words, the embedding of an image, its style, the features of a layer, a class.

Each target has a weight; what is climbed is the sum of weight times score, less what grain costs. Scores of words and
embeddings are cosines.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.layers import Views, layer_of
from rizbin.models.encoder import fitted
from rizbin.models.protocol import Embedder

TargetImage = Float[Tensor, "3 _ _"]
"""0 to 1, any size."""


@dataclass(frozen=True, kw_only=True)
class TextTarget:
    """Words that the image shall be near to, or with a negative weight far from."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTarget:
    """An image whose embedding the result should have: it shows what the encoder keeps of that image."""

    image: TargetImage
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ContentTarget:
    """An image whose features the result should have at a layer, place by place; the score is the mean cosine."""

    image: TargetImage
    layer: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleTarget:
    """An image whose style the result should have: the products of channels at a layer, wherever they are (Gatys, arXiv
    1508.06576); the score is the cosine of the two tables of products."""

    image: TargetImage
    layer: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A channel of a layer that shall be strong, or a class: its logit where the layer is the head."""

    layer: str
    channel: int
    weight: float = 1.0


Target = TextTarget | ImageTarget | ContentTarget | StyleTarget | Feature
Wish = Sequence[Target]
"""All targets of one image."""
Placed = Callable[[Float[Tensor, "images 3 height width"]], Views]
"""Cuts images of the canvas as the views are cut."""


def check(wishes: Sequence[Wish]) -> None:
    """Raises RizbinError for targets that cannot be followed."""
    if not wishes:
        raise RizbinError('Say what to draw: rizbin ascend "a zebra and a frog".')
    for wish in wishes:
        if not wish:
            raise RizbinError("An image without a target has nowhere to go; give it words or an image.")
        for target in wish:
            if isinstance(target, TextTarget) and not target.text.strip():
                raise RizbinError('An empty prompt says nothing; write what to draw: rizbin ascend "a zebra".')
            if not math.isfinite(target.weight) or target.weight == 0:
                raise RizbinError(f"A weight of {target.weight:g} moves nothing; give a number that is not 0.")
        total = sum(target.weight for target in wish)
        if total <= 1e-6:
            raise RizbinError(
                f"The weights sum to {total:.3g}: with so much to stay away from, nothing is left to draw. Lower the "
                "negative ones."
            )


class Bound:
    """The targets of some images as one encoder sees them."""

    def __init__(self, encoder: Embedder, wishes: Sequence[Wish], canvas: Sequence[int]) -> None:
        """Encodes words and images once. Raises RizbinError for what the encoder cannot do.

        canvas: height and width.
        """
        self.encoder = encoder
        direction: list[Tensor | None] = []
        first: list[Tensor | None] = []
        for wish in wishes:
            vectors = [(target.weight, _embedding(encoder, target)) for target in wish]
            embedded = [(weight, vector) for weight, vector in vectors if vector is not None]
            # A sum of weighted cosines with unit vectors is the product with the weighted sum of these.
            direction.append(
                sum((weight * vector for weight, vector in embedded), torch.zeros(())) if embedded else None
            )
            first.append(embedded[0][1] if embedded else None)
        blank = next((torch.zeros_like(vector) for vector in first if vector is not None), None)
        self.direction = (
            None if blank is None else torch.stack([blank if vector is None else vector for vector in direction])
        )
        """[images, dim]; None where nothing asks for an embedding."""
        self.main = None if blank is None else torch.stack([blank if vector is None else vector for vector in first])
        """The first target of each alone, as what is reported."""
        self.layered = [
            (number, target, _on_canvas(target, canvas))
            for number, wish in enumerate(wishes)
            for target in wish
            if isinstance(target, ContentTarget | StyleTarget | Feature)
        ]

    def scores(
        self, views: Views, images: slice, placed: Placed
    ) -> tuple[Float[Tensor, " views"], Float[Tensor, " views"]]:
        """The weighted sum that is maximized, and the score of the first target alone, of each view.

        views: one copy after the other of the images in the slice. placed: cuts images as the views are cut.
        """
        count = images.stop - images.start
        copies = len(views) // count
        total = main = views.new_zeros(len(views))
        if self.direction is not None and self.main is not None:
            embedding = self.encoder.encode_image(views)
            total = (embedding * self.direction[images].to(embedding).repeat(copies, 1)).sum(-1)
            main = (embedding * self.main[images].to(embedding).repeat(copies, 1)).sum(-1)
        for number, target, reference in self.layered:
            if not images.start <= number < images.stop:
                continue
            mine = torch.arange(copies, device=views.device) * count + number - images.start
            score = self._layered(views[mine], target, reference, placed)
            total = total.index_add(0, mine, target.weight * score)
            if self.main is None or not self.main[number].any():
                main = main.index_add(0, mine, score)
        return total, main

    def _layered(
        self, views: Views, target: Target, reference: Tensor | None, placed: Placed
    ) -> Float[Tensor, " views"]:
        """The score of a target on the features of a layer."""
        assert isinstance(target, ContentTarget | StyleTarget | Feature)
        features = places_of(layer_of(self.encoder, views, target.layer))
        if isinstance(target, Feature):
            if not 0 <= target.channel < features.shape[-1]:
                raise RizbinError(
                    f"The layer {target.layer} of {self.encoder.name} has {features.shape[-1]} channels; there is no "
                    f"channel {target.channel}."
                )
            return features[..., target.channel].mean(dim=1)
        assert reference is not None
        with torch.no_grad():
            shown = reference.to(views)
            shown = placed(shown) if isinstance(target, ContentTarget) else shown
            reference_features = places_of(layer_of(self.encoder, shown, target.layer))
        if isinstance(target, ContentTarget):
            return F.cosine_similarity(features, reference_features, dim=-1).mean(dim=1)
        return F.cosine_similarity(gram(features).flatten(1), gram(reference_features).flatten(1), dim=-1)


def places_of(features: Tensor) -> Float[Tensor, "views places channels"]:
    """Features of a layer as places with channels: of tokens, of a map, or of one vector."""
    if features.ndim == 4:
        return features.flatten(2).transpose(1, 2)
    return features if features.ndim == 3 else features.flatten(1)[:, None]


def gram(features: Float[Tensor, "views places channels"]) -> Float[Tensor, "views channels channels"]:
    """The mean over places of each channel times each other, of channels less their mean.

    Differs: Gatys keeps the mean. In transformers a few channels are large everywhere; with them every style is alike.
    """
    centered = features - features.mean(dim=1, keepdim=True)
    return centered.transpose(1, 2) @ centered / features.shape[1]


@torch.no_grad()
def _embedding(encoder: Embedder, target: Target) -> Tensor | None:
    """The unit vector of words or of an image; None for what has none."""
    if isinstance(target, TextTarget):
        if not getattr(encoder, "reads_text", True):
            raise RizbinError(
                f"{encoder.name} reads no words; give it images to follow (--image, --style), or a model with text "
                "such as detailclip-mini."
            )
        return F.normalize(encoder.encode_text([target.text]), dim=-1)[0]  # a stranger's may be of another length
    return encoder.encode_image(target.image[None])[0] if isinstance(target, ImageTarget) else None


def _on_canvas(target: Target, canvas: Sequence[int]) -> Tensor | None:
    """The reference of a target at the size of the canvas, where places count."""
    if isinstance(target, ContentTarget):
        return F.interpolate(target.image[None], size=tuple(canvas), mode="bilinear", antialias=True)
    return fitted(target.image[None], min(canvas)) if isinstance(target, StyleTarget) else None
