"""What each denoising step decides, and what the words add: one model draws, and every step is compared with the end.

Papers: latent diffusion, arXiv 2112.10752; classifier-free guidance, arXiv 2207.12598; from an image, SDEdit, arXiv
2108.01073. Every sentence of the answer is made from the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Annotated

import cv2
import numpy as np

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.environment import describe
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar, MakeBar, advancing
from rizbin.evaluation.stills import coarse_likeness
from rizbin.generation.diffusion.attention_guidance import resolution_of
from rizbin.generation.diffusion.drawing import SavedImage
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage
from rizbin.generation.film import Pixels
from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number, PageImage
from rizbin.reports.encoder import OPENMOJI
from rizbin.reports.film_steps import show_formulas, show_guidance, show_schedule, show_steps, show_words
from rizbin.studies.lab import interval, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict, publish
from rizbin.workflows.load import load_text_to_image

QUESTION = "What does each denoising step decide, and what do the words add to it?"
PROMPTS = ("a zebra and a frog", "a taxi", "a strawberry", "a panda and a taxi", "a frog", "a zebra")
SETTLED = 0.9
"""Correlation with the finished image from which it counts as decided."""
SQUARES = 8
"""Squares along a side of what is called coarse: places and colors."""
LEAST = 5.0
"""Percent of the steps by which detail would have to come later to speak of an order."""
SHOWN_STEPS = 12
"""Behind the slider of the page: all 25 would make it larger than a page of the docs may be."""
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Denoised:
    """One image, step by step."""

    saved: SavedImage
    coarse: tuple[float, ...]
    """Correlation of each step's predicted original with the finished image, over `SQUARES` squares a side."""
    fine: tuple[float, ...]
    """The same of what those squares leave out."""

    def settled(self, likeness: Sequence[float]) -> float:
        """Percent of the steps after which the likeness stays at `SETTLED` or more."""
        late = [place for place, value in enumerate(likeness) if value < SETTLED]
        return 100 * ((late[-1] + 1) if late else 0) / len(likeness)

    @property
    def later(self) -> float:
        """How much later detail is decided than places and colors, in percent of the steps."""
        return self.settled(self.fine) - self.settled(self.coarse)


def fine_likeness(image: Pixels, other: Pixels, side: int = SQUARES) -> float:
    """The correlation of what two images have beside their averages over `side` squares; 0 where one has nothing."""
    rests = []
    for pixels in (image, other):
        values = pixels.astype(np.float32)
        coarse = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
        rests.append((values - cv2.resize(coarse, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)).ravel())
    length = float(np.linalg.norm(rests[0]) * np.linalg.norm(rests[1]))
    return float(rests[0] @ rests[1]) / length if length > 0 else 0.0


def denoised(text_to_image: TextToImage, prompt: str, sampling: Sampling) -> Denoised:
    """Draws an image and compares each step's predicted original with it."""
    painted = text_to_image.paint(prompt, sampling, attend=resolution_of(text_to_image))
    seen = [text_to_image.decode(frame.clean) for frame in painted.frames]
    return Denoised(
        SavedImage(Path(), prompt, sampling, painted),
        tuple(coarse_likeness(image, painted.image, SQUARES) for image in seen),
        tuple(fine_likeness(image, painted.image) for image in seen),
    )


def answer(images: Sequence[Denoised], similarity: dict[float, float]) -> StudyVerdict:
    """The verdict; the claim is that places and colors are decided before detail.

    kept: strength -> mean coarse likeness of what it draws to its start image.
    """
    seeds = sorted({image.saved.sampling.seed for image in images})
    gaps = [mean(image.later for image in images if image.saved.sampling.seed == seed) for seed in seeds]
    begin = mean(image.coarse[0] for image in images)
    alike = _alike(images)
    arrived = begin < SETTLED and alike < SETTLED
    kind = judged(gaps, delivered=arrived, least=LEAST)
    settled = [mean(image.settled(likeness(image)) for image in images) for likeness in (_coarse, _fine)]
    begins = {
        SHOWN: "Places and colors are decided before detail",
        REFUTED: "Detail is not decided later than places and colors",
        NOT_TESTABLE: "Whether places and colors are decided before detail cannot be told"
        + (" from these seeds" if arrived else ": there was nothing left to decide, or the words decided nothing"),
    }
    low, high = interval(gaps)
    spread = f" ({low:.0f} to {high:.0f} with 95 percent over {len(gaps)} seeds)" if len(gaps) > 1 else " (one seed)"
    reason = (
        f"{begins[kind]}: of the predicted original, places and colors stay as they will be after {settled[0]:.0f} "
        f"percent of the steps and detail after {settled[1]:.0f}, {mean(gaps):.0f} percent of the steps later{spread}."
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: at the first step the predicted original has a coarse "
        f"correlation of {begin:.2f} with the finished image, and two prompts drawn from the same noise end with one "
        f"of {alike:.2f}; {SETTLED:g} counts as decided."
    )
    return StudyVerdict(kind, reason, delivered, tuple(_more(images, similarity)))


