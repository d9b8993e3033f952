"""How much SimCLR and BYOL depend on the batch, in a setting in which both learn.

Papers: BYOL, arXiv 2006.07733, figure 3a and table 16 (ImageNet, ResNet-50); the learning rate's root rule, arXiv
2205.10287.
"""

import math
from dataclasses import replace
from statistics import mean
from typing import Any

from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.encoder_images import show_neighbors
from rizbin.studies.encoders import grid, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
from rizbin.workflows.presets import preset

METHODS = {"simclr": "SimCLR", "byol": "BYOL"}
BATCHES = (8, 16, 64, 256, 512)
STANDARD, SMALL = 64, 8
"""The preset's batch, and the one by which the claim is judged: both make updates enough to learn."""
STEPS = 600
"""Steps of batches of `STANDARD`; every row sees as many images."""
PAPER = {"simclr": {256: 64.3, 64: 59.2}, "byol": {256: 71.8, 64: 59.7}}
LEARNED = 8.0
"""Points of k-NN above raw pixels under which a method has learned too little to lose anything."""
WORTH = 2.0
"""Points by which SimCLR must lose more than BYOL to be called more dependent; 2.9 in the paper, from 4,096 to 256."""


def name_of(method: str, batch: int) -> str:
    """A row's name."""
    return f"{METHODS[method]}, batch {batch}"


def variants() -> list[Variant]:
    """Both methods with every batch, at equal images."""

    def row(method: str, batch: int) -> Variant:
        training: Any = preset(method, "nano")
        # Adam's step follows the noise of the gradient, which falls with the root of the batch.
        rate = training.trainer.learning_rate * math.sqrt(batch / STANDARD)
        training = replace(
            training,
            batch=batch,
            steps=STEPS * STANDARD // batch,
            trainer=replace(training.trainer, learning_rate=rate),
        )
        return Variant(
            name=name_of(method, batch), training=training, group=METHODS[method], paper=PAPER[method].get(batch)
        )

    # First the row whose batch counts the images of all.
    ordered = (STANDARD, *(batch for batch in BATCHES if batch != STANDARD))
    return [row(method, batch) for method in METHODS for batch in ordered]


def _losses(results: Results, method: str, batch: int) -> list[float]:
    """Points of k-NN that the method loses with this batch against the standard one, seed by seed."""
    return results.gaps(name_of(method, STANDARD), name_of(method, batch), "knn")


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that a small batch costs SimCLR more."""
    above = {
        method: results.mean(name_of(method, STANDARD), "knn") - results.mean(name_of(method, STANDARD), "knn_pixels")
        for method in METHODS
    }
    arrived = min(above.values()) >= LEARNED
    losses = {method: _losses(results, method, SMALL) for method in METHODS}
    apart = [simclr - byol for simclr, byol in zip(losses["simclr"], losses["byol"], strict=True)]
    kind = judged(apart, delivered=arrived, least=WORTH)
    begins = {
        SHOWN: "A small batch costs SimCLR more than BYOL",
        REFUTED: "A small batch costs BYOL more than SimCLR here"
        if beyond_chance(apart) and mean(apart) < 0
        else "A small batch costs SimCLR no more than BYOL here",
        NOT_TESTABLE: "These seeds cannot tell which of the two a small batch costs more"
        if arrived
        else "Too little was learned to say what a small batch costs",
    }[kind]
    reason = (
        f"{begins}: from batches of {STANDARD} to batches of {SMALL}, at equal images, SimCLR "
        f"{_changes(losses['simclr'])} of k-NN and BYOL {_changes(losses['byol'])}; in BYOL's paper they lose 3.6 "
        f"and 0.7 from 4,096 to 256, and {_of_paper('simclr'):.1f} and {_of_paper('byol'):.1f} more from there to 64."
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: with batches of {STANDARD} SimCLR stands "
        f"{above['simclr']:.1f} points above raw pixels and BYOL {above['byol']:.1f}, and at least {LEARNED:g} are "
        "required."
    )
    sentences = [
        f"{METHODS[method]} by batch: "
        + ", ".join(f"{batch}: {results.shown(name_of(method, batch), 'knn')}" for batch in _trained(results, method))
        + "."
        for method in METHODS
    ]
    mechanism = (
        f"A view has 2 (batch - 1) negatives: {2 * (SMALL - 1)} in batches of {SMALL}, {2 * (STANDARD - 1)} in batches "
        f"of {STANDARD}. BYOL compares no images, but its batch norms see only the batch. At equal images a batch of "
        f"{BATCHES[-1]} makes {STEPS * STANDARD // BATCHES[-1]} updates where one of {SMALL} makes "
        f"{STEPS * STANDARD // SMALL:,}, so neither side isolates the negatives."
    )
    return StudyVerdict(kind, reason, delivered, (*sentences, mechanism))


def _of_paper(method: str) -> float:
    """Points that the paper's method loses from batches of 256 to batches of 64."""
    return PAPER[method][256] - PAPER[method][64]


def _trained(results: Results, method: str) -> list[int]:
    return [batch for batch in BATCHES if results.trained(name_of(method, batch))]


def _changes(losses: list[float]) -> str:
    points = -mean(losses)
    certainty = "beyond" if beyond_chance(losses) else "within"
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({certainty} the spread)"


def show(page: Page, results: Results) -> None:
    """Adds the table of all rows, and k-NN by the batch."""
    grid(page, variants(), results, unit="Paper, top-1")
    page.curves(
        "k-NN by the batch, percent",
        [
            Series(
                name=METHODS[method],
                x=[math.log2(batch) for batch in _trained(results, method)],
                y=[results.mean(name_of(method, batch), "knn") for batch in _trained(results, method)],
                smooth=False,
            )
            for method in METHODS
        ],
        x_label="logarithm of the batch to base 2",
    )
    ends = (BATCHES[0], STANDARD, BATCHES[-1])
    show_neighbors(page, results, [name_of(method, batch) for method in METHODS for batch in ends])
    rows: list[list[Cell]] = [
        [
            f"{batch}",
            Number(f"{2 * (batch - 1):,}", 2 * (batch - 1)),
            Number(f"{STEPS * STANDARD // batch:,}", STEPS * STANDARD // batch),
        ]
        for batch in BATCHES
    ]
    page.table(
        ["Batch", "negatives of a view (SimCLR)", "updates"], [("", rows)], caption="What the batch changes besides"
    )


STUDY = Study(
    question="How much do SimCLR and BYOL depend on the batch?",
    design="Both methods on the same small network (three convolutions, 32 pixels) and the same single drawings on "
    "white, with the preset's views, which hardly change hues, since colors name drawings, long enough to stand well "
    f"above raw pixels, with batches of {', '.join(map(str, BATCHES))} at equal images. The learning rate goes with "
    "the root of the batch. Measured on new images by nearest neighbors.",
    variants=variants,
    measure=measure_encoder,
    answer=answer,
    show=show,
)
