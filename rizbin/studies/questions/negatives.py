"""How many negatives SimCLR needs, how hard it should look at them, and what they do: the dose, and the geometry.

Papers: SimCLR, arXiv 2002.05709, figure 9 and table 5; alignment and uniformity, arXiv 2005.10242.
"""

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number, PageImage
from rizbin.studies.encoder_images import show_neighbors
from rizbin.studies.encoders import curves, grid, laboratory, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict

COUNTS = (0, 1, 4, 16, 126)
"""Negatives of a view; 126 are all that a batch of 64 has."""
TEMPERATURES = (0.05, 0.2, 0.5, 1.0, 5.0)
"""The preset's is 0.2; at 5 all negatives weigh nearly the same."""
STANDARD = 0.2
CIRCLE, BARE_CIRCLE = "on a circle", "on a circle, without negatives"
WORTH = 1.0
"""Points of k-NN under which negatives would be worth nothing."""
DELIVERED = 0.3
"""How far the uniformity with all negatives must lie under that with none for the treatment to count as delivered."""


def of_count(count: int) -> str:
    """A row's name."""
    return {0: "no negatives", 1: "1 negative", COUNTS[-1]: f"{count} negatives, temperature {STANDARD}"}.get(
        count, f"{count} negatives"
    )


def of_temperature(temperature: float) -> str:
    """A row's name."""
    return of_count(COUNTS[-1]) if temperature == STANDARD else f"temperature {temperature:g}"


