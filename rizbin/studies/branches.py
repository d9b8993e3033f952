"""The same test scenes under several branches of DetailCLIP, as pictures: what is kept, painted, and found by words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rizbin.core import random
from rizbin.data.open import open_source
from rizbin.data.sample import Sample
from rizbin.data.views import normalize
from rizbin.evaluation.embed import LabeledImages, read
from rizbin.evaluation.frequency import smooth_fill
from rizbin.evaluation.reconstruction import random_half, unit_values
from rizbin.evaluation.tokens import kept_patches, object_pixels_on
from rizbin.methods.detailclip import DetailCLIP
from rizbin.nets.selection import blocks_to_keep
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.reports.cards import word_images
from rizbin.visualization import words
from rizbin.visualization.reconstruct import filled
from rizbin.visualization.removed import removed
from rizbin.workflows.runs import load_run

SCENES = 4
"""Scenes of a page: the first of the test part, never chosen."""
KEEP = 0.5
"""Keep ratio of the studies, by the rule of the official code: of 16 squares 9 stay (`nets.selection`)."""
BLOCK = 2
"""Side in patches of the squares that stay or go together, as the studies train."""
KEPT_BY_CHANCE = 100 * blocks_to_keep(16, KEEP) / 16
"""Percent of the object pixels on as many squares chosen at random, of the 64 pixels of the preset small."""
DELIVERED = KEPT_BY_CHANCE + 5
"""Percent from which attention chooses objects."""


@dataclass(frozen=True)
class _Scenes:
    """The first test scenes of a world."""

    images: LabeledImages
    grid: tuple[int, int]

    @classmethod
    def of(cls, world: str, method: DetailCLIP) -> "_Scenes":
        size, grid = method.pair.image_size, method.pair.grid
        source = open_source(world, split="test", size=size)
        prepared, _ = read(source, SCENES, size, seed=0, advance=lambda _: None)
        return cls(LabeledImages.of(prepared, source.categories, size, grid), grid)

    @property
    def normalized(self) -> Float[Tensor, "scenes 3 size size"]:
        return normalize(self.images.pixels)

    def half(self) -> Bool[Tensor, "scenes rows columns"]:
        """A random half of the patches, the same for every branch."""
        return random_half(len(self.images.pixels), self.grid, BLOCK, seed=0)


def detailclip(folder: Path) -> DetailCLIP:
    """The method of a branch's run, as it ended. Raises RizbinError for what is no run."""
    method = load_run(folder).method.eval()
    assert isinstance(method, DetailCLIP)  # these studies train nothing else
    return method


@torch.no_grad()
def show_kept(page: Page, folder: Path, world: str) -> None:
    """Scenes with what the attention of a branch leaves of them, and a random half."""
    method = detailclip(folder)
    scenes = _Scenes.of(world, method)
    look = method.look(scenes.normalized)
    assert look is not None  # DetailCLIP always has something to show
    attended = kept_patches(look.attention.float(), keep_ratio=KEEP, block=BLOCK)
    lots = torch.rand(attended.shape, generator=random.torch_generator(0, "kept at random"))
    ways = {
        "kept by attention": attended,
        "kept at random": kept_patches(lots, keep_ratio=KEEP, block=BLOCK),
    }
    page.heading("What meets the caption", level=3)
    page.text(
        "The first scenes of the test part with their captions, by the branch of the first seed. Hatched patches are "
        "left out, 7 of 16 squares; the caption speaks only of what it names, and the rest of the objects is there to "
        "be confused with it."
    )
    for place, caption in enumerate(scenes.images.captions):
        image = scenes.images.pixels[place].numpy()
        shown = [PageImage(image=image, caption="all tokens", alt=f"A scene: {caption}")]
        for says, patches in ways.items():
            share = 100 * object_pixels_on(patches[place : place + 1], scenes.images.labels[place : place + 1])
            shown.append(
                PageImage(
                    image=removed(image, ~patches[place].numpy()),
                    caption=f"{says}: {share:.0f} % of the named objects' pixels",
                    alt=f"The same scene, half of its patches hatched, {says}",
                )
            )
        page.card(caption, shown)


@torch.no_grad()
def show_painted(page: Page, folders: Mapping[str, Path], world: str) -> None:
    """Scenes with the same half hidden, painted by the mean of the neighbors and by each branch; none, nothing."""
    methods = {name: detailclip(folder) for name, folder in folders.items()}
    if not methods:
        return
    scenes = _Scenes.of(world, next(iter(methods.values())))
    images, hidden = scenes.normalized, scenes.half()
    painted = {"mean of the visible neighbors": smooth_fill(images, hidden)}
    for name, method in methods.items():
        guess = method.reconstruct(images, hidden)
        if guess is not None:
            painted[name] = guess
    page.heading("What is painted into hidden patches", level=3)
    page.text(
        "The first scenes of the test part, the same random half hidden for all, by branches of the first seed. A "
        "network predicts a patch less its mean, in units of its spread; its picture takes these from the truth, so "
        "look for shapes, not for colors."
    )
    for place, caption in enumerate(scenes.images.captions):
        whole = scenes.images.pixels[place].numpy()
        gray = removed(whole, hidden[place].numpy())
        shown = [PageImage(image=gray, caption="what is seen", alt=f"A scene with half of it hatched: {caption}")]
        shown += [
            PageImage(
                image=filled(whole, _values(guess[place]), hidden[place].numpy()),
                caption=name,
                alt=f"The same scene, its gaps painted: {name}",
            )
            for name, guess in painted.items()
        ]
        page.card(caption, [*shown, PageImage(image=whole, caption="truth", alt="The same scene whole")])


@torch.no_grad()
def show_words(page: Page, folders: Mapping[str, Path], world: str) -> None:
    """Scenes in the colors of their captions' words, by each branch, and the truth; no branch, nothing."""
    if not folders:
        return
    methods = {name: detailclip(folder) for name, folder in folders.items()}
    size = next(iter(methods.values())).pair.image_size
    source = open_source(world, split="test", size=size)
    page.heading("Where words are found", level=3)
    page.text(
        "The first scenes of the test part, by branches of the first seed: each place in the color of the word of the "
        "caption that it is nearest to, gray where it is near to none."
    )
    vocabularies = {name: words.embedded(method.pair, source.categories) for name, method in methods.items()}
    for place in range(SCENES):
        _word_card(page, methods, vocabularies, source[place], source.categories)


def _word_card(
    page: Page,
    methods: Mapping[str, DetailCLIP],
    vocabularies: Mapping[str, np.ndarray],
    sample: Sample,
    categories: Sequence[str],
) -> None:
    """One scene, by each branch."""
    shown = [PageImage(image=sample.image, caption="image", alt=f"A scene: {sample.caption}")]
    truth: list[PageImage] = []
    legend = []
    for name, method in methods.items():
        by_word, legend = word_images(method.pair, sample, sample.image, categories, vocabularies[name], words.embedded)
        shown += [PageImage(image=image.image, caption=name, alt=f"{image.alt}: {name}") for image in by_word[:1]]
        truth = [PageImage(image=image.image, caption="truth", alt=image.alt) for image in by_word[1:]]
    page.card(sample.caption, [*shown, *truth], legend=legend)


def _values(image: Float[Tensor, "3 size size"]) -> np.ndarray:
    """Normalized pixels as RGB, 0 to 255."""
    return (255 * unit_values(image[None])[0]).round().byte().permute(1, 2, 0).numpy()
