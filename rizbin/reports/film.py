"""A page that shows how images were drawn: what the network saw at each step, and what is left of a start image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rizbin.generation.diffusion.drawing import SavedImage, noised_starts, predicted_images
from rizbin.generation.diffusion.spans import objects_in, spans_of
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import Labelled, Pixels, chosen
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.reports.film_steps import show_formulas, show_guidance, show_schedule, show_steps, show_words
from rizbin.visualization.attention import overlay


def write_film(
    text_to_image: TextToImage,
    made: Sequence[SavedImage],
    start: Pixels | None,
    target: Path,
    *,
    about: Mapping[str, object] | None = None,
    grid: Pixels | None = None,
) -> Path:
    """Writes the page and returns its path. Raises RizbinError when it cannot be written.

    about: what else made the images, as their record tells it: the guidance, objects, repair stages, versions.
    grid: the sheet of strengths and guidances, where it was drawn.
    """
    page = Page(
        "How it was drawn",
        subtitle=f"{len(made)} image{'' if len(made) == 1 else 's'} by {Path(text_to_image.name).name}",
    )
    page.explained(
        [
            (
                "Seen at a step",
                "Under the noise the network guesses the finished image at every step. First the guess is a blur of "
                "what such images have in common, then places and colors are decided, then what objects are, and last "
                "their edges.",
            ),
            (
                "Where a word is read",
                "Bright places of the network read this word most at that step: the mean of its cross-attention at one "
                "resolution, over the image as it was seen then.",
            ),
            ("t", "Where the step stands in the noise schedule: 999 is nothing but noise, 0 is none."),
        ]
    )
    show_formulas(page)
    if start is not None:
        page.heading("The start image under noise")
        page.text("What a strength leaves of it before the first step; the network may change what it cannot see.")
        page.pictures(_shown(noised_starts(text_to_image, start, made[0].sampling), "the start image under noise"))
    if grid is not None:
        page.heading("Strength and guidance")
        page.text("Strength across, the scale of classifier-free guidance down, all from the same start and noise.")
        page.sheets([PageImage(image=grid, alt="the image redrawn at every strength and guidance", smooth=True)])
    for saved in made:
        _image(page, text_to_image, saved, from_picture=start is not None)
    if about:
        page.heading("How to make them again")
        page.text(
            "`rizbin replay` does it from the record beside this page (drawn.json or repaired.json), which holds:"
        )
        page.text("; ".join(f"{name} {_spelled(value)}" for name, value in about.items()) + ".")
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


def _image(page: Page, text_to_image: TextToImage, saved: SavedImage, *, from_picture: bool) -> None:
    """How one image came to be."""
    page.heading(saved.prompt or "without words")
    page.text(
        f"Seed {saved.sampling.seed}, {len(saved.painted.frames)} steps by the scheduler {saved.sampling.scheduler}, "
        f"guidance {saved.sampling.guidance_scale:g}, "
        f"{saved.painted.image.shape[1]}x{saved.painted.image.shape[0]} pixels"
        + (f", strength {saved.sampling.strength:g}" if from_picture else "")
        + (f', away from "{saved.sampling.negative}"' if saved.sampling.negative else "")
        + f", {saved.painted.seconds:.1f} seconds."
    )
    for sentence in saved.painted.notes:
        page.note(sentence)
    shown = [*predicted_images(text_to_image, saved.painted.frames, most=11), (saved.painted.image, "the image")]
    page.pictures(_shown(shown, saved.prompt))
    show_steps(page, text_to_image, saved)
    show_schedule(page, text_to_image, saved, from_picture=from_picture)
    show_guidance(page, saved)
    show_words(page, text_to_image, saved)
    _attention(page, text_to_image, saved)


def _spelled(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _attention(page: Page, text_to_image: TextToImage, saved: SavedImage) -> None:
    """Where each object's words were read, at some steps, over what the network saw then."""
    frames = [frame for frame in saved.painted.frames if frame.attention is not None]
    spans, _ = (
        spans_of(saved.prompt, objects_in(saved.prompt), text_to_image.pipeline.tokenizer) if frames else ([], [])
    )
    for span in spans:
        images = []
        for frame in chosen(frames, 5):
            attention = frame.attention
            if attention is not None:
                values = attention[..., list(span.tokens)].mean(dim=-1).numpy()
                images.append((overlay(text_to_image.decode(frame.clean), values), f"step {frame.step + 1}"))
        page.card(f'Where "{span.word}" is read', _shown(images, f"attention to {span.word}"))


def _shown(images: Sequence[Labelled], what: str) -> list[PageImage]:
    return [PageImage(image=image, caption=words, alt=f"{what}, {words}") for image, words in images]
