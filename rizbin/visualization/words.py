"""Which word each patch answers to: an image colored by the words of its caption, and heat for each word."""

import re
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch.nn import functional as F

from rizbin.data.views import normalize
from rizbin.models.protocol import FeatureExtractor
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.nets.dense import DenseHead, guided_upsample
from rizbin.visualization.attention import overlay
from rizbin.visualization.colors import AnySizeImage, Color, SizedImage, blend, distinct, scaled, stretched
from rizbin.visualization.grid import sheet

TEMPLATES = ("{}", "a {}", "a picture of a {}")
"""Each word is embedded in these and the mean is taken: a bare word alone is unlike any caption."""
WordEmbedder = Callable[[FeatureExtractor, Sequence[str]], Float[np.ndarray, "words embedding"]]
"""Words in, unit-length embeddings out; `embedded` is one."""
MOST = 6
"""Words shown of a caption without known categories; more colors than that are hard to tell apart in an image."""
NOTHING = -1
"""The number of a pixel that answers to no word."""

# Words of captions that name no object one could point at.
_SILENT = """
    a an the and or of on in at by to with without from for is are was be it its this that these those there some one
    two three four five six no not very left right above below behind under over front near next between top bottom
    small large big tiny huge picture photo image drawing icon view shown showing scene background
"""


def words_of(caption: str, names: Sequence[str] = ()) -> list[str]:
    """The words of a caption to look for, in its order, each once.

    With `names` (known categories) those that the caption holds as whole words, plurals with s, es and ies included,
    longer names first ("hot dog" before "dog"). Without, its first words that may name an object.
    """
    text = " ".join(re.findall(r"[^\W_]+", caption.lower()))
    if names:
        matches: list[tuple[int, str]] = []
        for name in sorted(names, key=lambda text: (-len(text), text)):
            spelled = " ".join(re.findall(r"[^\W_]+", name.lower()))
            ending = (
                f"{re.escape(spelled[:-1])}(?:y|ies|ys)" if spelled[-1:] == "y" else f"{re.escape(spelled)}(?:s|es)?"
            )
            for match in re.finditer(rf"\b{ending}\b", text) if spelled else ():
                matches.append((match.start(), name))
                text = text[: match.start()] + "\0" * len(match.group()) + text[match.end() :]
        return list(dict.fromkeys(name for _, name in sorted(matches)))
    silent = frozenset(_SILENT.split())
    return list(dict.fromkeys(word for word in text.split() if word not in silent and len(word) > 2))[:MOST]


@torch.no_grad()
def embedded(encoder: AnyEncoder, words: Sequence[str]) -> Float[np.ndarray, "words embedding"]:
    """Unit-length embeddings of the words, each the mean over `TEMPLATES`."""
    prompts = [template.format(word) for word in words for template in TEMPLATES]
    rows = torch.cat([extractor(encoder).encode_text(part) for part in _parts(prompts)])
    means = rows.float().unflatten(0, (len(words), len(TEMPLATES))).mean(dim=1)
    return F.normalize(means, dim=-1).cpu().numpy()


def _parts(prompts: list[str], size: int = 256) -> list[list[str]]:
    """Prompts in batches that fit into any memory."""
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


