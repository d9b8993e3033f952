"""Finished sheets as files: a PNG each, and one page with all of them that opens without network."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rizbin.core import outputs
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.visualization.visualizers import Sheet

PAGE = "index.html"


def write_album(
    sheets: Sequence[Sheet],
    folder: str | Path,
    *,
    title: str,
    subtitle: str = "",
    notes: Sequence[str] = (),
    credit: str = "",
) -> Path:
    """Writes a PNG for each sheet and a page with all of them; returns the page's path.

    Masks go into NAME-mask-001.png and so on, gray values being the numbers of objects. The folder is made where there
    is none; files of the same names are written anew where Rizbin made them, and have new names beside others
    (`rizbin.core.outputs`). `notes` are sentences for the foot of the page, such as images that could not be read;
    `credit` is what the images' licence asks for.
    Raises RizbinError when something cannot be written.
    """
    place = Path(folder)
    page = Page(title, subtitle=subtitle)
    for sheet in sheets:
        outputs.write(place / f"{sheet.name}.png", _png(sheet.image))
        for number, mask in enumerate(sheet.masks, 1):
            outputs.write(place / f"{sheet.name}-mask-{number:03d}.png", _png(np.ascontiguousarray(mask)))
    page.sheets([PageImage(image=sheet.image, alt=sheet.caption, caption=sheet.caption) for sheet in sheets])
    for note in notes:
        page.note(note)
    if credit:
        page.credits(credit)
    return page.write(place / PAGE)


def _png(image: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG")
    return held.getvalue()
