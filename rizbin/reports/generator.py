"""The report of a model that draws: what it made of captions that it never saw, step by step, and how it was made."""

from collections.abc import Sequence
from pathlib import Path

from rizbin.core.measurement import Report
from rizbin.data.sample import Source
from rizbin.data.scenes.source import CREDIT
from rizbin.generation.diffusion.drawing import predicted_images
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.reports.encoder import curves, how_made, read_json, subtitle
from rizbin.reports.numbers import numbers

SHOWN = 24
"""Captions drawn."""
GUIDANCE = 5.0
"""Guidance scale of small models; strong enough to tell objects apart, weak enough to keep their colors."""


def write_drawing_report(
    folder: Path,
    target: Path,
    *,
    text_to_image: TextToImage,
    source: Source,
    evaluation: Report,
    history: Sequence[dict],
    seed: int = 0,
) -> Path:
    """Writes the page and returns its path.

    Args:
        folder: Of the run; `settings.json` and `environment.json` are read where they exist.
        target: The file.
        painter: What is shown.
        source: Images with captions that were not learned from.
        evaluation: Its numbers.
        history: Lines of metrics.jsonl.
        seed: Of the first noise.

    Raises RizbinError when the file cannot be written.
    """
    settings, machine = read_json(folder / "settings.json"), read_json(folder / "environment.json")
    page = Page(f"Drawings after {source.name}", subtitle=subtitle(list(history), machine))
    numbers(page, evaluation)
    samples = [source[index] for index in range(min(SHOWN, len(source)))]
    page.heading("Drawn from captions")
    page.text("Captions of images that it did not learn from, each with a seed of its own; none was chosen.")
    made = [
        text_to_image.paint(sample.caption, Sampling(guidance_scale=GUIDANCE, seed=seed + number))
        for number, sample in enumerate(samples)
    ]
    page.pictures(
        [
            PageImage(image=painted.image, caption=sample.caption, alt=f"drawn: {sample.caption}")
            for painted, sample in zip(made, samples, strict=True)
        ]
    )
    page.heading("Step by step")
    page.text("The network's prediction of the first image at some steps, from pure noise to the end.")
    steps = predicted_images(text_to_image, made[0].frames, most=12)
    page.pictures([PageImage(image=image, caption=words, alt=f"seen at {words}") for image, words in steps])
    page.heading("What the autoencoder keeps")
    page.text("An image and the same through the autoencoder: nothing finer than this can be drawn.")
    for sample in samples[:4]:
        reconstruction = text_to_image.decode(text_to_image.encode(sample.image, *sample.image.shape[:2]))
        page.card(
            sample.caption,
            [
                PageImage(image=sample.image, caption="image", alt=f"image: {sample.caption}"),
                PageImage(image=reconstruction, caption="kept", alt=f"kept of it: {sample.caption}"),
            ],
        )
    curves(page, list(history))
    how_made(page, settings, machine)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    page.credits(CREDIT)
    return page.write(target)
