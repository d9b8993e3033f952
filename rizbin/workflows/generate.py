"""Text-to-image: images from words, an image redrawn by words, images repaired until all their objects are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from rizbin import zoo
from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job, part
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.image_io import read_image
from rizbin.generation.diffusion import drawing
from rizbin.generation.diffusion import repair as repairing
from rizbin.generation.diffusion.attention_guidance import SCALE, GuidanceKind, resolution_of, steering
from rizbin.generation.diffusion.drawing import SavedImage, WatchDrawing
from rizbin.generation.diffusion.loading import Offload
from rizbin.generation.diffusion.repair import Repaired, RepairStrategy
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage, fingerprint
from rizbin.generation.film import Pixels, sheet, write_png
from rizbin.reports.film import write_film
from rizbin.workflows.known_words import unknown_in
from rizbin.workflows.load import load_text_to_image
from rizbin.workflows.verifier import judge_by

REPAIRED = "repaired.json"
"""File that records how images were drawn and repaired: all that is needed to make them again."""
Prompts = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class _Drawing(Sampling):
    """Settings that all jobs with a text-to-image model share."""

    model: Annotated[Place, Argument(check="model")] = "diffusion-mini"
    """A diffusers pipeline by its name on Hugging Face or by folder, or a run of `rizbin train diffusion`. The bundled
    one draws sixteen objects (`rizbin zoo diffusion-mini`) at 64 pixels in a second."""
    output: Annotated[Place, Argument(short=("-o",))] = "drawn"
    """Folder for the images and the record of how each was made."""
    guidance_scale: float = 5.0
    """Scale of classifier-free guidance: how strictly the image follows the words. 1 is off, 5 to 7.5 are usual, 4 for
    diffusion-mini; colors burn at high ones."""
    film: bool = False
    """Also write how each image came to be: a strip of what the network saw at each step, a GIF, and a page film.html
    with where each word was read."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    half: bool = False
    """Keep the weights in 16 bits; for GPUs."""
    offload: Offload = "none"
    """Keep only the network at work on the GPU (model), or only its layer (layers): less memory, slower."""
    quiet: bool = False
    """Show no progress bar."""
    watch: Annotated[WatchDrawing | None, HIDDEN] = None
    """Called after every step of every image, with what draws and the prompt."""


@dataclass(frozen=True)
class Generate(_Drawing):
    """Draw images from words with a Stable Diffusion, step by step."""

    prompts: Annotated[Prompts, Argument(positional=True, many=True, metavar="PROMPTS")] = ()
    """What to draw, each in quotes: "a zebra and a frog"."""
    _: KW_ONLY
    strength: Annotated[float, HIDDEN] = 0.8
    """Strength of a start image; there is none here."""
    count: int = 1
    """Images of each prompt, with the seeds that follow."""
    guidance: GuidanceKind = "none"
    """Attention guidance for objects that are forgotten, by its loss. A guided step costs about two."""
    update_scale: float = SCALE
    """Scale of its updates; 20 for Stable Diffusion, more where nothing changes, less where images break."""
    object: tuple[str, ...] = ()
    """A word of the prompt that shall be in the image, once for each. None: what the prompt names."""


@dataclass(frozen=True)
class Edit(_Drawing):
    """Redraw an image by words with a Stable Diffusion."""

    image: Annotated[Place, Argument(positional=True, metavar="IMAGE", check="image")]
    """A file."""
    prompt: Annotated[Prompts, Argument(positional=True, many=True, metavar="PROMPT")] = ()
    """What the image shall become, in quotes."""
    _: KW_ONLY
    output: Annotated[Place, Argument(short=("-o",))] = "edited"
    """Folder for the images and the record of how each was made."""
    strength: float = 0.6
    """How much is drawn anew: 0 keeps the image, 1 ignores it; so many of the steps are made."""
    count: int = 1
    """Images, with the seeds that follow."""
    grid: bool = False
    """Also write grid.png: strengths across, guidance scales down."""


