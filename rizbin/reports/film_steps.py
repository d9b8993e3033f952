"""The parts of a film's page: a slider over all steps, the noise schedule, what guidance adds, which words are read."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.generation.diffusion.drawing import SavedImage
from rizbin.generation.diffusion.sampling import DenoisingFrame
from rizbin.generation.diffusion.spans import TokenSpan, objects_in, spans_of
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import Pixels, chosen
from rizbin.pages.charts import Mark, Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.visualization.attention import overlay

SIDE = 192
"""Longest side of an image behind the slider, pixels: a page of 25 steps stays below some megabytes."""
STEPS = 25
"""Steps behind the slider."""
WORDS = 4
"""Objects of which each step shows where they are read."""
SPREAD = 3.0
"""Standard deviations of noise from black to white."""


def show_formulas(page: Page) -> None:
    """Adds what the images beside it are computed by."""
    page.details(
        "The formulas",
        [
            (
                "xₜ = √ᾱₜ x₀ + √(1 - ᾱₜ) ε",
                "The noisy latent: the original x₀ and noise ε, mixed by the schedule ᾱ (alpha bar). Its noise level "
                "is sigma = √(1 / ᾱ - 1).",
            ),
            (
                "x̂₀ = (xₜ - √(1 - ᾱₜ) ε̂) / √ᾱₜ",
                "The predicted original: what is left when the noise ε̂ that the network predicts is taken away.",
            ),
            (
                "ε̂ = ε̂(∅) + s (ε̂(c) - ε̂(∅))",
                "Classifier-free guidance: the prediction without the prompt, moved s times as far as the prompt c "
                "moves it (arXiv 2207.12598).",
            ),
            (
                "t₀ = strength · steps",
                "From a start image only the last steps are made: it enters the schedule at the noise level of the "
                "first of these (SDEdit, arXiv 2108.01073).",
            ),
        ],
    )


def show_steps(page: Page, text_to_image: TextToImage, image: SavedImage, *, most: int = STEPS) -> None:
    """Adds every step behind a slider: the noisy latent, predicted originals and noise, where objects are read."""
    spans = _spans(text_to_image, image, objects_in(image.prompt))[:WORDS]
    steps = [
        (
            f"step {frame.step + 1} of {len(image.painted.frames)}, t {frame.timestep:.0f}",
            _pictures(text_to_image, frame, spans),
        )
        for frame in chosen(image.painted.frames, most)
    ]
    if steps:
        page.heading("Step by step", level=3)
        page.steps(steps)


def _pictures(text_to_image: TextToImage, frame: DenoisingFrame, spans: Sequence[TokenSpan]) -> list[PageImage]:
    clean = text_to_image.decode(frame.clean)
    shown: list[tuple[str, Pixels]] = []
    if frame.noisy is not None:
        shown.append(("the noisy latent xₜ, decoded", text_to_image.decode(frame.noisy)))
    shown.append(("the predicted original x̂₀", clean))
    if frame.noisy is not None and frame.signal is not None:
        noise = (frame.noisy - frame.signal**0.5 * frame.clean) / max(1 - frame.signal, 1e-6) ** 0.5
        shown.append(("the predicted noise ε̂ (three channels)", as_noise(noise[0, :3].float().numpy())))
    if frame.without_prompt is not None and frame.with_prompt is not None:
        both = [text_to_image.decode(part) for part in (frame.without_prompt, frame.with_prompt)]
        shown += [("x̂₀ without the prompt", both[0]), ("x̂₀ with the prompt, before guidance", both[1])]
    if frame.attention is not None:
        for span in spans:
            values = frame.attention[..., list(span.tokens)].mean(dim=-1).numpy()
            shown.append((f'where "{span.word}" is read', overlay(clean, values)))
    return [
        PageImage(image=small(pixels), caption=words, alt=f"{words}, step {frame.step + 1}") for words, pixels in shown
    ]


def as_noise(channels: np.ndarray) -> UInt8[np.ndarray, "rows columns 3"]:
    """Three channels of a latent [channels, rows, columns] as colors; gray is 0, black and white are `SPREAD`."""
    values = np.clip(np.nan_to_num(channels) / (2 * SPREAD) + 0.5, 0, 1)
    colors = np.repeat(values[:1], 3, axis=0) if len(values) < 3 else values
    return (255 * colors).round().astype(np.uint8).transpose(1, 2, 0)


def small(image: Pixels) -> Pixels:
    """The image, no larger than `SIDE`."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return image
    size = max(round(scale * width), 1), max(round(scale * height), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def show_schedule(page: Page, text_to_image: TextToImage, image: SavedImage, *, from_picture: bool) -> None:
    """Adds the noise schedule as curves, with the steps that were made and where the strength enters it."""
    shares = getattr(text_to_image.pipeline.scheduler, "alphas_cumprod", None)
    frames = sorted(
        (frame for frame in image.painted.frames if frame.signal is not None),
        key=lambda step: step.timestep,
    )
    if shares is None or not frames:
        return
    every = [float(value) for value in shares]
    made = {frame.timestep: frame.signal for frame in frames if frame.signal}
    entry = image.painted.frames[0].timestep
    says = f"a strength of {image.sampling.strength:g} enters here" if from_picture else "the first step begins"
    marks = [Mark(x=entry, text=f"{says}, t {entry:.0f}")]
    times = list(range(len(every)))
    page.heading("The noise schedule", level=3)
    page.curves(
        "Alpha bar: share of the original in the latent, squared",
        [
            Series(name="schedule", x=times, y=every, smooth=False),
            Series(name="steps that were made", x=list(made), y=list(made.values()), smooth=False),
        ],
        marks=marks,
        x_label="timestep t",
    )
    page.curves(
        "Sigma: noise for each unit of the original",
        [
            Series(name="schedule", x=times, y=[(1 / value - 1) ** 0.5 for value in every], smooth=False),
            Series(
                name="steps that were made",
                x=list(made),
                y=[(1 / max(value, 1e-12) - 1) ** 0.5 for value in made.values()],
                smooth=False,
            ),
        ],
        log=True,
        marks=marks,
        x_label="timestep t",
    )
    page.note(f"Sampling goes from right to left; at the dashed line {says} (t {entry:.0f}).")


def show_guidance(page: Page, image: SavedImage) -> None:
    """Adds how far apart the predictions with and without the prompt are at each step."""
    frames = [frame for frame in image.painted.frames if frame.noise_change is not None]
    if len(frames) < 2:
        return
    line = Series(
        name="distance",
        x=[frame.step + 1 for frame in frames],
        y=[100 * frame.noise_change for frame in frames if frame.noise_change is not None],
        smooth=False,
    )
    page.curves("What the prompt changes of the predicted noise, percent of its length", [line])


def show_words(page: Page, text_to_image: TextToImage, image: SavedImage) -> None:
    """Adds how much attention every word has at each step, as curves."""
    frames = [frame for frame in image.painted.frames if frame.attention is not None]
    words = [word.strip(",.;:!?\"'()") for word in image.prompt.split()]
    spans = _spans(text_to_image, image, [word for word in words if word])
    if len(frames) < 2 or not spans:
        return
    steps = [frame.step + 1 for frame in frames]
    names = [
        span.word + (f" ({[s.word for s in spans[:place]].count(span.word) + 1})" if words.count(span.word) > 1 else "")
        for place, span in enumerate(spans)
    ]
    lines = [
        Series(name=name, x=steps, y=[mass(frame, span) for frame in frames], smooth=False)
        for name, span in zip(names, spans, strict=True)
    ]
    page.curves("Attention that each word has, percent of all", lines)
    page.note("The rest is read from the start token and from the padding behind the prompt.")


def mass(frame: DenoisingFrame, span: TokenSpan) -> float:
    """Percent of a step's cross-attention that a word's tokens have, mean over places."""
    assert frame.attention is not None
    return 100 * float(frame.attention[..., list(span.tokens)].sum(dim=-1).mean())


def _spans(text_to_image: TextToImage, image: SavedImage, words: Sequence[str]) -> list[TokenSpan]:
    if not any(frame.attention is not None for frame in image.painted.frames):
        return []
    return spans_of(image.prompt, words, text_to_image.pipeline.tokenizer)[0]
