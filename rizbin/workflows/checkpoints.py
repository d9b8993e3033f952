"""A run over its checkpoints: what it makes of the same images at each, from its first weights on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from rizbin.core.commands import Argument, Place
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.open import open_source
from rizbin.data.sample import Sample, Source
from rizbin.data.scenes.source import CREDIT
from rizbin.detection.detections import THRESHOLD
from rizbin.detection.measure import DetectionSettings, images_with
from rizbin.detection.phrases import named
from rizbin.generation.diffusion.text_to_image import Sampling
from rizbin.generation.film import chosen
from rizbin.pages.pieces import PageImage
from rizbin.reports.cards import seen_in
from rizbin.reports.detector import box_images
from rizbin.reports.examples import first_samples
from rizbin.reports.generator import GUIDANCE
from rizbin.visualization.album import write_album
from rizbin.visualization.grid import sheet
from rizbin.visualization.visualizers import CELL, Sheet
from rizbin.workflows.load import Loaded, of_run
from rizbin.workflows.presets import Training
from rizbin.workflows.runs import LoadedRun, build, load_run, training_from, validation_data_of
from rizbin.workflows.runs import validation_source as whole_of
from rizbin.workflows.starts import ORIGIN

SHOWN = 4
"""Images where no limit is given."""
COLUMNS = 10
"""Checkpoints on a sheet at most: the first and the last, and between them evenly."""
_FIXED = {"Image", "Truth"}
"""Captions of images that no checkpoint changes."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """A run over its checkpoints: attention, hidden patches, reconstruction and words on the same images.

    Of a detector its boxes, of a text-to-image model what it draws of the captions. A run keeps its newest
    `trainer.keep_checkpoints`; its first weights follow from its seed and are made again.
    """

    model: Annotated[Place, Argument(positional=True, metavar="RUN", check="model")]
    """The folder of a run."""
    images: Annotated[str, Argument(positional=True, metavar="DATA", check="data")]
    """Images as for train, of which the test part is shown: scenes:easy."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """Folder for the images and their page. None: runs/visualize/checkpoints-RUN."""
    limit: int | None = None
    """Number of images, the first ones. None: 4."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""


@dataclass(frozen=True)
class CheckpointImages:
    """What a run makes of some images at one checkpoint."""

    step: int
    captions: tuple[str, ...]
    """Of each image."""
    images: tuple[tuple[PageImage, ...], ...]
    """Of each image: itself, then what is made of it, each named by its caption."""


def checkpoints(settings: Checkpoints) -> Path:
    """Writes a sheet for each image, a column a checkpoint, and their page; returns the page.

    Raises RizbinError where the folder holds no run, or the run no checkpoint.
    """
    folder, limit = Path(settings.model), settings.limit or SHOWN
    steps = chosen(steps_of(folder), COLUMNS)
    seen = [images_at(folder, step, settings.images, limit=limit, device=settings.device) for step in steps]
    sheets = [_sheet(number, seen) for number in range(len(seen[0].captions))]
    target = Path(settings.output) if settings.output else Path("runs") / "visualize" / f"checkpoints-{folder.name}"
    return write_album(
        sheets,
        target,
        title=f"Over its checkpoints: {settings.model}",
        credit=CREDIT if settings.images.startswith("scenes") else "",
    )


def steps_of(folder: Path) -> list[int]:
    """The steps that can be shown: 0 where the first weights can be made again, and those of the checkpoints.

    Raises RizbinError where there is no checkpoint.
    """
    run = RunFolder(folder)
    stored, saved = run.read_settings(), run.saved_steps()
    if not saved:
        raise RizbinError(f"{folder} has no checkpoint yet; train it first.")
    return [0, *saved] if begins_at_random(training_from(stored), folder) else saved


def begins_at_random(training: Training[Any], folder: Path) -> bool:
    """Whether the first weights follow from the settings alone, and not from another model's."""
    begun = training.start or getattr(training.settings, "start", "")
    return not begun and not (folder / ORIGIN).is_dir() and not _takes_weights(training.settings)


