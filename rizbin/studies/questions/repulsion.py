"""Why small crops should attract the large ones and repel each other: LoGo's claim, where crops show different objects.

Paper: LoGo, arXiv 2203.17205 (its tables could not be read; no number of it stands here).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch.nn import functional as F

from rizbin.core.random import generator
from rizbin.data.open import open_source
from rizbin.data.views import View, normalize
from rizbin.evaluation import probe
from rizbin.evaluation.embed import LabeledImages
from rizbin.evaluation.suite import Evaluation
from rizbin.nets.image import ImageEncoder
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number, PageImage
from rizbin.studies.encoder_images import GREEN, RED, outlined
from rizbin.studies.encoders import MEMORY, QUERIES, curves, laboratory, measure_encoder
from rizbin.studies.lab import Numbers, Results, Study, Variant, beyond_chance, interval, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
from rizbin.training.method import Method
from rizbin.workflows.diagnostics import CollapseDiagnostics
from rizbin.workflows.presets import Training
from rizbin.workflows.runs import build, load_run

WORLD = "scenes:group"
NONE, UNDRAWN = "no repulsion", "no repulsion, small crops not drawn to large ones"
BOUNDS = (0.1, 0.3, 1.0)
"""Bounds of the cosine's repulsion: how long its gradient may be, in lengths of the attraction's."""
LEARNED = {0.015: "learned affinity, 0.015 (released)", 0.3: "learned affinity, 0.3"}
DELIVERED = 0.05
"""How far a repulsion must lower the cosine of two small crops of an image to count as delivered."""
WORTH = 1.0
"""Points of mean average precision under which repulsion would be worth nothing."""
KINDS = ("same", "different", "other")
"""Pairs of small crops: of one object, of two objects of an image, of two images."""
LEAST_SHOWN = 0.1
"""Share of a small crop's pixels that an object must have for the crop to show it."""


def of_bound(bound: float) -> str:
    """A row's name."""
    return f"cosine repels, {bound:g}"


def variants() -> list[Variant]:
    """LoGo on scenes of several objects: the repulsion off, by cosine in three doses, learned in two."""

    def row(name: str, **changes: Any) -> Variant:
        training = replace(laboratory("logo", **changes), data=WORLD)
        return Variant(name=name, training=training, group="Two large and two small crops of scenes of several objects")

    return [
        row(NONE, affinity="none"),
        *(row(of_bound(bound), affinity="cosine", repulsion_bound=bound) for bound in BOUNDS),
        *(row(name, repulsion_bound=bound) for bound, name in LEARNED.items()),
        row(UNDRAWN, affinity="none", local_global=False),
    ]


def measure_crops(folder: Path) -> Numbers:
    """Beside what every encoder is measured by: objects named by a linear probe, and the cosines of small crops.

    probe/map: mean average precision over categories, percent. pairs/different: percent of pairs of small crops of an
    image that show different objects, among those of which both show one. cosine/same, cosine/different: mean cosine
    of the projections of two small crops that show the same object, and different ones; cosine/other: of two images.
    """
    run = load_run(folder)
    encoder, method = run.encoder, run.method
    assert isinstance(encoder, ImageEncoder)
    train, test = (open_source(run.training.data, split=part, size=encoder.image_size) for part in ("train", "test"))
    watching = CollapseDiagnostics(build(run.training), train, test, memory=MEMORY, queries=QUERIES)
    with torch.no_grad():
        features = [
            torch.cat([encoder.pooled(normalize(some)) for some in part.pixels.split(250)])
            for part in (watching.queries, watching.memory)
        ]
    settings = Evaluation.Settings()
    probed = probe.measure(
        features[0],
        watching.queries.right,
        features[1],
        watching.memory.right,
        decays=settings.decays,
        steps=settings.probe_steps,
        seed=0,
    )
    numbers = {measurement.name: measurement.value for measurement in probed if measurement.value is not None}
    return {**measure_encoder(folder), **numbers, **_cosines(method, watching.queries)}