@torch.no_grad()
def similarities(
    encoder: AnyEncoder,
    image: SizedImage,
    words: Sequence[str],
    *,
    against: Float[np.ndarray, "others embedding"] | None = None,
    embedder: WordEmbedder = embedded,
    dense_head: DenseHead = "plain",
) -> Float[np.ndarray, "words rows columns"]:
    """The cosine of each patch with each word, or of each pixel.

    Args:
        encoder: An image-text encoder whose patches meet the texts.
        image: RGB, of a size that divides into patches.
        words: One or more.
        against: Embeddings of a whole vocabulary (`embedded`), whose mean similarity is taken off each patch: patches
            that are close to all words alike (plain background) then score low.
        embedder: Makes the words' embeddings.
        dense_head: "windows" looks through windows of the enlarged image too, at several times the cost, and takes the
            cosines to the image's pixels along its colors (`rizbin.nets.dense`): a row is then a row of pixels.
    """
    extracted = extractor(encoder)
    images = extracted.normalized(torch.from_numpy(image[None]).to(extracted.device))
    patches = extracted.dense(images, dense_head)[0].float().cpu().numpy()
    maps = np.moveaxis(patches @ embedder(extracted, words).T, -1, 0)
    if against is not None and len(against):
        maps = maps - (patches @ against.T).mean(axis=-1)
    if dense_head == "windows":
        scores = torch.from_numpy(np.ascontiguousarray(maps))[None]
        # The weight of colors is in ImageNet's deviations, whatever the network's own are.
        return guided_upsample(scores, normalize(torch.from_numpy(image[None])))[0].numpy()
    return maps


def threshold(values: Float[np.ndarray, "*shape"]) -> float:
    """The value that parts the numbers best into two groups (Otsu 1979: the greatest variance between them).

    Half way between two neighbours; minus infinity when all are equal, since nothing then sets any of them apart.
    """
    ranked = np.sort(values, axis=None).astype(np.float64)
    if len(ranked) < 2 or ranked[-1] - ranked[0] < 1e-12:
        return -np.inf
    below = np.arange(1, len(ranked))
    sums = np.cumsum(ranked)
    left, right = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ranked) - below)
    between = np.where(ranked[1:] > ranked[:-1], below * (len(ranked) - below) * (left - right) ** 2, -1.0)
    best = int(between.argmax())
    return float(ranked[best] + ranked[best + 1]) / 2


def segmented(
    maps: Float[np.ndarray, "words rows columns"], height: int, width: int
) -> Int[np.ndarray, "{height} {width}"]:
    """The number of the best word of each pixel, `NOTHING` where even that is weak (`threshold` over the patches)."""
    weakest = threshold(maps.max(axis=0))
    fine = np.stack(
        [cv2.resize(word_map.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for word_map in maps]
    )
    return np.where(fine.max(axis=0) > weakest, fine.argmax(axis=0), NOTHING)


def true_numbers(
    masks: Sequence[tuple[str, Bool[np.ndarray, "height width"]]], words: Sequence[str]
) -> Int[np.ndarray, "height width"]:
    """The truth in the same form: masks of objects, back to front, numbered by their word; other pixels `NOTHING`."""
    out = np.full(masks[0][1].shape, NOTHING)
    for name, mask in masks:
        out[mask] = words.index(name) if name in words else NOTHING
    return out


def painted(
    image: SizedImage, numbers: Int[np.ndarray, "height width"], colors: Sequence[Color] | None = None
) -> SizedImage:
    """The image with each pixel in its word's color; those of no word gray and dim."""
    palette = np.array([*(colors or distinct(int(numbers.max(initial=0)) + 1)), (0, 0, 0)], np.uint8)
    gray = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1).astype(np.uint8)
    named = numbers != NOTHING
    return blend(np.where(named[..., None], gray, gray // 3 + 24), palette[numbers], np.where(named, 0.62, 0.0))


def heat_of_words(
    image: SizedImage,
    maps: Float[np.ndarray, "words rows columns"],
    words: Sequence[str],
    *,
    side: int = 128,
    colors: Sequence[Color] = (),
) -> AnySizeImage:
    """A sheet with a heat map for each word, all on one scale, so that they compare; `colors` are the words'."""
    height, width = image.shape[:2]
    common = scaled(np.stack([stretched(word_map, height, width) for word_map in maps]))
    # Percentiles 0 and 100: the maps are scaled already, together.
    return sheet(
        [overlay(image, word_map, low=0.0, high=100.0) for word_map in common],
        labels=list(words),
        side=side,
        colors=colors,
    )
