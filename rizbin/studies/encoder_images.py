"""The encoders of a study as images: what each was given to see, and what it holds to be near."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.data.listing import Split
from rizbin.data.loader import LoadedBatch, Loader
from rizbin.data.open import open_source
from rizbin.data.views import View, normalize
from rizbin.evaluation.collapse import color_nearness
from rizbin.evaluation.embed import LabeledImages, read
from rizbin.nets.image import ImageEncoder
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.studies.lab import Results
from rizbin.training.method import Method
from rizbin.visualization.colors import AnySizeImage, Color
from rizbin.visualization.grid import beside, enlarge, framed, sheet
from rizbin.workflows.presets import Training
from rizbin.workflows.runs import build, load_run

IMAGES = 4
"""Images of a page: the first of their part, never chosen."""
MEMORY, NEAREST = 500, 6
"""Training images among which neighbors are looked for, and how many of them are shown."""
SIDE = 64
"""Pixels of a neighbor on the page."""
GREEN: Color = (20, 140, 60)
RED: Color = (200, 40, 40)
LARGE: Color = (11, 110, 106)
SMALL: Color = (194, 65, 12)


@torch.no_grad()
def show_neighbors(page: Page, results: Results, names: Sequence[str]) -> None:
    """Adds test images with the training images nearest to them: by pixels, and by each of these variants' encoders."""
    runs = results.runs(*names)
    if not runs:
        return
    queries, memory, features = _embedded(runs)
    same = queries.right.float() @ memory.right.float().T > 0
    page.heading("What lies near", level=3)
    page.text(
        f"The first {len(queries)} images of the test part, each with the {NEAREST} nearest of {len(memory)} training "
        "images by cosine of the features, by encoders of the first seed. Framed in green: of the same category; in "
        "red: of another."
    )
    near = {name: (query @ stored.T).topk(NEAREST, dim=1).indices for name, (query, stored) in features.items()}
    for place, caption in enumerate(queries.captions):
        cards = [PageImage(image=queries.pixels[place].numpy(), caption="test image", alt=f"A test image: {caption}")]
        for name, places in near.items():
            right = same[place, places[place]]
            count = int(right.sum())
            cards.append(
                PageImage(
                    image=_framed_sheet(memory.pixels[places[place]], right),
                    caption=f"{name}: {count} of {NEAREST}",
                    alt=f"The {NEAREST} training images nearest to it, {count} of its category: {name}",
                )
            )
        page.card(caption, cards)


def _embedded(
    runs: Mapping[str, Path],
) -> tuple[LabeledImages, LabeledImages, dict[str, tuple[Tensor, Tensor]]]:
    """Queries, memory, and unit vectors of both by pixels and by each run's encoder."""
    loaded = {name: load_run(folder) for name, folder in runs.items()}
    first = next(iter(loaded.values()))
    assert isinstance(first.encoder, ImageEncoder)  # these studies train nothing else
    size, grid = first.encoder.image_size, first.encoder.grid

    def labeled(split: Split, count: int) -> LabeledImages:
        source = open_source(first.training.data, split=split, size=size)
        seen, _ = read(source, count, size, seed=0, advance=lambda _: None)
        return LabeledImages.of(seen, source.categories, size, grid)

    queries, memory = labeled("test", IMAGES), labeled("train", MEMORY)

    def both(read: Callable[[UInt8[Tensor, "images size size 3"]], Tensor]) -> tuple[Tensor, Tensor]:
        return F.normalize(read(queries.pixels), dim=1), F.normalize(read(memory.pixels), dim=1)

    features = {"raw pixels": both(lambda pixels: pixels.flatten(1).float())}
    for name, run in loaded.items():
        features[name] = both(partial(pooled, run.method.eval()))
    return queries, memory, features


def pooled(method: Method, images: UInt8[Tensor, "images size size 3"]) -> Float[Tensor, "images dim"]:
    """The encoder's features of images, some at a time."""
    encoder = method.encoder
    assert isinstance(encoder, ImageEncoder)
    return torch.cat([encoder.pooled(normalize(some)) for some in images.split(250)])


def _framed_sheet(images: UInt8[Tensor, "images size size 3"], right: Bool[Tensor, " images"]) -> AnySizeImage:
    """Images three in a row, each in the color of its answer."""
    colors = [GREEN if each else RED for each in right.tolist()]
    framed_images = [framed(enlarge(image.numpy(), SIDE), color) for image, color in zip(images, colors, strict=True)]
    return sheet(framed_images, columns=3, side=SIDE)


