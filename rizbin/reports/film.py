"""A page that shows how pictures were drawn: what the network saw at each step, and what is left of a start picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rizbin.generation.diffusion.drawing import SavedImage, noised_starts, seen
from rizbin.generation.diffusion.spans import objects_in, spans_of
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import Labelled, Pixels, chosen
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.reports.film_steps import show_formulas, show_guidance, show_schedule, show_steps, show_words
from rizbin.visualization.attention import overlay


def write_film(
    painter: TextToImage,
    made: Sequence[SavedImage],
    start: Pixels | None,
    target: Path,
    *,
    about: Mapping[str, object] | None = None,
    grid: Pixels | None = None,
) -> Path:
    """Writes the page and returns its path. Raises RizbinError when it cannot be written.

    about: what else made the pictures, as their record tells it: the cure, objects, repair stages, versions.
    grid: the sheet of strengths and guidances, where it was drawn.
    """
    page = Page(
        "How it was drawn", subtitle=f"{len(made)} picture{'' if len(made) == 1 else 's'} by {Path(painter.name).name}"
    )
    page.explained(
        [
            (
                "Seen at a step",
                "Under the noise the network guesses the finished picture at every step. First the guess is a blur of "
                "what such pictures have in common, then places and colors are decided, then what things are, and last "
                "their edges.",
            ),
            (
                "Where a word is read",
                "Bright places of the network read this word most at that step: the mean of its cross-attention at one "
                "resolution, over the picture as it was seen then.",
            ),
            ("t", "Where the step stands in the noise schedule: 999 is nothing but noise, 0 is none."),
        ]
    )
    show_formulas(page)
    if start is not None:
        page.heading("The start picture under noise")
        page.text("What a strength leaves of it before the first step; the network may change what it cannot see.")
        page.pictures(_shown(noised_starts(painter, start, made[0].sampling), "the start picture under noise"))
    if grid is not None:
        page.heading("Strength and guidance")
        page.text("Strength across, the scale of classifier-free guidance down, all from the same start and noise.")
        page.sheets([PageImage(image=grid, alt="the picture redrawn at every strength and guidance", smooth=True)])
    for one in made:
        _image(page, painter, one, from_picture=start is not None)
    if about:
        page.heading("How to make them again")
        page.text(
            "`rizbin replay` does it from the record beside this page (drawn.json or repaired.json), which holds:"
        )
        page.text("; ".join(f"{name} {_spelled(value)}" for name, value in about.items()) + ".")
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


def _image(page: Page, painter: TextToImage, one: SavedImage, *, from_picture: bool) -> None:
    """How one image came to be."""
    page.heading(one.prompt or "without words")
    page.text(
        f"Seed {one.sampling.seed}, {len(one.painted.frames)} steps by the scheduler {one.sampling.scheduler}, "
        f"guidance {one.sampling.guidance_scale:g}, "
        f"{one.painted.image.shape[1]}x{one.painted.image.shape[0]} pixels"
        + (f", strength {one.sampling.strength:g}" if from_picture else "")
        + (f', away from "{one.sampling.negative}"' if one.sampling.negative else "")
        + f", {one.painted.seconds:.1f} seconds."
    )
    for sentence in one.painted.notes:
        page.note(sentence)
    shown = [*seen(painter, one.painted.frames, most=11), (one.painted.image, "the picture")]
    page.pictures(_shown(shown, one.prompt))
    show_steps(page, painter, one)
    show_schedule(page, painter, one, from_picture=from_picture)
    show_guidance(page, one)
    show_words(page, painter, one)
    _attention(page, painter, one)


def _spelled(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _attention(page: Page, painter: TextToImage, one: SavedImage) -> None:
    """Where each object's words were read, at some steps, over what the network saw then."""
    frames = [frame for frame in one.painted.frames if frame.attention is not None]
    spans, _ = spans_of(one.prompt, objects_in(one.prompt), painter.pipeline.tokenizer) if frames else ([], [])
    for span in spans:
        pictures = []
        for frame in chosen(frames, 5):
            attention = frame.attention
            if attention is not None:
                values = attention[..., list(span.tokens)].mean(dim=-1).numpy()
                pictures.append((overlay(painter.decode(frame.clean), values), f"step {frame.step + 1}"))
        page.card(f'Where "{span.word}" is read', _shown(pictures, f"attention to {span.word}"))


def _shown(pictures: Sequence[Labelled], what: str) -> list[PageImage]:
    return [PageImage(image=image, caption=words, alt=f"{what}, {words}") for image, words in pictures]
