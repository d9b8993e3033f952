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
"""Pictures of a variant on the page."""


def show_forms(page: Page, compared: dict[str, AscentImage], numbers: dict[str, Measured], real: Measured) -> None:
    page.heading("What a picture is made of")
    page.text(
        f"Right: the own prompt is the nearest of {AMONG}, by the held-out judge; after ±, half the 95 percent "
        "interval over pictures. Climbed: the score as the ascent saw it on its copies. Gap: by how much the encoder "
        "that was climbed likes the pictures more than the judge does, less the same for real scenes."
    )
    rows: list[list[Cell]] = [
        _row(name, one, real, f"{compared[name].seconds:.1f}", float(np.mean(compared[name].climbed)))
        for name, one in numbers.items()
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
                    [name, *(Number(f"{one.harmed[harm]:.0f}", one.harmed[harm]) for harm in HARMS)]
                    for name, one in {**numbers, "real scenes": real}.items()
                ],
            )
        ],
    )


_COLUMNS = (
    "Made of",
    "pictures",
    "climbed",
    "own cosine",
    "held-out cosine",
    "gap",
    "right, percent",
    "things found, percent",
    "slope",
    "variation",
    "seconds a picture",
)


def _row(name: str, one: Measured, real: Measured, seconds: str, climbed: float | None) -> list[Cell]:
    beyond = gap(one, real)
    return [
        name,
        Number(str(len(one.held_out.right)), len(one.held_out.right)),
        Number("-" if climbed is None else f"{climbed:.2f}", climbed),
        Number(f"{one.own.cosine.mean():.2f}", float(one.own.cosine.mean())),
        Number(f"{one.held_out.cosine.mean():.2f}", float(one.held_out.cosine.mean())),
        Number(f"{beyond:.2f}", beyond),
        Number(f"{percent(one.held_out):.0f} ± {margin(one.held_out):.0f}", percent(one.held_out)),
        Number(f"{one.found:.0f}", one.found),
        Number(f"{one.slope:.1f}", one.slope),
        Number(f"{one.variation:.3f}", one.variation),
        seconds,
    ]


def show_images(
    page: Page, compared: dict[str, AscentImage], numbers: dict[str, Measured], asked: Sequence[Question]
) -> None:
    page.heading("The pictures, failures among them")
    page.text("The first of each, none left out; right and wrong is what the held-out judge says.")
    for name, one in compared.items():
        page.heading(name, level=3)
        page.pictures(
            [
                PageImage(image=image, caption=asked[which].text, alt=asked[which].text, good=bool(right))
                for image, which, right in zip(
                    one.images[:SHOWN], one.which, numbers[name].held_out.right, strict=False
                )
            ]
        )


def show_changes(page: Page, changed: dict[str, AscentImage], changes: dict[str, Measured]) -> None:
    page.heading("What of the default matters")
    rows: list[list[Cell]] = [
        [
            name,
            Number(str(len(one.held_out.right)), len(one.held_out.right)),
            Number(f"{one.own.cosine.mean():.2f}", float(one.own.cosine.mean())),
            Number(f"{percent(one.held_out):.0f} ± {margin(one.held_out):.0f}", percent(one.held_out)),
            Number(f"{one.found:.0f}", one.found),
            Number(f"{changed[name].seconds:.1f}", changed[name].seconds),
        ]
        for name, one in changes.items()
    ]
    page.table(
        ["Change", "pictures", "own cosine", "right, percent", "things found, percent", "seconds a picture"],
        [("", rows)],
    )


def show_rebuilt(page: Page, rebuilt: Sequence[Rebuilt], asked: Sequence[Question]) -> None:
    page.heading("What an encoder keeps of a picture")
    page.text(
        "A picture is climbed until its embedding is that of the original; nothing else of the original is known. What "
        "comes back is what the embedding holds, without grain. The first are shown."
    )
    count = min(len(rebuilt[0].images), SHOWN)
    page.card("originals", [PageImage(image=one.real, caption=one.text, alt=one.text) for one in asked[:count]])
    for one in rebuilt:
        page.card(
            one.encoder,
            one.images[:count],
            small=f" of all {len(one.images)}: coarse correlation {one.likeness.mean():.2f}, cosine by an encoder "
            f"without words {one.blind:.2f}, by the other {one.other:.2f}, things found {one.found:.0f} percent",
        )
