"""Draws series of images into a folder: every seed a file, with a record of how, and on wish with its film."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar, advancing
from rizbin.generation.diffusion.sampling import (
    SEEDS,
    ComposedPrompt,
    DenoisingFrame,
    GeneratedImage,
    Guide,
    Sampling,
    check,
    fingerprint,
)
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import Labelled, Pixels, chosen, sheet, write_gif, write_png

RECORD = "drawn.json"
"""File that records how each image of a folder was drawn: all that is needed to make it again."""
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Strengths across the grid of `grid`."""
GUIDANCES = (1.0, 3.0, 7.5, 12.0)
"""Scales of classifier-free guidance down the same grid."""


WatchDrawing = Callable[[TextToImage, str, DenoisingFrame], None]
"""Called after every step with what draws and the prompt."""


@dataclass(frozen=True)
class SavedImage:
    """One image on disk."""

    file: Path
    prompt: str
    sampling: Sampling
    painted: GeneratedImage


def check_request(prompts: Sequence[str], sampling: Sampling, count: int) -> None:
    """Raises RizbinError for what cannot be drawn, whatever the model: before one is loaded."""
    check(sampling)
    if count < 1:
        raise RizbinError(f"{count} images are none; give --count 1 or more.")
    if not prompts:
        raise RizbinError('Say what to draw: rizbin generate "a zebra and a frog".')
    if sampling.seed + count - 1 > SEEDS[1]:
        raise RizbinError(f"The {count} seeds from {sampling.seed} on need more than 64 bits; give a smaller seed.")


def draw(
    text_to_image: TextToImage,
    prompts: Sequence[str],
    folder: Path,
    *,
    sampling: Sampling,
    count: int = 1,
    start: Pixels | None = None,
    guide: Callable[[str], tuple[Guide | ComposedPrompt | None, list[str]]] = lambda prompt: (None, []),
    film: bool = False,
    attend: int = 0,
    about: Mapping[str, object] | None = None,
    bar: MakeBar | None = None,
    watch: WatchDrawing | None = None,
) -> list[SavedImage]:
    """Images of each prompt with `count` seeds from the sampling's on, in `folder`, and drawn.json that tells how.

    Files are numbered; words never become a path. film: a strip and a GIF beside each image. guide: for a
    prompt, what steers and what is to be said about it. attend: as for `TextToImage.paint`. about: what else the record
    tells of each image. Stopped by Ctrl-C it keeps what is drawn. Raises RizbinError for what cannot be drawn or
    written.
    """
    check_request(prompts, sampling, count)
    made: list[SavedImage] = []
    total = len(prompts) * count * _steps_made(text_to_image, sampling, start is not None)
    with advancing(bar, total, "drawing") as advance:

        def stepped(frame: DenoisingFrame) -> None:
            advance(1)
            if watch is not None:
                watch(text_to_image, prompt, frame)

        for prompt in prompts:
            for number in range(count):
                chosen = replace(sampling, seed=sampling.seed + number)
                steering, sentences = guide(prompt)
                painted = text_to_image.paint(prompt, chosen, start=start, guide=steering, watch=stepped, attend=attend)
                painted = replace(painted, notes=[*sentences, *painted.notes])
                file = write_png(painted.image, folder / f"{len(made):04d}.png")
                made.append(SavedImage(file, prompt, chosen, painted))
                if film:
                    write_strip(text_to_image, made[-1])
                _record(text_to_image, made, folder, about or {})
    return made


def grid(
    text_to_image: TextToImage, prompt: str, start: Pixels, sampling: Sampling, *, bar: MakeBar | None = None
) -> Pixels:
    """A sheet of one image redrawn at strengths (across) and guidances (down): what the two do, at one glance."""
    rows: list[list[Labelled]] = []
    changed = [[replace(sampling, strength=s, guidance_scale=g) for s in STRENGTHS] for g in GUIDANCES]
    total = sum(_steps_made(text_to_image, cell, True) for row in changed for cell in row)
    with advancing(bar, total, "grid of strength and guidance") as advance:
        for row in changed:
            made = [text_to_image.paint(prompt, cell, start=start, watch=lambda frame: advance(1)) for cell in row]
            labelled = [(image.image, f"strength {cell.strength:g}") for image, cell in zip(made, row, strict=True)]
            rows.append(labelled)
    return sheet(rows, heads=[f"guidance {value:g}" for value in GUIDANCES])


def noised_starts(text_to_image: TextToImage, start: Pixels, sampling: Sampling) -> list[Labelled]:
    """What is left of a start image at each strength before the first step."""
    shown = []
    for strength in (0.0, *STRENGTHS[:-1]):
        noised = text_to_image.noised(start, replace(sampling, strength=strength, guidance_scale=1.0))
        shown.append((text_to_image.decode(noised), f"strength {strength:g}"))
    return shown


def predicted_images(text_to_image: TextToImage, frames: Sequence[DenoisingFrame], *, most: int = 10) -> list[Labelled]:
    """The finished image as the network saw it at some steps: how what is drawn is decided from coarse to fine."""
    return [
        (text_to_image.decode(frame.clean), f"step {frame.step + 1}, t {frame.timestep:.0f}")
        for frame in chosen(frames, most)
    ]


def _steps_made(text_to_image: TextToImage, sampling: Sampling, from_image: bool) -> int:
    """How many steps an image takes."""
    from rizbin.generation.diffusion.schedulers import scheduler_named

    scheduler = scheduler_named(sampling.scheduler, text_to_image.pipeline.scheduler)
    if text_to_image.unet is None:
        return sampling.steps
    return len(text_to_image.timesteps(scheduler, sampling, from_image=from_image))


def write_strip(text_to_image: TextToImage, drawn: SavedImage) -> None:
    """Writes the strip and the GIF of an image beside it; nothing where no step was made."""
    if not drawn.painted.frames:
        return
    images = predicted_images(text_to_image, drawn.painted.frames)
    write_png(sheet([images]), drawn.file.with_name(f"{drawn.file.stem}-film.png"))
    write_gif([image for image, _ in images] + [drawn.painted.image], drawn.file.with_suffix(".gif"))


def _record(text_to_image: TextToImage, made: Sequence[SavedImage], folder: Path, about: Mapping[str, object]) -> None:
    lines = [
        {
            "file": drawn.file.name,
            "prompt": drawn.prompt,
            "model": text_to_image.name,
            **about,
            **asdict(drawn.sampling),
            "size": [drawn.painted.image.shape[1], drawn.painted.image.shape[0]],
            "steps_made": len(drawn.painted.frames),
            "seconds": round(drawn.painted.seconds, 2),
            "notes": drawn.painted.notes,
            "pixels": fingerprint(drawn.painted.image),
        }
        for drawn in made
    ]
    outputs.write(folder / RECORD, json.dumps(lines, indent=2, ensure_ascii=False) + "\n")
