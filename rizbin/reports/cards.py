"""What a network makes of single images: attention, hidden patches, reconstruction, words, each as an image."""

from collections.abc import Sequence

import numpy as np
import torch

from rizbin.core import random
from rizbin.data.sample import Sample
from rizbin.data.views import denormalize, whole
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.pages.pieces import PageImage, Swatch
from rizbin.reports.examples import embedded, looks
from rizbin.training.method import Method, MethodView
from rizbin.visualization import attention, reconstruct, removed, words
from rizbin.visualization.colors import distinct


@torch.no_grad()
def seen_in(
    encoder: AnyEncoder, method: Method | None, samples: Sequence[Sample], categories: Sequence[str]
) -> list[list[PageImage]]:
    """For each sample the image and all that can be shown of it, in the same order for all.

    Attention is the method's own view where it has one (the teacher's, if there is a teacher), else that of the
    encoder's CLS token. What a method hides at random is the same in each call. Both must be in evaluation mode.
    """
    network = extractor(encoder)
    squares = np.stack([whole(sample.image, network.image_size) for sample in samples])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.key("what is seen"))
        look = looks(method, squares)
    heats = attention.attended(network, squares) if look is None and network.attends else []
    vocabulary = embedded(network, categories) if categories and network.localizes else None
    shown = []
    for number, (sample, image) in enumerate(zip(samples, squares, strict=True)):
        images = [PageImage(image=image, caption="Image", alt=sample.caption or sample.key)]
        if look is not None:
            images += token_images(image, look, number)
        elif heats:
            images.append(_heat(heats[number]))
        images += word_images(network, sample, image, categories, vocabulary, embedded)[0]
        shown.append(images)
    return shown


def token_images(image: np.ndarray, look: MethodView, at: int) -> list[PageImage]:
    """Attention, removed tokens and reconstruction of one image, as far as there are any."""
    out = [_heat(attention.overlay(image, look.attention[at].numpy()))]
    if not bool(look.removed.any()):
        return out
    gone = look.removed[at].numpy()
    hatched = removed.removed(image, gone)
    out.append(PageImage(image=hatched, caption="Removed", alt="The image with removed patches hatched"))
    if look.reconstruction is not None:
        guess = denormalize(look.reconstruction[at : at + 1])[0].numpy()
        filled = reconstruct.filled(image, guess, gone)
        out.append(PageImage(image=filled, caption="Reconstruction", alt="The image with removed patches filled in"))
    return out


def word_images(
    encoder: AnyEncoder,
    sample: Sample,
    image: np.ndarray,
    categories: Sequence[str],
    vocabulary: np.ndarray | None,
    embedder: words.WordEmbedder,
) -> tuple[list[PageImage], list[Swatch]]:
    """The image in the colors of its caption's words, the truth where it is known, and which color is which word.

    Nothing where the encoder's patches do not meet texts, or no word names an object.
    """
    network = extractor(encoder)
    queries = words.words_of(sample.caption, categories) or sorted(sample.names)[: words.MOST]
    if not queries or not network.localizes:
        return [], []
    colors = distinct(len(queries))
    legend = [Swatch(color=color, text=word) for color, word in zip(colors, queries, strict=True)]
    height, width = image.shape[:2]
    maps = words.similarities(network, image, queries, against=vocabulary, embedder=embedder)
    places = words.segmented(maps, height, width)
    spoken = f"The image colored by the words {', '.join(queries)}"
    images = [PageImage(image=words.painted(image, places, colors), caption="Words", alt=spoken)]
    if sample.objects:
        masks = [(instance.name, _square(instance.mask, height)) for instance in sample.objects]
        truth = words.painted(image, words.true_numbers(masks, queries), colors)
        images.append(PageImage(image=truth, caption="Truth", alt=f"{spoken}, where they really are"))
    return images, legend


def _heat(image: np.ndarray) -> PageImage:
    return PageImage(image=image, caption="Attention", alt="Attention as heat over the image", smooth=True)


def _square(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask of a sample in the frame of the image that the network is given."""
    return whole(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1), size)[..., 0] > 127
