"""What predicting pixels is good for: hidden patches, what a low resolution lost, and which objects gain.

Papers: DetailCLIP, arXiv 2409.06809; MAE, arXiv 2111.06377; AttMask, arXiv 2203.12719.
"""

from dataclasses import replace
from pathlib import Path
from statistics import mean
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
from rizbin.studies.branches import show_painted
from rizbin.studies.lab import Numbers, Results, Study, Variant, beyond_chance, judged
from rizbin.studies.mechanism import mechanism
from rizbin.studies.pairs import MECHANISM_IMAGES, SMALL, WORLD, apart
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
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
def measure(folder: Path, images: int = 0) -> Numbers:
    """What was hidden and how well it was predicted; segmentation; objects localized by thirds of their properties.

    images: of each world; 0: as many as the study takes.
    """
    images = images or IMAGES
    run = load_run(folder)
    pair, method = run.encoder, run.method
    assert isinstance(pair, ImageTextPair) and isinstance(method, DetailCLIP)  # this study trains nothing else
    train, test = (open_source(WORLD, split=part, size=pair.image_size) for part in ("train", "test"))
    settings = Evaluation.Settings(baseline=False, dense_images=0, images=images, train_images=images)
    report = evaluate(
        pair, test, train_source=train, settings=settings, look=method.look, reconstruct=method.reconstruct
    )
    numbers = {measurement.name: measurement.value for measurement in report.measurements}
    for measurement in report.measurements:
        if measurement.name.startswith("reconstruction/"):
            numbers |= {f"{measurement.name}/{rival}": value for rival, value in measurement.references}
    seen, _ = read(test, MECHANISM_IMAGES, pair.image_size, seed=0, advance=lambda _: None)
    numbers |= mechanism(method, LabeledImages.of(seen, test.categories, pair.image_size, pair.grid))
    return numbers | _thirds(pair, images)


def _thirds(pair: ImageTextPair, count: int) -> Numbers:
    """Percent of objects of hard scenes localized, in the lower and upper third of each property."""
    source = open_source(SMALL, split="test", size=pair.image_size)
    seen, _ = read(source, count, pair.image_size, seed=0, advance=lambda _: None)
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