@dataclass(frozen=True)
class Repair(_Drawing):
    """Draw images from words, verify each object with a detector, and draw again what is missing until all is there.

    Repair goes by attention guidance, in a free place, from other seeds. The best image is kept; repaired.json tells
    what was tried and what it cost. Exit code 1 when an object is missing in the end.
    """

    prompts: Annotated[Prompts, Argument(positional=True, many=True, metavar="PROMPTS")] = ()
    """What to draw, each in quotes: "a zebra and a frog"."""
    _: KW_ONLY
    output: Annotated[Place, Argument(short=("-o",))] = "repaired"
    """Folder for the images, all that was tried, and the record of what it cost."""
    strength: Annotated[float, HIDDEN] = 0.8
    """Strength of a start image; there is none here."""
    judge: Annotated[Place, Argument(check="model")] = "detector-mini"
    """What looks for the objects: a detector, as the model of detect, or an encoder of images and texts (conse)."""
    object: tuple[str, ...] = ()
    """A word of the prompt that shall be in the image, once for each. None: what the prompt names."""
    among: Annotated[Sequence[str], HIDDEN] = ()
    """Other objects that the judge compares with."""
    verify: bool = False
    """Only verify what was drawn; repair nothing."""
    guidance: GuidanceKind | None = None
    """Attention guidance that repairs, by its loss. None: the strategy's own."""
    update_scale: float = SCALE
    """Scale of its updates; 20 for Stable Diffusion, more where nothing changes, less where images break."""
    strategy: Annotated[RepairStrategy | None, HIDDEN] = None
    """The whole strategy of repair, in place of the flags above."""


@job(Generate)
def generate(settings: Generate) -> list[SavedImage]:
    """Draws images from words into a folder, with drawn.json, from which `rizbin replay` makes them again."""
    prompts = prompts_of(settings.prompts)
    if not prompts:
        raise RizbinError('Say what to draw: rizbin generate "a zebra and a frog".')
    return _draw(
        prompts, settings, None, "", count=settings.count, guidance=settings.guidance, scale=settings.update_scale,
        objects=settings.object,
    )  # fmt: skip


@job(Edit)
def edit(settings: Edit) -> list[SavedImage]:
    """Redraws an image by words into a folder, with drawn.json, from which `rizbin replay` makes it again."""
    prompts = prompts_of(settings.prompt)
    if not prompts:
        raise RizbinError('Say what the image shall become: rizbin edit photo.png "a taxi".')
    if len(prompts) > 1:
        whole = " ".join(prompts).replace('"', "'")
        raise RizbinError(f'An image is redrawn by one prompt; put all of its words in quotes: "{whole}".')
    start = read_image(Path(settings.image))
    return _draw(prompts, settings, start, settings.image, count=settings.count, grid=settings.grid)


def _draw(
    prompts: list[str],
    settings: _Drawing,
    start: Pixels | None,
    path: Place,
    *,
    count: int,
    grid: bool = False,
    guidance: GuidanceKind = "none",
    scale: float = SCALE,
    objects: Sequence[str] = (),
) -> list[SavedImage]:
    """Draws each prompt with `count` seeds; `start` is the image of the file `path`, where one is redrawn."""
    sampling, folder = part(settings, Sampling), Path(settings.output)
    drawing.check_request(prompts, sampling, count)
    device = str(choose(settings.device))
    text_to_image = load_text_to_image(settings.model, device=device, half=settings.half, offload=settings.offload)
    about: dict[str, object] = {
        **_about(settings, device),
        "guidance": guidance,
        "update_scale": scale,
        "objects": list(objects),
        "film": settings.film,
    }
    if start is not None:
        about |= {"start": str(Path(path).absolute()), "start_pixels": fingerprint(start)}

    def bar(total: int, label: str) -> Bar:
        return Bar(total, label, quiet=settings.quiet)

    def guide(prompt: str) -> tuple[Any, list[str]]:
        steers, notes = steering(text_to_image, prompt, guidance, objects=objects, scale=scale)
        return steers, [*unknown_in(prompt, settings.model), *notes]

    with outputs.reading([Path(path)] if path else []):
        images = drawing.draw(
            text_to_image,
            prompts,
            folder,
            sampling=sampling,
            count=count,
            start=start,
            guide=guide,
            film=settings.film,
            attend=attended(text_to_image, settings.film or settings.watch is not None),
            about=about,
            bar=bar,
            watch=settings.watch,
        )
        table = (
            drawing.grid(text_to_image, prompts[0], start, sampling, bar=bar) if grid and start is not None else None
        )
        if table is not None:
            write_png(table, folder / "grid.png")
        if settings.film:
            write_film(text_to_image, images, start, folder / "film.html", about=about, grid=table)
    return images