def _takes_weights(settings: Any) -> bool:
    """Whether these settings, or those inside them, name weights to begin with."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            if _takes_weights(value):
                return True
        elif (field.name == "published" and value) or (
            field.name == "pretrained" and value and not hasattr(settings, "published")
        ):
            return True
    return False


def own_data(folder: Path) -> str:
    """The data whose images show a run: what it is measured on."""
    stored = RunFolder(folder).read_settings()
    return validation_data_of(stored) or training_from(stored).data


def images_at(folder: Path, step: int, data: str = "", *, limit: int = SHOWN, device: str = BEST) -> CheckpointImages:
    """What the run makes of the first images of the data at that step.

    data: as for train, of which the test part is shown; empty: what the run is measured on.
    Raises RizbinError where there is no such checkpoint, or the data hold no image that can be used.
    """
    run = _untrained(folder) if step == 0 else load_run(folder, step)
    loaded = of_run(run, device=str(choose(device)))
    if (detector := loaded.detector) is not None:
        source = _source(run, data, min(detector.preparation.shorter, 512))
        names = run.training.settings.names or source.categories
        samples, _ = images_with(source, set(names), DetectionSettings(images=limit))
        proposals = detector.detect([sample.image for sample in samples], named(names)) if samples else []
        images = [
            [_itself(sample), *box_images(sample, each.choose(THRESHOLD), names)]
            for sample, each in zip(samples, proposals, strict=True)
        ]
    else:
        samples, images = _seen_or_drawn(loaded, run, data, limit)
    if not samples:
        raise RizbinError(f"{data or run.training.data} has no image that can be used; name other data.")
    captions = tuple(sample.caption or sample.key for sample in samples)
    return CheckpointImages(step, captions, tuple(tuple(row) for row in images))


def _seen_or_drawn(loaded: Loaded, run: LoadedRun, data: str, limit: int) -> tuple[list[Sample], list[list[PageImage]]]:
    """Samples, and what a text-to-image model draws of their captions, or an encoder sees in them."""
    if (model := loaded.text_to_image) is not None:
        samples = first_samples(_source(run, data, model.side), limit)
        drawn = [
            model.paint(sample.caption, Sampling(guidance_scale=GUIDANCE, seed=number)).image
            for number, sample in enumerate(samples)
        ]
        return samples, [
            [_itself(sample), PageImage(image=image, caption="Drawn", alt=f"drawn: {sample.caption}")]
            for sample, image in zip(samples, drawn, strict=True)
        ]
    source = _source(run, data, loaded.encoder.image_size)
    samples = first_samples(source, limit)
    return samples, seen_in(loaded.encoder, run.method, samples, source.categories) if samples else []


def _itself(sample: Sample) -> PageImage:
    return PageImage(image=sample.image, caption="Image", alt=sample.caption or sample.key)


def _source(run: LoadedRun, data: str, size: int) -> Source:
    """The images to show, as the report's: seed 0, since which scenes there are belongs to the data."""
    if run.validation_data and data in ("", run.validation_data):
        return whole_of(run.validation_data, size)
    return open_source(data or run.training.data, split="test", size=size, seed=0)


def _untrained(folder: Path) -> LoadedRun:
    """The run before its first step."""
    stored = RunFolder(folder).read_settings()
    training = training_from(stored)
    if not begins_at_random(training, folder):
        raise RizbinError(f"{folder} began with another model's weights, which it does not keep; name a later step.")
    return LoadedRun(folder, training, build(training).eval(), 0, validation_data_of(stored))


def _sheet(number: int, seen: Sequence[CheckpointImages]) -> Sheet:
    """One image: a row for each thing that is shown of it, its fixed counterpart first, then each checkpoint."""
    kinds = {image.caption: image for image in seen[0].images[number]}
    changing = [kind for kind in kinds if kind not in _FIXED]
    cells: list[np.ndarray] = []
    labels: list[str] = []
    for kind in changing:
        fixed = "Truth" if kind in ("Words", "Found") and "Truth" in kinds else "Image"
        cells.append(kinds[fixed].image)
        labels.append(fixed.lower())
        for each in seen:
            (image,) = (image for image in each.images[number] if image.caption == kind)
            cells.append(image.image)
            labels.append(f"{kind.lower()}, step {each.step}")
    caption = f"{seen[0].captions[number]}: from step {seen[0].step} to step {seen[-1].step}."
    shown = sheet(cells, labels=labels, columns=len(seen) + 1, side=CELL)
    return Sheet(f"checkpoints-{number + 1:03d}", shown, caption)