def variants() -> list[Variant]:
    """The count of negatives, the temperature, and projections of two numbers."""

    def row(name: str, group: str, **changes: Any) -> Variant:
        return Variant(name=name, training=laboratory("simclr", **changes), group=group)

    counts = [
        row(
            of_count(count),
            "How many",
            negatives=count > 0,
            negative_count=None if count in (0, COUNTS[-1]) else count,
            temperature=STANDARD,
        )
        for count in reversed(COUNTS)
    ]
    temperatures = [
        row(of_temperature(value), "How sharp, with all negatives", temperature=value)
        for value in TEMPERATURES
        if value != STANDARD
    ]
    circles = [
        # Without batch norm at the end, which spreads two numbers by itself.
        row(CIRCLE, "Projections of two numbers", projection=2, head_norm=False),
        row(BARE_CIRCLE, "Projections of two numbers", projection=2, head_norm=False, negatives=False),
    ]
    return [*counts, *temperatures, *circles]


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that negatives name more, and many more."""
    many, none, few = of_count(COUNTS[-1]), of_count(0), of_count(1)
    spread = {name: results.mean(name, "uniformity") for name in (many, none)}
    gained = results.gaps(many, none, "knn")
    arrived = spread[none] - spread[many] >= DELIVERED
    kind = judged(gained, delivered=arrived, least=WORTH)
    counts = [count for count in COUNTS if results.trained(of_count(count))]
    dose = ", ".join(f"{count}: {results.shown(of_count(count), 'knn')}" for count in counts)
    begins = {
        SHOWN: "Negatives teach SimCLR more than the two views alone",
        REFUTED: "Negatives are worth nothing here",
        NOT_TESTABLE: "These seeds cannot tell whether negatives are worth anything",
    }[kind]
    if kind == SHOWN and results.gaps(few, none, "knn"):
        share = 100 * mean(results.gaps(few, none, "knn")) / mean(gained)
        begins += f", and one negative a view gives {share:.0f} percent of the gain of all"
    reason = (
        f"{begins}: k-NN in percent by the number of negatives is {dose} (raw pixels "
        f"{results.shown(many, 'knn_pixels')}, random weights {results.shown(many, 'knn_random')})."
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: negatives are to spread the images over the sphere, and "
        f"uniformity (lower is more even, 0 is one point) is {spread[many]:.2f} with all, {spread[none]:.2f} without."
    )
    return StudyVerdict(kind, reason, delivered, (_geometry(results), *_heat(results), *_circles(results)))


def _geometry(results: Results) -> str:
    many, none = of_count(COUNTS[-1]), of_count(0)
    return (
        "Two views of an image are to lie close (alignment, 0 is equal), and different images are to fill the sphere. "
        f"Without negatives alignment is {results.shown(none, 'alignment', 2)}, with all "
        f"{results.shown(many, 'alignment', 2)}. The loss without negatives asks for alignment alone, and one point "
        "for all images has it."
    )


def _heat(results: Results) -> list[str]:
    """What the temperature does, where those rows were trained."""
    if not results.trained(*map(of_temperature, TEMPERATURES)):
        return []
    best, second = sorted(TEMPERATURES, key=lambda value: -results.mean(of_temperature(value), "knn"))[:2]
    gaps = results.gaps(of_temperature(best), of_temperature(second), "knn")
    certain = "beyond" if beyond_chance(gaps) else "within"
    heat = ", ".join(f"{value:g}: {results.shown(of_temperature(value), 'knn')}" for value in TEMPERATURES)
    return [
        f"The temperature says which negatives count: a low one leaves nearly all weight to the nearest, a high one "
        f"weighs all nearly alike. k-NN is {heat}; most at {best:g}, {mean(gaps):+z.1f} to {second:g}, {certain} the "
        "spread of the seeds."
    ]


def _circles(results: Results) -> list[str]:
    """How full the fullest sector of the circle is, where those rows were trained."""
    if not results.trained(CIRCLE, BARE_CIRCLE):
        return []
    ends = {name: _sectors(results, name)[-1:] for name in (CIRCLE, BARE_CIRCLE)}
    if not all(ends.values()):
        return []
    fullest = {name: max(shares) for name, [(_, shares)] in ends.items()}
    count = len(ends[CIRCLE][0][1])
    return [
        f"On a circle, where it can be drawn: at the end the fullest of {count} equal sectors holds "
        f"{fullest[CIRCLE]:.0f} percent of the images with negatives and {fullest[BARE_CIRCLE]:.0f} percent without "
        f"({100 / count:.0f} is even)."
    ]


def _sectors(results: Results, name: str) -> list[tuple[int, list[float]]]:
    """For each look of the first seed: its step, and the percent of images in each sector of the circle."""
    history = results.of(name)[0].history
    return [
        (int(line["step"]), [line[key] for key in sorted(line) if key.startswith("sector/")])
        for line in history
        if "sector/00" in line
    ]


def circle(shares: Sequence[float], side: int = 240) -> UInt8[np.ndarray, "side side 3"]:
    """A ring whose sectors are as thick as the root of their share, so that one full sector leaves others visible."""
    image = np.full((4 * side, 4 * side, 3), 255, np.uint8)
    center, inner = 2 * side, int(0.8 * side)
    cv2.circle(image, (center, center), inner, (214, 214, 214), 8, cv2.LINE_AA)
    for number, share in enumerate(shares):
        if share <= 0:
            continue
        outer = inner + (1.1 * side) * math.sqrt(share / 100)
        start, stop = (2 * math.pi * (number + edge) / len(shares) for edge in (0.06, 0.94))
        angles = np.linspace(start, stop, 12)
        ring = [(center + inner * math.cos(angle), center - inner * math.sin(angle)) for angle in angles]
        edge = [(center + outer * math.cos(angle), center - outer * math.sin(angle)) for angle in angles[::-1]]
        cv2.fillPoly(image, [np.array(ring + edge, np.int32)], (31, 119, 180), cv2.LINE_AA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def show(page: Page, results: Results) -> None:
    rows_trained = [variant for variant in variants() if results.trained(variant.name)]
    grid(page, rows_trained, results, unit="Paper")
    rows: list[list[Cell]] = [
        [
            variant.name,
            *(
                Number(results.shown(variant.name, name, 2), results.mean(variant.name, name))
                for name in ("alignment", "uniformity")
            ),
        ]
        for variant in rows_trained
    ]
    page.table(["Variant", "Alignment", "Uniformity"], [("", rows)], caption="Where projections lie on the sphere")
    page.note(
        "Alignment is the mean squared distance of two views' unit vectors, uniformity log mean exp(-2 squared "
        "distance) over pairs of images (Wang and Isola, arXiv 2005.10242)."
    )
    counted = [count for count in COUNTS if count and results.trained(of_count(count))]
    page.curves(
        "k-NN by the number of negatives, percent",
        [
            Series(
                name="SimCLR",
                x=[math.log2(count) for count in counted],
                y=[results.mean(of_count(count), "knn") for count in counted],
                smooth=False,
            )
        ],
        x_label="logarithm of the number to base 2",
    )
    for name in (CIRCLE, BARE_CIRCLE):
        looks = _sectors(results, name) if results.trained(name) else []
        if not looks:
            continue
        chosen = [looks[round(place * (len(looks) - 1) / 4)] for place in range(5)]
        page.heading(f"Projections {name}, while it trains", level=3)
        page.pictures(
            [
                PageImage(
                    image=circle(shares),
                    caption=f"step {step:,}",
                    alt=f"a ring; its fullest sector holds {max(shares):.0f} percent of the images",
                )
                for step, shares in dict(chosen).items()
            ]
        )
    show_neighbors(page, results, [of_count(count) for count in (COUNTS[0], *COUNTS[-1:])])
    curves(page, results, "Uniformity over the run", "uniformity", [of_count(count) for count in COUNTS])
    curves(page, results, "k-NN over the run, percent", "knn", [of_count(count) for count in COUNTS])


STUDY = Study(
    question="How many negatives does SimCLR need, and what do they do?",
    design="SimCLR on the same small network (three convolutions, 32 pixels) and the same single drawings in the same "
    "order. What differs is how many views of other images each view is compared with, or the temperature by which "
    "the comparison is sharpened. Two more rows have projections of two numbers, which lie on a circle and can be "
    "drawn. Measured on new images: nearest neighbors, alignment and uniformity.",
    variants=variants,
    measure=measure_encoder,
    answer=answer,
    show=show,
)