def _cosines(method: Method, images: LabeledImages) -> Numbers:
    """How alike the projections of two small crops are, by what the crops show."""
    crops, shown = small_crops(View(method.views[2]), images)
    encoder = method.encoder
    assert isinstance(encoder, ImageEncoder)
    training = method.training
    method.eval()
    with torch.no_grad():
        features = torch.cat(
            [encoder.pooled(normalize(some)) for some in torch.from_numpy(crops).flatten(0, 1).split(250)]
        )
        projected = method.project(features)
    method.train(training)
    assert projected is not None  # LoGo has a projection
    first, second = F.normalize(projected, dim=-1).unflatten(0, crops.shape[:2]).unbind(dim=1)
    cosine, other = (first * second).sum(dim=-1), (first * second.roll(1, 0)).sum(dim=-1)
    known = torch.from_numpy((shown > 0).all(axis=1))
    same = known & torch.from_numpy(shown[:, 0] == shown[:, 1])
    different = known & ~same
    return {
        "pairs/different": 100 * float(different.sum() / known.sum().clamp(min=1)),
        "cosine/all": float(cosine.mean()),
        "cosine/same": float(cosine[same].mean()),
        "cosine/different": float(cosine[different].mean()),
        "cosine/other": float(other.mean()),
    }


def small_crops(
    view: View, images: LabeledImages
) -> tuple[UInt8[np.ndarray, "images 2 size size 3"], Int[np.ndarray, "images 2"]]:
    """Two small crops of each image, and what each shows: 1 + the category of most of its object pixels, or 0."""
    made, shown = [], []
    for place, (image, labels) in enumerate(zip(images.pixels.numpy(), images.labels.numpy(), strict=True)):
        for number in (0, 1):
            pixels, crop, _ = view(image, generator(0, "small", number, place))
            left, top, right, bottom = (round(edge * image.shape[0]) for edge in crop)
            made.append(pixels)
            counts = np.bincount(labels[top:bottom, left:right].ravel())
            objects = counts[1:]
            enough = objects.size and objects.max() >= LEAST_SHOWN * counts.sum()
            shown.append(1 + int(objects.argmax()) if enough else 0)
    pairs = np.stack(made).reshape(len(images.pixels), 2, *made[0].shape)
    return pairs, np.array(shown).reshape(len(images.pixels), 2)


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that repelling small crops names more."""
    doses = [name for name in map(of_bound, BOUNDS) if results.trained(name)]
    fall = {name: results.mean(NONE, "cosine/all") - results.mean(name, "cosine/all") for name in doses}
    arrived = [name for name in doses if fall[name] >= DELIVERED]
    # The smallest dose that arrived decides: the best by its outcome would be lucky by choice.
    decides = (arrived or doses)[0]
    gained = results.gaps(decides, NONE, "probe/map")
    kind = judged(gained, delivered=bool(arrived), least=WORTH)
    begins = {
        SHOWN: "Repelling small crops helps"
        + (", by less than would matter" if gained and interval(gained)[1] < WORTH else ""),
        REFUTED: "Repelling small crops does not help",
        NOT_TESTABLE: "These seeds cannot tell whether repelling small crops helps"
        if arrived
        else "No repulsion arrived, so nothing can be said of it",
    }[kind]
    rows = ", ".join(f"{name}: {results.shown(name, 'probe/map')}" for name in (NONE, *doses))
    reason = (
        f"{begins} (decided by the smallest dose that arrived, {decides}, {_gained(gained)}): mean average precision "
        f"of a linear probe that names all objects, in percent: {rows}."
    )
    dose = ", ".join(f"{name}: {results.shown(name, 'cosine/all', 3)}" for name in (NONE, *doses))
    learned = {
        name: results.mean(NONE, "cosine/all") - results.mean(name, "cosine/all")
        for name in LEARNED.values()
        if results.trained(name)
    }
    affinity = ", ".join(f"{name}: {results.shown(name, 'cosine/all', 3)}" for name in learned)
    of_affinity = (
        f"{'Delivered' if max(learned.values()) >= DELIVERED else 'Not delivered'} by the learned affinity: {affinity}."
        if learned
        else ""
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: {len(arrived)} of {len(doses)} doses lower the cosine of an "
        f"image's two small crops by {DELIVERED:g} or more ({dose})."
    )
    more = [sentence for sentence in (of_affinity, _apart(results, decides)) if sentence]
    return StudyVerdict(kind, reason, delivered, (*more, *_drawn_to_large(results)))


def _gained(gaps: list[float]) -> str:
    """The gain seed by seed, with the interval of its mean."""
    if not gaps:
        return "not measured"
    low, high = interval(gaps)
    bounds = f", 95 percent interval {low:+z.1f} to {high:+z.1f} over {len(gaps)} seeds" if len(gaps) > 1 else ""
    return f"{mean(gaps):+z.1f} points{bounds}; {WORTH:g} would matter"


def _apart(results: Results, dose: str) -> str:
    falls = {kind: results.mean(NONE, f"cosine/{kind}") - results.mean(dose, f"cosine/{kind}") for kind in KINDS}
    return (
        "There is something to repel: of two small crops that both show an object, "
        f"{results.mean(NONE, 'pairs/different'):.0f} percent show different ones (the same pairs in every seed). "
        "Without repulsion two small crops of an image have a cosine of "
        f"{results.shown(NONE, 'cosine/same', 3)} when they show the same object and "
        f"{results.shown(NONE, 'cosine/different', 3)} when they show different ones; small crops of two images "
        f"{results.shown(NONE, 'cosine/other', 3)}. With {dose} the three fall by {falls['same']:.3f}, "
        f"{falls['different']:.3f} and {falls['other']:.3f}: that repulsion acts by telling objects of one image apart "
        "was not tested."
    )


def _drawn_to_large(results: Results) -> list[str]:
    """What attraction to the large crops is worth, where that row was trained."""
    if not results.trained(UNDRAWN):
        return []
    worth = results.gaps(NONE, UNDRAWN, "probe/map")
    if not worth:
        return []
    certainty = "beyond" if beyond_chance(worth) else "within"
    return [
        "What attraction to the large crops is worth: without it, when small crops do not enter the loss, the probe "
        f"has {results.shown(UNDRAWN, 'probe/map')}, with it {results.shown(NONE, 'probe/map')} ({mean(worth):+z.1f}, "
        f"{certainty} the spread of the seeds)."
    ]


def show(page: Page, results: Results) -> None:
    rows: list[list[Cell]] = []
    for variant in variants():
        if not results.trained(variant.name):
            continue
        cells: list[Cell] = [variant.name]
        for name, digits in (
            ("probe/map", 1),
            ("knn", 1),
            ("cosine/all", 3),
            ("cosine/same", 3),
            ("cosine/different", 3),
            ("cosine/other", 3),
        ):
            cells.append(Number(results.shown(variant.name, name, digits), results.mean(variant.name, name)))
        rows.append(cells)
    page.table(
        ["Variant", "Probe, mAP", "k-NN", "Two small crops", "same object", "different objects", "two images"],
        [("", rows)],
        caption=f"Mean ± standard deviation over {results.seeds} seeds; the last four are cosines of projections",
    )
    page.note(
        f"A small crop shows the object that has most of its pixels, {100 * LEAST_SHOWN:.0f} percent or more; two show "
        "the same object when their categories are the same."
    )
    page.heading("What two small crops show", level=3)
    page.pictures(pictured())
    curves(page, results, "Cosine of the two small crops", "local_local", [NONE, *map(of_bound, BOUNDS)])
    curves(page, results, "Cosine of small and large crops", "local_global", [NONE, *map(of_bound, BOUNDS)])
    curves(page, results, "k-NN over the run, percent", "knn", [variant.name for variant in variants()])


def pictured(count: int = 6) -> Sequence[PageImage]:
    """Scenes with their two small crops as frames: green where both show one object, red where they show two."""
    training: Training[Any] = replace(laboratory("logo"), data=WORLD)
    side = training.settings.encoder.image_size
    method = build(training)
    test = open_source(WORLD, split="test", size=side)
    images = CollapseDiagnostics(method, test, test, memory=60, queries=60).queries
    view = View(method.views[2])
    _, shown = small_crops(view, images)
    chosen = [place for place in range(len(shown)) if (shown[place] > 0).all()][:count]
    made = []
    for place in chosen:
        same = shown[place, 0] == shown[place, 1]
        large = cv2.resize(images.pixels[place].numpy(), (192, 192), interpolation=cv2.INTER_CUBIC)
        for number in (0, 1):
            _, crop, _ = view(images.pixels[place].numpy(), generator(0, "small", number, place))
            outlined(large, crop, GREEN if same else RED)
        says = "the same object" if same else "different objects"
        made.append(PageImage(image=large, caption=says, alt=f"a scene with two frames that show {says}"))
    return made


STUDY = Study(
    question="Why should small crops attract the large ones and repel each other?",
    design="LoGo on the same small network (three convolutions, 32 pixels; small crops of 16) on scenes of two to four "
    "drawings on white, in the same order, at equal images. What differs is what repels two small crops of an image: "
    "nothing, their cosine with a gradient of at most a tenth, three tenths or all of the attraction's length, or the "
    "learned affinity of the paper; one row leaves small crops out of the loss. First the treatment is checked: the "
    "cosine of small crops. The outcome is how well a linear probe names all objects of new scenes.",
    variants=variants,
    measure=measure_crops,
    answer=answer,
    show=show,
)
