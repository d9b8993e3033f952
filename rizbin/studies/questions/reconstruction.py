"""What predicting pixels is good for: hidden patches, what a low resolution lost, and which objects gain.

Papers: DetailCLIP, arXiv 2409.06809; MAE, arXiv 2111.06377; AttMask, arXiv 2203.12719.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8

from rizbin.data.open import open_source
from rizbin.evaluation.embed import LabeledImages, embed, read
from rizbin.evaluation.sizes import above_absent, under_masks
from rizbin.evaluation.suite import Evaluation, evaluate
from rizbin.evaluation.zero_shot import embed_categories
from rizbin.methods.detailclip import DetailCLIP
from rizbin.nets.dual import ImageTextPair
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.lab import Numbers, Results, Study, Variant
from rizbin.studies.mechanism import mechanism
from rizbin.studies.pairs import MECHANISM_IMAGES, SMALL, WORLD, apart
from rizbin.workflows.presets import Training, preset
from rizbin.workflows.runs import load_run

WITHOUT = "no pixel term"
PAPER = "least attended patches hidden (paper)"
RANDOM = "random patches hidden"
ATTENDED = "most attended patches hidden"
LOW = "random patches hidden, the rest at half the resolution"
STEPS, START_STEPS, IMAGES = 200, 700, 600
KINDS = {"texture": "textured", "thinness": "thin", "size": "large"}
"""Property -> what an object in the upper third of it is called."""
COLUMNS = {
    "hidden/object_pixels": "object pixels hidden",
    "hidden/chance": "patches hidden",
    "gradient/pixels": "gradient on objects (even: 1)",
    "reconstruction/hidden/object_patches": "error, hidden object patches",
    "reconstruction/hidden/ground_patches": "error, hidden ground patches",
    "reconstruction/low_resolution_2/psnr": "PSNR from half resolution, dB",
    "reconstruction/low_resolution_2/edge_energy": "edge energy from half resolution",
    "segmentation/linear/miou": "linear mIoU",
    "segmentation/linear/boundary_iou": "boundary IoU, linear",
    "milliseconds": "ms of one core a step",
}


def start() -> Training[Any]:
    """CLIP with the phrase term; no technique yet."""
    training = preset("detailclip", "small")
    settings = replace(training.settings, selection="none", distillation=False, reconstruction=False, late_start=0.0)
    return replace(
        training,
        data=f"{training.data},seed=1",
        steps=START_STEPS,
        checkpoint_every=START_STEPS,
        settings=settings,
    )


def variants() -> list[Variant]:
    """One start, the pixel term by what is hidden; no other technique, so that pixels speak alone."""
    begin = start()

    def row(name: str, **changes: Any) -> Variant:
        settings = replace(begin.settings, **changes)
        training = replace(
            begin,
            data=preset("detailclip", "small").data,
            steps=STEPS,
            checkpoint_every=10 * STEPS,
            settings=settings,
        )
        return Variant(name=name, training=training)

    on: dict[str, Any] = {"reconstruction": True, "reconstruction_weight": 1.0, "low_resolution": 1}
    return [
        row(WITHOUT, low_resolution=1),
        row(PAPER, **on, hide="inverse"),
        row(RANDOM, **on, hide="random"),
        row(ATTENDED, **on, hide="attention"),
        row(LOW, **{**on, "low_resolution": 2}, hide="random"),
    ]


def texture(image: UInt8[np.ndarray, "size size 3"], mask: Bool[np.ndarray, "size size"]) -> float:
    """Mean length of the gray gradient inside the mask, its rim left out: how much detail there is in it."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    inside = inside if inside.any() else mask
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    return float(np.hypot(across, down)[inside].mean())


def thinness(mask: Bool[np.ndarray, "size size"]) -> float:
    """Share of the mask within a pixel of its rim: 1 for lines, small for discs."""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return 1 - float(inside.sum()) / float(mask.sum())


@torch.no_grad()
def measure(folder: Path) -> Numbers:
    """What was hidden and how well it was predicted; segmentation; objects localized by thirds of their properties."""
    run = load_run(folder)
    pair, method = run.encoder, run.method
    assert isinstance(pair, ImageTextPair) and isinstance(method, DetailCLIP)  # this study trains nothing else
    train, test = (open_source(WORLD, split=part, size=pair.image_size) for part in ("train", "test"))
    settings = Evaluation.Settings(baseline=False, dense_images=0, images=IMAGES, train_images=IMAGES)
    report = evaluate(
        pair, test, train_source=train, settings=settings, look=method.look, reconstruct=method.reconstruct
    )
    numbers = {measurement.name: measurement.value for measurement in report.measurements}
    for measurement in report.measurements:
        if measurement.name.startswith("reconstruction/"):
            numbers |= {f"{measurement.name}/{rival}": value for rival, value in measurement.references}
    seen, _ = read(test, MECHANISM_IMAGES, pair.image_size, seed=0, advance=lambda _: None)
    numbers |= mechanism(method, LabeledImages.of(seen, test.categories, pair.image_size, pair.grid))
    return numbers | _thirds(pair)


