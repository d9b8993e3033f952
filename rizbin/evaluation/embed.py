"""One pass over a source that gives everything the measurements need: read once, embedded once, used by all."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int16, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import random
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Advance
from rizbin.data.order import index_at
from rizbin.data.sample import Refused, Source
from rizbin.data.views import whole
from rizbin.models.protocol import FeatureExtractor, ImageFeatures
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.nets.dense import DenseHead


@dataclass(frozen=True)
class PreparedImage:
    """One image as the network will get it, with what is known about it in the same frame."""

    pixels: UInt8[np.ndarray, "size size 3"]
    caption: str
    names: frozenset[str]
    objects: tuple[tuple[str, Bool[np.ndarray, "size size"]], ...]
    """(category, visible pixels), back to front, only what is left after the central crop."""


@dataclass(frozen=True)
class Objects:
    """All objects of some images, in one row."""

    image: Int[Tensor, "objects"]
    """Position among the images."""
    category: Int[Tensor, "objects"]
    area: Float[Tensor, "objects"]
    """Visible share of the image, 0 to 1."""
    cover: Float[Tensor, "objects rows columns"]
    """Share of each patch that the object covers, 0 to 1."""

    def among(self, images: Int[Tensor, "some"]) -> "Objects":
        """The objects of some images; their positions stay the same."""
        selected = torch.isin(self.image, images)
        return Objects(
            image=self.image[selected],
            category=self.category[selected],
            area=self.area[selected],
            cover=self.cover[selected],
        )


@dataclass(frozen=True)
class LabeledImages:
    """Images with their ground truth as tensors. Pixel frames are those of the square that the network gets."""

    pixels: UInt8[Tensor, "images size size 3"]
    captions: list[str]
    right: Bool[Tensor, "images categories"]
    """Which categories are in the image."""
    masked: Int[Tensor, "masked"]
    """The images whose objects are known exactly, ascending."""
    labels: Int16[Tensor, "masked size size"]
    """For each of those and each pixel: 0 background, else 1 + category."""
    objects: Objects
    unmasked: str = ""
    """Why no masks are used although the source may know them; empty: nothing forbids it."""

    @classmethod
    def of(
        cls, prepared: Sequence[PreparedImage], categories: tuple[str, ...], size: int, grid: tuple[int, int]
    ) -> "LabeledImages":
        """Gathers samples. Names outside `categories` are no answers, and their objects are background."""
        number = {name: position for position, name in enumerate(categories)}
        right = torch.zeros(len(prepared), len(categories), dtype=torch.bool)
        masked = [position for position, image in enumerate(prepared) if image.objects]
        labels = np.zeros((len(masked), size, size), np.int16)
        rows: list[tuple[int, int, float, Tensor]] = []
        for position, image in enumerate(prepared):
            right[position, [number[name] for name in image.names if name in number]] = True
        for place, position in enumerate(masked):
            for name, mask in prepared[position].objects:
                if name not in number:
                    continue
                labels[place][mask] = 1 + number[name]
                cover = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), grid)[0]
                rows.append((position, number[name], float(mask.mean()), cover))
        objects = Objects(
            image=torch.tensor([row[0] for row in rows], dtype=torch.long),
            category=torch.tensor([row[1] for row in rows], dtype=torch.long),
            area=torch.tensor([row[2] for row in rows]),
            cover=torch.stack([row[3] for row in rows]) if rows else torch.zeros(0, *grid),
        )
        return cls(
            pixels=torch.from_numpy(np.stack([image.pixels for image in prepared]))
            if prepared
            else torch.zeros(0, size, size, 3).byte(),
            captions=[image.caption for image in prepared],
            right=right,
            masked=torch.tensor(masked, dtype=torch.long),
            labels=torch.from_numpy(labels),
            objects=objects,
        )

    def first(self, count: int) -> "LabeledImages":
        """The first `count` images."""
        masked = self.masked[self.masked < count]
        return LabeledImages(
            pixels=self.pixels[:count],
            captions=self.captions[:count],
            right=self.right[:count],
            masked=masked,
            labels=self.labels[: len(masked)],
            objects=self.objects.among(masked),
            unmasked=self.unmasked,
        )

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Embedded:
    """Embeddings, attention, patch features and patch-text scores of images, on the CPU."""

    images: Float[Tensor, "images embedding"]
    """Unit length, in the text space; of no size where the network reads no text."""
    pooled: Float[Tensor, "images dim"]
    """Before the projection."""
    attention: Float[Tensor, "attended rows columns"]
    """CLS to patch, mean over layers and heads; of images with known objects; none where the network attends to
    nothing."""
    heads: Float[Tensor, "looked heads rows columns"]
    """CLS to patch of each head of the last layer, of the same images; none where the network has no such heads."""
    patches: Float[Tensor, "masked picked dim"]
    """Patch features before the projection, in half precision to save memory; of images with known objects."""
    scores: dict[str, Float[Tensor, "_ categories _ _"]]
    """For each kind of dense head: cosine of each patch (of the finer grid for "windows") with each category; of the
    first images with known objects."""
    unscored: str = ""
    """Why no patch was compared with words, where the network reads text; empty: they were."""


def without_masks(images: LabeledImages, reason: str) -> LabeledImages:
    """The same images as if nothing were known of the objects' masks, with the reason."""
    nothing = images.masked[:0]
    return replace(
        images, masked=nothing, labels=images.labels[:0], objects=images.objects.among(nothing), unmasked=reason
    )


