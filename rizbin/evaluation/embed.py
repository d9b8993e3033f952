"""One pass over a source that gives everything the measurements need: read once, embedded once, used by all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.nets.dense import DenseHead


@dataclass(frozen=True)
class PreparedImage:
    """One picture as the network will get it, with what is known about it in the same frame."""

    pixels: UInt8[np.ndarray, "size size 3"]
    caption: str
    names: frozenset[str]
    things: tuple[tuple[str, Bool[np.ndarray, "size size"]], ...]
    """(category, visible pixels), back to front, only what is left after the central crop."""


@dataclass(frozen=True)
class Objects:
    """All objects of some pictures, in one row."""

    picture: Int[Tensor, "objects"]
    """Position among the pictures."""
    category: Int[Tensor, "objects"]
    area: Float[Tensor, "objects"]
    """Visible share of the picture, 0 to 1."""
    cover: Float[Tensor, "objects rows columns"]
    """Share of each patch that the object covers, 0 to 1."""

    def among(self, pictures: Int[Tensor, "some"]) -> "Objects":
        """Those of some pictures alone; positions stay."""
        kept = torch.isin(self.picture, pictures)
        return Objects(
            picture=self.picture[kept], category=self.category[kept], area=self.area[kept], cover=self.cover[kept]
        )


@dataclass(frozen=True)
class LabeledImages:
    """Pictures with the truth about them as tensors. Pixel frames are those of the square that the network gets."""

    pixels: UInt8[Tensor, "pictures size size 3"]
    captions: list[str]
    right: Bool[Tensor, "pictures categories"]
    """Which categories are in the picture."""
    masked: Int[Tensor, "masked"]
    """The pictures whose objects are known exactly, ascending."""
    labels: Int16[Tensor, "masked size size"]
    """For each of those and each pixel: 0 background, else 1 + category."""
    objects: Objects
    unmasked: str = ""
    """Why no masks are used although the source may know them; empty: nothing forbids it."""

    @classmethod
    def of(
        cls, seen: Sequence[PreparedImage], categories: tuple[str, ...], size: int, grid: tuple[int, int]
    ) -> "LabeledImages":
        """Gathers samples. Names outside `categories` are no answers, and their objects are background."""
        number = {name: position for position, name in enumerate(categories)}
        right = torch.zeros(len(seen), len(categories), dtype=torch.bool)
        masked = [position for position, one in enumerate(seen) if one.things]
        labels = np.zeros((len(masked), size, size), np.int16)
        rows: list[tuple[int, int, float, Tensor]] = []
        for position, one in enumerate(seen):
            right[position, [number[name] for name in one.names if name in number]] = True
        for place, position in enumerate(masked):
            for name, mask in seen[position].things:
                if name not in number:
                    continue
                labels[place][mask] = 1 + number[name]
                cover = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), grid)[0]
                rows.append((position, number[name], float(mask.mean()), cover))
        objects = Objects(
            picture=torch.tensor([row[0] for row in rows], dtype=torch.long),
            category=torch.tensor([row[1] for row in rows], dtype=torch.long),
            area=torch.tensor([row[2] for row in rows]),
            cover=torch.stack([row[3] for row in rows]) if rows else torch.zeros(0, *grid),
        )
        return cls(
            pixels=torch.from_numpy(np.stack([one.pixels for one in seen]))
            if seen
            else torch.zeros(0, size, size, 3).byte(),
            captions=[one.caption for one in seen],
            right=right,
            masked=torch.tensor(masked, dtype=torch.long),
            labels=torch.from_numpy(labels),
            objects=objects,
        )

    def first(self, count: int) -> "LabeledImages":
        """The first so many."""
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
    """What a network makes of pictures. On the CPU."""

    images: Float[Tensor, "pictures embedding"]
    """Unit length, in the text space; of no size where the network reads no text."""
    pooled: Float[Tensor, "pictures dim"]
    """Before the projection."""
    attention: Float[Tensor, "attended rows columns"]
    """CLS to patch, mean over layers and heads; of pictures with known objects; none where the network attends to
    nothing."""
    heads: Float[Tensor, "looked heads rows columns"]
    """CLS to patch of each head of the last layer, of the same pictures; none where the network has no such heads."""
    patches: Float[Tensor, "masked picked dim"]
    """Patch features before the projection, in half precision to save memory; of pictures with known objects."""
    scores: dict[str, Float[Tensor, "_ categories _ _"]]
    """By kind of dense head: cosine of each patch (of the finer grid for "windows") with each category; of the first
    images with known objects."""
    unscored: str = ""
    """Why no patch was compared with words, where the network reads text; empty: they were."""


def without_masks(pictures: LabeledImages, reason: str) -> LabeledImages:
    """The same images as if nothing were known of the objects' masks, with the reason."""
    nothing = pictures.masked[:0]
    return replace(
        pictures, masked=nothing, labels=pictures.labels[:0], objects=pictures.objects.among(nothing), unmasked=reason
    )