def _coarse(image: Denoised) -> tuple[float, ...]:
    return image.coarse


def _fine(image: Denoised) -> tuple[float, ...]:
    return image.fine


def _alike(images: Sequence[Denoised]) -> float:
    """Mean coarse likeness of two prompts' images from the same noise; 1 where there is one prompt alone."""
    pairs = [
        coarse_likeness(first.saved.painted.image, second.saved.painted.image, SQUARES)
        for first, second in combinations(images, 2)
        if first.saved.sampling.seed == second.saved.sampling.seed and first.saved.prompt != second.saved.prompt
    ]
    return mean(pairs) if pairs else 1.0


def _more(images: Sequence[Denoised], similarity: dict[float, float]) -> list[str]:
    """What guidance adds over the steps, and what a strength leaves of a start image."""
    sentences = []
    changes = [
        [frame.noise_change for frame in image.saved.painted.frames if frame.noise_change is not None]
        for image in images
    ]
    if all(changes):
        first, last = (100 * mean(line[place] for line in changes) for place in (0, -1))
        most = mean(line.index(max(line)) + 1 for line in changes)
        sentences.append(
            f"What the words add: between the predictions with and without the prompt lie {first:.0f} percent of the "
            f"length of the predicted noise at the first step and {last:.0f} at the last; on average they are farthest "
            f"apart at step {most:.1f} of {len(changes[0])}."
        )
    if similarity:
        likenesses = ", ".join(f"{strength:g}: {value:.2f}" for strength, value in similarity.items())
        sentences.append(
            "From images of one prompt, redrawn by the words of another, the coarse correlation of what is drawn with "
            f"its start image is, by strength: {likenesses}. A strength of 1 ignores the start, so that is how alike "
            "images of the two prompts are by themselves."
        )
    return sentences


def started(text_to_image: TextToImage, images: Sequence[Denoised]) -> dict[float, list[tuple[Denoised, Pixels]]]:
    """Strength -> the finished images of the first prompt redrawn by the words of the last, with their start."""
    first, last = images[0].saved.prompt, images[-1].saved.prompt
    starts = [image for image in images if image.saved.prompt == first] if first != last else []
    return {
        strength: [
            (
                image,
                text_to_image.paint(
                    last, replace(image.saved.sampling, strength=strength), start=image.saved.painted.image
                ).image,
            )
            for image in starts
        ]
        for strength in STRENGTHS
    }


def write_study(
    text_to_image: TextToImage,
    prompts: Sequence[str],
    target: Path,
    *,
    sampling: Sampling,
    seeds: int = 3,
    bar: MakeBar | None = None,
    small: str = "",
) -> Path:
    """Draws each prompt with `seeds` seeds, compares every step with the end, and writes the page; returns its path.

    Raises RizbinError for a model without a UNet, and without two prompts and a seed.
    """
    if text_to_image.unet is None:
        raise RizbinError(f"{text_to_image.name} has no UNet, whose steps could be seen; study another model.")
    if len(set(prompts)) < 2 or seeds < 1:
        raise RizbinError("Give two prompts or more, and one seed or more: what words do is seen by comparing prompts.")
    work = [(prompt, replace(sampling, seed=sampling.seed + seed)) for prompt in prompts for seed in range(seeds)]
    images: list[Denoised] = []
    with advancing(bar, len(work) + seeds * len(STRENGTHS), "drawing step by step") as advance:
        for prompt, chosen in work:
            images.append(denoised(text_to_image, prompt, chosen))
            advance(1)
        again = started(text_to_image, images)
        advance(seeds * len(STRENGTHS))
    similarity = {
        strength: mean(coarse_likeness(image, start.saved.painted.image, SQUARES) for start, image in pairs)
        for strength, pairs in again.items()
        if pairs
    }
    machine = describe()
    page = Page(
        QUESTION,
        subtitle=f"{Path(text_to_image.name).name}, {len(prompts)} prompts, {seeds} seeds each, "
        f"{len(images[0].saved.painted.frames)} steps of the scheduler {sampling.scheduler}, guidance "
        f"{sampling.guidance_scale:g} · {machine.get('cpu')} · commit {machine.get('commit')}",
    )
    verdict = answer(images, similarity)
    verdict.show(page, small=small)
    _show(page, text_to_image, images, again, similarity)
    page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return publish(page, verdict, target, small=small)


