"""The tables and sheets of the study of ascent's page."""

from collections.abc import Sequence

import numpy as np

from rizbin.evaluation.stills import HARMS
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number, PageImage
from rizbin.studies.ascent_runs import AscentImage, Measured, Question, Rebuilt, gap, margin, percent

AMONG = 100
"""Prompts that the own one must be nearest of; chance is one in so many."""
SHOWN = 8
"""Images of a variant on the page."""


def show_forms(page: Page, compared: dict[str, AscentImage], numbers: dict[str, Measured], real: Measured) -> None:
    page.heading("Parametrizations")
    page.text(
        f"Right: the own prompt is the nearest of {AMONG}, by the held-out judge; after ±, half the 95 percent "
        "interval over images. Score: as the ascent computed it on its copies. Gap: by how much the cosine of the "
        "encoder exceeds that of the judge, less the same for real scenes."
    )
    rows: list[list[Cell]] = [
        _row(name, measured, real, f"{compared[name].seconds:.1f}", float(np.mean(compared[name].climbed)))
        for name, measured in numbers.items()
    ]
    rows.append(_row("real scenes", real, real, "-", None))
    page.table(_COLUMNS, [("", rows)])
    page.text("Percent right after a harm:")
    page.table(
        ["Made of", *HARMS],
        [
            (
                "",
                [
                    [name, *(Number(f"{measured.harmed[harm]:.0f}", measured.harmed[harm]) for harm in HARMS)]
                    for name, measured in {**numbers, "real scenes": real}.items()
                ],
            )
        ],
    )


_COLUMNS = (
    "Made of",
    "images",
    "score",
    "own cosine",
    "held-out cosine",
    "gap",
    "right, percent",
    "objects found, percent",
    "slope",
    "variation",
    "seconds an image",
)


def _row(name: str, measured: Measured, real: Measured, seconds: str, climbed: float | None) -> list[Cell]:
    beyond = gap(measured, real)
    return [
        name,
        Number(str(len(measured.held_out.right)), len(measured.held_out.right)),
        Number("-" if climbed is None else f"{climbed:.2f}", climbed),
        Number(f"{measured.own.cosine.mean():.2f}", float(measured.own.cosine.mean())),
        Number(f"{measured.held_out.cosine.mean():.2f}", float(measured.held_out.cosine.mean())),
        Number(f"{beyond:.2f}", beyond),
        Number(f"{percent(measured.held_out):.0f} ± {margin(measured.held_out):.0f}", percent(measured.held_out)),
        Number(f"{measured.detected:.0f}", measured.detected),
        Number(f"{measured.slope:.1f}", measured.slope),
        Number(f"{measured.variation:.3f}", measured.variation),
        seconds,
    ]


def show_images(
    page: Page, compared: dict[str, AscentImage], numbers: dict[str, Measured], prompts: Sequence[Question]
) -> None:
    page.heading("The images, failures among them")
    page.text("The first images of each, none left out; the frames show the verdict of the held-out judge.")
    for name, variant_images in compared.items():
        page.heading(name, level=3)
        page.pictures(
            [
                PageImage(image=image, caption=prompts[which].text, alt=prompts[which].text, good=bool(right))
                for image, which, right in zip(
                    variant_images.images[:SHOWN], variant_images.which, numbers[name].held_out.right, strict=False
                )
            ]
        )


def show_changes(page: Page, changed: dict[str, AscentImage], changes: dict[str, Measured]) -> None:
    page.heading("What of the default matters")
    rows: list[list[Cell]] = [
        [
            name,
            Number(str(len(measured.held_out.right)), len(measured.held_out.right)),
            Number(f"{measured.own.cosine.mean():.2f}", float(measured.own.cosine.mean())),
            Number(f"{percent(measured.held_out):.0f} ± {margin(measured.held_out):.0f}", percent(measured.held_out)),
            Number(f"{measured.detected:.0f}", measured.detected),
            Number(f"{changed[name].seconds:.1f}", changed[name].seconds),
        ]
        for name, measured in changes.items()
    ]
    page.table(
        ["Change", "images", "own cosine", "right, percent", "objects found, percent", "seconds an image"],
        [("", rows)],
    )


def show_rebuilt(page: Page, rebuilt: Sequence[Rebuilt], prompts: Sequence[Question]) -> None:
    page.heading("What an encoder keeps of an image")
    page.text(
        "An image is optimized until its embedding is that of the original; nothing else of the original is known. "
        "What comes back is what the embedding holds, without grain. The first are shown."
    )
    count = min(len(rebuilt[0].images), SHOWN)
    page.card(
        "originals",
        [PageImage(image=question.real, caption=question.text, alt=question.text) for question in prompts[:count]],
    )
    for rebuilding in rebuilt:
        page.card(
            rebuilding.encoder,
            rebuilding.images[:count],
            small=f" of all {len(rebuilding.images)}: coarse correlation {rebuilding.likeness.mean():.2f}, cosine by "
            f"an encoder without text {rebuilding.blind:.2f}, by the other {rebuilding.other:.2f}, objects found "
            f"{rebuilding.detected:.0f} percent",
        )
