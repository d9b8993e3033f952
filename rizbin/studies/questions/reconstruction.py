"""Which objects gain from painting removed pixels back: textured, thin, small ones; blurred and coarse pictures.

Papers: DetailCLIP, arXiv 2409.06809; MAE, arXiv 2111.06377.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from rizbin.core.pages import Page
from rizbin.core.pieces import Cell, Number
from rizbin.data.open import open_source
from rizbin.evaluate.embed import Pictures, embed, read
from rizbin.evaluate.sizes import above_absent, under_masks
from rizbin.evaluate.zero_shot import embed_categories
from rizbin.nets.dual import ImageTextPair
from rizbin.recipes.presets import preset
from rizbin.recipes.training import load_run
from rizbin.studies.lab import Numbers, Results, Study, Variant
from rizbin.studies.pairs import SMALL, apart

WITH, WITHOUT, STRONG = "with the pixel term", "without it", "with ten times its weight"
IMAGES = 800
KINDS = {"texture": "textured", "thinness": "thin", "size": "large"}
"""Property -> what an object in the upper third of it is called."""
SPOILT = {"clear": "as it is", "blurred": "blurred by a pixel", "coarse": "at half the resolution"}


def variants() -> list[Variant]:
    """The small preset with the pixel term at three weights; distillation rests, so that pixels speak alone."""

    def row(name: str, *, on: bool, weight: float = 0.1) -> Variant:
        training = preset("detailclip", "small")
        settings = replace(
            training.settings, distillation=False, reconstruction=on, reconstruction_weight=weight, late_start=0.0
        )
        return Variant(name=name, training=replace(training, steps=800, settings=settings))

    return [row(WITHOUT, on=False), row(WITH, on=True), row(STRONG, on=True, weight=1.0)]


def texture(picture: UInt8[np.ndarray, "size size 3"], mask: Bool[np.ndarray, "size size"]) -> float:
    """Mean length of the gray gradient inside the mask, its rim left out: how much detail there is in it."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    inside = inside if inside.any() else mask
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    return float(np.hypot(across, down)[inside].mean())


def thinness(mask: Bool[np.ndarray, "size size"]) -> float:
    """Share of the mask within a pixel of its rim: 1 for lines, small for discs."""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return 1 - float(inside.sum()) / float(mask.sum())


def spoil(pixels: UInt8[Tensor, "pictures size size 3"], how: str) -> UInt8[Tensor, "pictures size size 3"]:
    """The pictures as a worse camera would give them."""
    if how == "clear":
        return pixels
    made = []
    for one in pixels.numpy():
        size = one.shape[0]
        if how == "blurred":
            made.append(cv2.GaussianBlur(one, (0, 0), 1.0))
        else:
            half = cv2.resize(one, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
            made.append(cv2.resize(half, (size, size), interpolation=cv2.INTER_CUBIC))
    return torch.from_numpy(np.stack(made))


@torch.no_grad()
def measure(folder: Path) -> Numbers:
    """Share of objects whose patches are nearer to their name than to any absent one, by kind of object and picture."""
    run = load_run(folder)
    pair = run.encoder
    assert isinstance(pair, ImageTextPair)  # this study trains nothing else
    source = open_source(SMALL, split="test", size=pair.image_size)
    seen, _ = read(source, IMAGES, pair.image_size, seed=0, advance=lambda _: None)
    pictures = Pictures.of(seen, source.categories, pair.image_size, pair.grid)
    at = {"batch": 100, "device": torch.device("cpu")}
    words = embed_categories(pair, source.categories, "scenes", **at)
    known = set(source.categories)
    things = [(one, mask) for one in seen for name, mask in one.things if name in known]
    measured = {
        "texture": torch.tensor([texture(one.pixels, mask) for one, mask in things]),
        "thinness": torch.tensor([thinness(mask) for _, mask in things]),
        "size": torch.tensor([float(mask.mean()) for _, mask in things]),
    }
    objects, numbers = pictures.objects, {}
    place = torch.searchsorted(pictures.masked, objects.picture)
    for how in SPOILT:
        spoilt = replace(pictures, pixels=spoil(pictures.pixels, how))
        embedded = embed(pair, spoilt, words, dense=len(pictures.masked), advance=lambda _: None, **at)
        scores = under_masks(embedded.scores["plain"], objects.cover, place)
        hits = 100 * above_absent(scores, objects.category, pictures.right[objects.picture]).double()
        numbers[f"{how}/all"] = hits.mean().item()
        for kind, values in measured.items():
            low, high = torch.quantile(values, torch.tensor([1 / 3, 2 / 3], dtype=values.dtype))
            numbers[f"{how}/{kind}/low"] = hits[values <= low].mean().item()
            numbers[f"{how}/{kind}/high"] = hits[values >= high].mean().item()
    return numbers


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    kinds = {
        name: f"clear/{kind}/{side}"
        for kind, word in KINDS.items()
        for side, name in (("high", word), ("low", f"not {word}"))
    }
    best = max(kinds, key=lambda name: results.mean(WITH, kinds[name]) - results.mean(WITHOUT, kinds[name]))
    spoilt = ", ".join(f"{said} {apart(results, WITH, WITHOUT, f'{how}/all')}" for how, said in SPOILT.items())
    return [
        f"With the pixel term, points of objects found: {apart(results, WITH, WITHOUT, 'clear/all')}; of the kinds of "
        f"objects, those that are {best} change most: {apart(results, WITH, WITHOUT, kinds[best])}.",
        f"By the picture: {spoilt}.",
        f"With ten times its weight: {apart(results, STRONG, WITHOUT, 'clear/all')}.",
    ]


def show(page: Page, results: Results) -> None:
    names = [one.name for one in variants()]
    for how, said in SPOILT.items():
        rows: list[list[Cell]] = []
        for label, record in [("all objects", "all")] + [
            (f"{'' if side == 'high' else 'not '}{word} (a third)", f"{kind}/{side}")
            for kind, word in KINDS.items()
            for side in ("high", "low")
        ]:
            record = f"{how}/{record}"
            rows.append([label, *(Number(results.shown(name, record), results.mean(name, record)) for name in names)])
        page.table(["Objects", *names], [("", rows)], caption=f"Objects found, percent; the picture {said}")


STUDY = Study(
    question="Which objects gain from painting removed pixels back?",
    design="The small preset of DetailCLIP without distillation, its pixel term off, at its weight, and at ten times "
    f"it. Measured on {IMAGES} scenes of the hard preset: whether an object's patches are nearer to its own name than "
    "to any absent one, for the third of objects with most and least texture (gray gradient inside the mask), thinness "
    "(share within a pixel of the rim) and size, and with the same pictures blurred and at half the resolution.",
    variants=variants,
    measure=measure,
    answer=answer,
    show=show,
)
