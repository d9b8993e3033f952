"""Gradient ascent as a job: images that maximize an encoder's score of a prompt, written into a folder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.image_io import read_image
from rizbin.generation.ascent.ascend import (
    Ascended,
    AscentDiverged,
    AscentFrame,
    as_floats,
    check_mask,
)
from rizbin.generation.ascent.ascend import ascend as climb
from rizbin.generation.ascent.layers import middle_layer
from rizbin.generation.ascent.parametrize import Parametrization
from rizbin.generation.ascent.settings import PRESETS, AscentSettings
from rizbin.generation.ascent.targets import ContentTarget, ImageTarget, StyleTarget, Target, TextTarget
from rizbin.generation.film import Pixels, sheet, write_gif, write_png
from rizbin.models.protocol import Embedder
from rizbin.workflows.known_words import unknown_in
from rizbin.workflows.load import load_encoder

ASIDE = 0.3
"""Weight of further texts, and negated of those to stay away from, where none is given. Source: arXiv 2502.07753."""


@dataclass(frozen=True)
class AscendedImage:
    """One image on disk, made by gradient ascent."""

    file: Path
    prompt: str
    seed: int
    score: float
    """Final score: cosine with the prompt or with the followed image's embedding. It does not measure quality."""
    seconds: float
    """Duration of the ascent, for all images that were made together."""