@job(Repair)
def repair(settings: Repair) -> list[Repaired]:
    """Draws each prompt until all its objects are verified.

    In the folder: the best images, all attempts on one sheet each, and repaired.json with what they cost, from which
    `rizbin replay` makes them again.
    """
    prompts = prompts_of(settings.prompts)
    if not prompts:
        raise RizbinError('Say what to draw: rizbin repair "a zebra and a frog".')
    drawing.check_request(prompts, part(settings, Sampling), 1)
    device = str(choose(settings.device))
    text_to_image = load_text_to_image(settings.model, device=device, half=settings.half, offload=settings.offload)
    verifier = judge_by(settings.judge, among=settings.among, device=device)
    sampling, strategy, folder = part(settings, Sampling), _strategy(settings), Path(settings.output)
    results: list[Repaired] = []
    records: list[dict[str, object]] = []
    filmed: list[SavedImage] = []
    about = {
        **_about(settings, device),
        "judge": _named(settings.judge),
        "among": list(settings.among),
        "strategy": asdict(strategy),
        "sampling": asdict(sampling),
        "film": settings.film,
    }
    for number, prompt in enumerate(prompts):
        repaired = repairing.repair(
            text_to_image,
            prompt,
            verifier,
            sampling=sampling,
            strategy=strategy,
            objects=settings.object,
            attend=attended(text_to_image, settings.film or settings.watch is not None),
            bar=lambda total, label: Bar(total, label, quiet=settings.quiet),
            watch=None if settings.watch is None else partial(settings.watch, text_to_image, prompt),
        )
        repaired.notes[:0] = unknown_in(prompt, settings.model)
        repaired = _write_repaired(repaired, folder / f"{number:04d}.png", strategy.threshold)
        best = repaired.best
        assert repaired.file is not None
        if settings.film:
            filmed.append(SavedImage(repaired.file, prompt, best.sampling, best.painted))
            drawing.write_strip(text_to_image, filmed[-1])
        results.append(repaired)
        records.append(_repaired_entry(repaired, prompt, about, settings.object, strategy.threshold))
        outputs.write(folder / REPAIRED, json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    if settings.film:
        write_film(text_to_image, filmed, None, folder / "film.html", about=about)
    return results


def _write_repaired(repaired: Repaired, path: Path, threshold: float) -> Repaired:
    """Writes the best image, and a sheet of all attempts where there are several; returns them with the file."""
    file = write_png(repaired.best.image, path)
    if len(repaired.attempts) > 1:
        tried = [(attempt.image, f"{attempt.how}, {attempt.there(threshold)} there") for attempt in repaired.attempts]
        write_png(sheet([tried]), file.with_name(f"{file.stem}-tried.png"))
    return replace(repaired, file=file)


def _repaired_entry(
    repaired: Repaired, prompt: str, about: Mapping[str, object], objects: Sequence[str], threshold: float
) -> dict[str, object]:
    """An entry of repaired.json: how the image was made, what it was verified for, and what was tried."""
    best = repaired.best
    assert repaired.file is not None
    return {
        "file": repaired.file.name,
        "prompt": prompt,
        **about,
        "objects": list(objects),
        "looked_for": list(repaired.objects),
        "size": [best.image.shape[1], best.image.shape[0]],
        "whole": repaired.whole,
        "notes": repaired.notes,
        "pixels": fingerprint(best.image),
        "tried": repaired.record(threshold),
    }


def prompts_of(given: Prompts) -> list[str]:
    """One prompt or several as a list."""
    return [given] if isinstance(given, str) else list(given)


def _strategy(settings: Repair) -> RepairStrategy:
    """The strategy that the flags name."""
    if settings.strategy is not None:
        return settings.strategy
    strategy = RepairStrategy(stages=()) if settings.verify else RepairStrategy()
    if settings.guidance is not None and settings.guidance != "none":
        if settings.verify:
            raise RizbinError(
                f"Verifying looks at an image drawn without attention guidance; leave verify out, so that "
                f"{settings.guidance} is tried where an object is missing, or leave {settings.guidance} out."
            )
        strategy = replace(strategy, guidance=settings.guidance)
    return replace(strategy, scale=settings.update_scale)


def attended(text_to_image: TextToImage, film: bool) -> int:
    """Cells along a side of the attention maps that a film shows; 0 where there are none to see."""
    return resolution_of(text_to_image) if film and text_to_image.unet is not None else 0


def _about(settings: _Drawing, device: str) -> dict[str, object]:
    """The fields of a record about the model, the device and the versions."""
    return {
        "model": _named(settings.model),
        "device": device,
        "half": settings.half,
        "offload": settings.offload,
        "versions": versions(),
    }


def _named(model: Place) -> str:
    """A name as it was given; a folder by its whole path, so that the record may be replayed from anywhere."""
    inside = str(model) in zoo.names() or not Path(model).exists()
    return str(model) if inside else str(Path(model).absolute())


def versions() -> dict[str, str]:
    """Versions of the packages that compute the pixels."""
    installed = {}
    for name in ("rizbin", "torch", "diffusers", "transformers"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