def _show(
    page: Page,
    text_to_image: TextToImage,
    images: Sequence[Denoised],
    again: dict[float, list[tuple[Denoised, Pixels]]],
    similarity: dict[float, float],
) -> None:
    page.heading("Design")
    page.text(
        "At every step the network's prediction says what it takes the finished image to be. That predicted original "
        f"is compared with the finished image twice: averaged over {SQUARES} by {SQUARES} squares, which leaves places "
        "and colors, and by what these squares leave out, which is detail. The prompts are drawn from the same noises."
    )
    show_formulas(page)
    page.heading("What is decided when")
    steps = [100 * (place + 1) / len(images[0].coarse) for place in range(len(images[0].coarse))]
    lines = [
        Series(
            name=name,
            x=steps,
            y=[mean(values) for values in zip(*(likeness(image) for image in images), strict=True)],
            smooth=False,
        )
        for name, likeness in (("places and colors", _coarse), ("detail", _fine))
    ]
    page.curves("Correlation of the predicted original with the end", lines, x_label="percent of the steps")
    prompts = list(dict.fromkeys(image.saved.prompt for image in images))
    rows: list[list[Cell]] = []
    for prompt in prompts:
        mine = [image for image in images if image.saved.prompt == prompt]
        values = [mean(image.settled(likeness(image)) for image in mine) for likeness in (_coarse, _fine)]
        rows.append([prompt, *(Number(f"{value:.0f}", value) for value in values)])
    page.table(
        ["Prompt", "places, colors", "detail"], [("", rows)], caption="After how many percent of the steps they stay"
    )
    for image in [
        next(drawn_image for drawn_image in images if drawn_image.saved.prompt == prompt) for prompt in prompts[:2]
    ]:
        page.heading(f"“{image.saved.prompt}”, seed {image.saved.sampling.seed}")
        show_steps(page, text_to_image, image.saved, most=SHOWN_STEPS)
        show_schedule(page, text_to_image, image.saved, from_picture=False)
        show_guidance(page, image.saved)
        show_words(page, text_to_image, image.saved)
    if similarity:
        page.heading("From a start image")
        page.text(f"“{prompts[0]}” redrawn by the words “{prompts[-1]}”, by strength; the first seed.")
        first = next(iter(again.values()))[0][0]
        shown = [PageImage(image=first.saved.painted.image, caption="the start image", alt="the start image")]
        shown += [
            PageImage(image=pairs[0][1], caption=f"strength {strength:g}", alt=f"redrawn at strength {strength:g}")
            for strength, pairs in again.items()
        ]
        page.pictures(shown)


@dataclass(frozen=True, kw_only=True)
class StudyDenoising:
    """Draw prompts step by step and see what each denoising step decides, what the words add and what a start keeps."""

    model: Annotated[Place, Argument(check="model")] = "diffusion-mini"
    """A model as for `rizbin generate`, with a UNet."""
    prompts: tuple[str, ...] = PROMPTS
    """What to draw, two or more."""
    seeds: int = 6
    """Images of each prompt, from the same noises."""
    seed: int = 0
    """The first seed."""
    steps: int = 25
    """Denoising steps of every image."""
    guidance_scale: float = 4.0
    """Scale of classifier-free guidance of every image."""
    scheduler: str = "ddim"
    """Scheduler of every image; ddim adds no noise on the way."""
    output: Annotated[Place, Argument(short=("-o",))] = "runs/study-denoising.html"
    """The page."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""
    small: Annotated[str, HIDDEN] = ""
    """A sentence for the page that says how this is smaller than the whole study."""


@job(StudyDenoising)
def study_denoising(settings: StudyDenoising) -> Path:
    """Draws prompts step by step and writes a page of what each step decides."""
    page, quiet = Path(settings.output), settings.quiet
    outputs.refuse_taken(page)
    sampling = Sampling(
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        scheduler=settings.scheduler,
        seed=settings.seed,
    )
    return write_study(
        load_text_to_image(settings.model, device=str(choose(settings.device))),
        settings.prompts,
        page,
        sampling=sampling,
        seeds=settings.seeds,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
        small=settings.small,
    )
