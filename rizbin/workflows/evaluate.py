"""Measures any loaded model by its kind: an encoder, a detector or a text-to-image model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rizbin import zoo
from rizbin.core.bounded import read_json
from rizbin.core.commands import Place
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import HEADLINES, Measurement, Report
from rizbin.core.progress import Bar, warn
from rizbin.data.listing import Split
from rizbin.data.open import notices_of, open_source
from rizbin.data.sample import Source
from rizbin.detection import measure as detection
from rizbin.detection.detector import Detector
from rizbin.evaluation.suite import Evaluation, TooFew, evaluate
from rizbin.generation.diffusion.loading import is_pipeline
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.models.readings import RULES, DenseReading, read_by
from rizbin.workflows import evaluate_diffusion as drawn
from rizbin.workflows.load import Loaded, calibration_of, open_model
from rizbin.workflows.runs import validation_source
from rizbin.workflows.verifier import judge_by

LEAST_IMAGES = Evaluation.Settings().least_images
"""For detectors as for encoders."""
Settings = Evaluation.Settings | detection.DetectionSettings | drawn.DiffusionSettings
_KINDS: dict[str, tuple[type, str]] = {
    "an encoder": (Evaluation.Settings, "rizbin.evaluation.suite.Evaluation"),
    "a detector": (detection.DetectionSettings, "rizbin.detection.measure"),
    "a text-to-image model": (drawn.DiffusionSettings, "rizbin.workflows.evaluate_diffusion"),
}


def settings_of(what: Place) -> Settings:
    """How `measure` measures this."""
    folder = zoo.folder_of(str(what)) if str(what) in zoo.names() else Path(what)
    if Detector.is_saved_in(folder):
        return detection.DetectionSettings()
    if is_pipeline(folder):
        return drawn.DiffusionSettings()
    try:
        stored = read_json(folder / "settings.json")
    except (OSError, ValueError):
        return Evaluation.Settings()
    own = {"detector": detection.DetectionSettings, "diffusion": drawn.DiffusionSettings}
    return own.get(str(stored.get("method")) if isinstance(stored, dict) else "", Evaluation.Settings)()


def measured(
    loaded: Loaded,
    data: str,
    settings: Settings | None,
    quiet: bool,
    *,
    size: int = 0,
    split: Split = "test",
    validation_data: str = "",
    dense: DenseReading = "plain",
    guide: Place = "",
) -> tuple[Report, Source]:
    """The numbers, and the images that they were measured on.

    size: shorter side in pixels at which scenes are drawn for a detector; 0: its own.
    split: the part of the data that is measured on. Of "all" and "train" nothing is left to learn from, so k-NN and
        probes are left out.
    validation_data: measured on in place of a part of the data, all of it; empty: what the run was trained with, if
        any.
    dense, guide: how the patches of an encoder are read (`rizbin.models.readings`), and the model that leads proxyclip.
    Raises TooFew when there are so few images that their numbers would say nothing.
    """
    if validation_data and split != "test":
        raise RizbinError(
            f"Validation data are measured whole; leave the split of {split} out, or the validation data."
        )
    if validation_data == "" and data == "" and split == "test" and loaded.run is not None:
        validation_data = loaded.run.validation_data
    part = _Part(data, split, validation_data)
    if (detector := loaded.detector) is not None:
        return _boxes(loaded, detector, part, _fitting(settings, "a detector"), quiet, size)
    if (text_to_image := loaded.text_to_image) is not None:
        return _drawings(loaded, text_to_image, part, _fitting(settings, "a text-to-image model"), quiet)
    model, run = loaded.encoder, loaded.run
    reader = read_by(model, dense, open_model(guide, device=str(model.device)).encoder if guide else None)
    alone = "scenes" if model.reads_text else "scenes:single"
    spec = data or (run.training.data if run else alone)
    source, taught = part.source(spec, model.image_size), part.taught(spec, model.image_size)
    _notice(source)
    if split != "test" and run is not None and not data:
        warn(f"The run was trained on images of {source.name}: its numbers there say what it remembers.")
    with _counted(part, spec, source):
        numbers = evaluate(
            reader,
            source,
            train_source=taught,
            settings=_fitting(settings, "an encoder"),
            look=None if run is None else run.method.look,
            reconstruct=None if run is None else run.method.reconstruct,
            bar=lambda total, label: Bar(total, label, quiet=quiet),
            first=None if quiet else _tell_first,
        )
    return _read_by(numbers, dense), source


_DENSE = ("segmentation/zero_shot", "segmentation/dense_head", "grounding/", "sizes/localized")
"""How the names of numbers begin for which patches meet words."""


def _read_by(numbers: Report, dense: DenseReading) -> Report:
    """The numbers, those of patches with words telling how the last block was read."""
    if dense == "plain":
        return numbers
    rule = f" The last block was read by {RULES[dense].source}."
    return replace(
        numbers,
        measurements=tuple(
            replace(number, protocol=number.protocol + rule) if number.name.startswith(_DENSE) else number
            for number in numbers.measurements
        ),
    )


@dataclass(frozen=True)
class _Part:
    """Which images are measured on."""

    data: str
    split: Split
    validation_data: str

    def source(self, spec: str, size: int) -> Source:
        """The images to measure on, of the data `spec`."""
        if self.validation_data:
            return validation_source(self.validation_data, size)
        # Seed 0, as in training: which scenes there are belongs to the data, not to the run.
        return open_source(spec, split=self.split, size=size, seed=0)

    def taught(self, spec: str, size: int) -> Source | None:
        """What neighbors, probes and thresholds learn from; None where those would be measured on themselves."""
        if self.validation_data:
            return open_source(spec, split="train", size=size, seed=0)
        return open_source(spec, split="train", size=size, seed=0) if self.split == "test" else None


@contextmanager
def _counted(part: _Part, spec: str, source: Source) -> Iterator[None]:
    """Adds to the refusal of too few images where there are more."""
    try:
        yield
    except TooFew as few:
        if part.validation_data or part.split == "all" or source.endless:
            raise
        whole = len(open_source(spec, split="all"))
        if whole < few.least:
            raise
        sentence = str(few).removesuffix("; give more images.")
        raise TooFew(
            f"{sentence}. In all there are {whole}: measure on all of them with --split all (trained on or not), or on "
            "others with --validation-data.",
            few.images,
            few.least,
            few.source,
        ) from few


def _tell_first(numbers: list[Measurement]) -> None:
    """Prints one line of the first numbers."""
    known = {measurement.name: measurement for measurement in numbers}
    headlines = [f"{name} {known[name].value:.1f}" for name in HEADLINES if name in known]
    if headlines:
        Bar(0, "").say(f"first numbers: {', '.join(headlines)}")


def _fitting(settings: Settings | None, kind: str) -> Any:
    """The settings, if they are of this kind; its own where there are none."""
    own, where = _KINDS[kind]
    if settings is None:
        return own()
    if not isinstance(settings, own):
        raise RizbinError(f"These settings are not for {kind}, which is measured by those of {where}.")
    return settings


def _boxes(
    loaded: Loaded, detector: Detector, part: _Part, settings: Any, quiet: bool, size: int
) -> tuple[Report, Source]:
    run = loaded.run
    # A detector's own size tells at what size scenes are to be drawn; images of files come as they are.
    spec = part.data or (run.training.data if run else "scenes:several")
    source = part.source(spec, size or min(detector.preparation.shorter, 512))
    _notice(source)
    with _counted(part, spec, source):
        least = min(LEAST_IMAGES, settings.images)
        if not source.endless and len(source) < least:
            raise TooFew(
                f"{source.name} has {len(source)} image{'s' * (len(source) != 1)} to measure on, fewer than {least}, "
                "so its numbers would say nothing; give more images.",
                len(source),
                least,
                source,
            )
        numbers = detection.measure(
            detector,
            source,
            names=names_of(loaded, part.data),
            calibration=calibration_of(detector),
            settings=settings,
            bar=lambda total, label: Bar(total, label, quiet=quiet),
        )
    return numbers, source


def _drawings(
    loaded: Loaded, text_to_image: TextToImage, part: _Part, settings: Any, quiet: bool
) -> tuple[Report, Source]:
    run = loaded.run
    source = part.source(part.data or (run.training.data if run else drawn.DATA), text_to_image.side)
    numbers = drawn.measure(
        text_to_image,
        source,
        judge_by(settings.judge),
        settings=settings,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
    )
    return numbers, source


def names_of(loaded: Loaded, data: str) -> tuple[str, ...]:
    """What a run was taught to name, where it is measured on its own data; empty: all that the data name."""
    return loaded.run.training.settings.names if loaded.run is not None and not data else ()


def _notice(source: Source) -> None:
    for notice in notices_of(source):
        warn(notice)