def show_views(page: Page, rows: Mapping[str, Training[Any]]) -> None:
    """Adds training images with the two views that each row's training makes of them in its first step.

    The same random numbers make them all, so rows differ in nothing but what was removed. Under each pair stands the
    place of the second view among all other views of the batch, by nearness in color to the first.
    """
    batches = {name: first_batch(training) for name, training in rows.items()}
    page.heading("What the views leave", level=3)
    page.text(
        f"The first {IMAGES} training images with their two views in the first step of the first seed. Under each pair "
        "the place of the second view when all other views of the batch are ordered by how near their color histogram "
        "is to the first view's: where it is the first, color alone solves the task."
    )
    ranks = {name: _partner_ranks(batch) for name, batch in batches.items()}
    for place in range(IMAGES):
        cards = []
        for name, batch in batches.items():
            first, second, *_, whole = (view[place].numpy() for view in batch.views)
            if not cards:
                cards.append(PageImage(image=whole, caption="image", alt="A training image"))
            others = 2 * len(batch.positions) - 1
            cards.append(
                PageImage(
                    image=beside([enlarge(first, SIDE), enlarge(second, SIDE)]),
                    caption=f"{name}: {ranks[name][place]} of {others} by color",
                    alt=f"Two views of the image, {name}",
                )
            )
        page.card(f"Image {place + 1}", cards)


def first_batch(training: Training[Any], *, split: Split = "train") -> LoadedBatch:
    """The views of a training's first step and, after them, the whole images."""
    views = build(training).views
    size = views[0].size
    source = open_source(training.data, split=split, size=size)
    # At the end, so that the views before it draw what they draw in training.
    return next(iter(Loader(source, (*views, View.Settings(size=size)), None, seed=0, batch=training.batch, steps=1)))


def _partner_ranks(batch: LoadedBatch) -> list[int]:
    """For each image the place of its second view among all other views, by nearness in color to the first."""
    count = len(batch.positions)
    near = color_nearness(torch.cat(batch.views[:2])).fill_diagonal_(-torch.inf)
    partners = near[torch.arange(count), torch.arange(count) + count]
    return [1 + int((near[row] > partners[row]).sum()) for row in range(count)]


@torch.no_grad()
def show_crops(page: Page, results: Results, names: Sequence[str]) -> None:
    """Adds test images with their two large and two small crops, and how alike these variants hold the small ones."""
    runs = results.runs(*names)
    if not runs:
        return
    loaded = {name: load_run(folder) for name, folder in runs.items()}
    batch = first_batch(next(iter(loaded.values())).training, split="test")
    cosines = {name: _small_cosines(run.method.eval(), batch) for name, run in loaded.items()}
    page.heading("What is cropped", level=3)
    page.text(
        f"The first {IMAGES} images of the test part with their crops: two large (teal frames) and two small (orange). "
        "Under each title the cosine of the two small crops' projections, by the networks of the first seed."
    )
    for place in range(IMAGES):
        crops = [view[place].numpy() for view in batch.views[:4]]
        whole = enlarge(batch.views[-1][place].numpy())
        for number, color in enumerate((LARGE, LARGE, SMALL, SMALL)):
            outlined(whole, tuple(batch.crops[number, place].tolist()), color)
        shown = [PageImage(image=whole, caption="image", alt="A test image with the frames of its four crops")]
        shown += [
            PageImage(image=enlarge(crop), caption=says, alt=f"The {says} of the image")
            for crop, says in zip(crops, ("first large", "second large", "first small", "second small"), strict=True)
        ]
        page.card(
            f"Image {place + 1}",
            shown,
            small="; ".join(f"{name}: {values[place]:.2f}" for name, values in cosines.items()),
        )


def _small_cosines(method: Method, batch: LoadedBatch) -> list[float]:
    """For each image the cosine of its small crops' projections."""
    first, second = (method.project(pooled(method, view)) for view in batch.views[2:4])
    assert first is not None and second is not None  # LoGo has a projection
    return F.cosine_similarity(first, second).tolist()


def outlined(image: AnySizeImage, crop: tuple[float, float, float, float], color: Color) -> None:
    """Draws a crop's border, given as shares of the sides, into the image."""
    height, width = image.shape[:2]
    left, top, right, bottom = (round(edge * side) for edge, side in zip(crop, (width, height) * 2, strict=True))
    cv2.rectangle(image, (left, top), (right - 1, bottom - 1), color, 2)