def read(
    source: Source, count: int, size: int, *, seed: int, advance: Advance
) -> tuple[list[PreparedImage], list[tuple[str, str]]]:
    """Up to `count` samples as central squares of `size` pixels, and the refused ones with their reasons.

    An endless source gives its first samples, a finite one a random choice that `seed` decides.
    """
    # Refused samples of an endless source are replaced, but a source that gives nothing else must end.
    positions = count + 100 if source.endless else len(source)
    seen: list[PreparedImage] = []
    refused: list[tuple[str, str]] = []
    for position in range(positions):
        if len(seen) == count:
            break
        index = position if source.endless else index_at(seed, position, len(source))
        try:
            sample = source[index]
        except Refused as reason:
            refused.append((str(index), str(reason)))
            continue
        things = tuple((thing.name, _squared(thing.mask, size)) for thing in sample.things)
        seen.append(
            PreparedImage(
                pixels=whole(sample.image, size),
                caption=sample.caption.strip(),
                names=sample.names,
                things=tuple((name, mask) for name, mask in things if mask.any()),
            )
        )
        advance(1)
    return seen, refused


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
    pictures: LabeledImages,
    words: Float[Tensor, "categories embedding"] | None,
    *,
    batch: int,
    dense: int,
    windows: int = 0,
    heads_too: bool = False,
    picked: Int[Tensor, "masked picked"] | None = None,
    advance: Advance,
) -> Embedded:
    """Embeds all pictures.

    Of those with known objects, the first `dense` get patch-text scores where there are words, the first `windows` of
    them also those of the dense head; `heads_too` asks for the attention of each head, and `picked` says which patches
    to keep (None: all). Raises RizbinError when an embedding is not finite.
    """
    images, pooled, attention, heads, patches = [], [], [], [], []
    network = extractor(encoder)
    device = network.device
    scores: dict[DenseHead, list[Tensor]] = {"plain": [], "windows": []}
    counts = {"plain": dense, "windows": min(dense, windows)}
    rows, columns = network.grid
    scored = words is not None and network.localizes
    done = 0
    for start in range(0, len(pictures), batch):
        pixels = network.normalized(pictures.pixels[start : start + batch].to(device))
        features = network.features(pixels)
        pooled.append(features.pooled.float().cpu())
        embedding = features.embedding if words is not None else None
        images.append(torch.zeros(len(pixels), 0) if embedding is None else embedding.float().cpu())
        inside = pictures.masked[(pictures.masked >= start) & (pictures.masked < start + batch)].to(device) - start
        if len(inside):
            if features.attention is not None:
                attention.append(features.attention[inside].float().cpu().unflatten(1, (rows, columns)))
                if heads_too and network.attends:
                    heads.append(network.attention_rows(pixels[inside]).float().cpu())
            assert features.patches is not None  # `without_masks` leaves nothing inside where there are none
            kept = features.patches[inside]
            if picked is not None:
                chosen = picked[done : done + len(inside)].to(device)
                kept = kept.gather(1, chosen.unsqueeze(-1).expand(-1, -1, kept.shape[-1]))
            patches.append(kept.half().cpu())
            if scored and words is not None:
                for how, found in scores.items():
                    if done >= counts[how]:
                        continue
                    places = network.dense(pixels[inside[: counts[how] - done]], how).float()
                    found.append((places @ words.to(device).T).permute(0, 3, 1, 2).cpu())
            done += len(inside)
        advance(len(pixels))
    picks = rows * columns if picked is None else picked.shape[1]
    features_at = pooled[0].shape[1] if pooled else 0
    named = 0 if words is None else len(words)
    return Embedded(
        images=_finite(torch.cat(images)),
        pooled=_finite(torch.cat(pooled)),
        attention=torch.cat(attention) if attention else torch.zeros(0, rows, columns),
        heads=torch.cat(heads) if heads else torch.zeros(0, 1, rows, columns),
        patches=torch.cat(patches) if patches else torch.zeros(0, picks, features_at).half(),
        scores={
            how: _finite(torch.cat(found)) if found else torch.zeros(0, named, rows, columns)
            for how, found in scores.items()
        },
        unscored="" if words is None or scored else "The network has no patches that can be compared with words.",
    )


def pick_patches(masked: int, patches: int, count: int, *, seed: int) -> Int[Tensor, "masked picked"]:
    """`count` different patches of each picture, at random."""
    generator = random.torch_generator(seed, "patches of a picture")
    return torch.rand(masked, patches, generator=generator).argsort(dim=1)[:, : min(count, patches)]


def _finite(values: Tensor) -> Tensor:
    """The values; nan compares false with all and would make ranks look perfect."""
    if not torch.isfinite(values).all():
        raise RizbinError(
            "The network gives embeddings that are not finite numbers, so nothing can be measured; "
            "go back to an earlier checkpoint of its run."
        )
    return values