def _thirds(pair: ImageTextPair) -> Numbers:
    """Percent of objects of hard scenes localized, in the lower and upper third of each property."""
    source = open_source(SMALL, split="test", size=pair.image_size)
    seen, _ = read(source, IMAGES, pair.image_size, seed=0, advance=lambda _: None)
    images = LabeledImages.of(seen, source.categories, pair.image_size, pair.grid)
    words = embed_categories(pair, source.categories, "scenes", batch=100)
    known = set(source.categories)
    objects = [(image, mask) for image in seen for name, mask in image.objects if name in known]
    properties = {
        "texture": torch.tensor([texture(image.pixels, mask) for image, mask in objects]),
        "thinness": torch.tensor([thinness(mask) for _, mask in objects]),
        "size": torch.tensor([float(mask.mean()) for _, mask in objects]),
    }
    place = torch.searchsorted(images.masked, images.objects.image)
    embedded = embed(pair, images, words, dense=len(images.masked), advance=lambda _: None, batch=100)
    scores = under_masks(embedded.scores["plain"], images.objects.cover, place)
    present = images.right[images.objects.image]
    hits = 100 * above_absent(scores, images.objects.category, present).double()
    numbers = {"localized/all": hits.mean().item()}
    for kind, values in properties.items():
        low, high = torch.quantile(values, torch.tensor([1 / 3, 2 / 3], dtype=values.dtype))
        numbers[f"localized/{kind}/low"] = hits[values <= low].mean().item()
        numbers[f"localized/{kind}/high"] = hits[values >= high].mean().item()
    return numbers


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    error = "reconstruction/hidden/object_patches"
    errors = {name: results.mean(name, error) for name in (PAPER, RANDOM, ATTENDED, LOW)}
    best = min(errors, key=lambda name: errors[name])
    neighbors = results.mean(best, f"{error}/mean of visible neighbors")
    thirds = {
        f"{'' if side == 'high' else 'not '}{word}": f"localized/{kind}/{side}"
        for kind, word in KINDS.items()
        for side in ("high", "low")
    }
    most = max(thirds, key=lambda name: results.mean(RANDOM, thirds[name]) - results.mean(WITHOUT, thirds[name]))
    psnr, edges = "reconstruction/low_resolution_2/psnr", "reconstruction/low_resolution_2/edge_energy"
    delivered = []
    for name in (PAPER, RANDOM, ATTENDED):
        hidden, chance = results.mean(name, "hidden/object_pixels"), results.mean(name, "hidden/chance")
        arrived = "Delivered" if hidden > chance / 2 else "Not delivered"
        delivered.append(f"{arrived}: with {name}, {hidden:.0f} percent of the object pixels are hidden.")
    return [
        f"Of hidden object patches, {best} predicts most: an error of {results.shown(best, error, 2)}, where a flat "
        f"patch has 1 and the mean of the visible neighbors {neighbors:.2f}; with {PAPER} it is "
        f"{results.shown(PAPER, error, 2)}.",
        *delivered,
        f"For segmentation: {apart(results, RANDOM, WITHOUT, 'segmentation/linear/miou')} linear mIoU and "
        f"{apart(results, RANDOM, WITHOUT, 'segmentation/linear/boundary_iou')} boundary IoU at random; "
        f"{apart(results, LOW, WITHOUT, 'segmentation/linear/miou')} and "
        f"{apart(results, LOW, WITHOUT, 'segmentation/linear/boundary_iou')} from half the resolution.",
        f"From half the resolution, object pixels come back with {results.shown(LOW, psnr, 2)} dB and "
        f"{results.shown(LOW, edges, 2)} of the true edge energy; bicubic enlargement alone has "
        f"{results.mean(LOW, f'{psnr}/bicubic enlargement'):.2f} dB and "
        f"{results.mean(LOW, f'{edges}/bicubic enlargement'):.2f}.",
        f"Of the kinds of objects, those that are {most} change most in how often they are localized: "
        f"{apart(results, RANDOM, WITHOUT, thirds[most])}.",
    ]


def show(page: Page, results: Results) -> None:
    names = [variant.name for variant in variants()]
    rows: list[list[Cell]] = [
        [name, *(Number(results.shown(name, key, 2), results.mean(name, key)) for key in COLUMNS)] for name in names
    ]
    page.table(["Variant", *COLUMNS.values()], [("", rows)], caption="Mean ± standard deviation over seeds")
    thirds: list[list[Cell]] = []
    for label, key in [("all objects", "localized/all")] + [
        (f"{'' if side == 'high' else 'not '}{word} (a third)", f"localized/{kind}/{side}")
        for kind, word in KINDS.items()
        for side in ("high", "low")
    ]:
        thirds.append([label, *(Number(results.shown(name, key), results.mean(name, key)) for name in names)])
    page.table(["Objects", *names], [("", thirds)], caption="Objects of hard scenes localized, percent")


STUDY = Study(
    question="What is predicting pixels good for?",
    design=f"One start a seed: CLIP with the phrase term for {START_STEPS} steps. From its weights, branches of "
    f"{STEPS} steps: without a pixel term, and with it, hiding half of the patches: the least attended (the paper's "
    "rule), random ones, the most attended, and random ones while the rest is seen at half the resolution. All are "
    "measured on the same hidden patches, a random half. Then, on hard scenes, the share of objects whose patches are "
    "nearer to their own name than to any absent one, for the third with most and least texture, thinness and size.",
    variants=variants,
    measure=measure,
    answer=answer,
    show=show,
    start=start,
)