@dataclass(frozen=True)
class Ascend:
    """Draw images by gradient ascent on an image-text model: no generator, nothing trained to draw.

    The same command goes on where it was stopped.
    """

    prompts: Annotated[str | Sequence[str], Argument(positional=True, many=True, metavar="PROMPTS")] = ()
    """What to draw, each in quotes: "a red strawberry left of a zebra"."""
    _: KW_ONLY
    model: Annotated[Place | Sequence[Place], Argument(many=True, metavar="MODEL", check="model")] = ("tecoa-mini",)
    """The encoder, once for each of several: a bundled one, a run, a folder, open_clip:NAME/WEIGHTS, timm:NAME, or a
    CLIP or SigLIP on Hugging Face."""
    output: Annotated[Place, Argument(short=("-o",))] = "ascended"
    """Folder for the images as they grow, strips, GIFs, and ascended.json, which tells how each was made."""
    preset: Literal["default", "paper", "adversarial"] = "default"
    """default is quick; paper is Direct Ascent Synthesis as published; adversarial is plain pixels, which fool the
    encoder and show nothing."""
    settings: Annotated[AscentSettings | None, HIDDEN] = None
    """Complete settings of the ascent, in place of the preset; the flags below still change them."""
    steps: int | None = None
    """Updates of the image. None: the preset's."""
    copies: int | None = None
    """Augmented copies that are encoded in each step: shifted ones, in the paper also noisy. None: the preset's."""
    also: tuple[str, ...] = ()
    """A further text, once for each, with a weight or 0.3: "oil painting=0.5"."""
    negative: tuple[str, ...] = ()
    """A text to stay away from, once for each, with a weight or 0.3."""
    image: Annotated[Place | None, Argument(check="image")] = None
    """An image to draw again from nothing but its embedding."""
    style: Annotated[Place | None, Argument(check="image")] = None
    """An image whose style is followed."""
    content: Annotated[Place | None, Argument(check="image")] = None
    """An image whose features are followed place by place; together with style, it is redrawn in that style."""
    layer: str | None = None
    """Layer of the encoder for style and content. None: half way through."""
    start: Annotated[Place | None, Argument(check="image")] = None
    """An image to begin with. None: gray."""
    mask: Annotated[Place | None, Argument(check="image")] = None
    """An image of the start's size, white where it may change."""
    change: float | None = None
    """Largest change of a pixel from the start image, 0 to 1. None: the preset's."""
    size: int | None = None
    """Side of the canvas in pixels, also beyond the encoder's input. None: the encoder's with room to shift, or the
    start's own."""
    count: int = 1
    """Images of each prompt, with the seeds that follow."""
    seed: int | None = None
    """Seed of all random draws; on the CPU the same seed gives the same image. None: 0."""
    parametrization: Parametrization | None = None
    """Parametrization of the image. None: the preset's."""
    resolutions: str | None = None
    """Sides of its components: powers, all, or a list such as 1,4,16,64. None: the preset's."""
    autoencoder: Annotated[Place | None, Argument(check="model")] = None
    """For latents: a run of `rizbin train diffusion` or a diffusers pipeline."""
    optimizer: Literal["sgd", "adam", "sign"] | None = None
    """Adam, plain gradient descent, or its sign. None: the preset's."""
    learning_rate: float | None = None
    """Learning rate of the optimizer. None: the preset's."""
    smooth: float | None = None
    """Weight of total variation against the score. None: the preset's (6, in the paper 0)."""
    noise: float | None = None
    """Largest noise on each copy, 0 to 1: more noise gives larger objects and less grain, but an encoder that was
    trained without noise no longer recognizes anything. None: the preset's."""
    chunk: int | None = None
    """Copies in memory at a time; changes memory, not the image. None: the preset's (4)."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""
    watch: Annotated[Callable[[AscentFrame, int], object] | None, HIDDEN] = None
    """Called after every step with its images, and with the number of the seed, from 0."""


@job(Ascend)
def ascend(options: Ascend) -> list[AscendedImage]:
    """Draws an image of each prompt with each of `count` seeds by gradient ascent on an encoder.

    In the folder: the images as they grow, for each a strip and a GIF, and ascended.json. The same call goes on where
    it was stopped.
    """
    settings, count, quiet = settings_from(options), options.count, options.quiet
    words = [options.prompts] if isinstance(options.prompts, str) else list(options.prompts)
    _check(options, words)
    begun, allowed = _begun(options.start or "", options.mask or "", settings.size)
    device = str(choose(options.device))
    names = [options.model] if isinstance(options.model, str | PathLike) else list(options.model)
    encoders = [load_encoder(name, device=device) for name in names]
    wishes = _wishes(options, words, encoders)
    latents = _autoencoder(options.autoencoder or "", device)
    paths = [getattr(options, name) for name in ("image", "style", "content", "start", "mask")]
    read = [Path(path) for path in paths if path]
    folder, made, records = Path(options.output), [], []
    with Bar(0, "", quiet=quiet) as line, outputs.reading(read):
        for sentence in dict.fromkeys(note for name in names for text in words for note in unknown_in(text, name)):
            line.warn(sentence)
        for number in range(count):
            chosen = replace(settings, seed=settings.seed + number)
            files = [outputs.free_name(folder / f"{place * count + number:04d}.png") for place in range(len(wishes))]
            state = outputs.claim_folder(folder / f"state-{chosen.seed}")

            def watch(frame: AscentFrame, files: list[Path] = files, number: int = number) -> None:
                if _is_tenth(frame):
                    _write(frame.images, files)
                if options.watch is not None:
                    options.watch(frame, number)

            try:
                climbed = climb(
                    encoders,
                    wishes,
                    settings=chosen,
                    start=begun,
                    mask=allowed,
                    autoencoder=latents,
                    folder=state,
                    watch=watch,
                    say=line.say,
                    bar=lambda total, label: Bar(total, label, quiet=quiet),
                )
            except AscentDiverged as stopped:
                _write(stopped.last_good.images, files)
                raise
            _write(climbed.images, files)
            _films(climbed, files)
            outputs.remove_folder(state)
            made += [
                AscendedImage(file, text, chosen.seed, score, climbed.seconds)
                for file, text, score in zip(files, words or [""], climbed.scores[-1], strict=True)
            ]
            records += [
                _entry(ascended, names, chosen, options.also, options.negative) for ascended in made[-len(files) :]
            ]
            _record(sorted(records, key=lambda record: record["file"]), folder)
    return sorted(made, key=lambda ascended: ascended.file)


def _check(options: Ascend, words: Sequence[str]) -> None:
    """Raises RizbinError where there is nothing to draw."""
    if options.count < 1:
        raise RizbinError(f"{options.count} images are none; give --count 1 or more.")
    if any(not prompt.strip() for prompt in words):
        raise RizbinError('An empty prompt says nothing; write what to draw: rizbin ascend "a zebra".')
    if not (words or options.image or options.style or options.content):
        raise RizbinError('Say what to draw: rizbin ascend "a zebra and a frog", or give --image.')


def _wishes(options: Ascend, words: Sequence[str], encoders: Sequence[Embedder]) -> list[list[Target]]:
    """The targets of each image: its prompt, the images that are followed, and the texts of all of them."""
    files = {name: getattr(options, name) for name in ("image", "style", "content")}
    shown = {name: as_floats(read_image(path)) for name, path in files.items() if path}
    sides = [TextTarget(text=text, weight=weight) for text, weight in weighted(options.also, ASIDE)]
    sides += [TextTarget(text=text, weight=-weight) for text, weight in weighted(options.negative, ASIDE)]
    followed = _followed(shown, options.layer or "", encoders)
    return [[*([TextTarget(text=text)] if text else []), *followed, *sides] for text in words or [""]]


def settings_from(options: Ascend) -> AscentSettings:
    """The settings of the preset, or complete settings, with the changes of the flags."""
    settings = options.settings if options.settings is not None else PRESETS[options.preset]()
    names = ("parametrization", "optimizer", "steps", "copies", "learning_rate", "smooth", "change", "size", "seed")
    changes = {name: getattr(options, name) for name in (*names, "chunk") if getattr(options, name) is not None}
    if options.noise is not None:
        changes["augment"] = replace(settings.augment, noise=options.noise)
    if options.resolutions is not None:
        # Resolutions given by hand mean the parametrization by resolutions.
        changes = {"parametrization": "resolutions", **changes, "resolutions": resolutions_from(options.resolutions)}
    return replace(settings, **changes)


def resolutions_from(text: str) -> Any:
    """Resolutions from "all", "powers", or numbers separated by commas."""
    if text in ("all", "powers"):
        return text
    try:
        return tuple(int(side) for side in text.split(","))
    except ValueError as error:
        raise RizbinError(f"{text!r} names no resolutions; write all, powers, or sides such as 1,4,16,64.") from error


def weighted(texts: Sequence[str], weight: float) -> list[tuple[str, float]]:
    """Texts with their weights: the number after "=", or the given weight."""
    pairs = []
    for text in texts:
        words, sign, number = text.rpartition("=")
        try:
            pairs.append((words.strip(), float(number)) if sign else (text.strip(), weight))
        except ValueError as error:
            raise RizbinError(f"{number!r} in {text!r} is not a weight; write a number: {words}=0.3.") from error
    return pairs


def _followed(shown: dict[str, Tensor], layer: str, encoders: Sequence[Embedder]) -> list[Target]:
    """The targets that follow an image: its embedding, its content and its style."""
    targets: list[Target] = []
    if "image" in shown:
        targets.append(ImageTarget(image=shown["image"]))
    if "style" in shown or "content" in shown:
        if len(encoders) > 1 and not layer:
            raise RizbinError("Several encoders have no layer in common; give one --model, or name a --layer of all.")
        at = layer or middle_layer(encoders[0])
        if "content" in shown:
            targets.append(ContentTarget(image=shown["content"], layer=at))
        if "style" in shown:
            targets.append(StyleTarget(image=shown["style"], layer=at))
    return targets


def _begun(start: Place, mask: Place, size: int) -> tuple[Tensor | None, Tensor | None]:
    """The start image and the mask resized to a shorter side of `size` pixels; with 0 they keep their size."""
    if not start:
        if mask:
            raise RizbinError("A mask says where an image may change; give the image too: --start photo.png.")
        return None, None
    image = read_image(Path(start))
    allowed = read_image(Path(mask)).mean(axis=-1) if mask else None
    if allowed is not None:
        check_mask(allowed.shape, image.shape[:2])
    if size:
        scale = size / min(image.shape[:2])
        sides = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        image = np.asarray(cv2.resize(image, sides, interpolation=cv2.INTER_AREA), np.uint8)
        allowed = None if allowed is None else cv2.resize(allowed, sides, interpolation=cv2.INTER_AREA)
    white = None if allowed is None else torch.from_numpy(np.asarray(allowed) > 127).float()[None]
    return as_floats(image)[None], white


def _autoencoder(folder: Place, device: str) -> Any:
    """The autoencoder of a text-to-image pipeline; None where no folder is given."""
    if not folder:
        return None
    from rizbin.workflows.load import load_text_to_image

    return load_text_to_image(folder, device=device).pipeline.vae


def _is_tenth(frame: AscentFrame) -> bool:
    """Whether a tenth of the steps ends with it, which is often enough for a preview."""
    return frame.step * 10 // frame.steps != (frame.step - 1) * 10 // frame.steps


def _write(images: Sequence[Pixels], files: Sequence[Path]) -> None:
    for image, file in zip(images, files, strict=True):
        write_png(image, file)


def _films(climbed: Ascended, files: Sequence[Path]) -> None:
    """Writes a strip and a GIF of the steps beside each image."""
    for place, file in enumerate(files):
        images = [(frame.images[place], f"step {frame.step}") for frame in climbed.frames]
        write_png(sheet([images]), file.with_name(f"{file.stem}-film.png"))
        write_gif([image for image, _ in images], file.with_suffix(".gif"))


def _entry(
    ascended: AscendedImage,
    names: Sequence[Place],
    settings: AscentSettings,
    also: Sequence[str],
    negative: Sequence[str],
) -> dict[str, Any]:
    return {
        "file": ascended.file.name,
        "prompt": ascended.prompt,
        "models": [Path(name).name for name in names],
        "also": list(also),
        "negative": list(negative),
        "score": round(ascended.score, 4),
        "seconds": round(ascended.seconds, 2),
        **asdict(settings),
    }


def _record(records: Sequence[dict[str, Any]], folder: Path) -> None:
    outputs.write(folder / "ascended.json", json.dumps(records, indent=2, ensure_ascii=False) + "\n")