def read(
    source: Source, count: int, size: int, *, seed: int, advance: Advance
) -> tuple[list[PreparedImage], list[tuple[str, str]]]:
    """Up to `count` samples as central squares of `size` pixels, and the refused ones with their reasons.

    An endless source gives its first samples, a finite one a random choice that `seed` decides.
    """
    # Refused samples of an endless source are replaced, but a source that gives nothing else must end.
    positions = count + 100 if source.endless else len(source)
    prepared: list[PreparedImage] = []
    refused: list[tuple[str, str]] = []
    for position in range(positions):
        if len(prepared) == count:
            break
        index = position if source.endless else index_at(seed, position, len(source))
        try:
            sample = source[index]
        except Refused as reason:
            refused.append((str(index), str(reason)))
            continue
        masks = tuple((known.name, _squared(known.mask, size)) for known in sample.objects)
        prepared.append(
            PreparedImage(
                pixels=whole(sample.image, size),
                caption=sample.caption.strip(),
                names=sample.names,
                objects=tuple((name, mask) for name, mask in masks if mask.any()),
            )
        )
        advance(1)
    return prepared, refused


def _squared(mask: Bool[np.ndarray, "height width"], size: int) -> Bool[np.ndarray, "size size"]:
    """The mask in the frame of `whole`, by `whole` itself, so that the two cannot part."""
    return whole(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2), size)[..., 0] >= 128


def embed_texts(encoder: AnyEncoder, texts: Sequence[str], *, batch: int) -> Float[Tensor, "texts embedding"]:
    """Unit embeddings of texts, on the CPU; equal texts are encoded once."""
    unique = list(dict.fromkeys(texts))
    if not unique:
        return torch.zeros(0, 0)
    parts = [
        extractor(encoder).encode_text(unique[start : start + batch]).float().cpu()
        for start in range(0, len(unique), batch)
    ]
    place = {text: position for position, text in enumerate(unique)}
    return _finite(torch.cat(parts))[[place[text] for text in texts]]