WORTH = 0.5
"""Points of linear mIoU under which the pixel term would be worth nothing."""
ERROR = "reconstruction/hidden/object_patches"
MIOU, BOUNDARY = "segmentation/linear/miou", "segmentation/linear/boundary_iou"


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that predicting pixels helps segmentation."""
    ways = [name for name in (PAPER, RANDOM, ATTENDED, LOW) if results.trained(name)]
    errors = {name: results.mean(name, ERROR) for name in ways}
    best = min(errors, key=lambda name: errors[name])
    neighbors = results.mean(best, f"{ERROR}/mean of visible neighbors")
    hidden, chance = results.mean(RANDOM, "hidden/object_pixels"), results.mean(RANDOM, "hidden/chance")
    # What is no better than the mean of what is seen beside it was not predicted.
    predicted, arrived = errors[best] < neighbors, hidden > chance / 2
    kind = judged(results.gaps(RANDOM, WITHOUT, MIOU), delivered=predicted and arrived, least=WORTH)
    moved = (
        f"with random patches hidden, {apart(results, RANDOM, WITHOUT, MIOU)} linear mIoU and "
        f"{apart(results, RANDOM, WITHOUT, BOUNDARY)} boundary IoU"
    )
    reason = {
        SHOWN: f"Predicting pixels helps segmentation: {moved}.",
        REFUTED: f"Predicting pixels does not help segmentation here: {moved}.",
        NOT_TESTABLE: f"Whether predicting pixels helps segmentation cannot be told from these seeds: {moved}."
        if predicted and arrived
        else "Hidden object patches were not predicted, so what predicting them is worth stays open: the least error, "
        f"{results.shown(best, ERROR, 2)} with {best}, is not below that of the mean of the visible neighbors, "
        f"{neighbors:.2f} (a flat patch has 1); {moved}.",
    }[kind]
    checks = []
    for name in (way for way in (RANDOM, PAPER, ATTENDED) if way in ways):
        share, patches = results.mean(name, "hidden/object_pixels"), results.mean(name, "hidden/chance")
        rival = results.mean(name, f"{ERROR}/mean of visible neighbors")
        # Hidden is not enough: what is no better than the neighbors was not predicted.
        better = errors[name] < rival
        there = "Delivered" if better and share > patches / 2 else "Not delivered"
        checks.append(
            f"{there}: with {name}, {share:.0f} percent of the object pixels are hidden, and the error on hidden "
            f"object patches, {results.shown(name, ERROR, 2)}, is {'' if better else 'not '}below that of the mean of "
            f"the visible neighbors ({rival:.2f})."
        )
    return StudyVerdict(kind, reason, checks[0], (*checks[1:], *_low_resolution(results), _kinds(results)))


def _low_resolution(results: Results) -> list[str]:
    """What comes back from half the resolution, beside bicubic enlargement, where that row was trained."""
    if not results.trained(LOW):
        return []
    psnr, edges = "reconstruction/low_resolution_2/psnr", "reconstruction/low_resolution_2/edge_energy"
    gained = results.mean(LOW, psnr) - results.mean(LOW, f"{psnr}/bicubic enlargement")
    return [
        f"From half the resolution, object pixels come back with {results.shown(LOW, psnr, 2)} dB and "
        f"{results.shown(LOW, edges, 2)} of the true edge energy; bicubic enlargement alone has "
        f"{results.mean(LOW, f'{psnr}/bicubic enlargement'):.2f} dB and "
        f"{results.mean(LOW, f'{edges}/bicubic enlargement'):.2f}, so the network adds {gained:+z.2f} dB. For "
        f"segmentation that is {apart(results, LOW, WITHOUT, MIOU)} linear mIoU and "
        f"{apart(results, LOW, WITHOUT, BOUNDARY)} boundary IoU."
    ]


def _kinds(results: Results) -> str:
    """Which kind of object changes most, and whether the seeds can tell."""
    thirds = {
        f"{'' if side == 'high' else 'not '}{word}": f"localized/{kind}/{side}"
        for kind, word in KINDS.items()
        for side in ("high", "low")
    }
    gaps = {name: results.gaps(RANDOM, WITHOUT, key) for name, key in thirds.items()}
    certain = [name for name, values in gaps.items() if beyond_chance(values)]
    most = max(certain or thirds, key=lambda name: abs(mean(gaps[name])) if gaps[name] else 0.0)
    changed = apart(results, RANDOM, WITHOUT, thirds[most])
    if not certain:
        return (
            "With random patches hidden, no kind of object is localized more or less often beyond the spread of the "
            f"seeds; those that are {most} move most: {changed}."
        )
    return (
        f"With random patches hidden, of the kinds of objects those that are {most} move most in how often they are "
        f"localized: {changed}."
    )


def show(page: Page, results: Results) -> None:
    names = [variant.name for variant in variants() if results.trained(variant.name)]
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
    show_painted(page, results.runs(PAPER, RANDOM, ATTENDED), WORLD)


STUDY = Study(
    question="What is predicting pixels good for?",
    design=f"One start a seed: CLIP with the phrase term for {START_STEPS} steps. From its weights, branches of "
    f"{STEPS} steps: without a pixel term, and with it, hiding 7 of 16 squares of patches: the least attended (the "
    "paper's rule), random ones, the most attended, and random ones while the rest is seen at half the resolution. All "
    "are measured on the same hidden patches, a random half. Then, on hard scenes, the share of objects whose patches "
    "are nearer to their own name than to any absent one, for the thirds with most and least texture, thinness, size.",
    variants=variants,
    measure=measure,
    answer=answer,
    show=show,
    start=start,
)
