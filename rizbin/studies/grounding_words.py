"""Where words look in a detector's encoder, layer by layer: at their own object, at other objects, at the ground."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rizbin.data.sample import LabeledObject, Sample
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import named
from rizbin.detection.word_attention import word_attention
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number, PageImage
from rizbin.visualization.attention import overlay

EXAMPLES = 3
"""Images that the page shows."""


@dataclass(frozen=True)
class WordLooks:
    """How densely the words of named objects attend to places, 1 being the image's average."""

    objects: Float[np.ndarray, "objects 3 layers"]
    """For each object that shares its image with others of other names: its words' mean density on its own pixels, on
    those of the other objects, and on the ground."""
    images: int
    """How many images they come from."""
    examples: tuple[tuple[Sample, tuple[str, ...], Float[np.ndarray, "_ _ _ _"]], ...]


def word_looks(
    detector: Detector, samples: Sequence[Sample], names: Sequence[str], advance: Callable[[int], object]
) -> WordLooks | None:
    """Asks for all names at once about each image with objects of two or more names; None without such an image.

    advance: called with 1 after each sample.
    """
    rows, images, examples = [], 0, []
    for sample in samples:
        present = sorted({instance.name for instance in sample.objects} & set(names))
        if len(present) > 1:
            maps = word_attention(detector, sample.image, named(names))
            own_maps = maps[[list(names).index(name) for name in present]]
            rows += [_places(sample.objects, name, own_map) for name, own_map in zip(present, own_maps, strict=True)]
            images += 1
            if len(examples) < EXAMPLES:
                examples.append((sample, tuple(present), own_maps))
        advance(1)
    known = [row for row in rows if np.isfinite(row).all()]
    return WordLooks(np.stack(known), images, tuple(examples)) if known else None


def _places(
    objects: Sequence[LabeledObject], name: str, layers: Float[np.ndarray, "layers height width"]
) -> Float[np.ndarray, "3 layers"]:
    """The mean density of a name's words on the pixels of that name, on other objects and on the ground."""
    own = np.any([instance.mask for instance in objects if instance.name == name], axis=0)
    others = np.any([instance.mask for instance in objects if instance.name != name], axis=0) & ~own
    regions = (own, others, ~own & ~others)
    nowhere = np.full(len(layers), np.nan)
    return np.stack([layers[:, region].mean(axis=1) if region.any() else nowhere for region in regions])


def sentence(looks: WordLooks) -> str:
    """What the numbers say about where the words look, before a box is proposed."""
    own, other, ground = looks.objects.mean(axis=0)
    last = len(own)
    return (
        f"Words and pixels meet in the encoder, before a box is proposed. In its layer 1 an object's words attend to "
        f"the object's own pixels {own[0]:.1f} times as densely as to the average of the image, to other objects "
        f"{other[0]:.1f} times and to the ground {ground[0]:.1f}; in the last, layer {last}, {own[-1]:.1f}, "
        f"{other[-1]:.1f} and {ground[-1]:.1f} times ({len(looks.objects)} names in {looks.images} images)."
    )


def show(page: Page, looks: WordLooks) -> None:
    """Adds the table of all layers, with spread, and examples as heat."""
    page.heading("Where words look, layer by layer")
    page.text(
        "In every layer of the encoder the text attends to the image and the image to the text. How densely the words "
        "of a name attend to places when all names are asked at once: mean over names of images with its standard "
        "error; 1 is the average of the image."
    )
    count = len(looks.objects)
    mean = looks.objects.mean(axis=0).T
    error = (looks.objects.std(axis=0, ddof=1) if count > 1 else np.zeros(looks.objects.shape[1:])).T / count**0.5
    rows: list[list[Cell]] = []
    for number, (means, errors) in enumerate(zip(mean, error, strict=True), start=1):
        pairs = zip(means, errors, strict=True)
        rows.append([f"{number}", *(Number(f"{value:.2f} ± {spread:.2f}", float(value)) for value, spread in pairs)])
    page.table(["Layer", "own object", "other objects", "ground"], [("", rows)])
    for sample, names, maps in looks.examples:
        images = [PageImage(image=sample.image, caption="The image", alt="The image")]
        for name, layers in zip(names, maps, strict=True):
            images += [
                PageImage(
                    image=overlay(sample.image, layer, low=0.0, high=99.5),
                    caption=f"{name}, layer {number}",
                    alt=f"Where the words of {name} look in layer {number}, as heat",
                    smooth=True,
                )
                for number, layer in enumerate(layers, start=1)
            ]
        page.pictures(images)