def embed(
    encoder: AnyEncoder,
    labeled: LabeledImages,
    words: Float[Tensor, "categories embedding"] | None,
    *,
    batch: int,
    dense: int,
    windows: int = 0,
    heads_too: bool = False,
    picked: Int[Tensor, "masked picked"] | None = None,
    advance: Advance,
) -> Embedded:
    """Embeds all images.

    Of those with known objects, the first `dense` get patch-text scores where there are words, the first `windows` of
    them also those of the dense head; `heads_too` asks for the attention of each head, and `picked` says which patches
    to keep (None: all). Raises RizbinError when an embedding is not finite.
    """
    images, pooled = [], []
    network = extractor(encoder)
    counts: dict[DenseHead, int] = {"plain": dense, "windows": min(dense, windows)}
    scored = words is not None and network.localizes
    masked = _MaskedParts(network, words if scored else None, counts, heads_too=heads_too, picked=picked)
    for start in range(0, len(labeled), batch):
        pixels = network.normalized(labeled.pixels[start : start + batch].to(network.device))
        features = network.features(pixels)
        pooled.append(features.pooled.float().cpu())
        embedding = features.embedding if words is not None else None
        images.append(torch.zeros(len(pixels), 0) if embedding is None else embedding.float().cpu())
        in_batch = labeled.masked[(labeled.masked >= start) & (labeled.masked < start + batch)]
        inside = in_batch.to(network.device) - start
        if len(inside):
            masked.add(pixels, features, inside)
        advance(len(pixels))
    rows, columns = network.grid
    picks = rows * columns if picked is None else picked.shape[1]
    features_at = pooled[0].shape[1] if pooled else 0
    named = 0 if words is None else len(words)
    return Embedded(
        images=_finite(torch.cat(images)),
        pooled=_finite(torch.cat(pooled)),
        attention=torch.cat(masked.attention) if masked.attention else torch.zeros(0, rows, columns),
        heads=torch.cat(masked.heads) if masked.heads else torch.zeros(0, 1, rows, columns),
        patches=torch.cat(masked.patches) if masked.patches else torch.zeros(0, picks, features_at).half(),
        scores={
            how: _finite(torch.cat(parts)) if parts else torch.zeros(0, named, rows, columns)
            for how, parts in masked.scores.items()
        },
        unscored="" if words is None or scored else "The network has no patches that can be compared with words.",
    )


@dataclass
class _MaskedParts:
    """What is kept of the images whose objects' masks are known, batch after batch; the fields are those of `embed`."""

    network: FeatureExtractor
    words: Float[Tensor, "categories embedding"] | None
    """None: no patch-text scores."""
    counts: dict[DenseHead, int]
    """How many images get the scores of each dense head."""
    heads_too: bool
    picked: Int[Tensor, "masked picked"] | None
    attention: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    patches: list[Tensor] = field(default_factory=list)
    scores: dict[DenseHead, list[Tensor]] = field(default_factory=lambda: {"plain": [], "windows": []})
    done: int = 0
    """Images so far."""

    def add(self, pixels: Tensor, features: ImageFeatures, inside: Int[Tensor, "inside"]) -> None:
        """Adds the images of a batch at the rows `inside`."""
        network, device = self.network, self.network.device
        if features.attention is not None:
            self.attention.append(features.attention[inside].float().cpu().unflatten(1, network.grid))
            if self.heads_too and network.attends:
                self.heads.append(network.attention_rows(pixels[inside]).float().cpu())
        assert features.patches is not None  # `without_masks` leaves nothing inside where there are none
        patches = features.patches[inside]
        if self.picked is not None:
            chosen = self.picked[self.done : self.done + len(inside)].to(device)
            patches = patches.gather(1, chosen.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        self.patches.append(patches.half().cpu())
        if self.words is not None:
            for how, parts in self.scores.items():
                if self.done >= self.counts[how]:
                    continue
                places = network.dense(pixels[inside[: self.counts[how] - self.done]], how).float()
                parts.append((places @ self.words.to(device).T).permute(0, 3, 1, 2).cpu())
        self.done += len(inside)


def pick_patches(masked: int, patches: int, count: int, *, seed: int) -> Int[Tensor, "masked picked"]:
    """`count` different patches of each image, at random."""
    generator = random.torch_generator(seed, "patches of an image")
    return torch.rand(masked, patches, generator=generator).argsort(dim=1)[:, : min(count, patches)]


def _finite(values: Tensor) -> Tensor:
    """The values; nan compares false with all and would make ranks look perfect."""
    if not torch.isfinite(values).all():
        raise RizbinError(
            "The network gives embeddings that are not finite numbers, so nothing can be measured; "
            "go back to an earlier checkpoint of its run."
        )
    return values
