"""Report: one page of numbers and images about a model."""

import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Report as Numbers
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.data.listing import Split
from rizbin.data.open import open_source
from rizbin.data.sample import Source
from rizbin.detection import measure as measuring
from rizbin.detection.detector import Detector
from rizbin.evaluation.suite import TooFew
from rizbin.reports.detector import write_detector_report
from rizbin.reports.encoder import write_report
from rizbin.reports.generator import write_drawing_report
from rizbin.workflows.evaluate import measured, names_of
from rizbin.workflows.load import Loaded, load_detector, open_model
from rizbin.workflows.tour import tour


@dataclass(frozen=True)
class ReportSettings:
    """Write a page of numbers and images about a model, one file that opens without a network."""

    model: Annotated[Place, Argument(positional=True, metavar="MODEL", check="model")]
    """A run, a bundled model, the folder of a model of Rizbin, open_clip, timm, transformers or diffusers, or a name:
    open_clip:NAME/WEIGHTS, timm:NAME, OWNER/NAME on Hugging Face."""
    _: KW_ONLY
    data: Annotated[str, Argument(check="data")] = ""
    """Images to measure on and to show, as for train. Empty: what the model was trained on, or else the scenes."""
    split: Split = "test"
    """The part of the data: test, train or all, as for evaluate."""
    validation_data: Annotated[str, Argument(check="data")] = ""
    """Images to measure on and to show instead, all of them."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """The file. None: report.html in the folder of the run, or runs/NAME.html."""
    all_parts: Annotated[bool, HIDDEN] = False
    """For an encoder, also show detection, generation and repair with bundled models, as the demo does."""
    on_numbers: Annotated[Callable[[Numbers], None] | None, HIDDEN] = None
    """Called with the numbers before the page is made."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@job(ReportSettings)
def report(settings: ReportSettings) -> Path:
    """Measures a model and writes a report; returns its path.

    Of too few images the page shows images without numbers and says so. Raises RizbinError for what is not there.
    """
    data, quiet = settings.data, settings.quiet
    readable(data, settings.validation_data)
    if settings.output:
        writable(Path(settings.output))
        outputs.refuse_taken(Path(settings.output))
    loaded = open_model(settings.model, device=str(choose(settings.device)))
    try:
        numbers, source = measured(
            loaded, data, None, quiet, split=settings.split, validation_data=settings.validation_data
        )
    except TooFew as few:
        if few.source is None:
            raise
        numbers, source = _no_numbers(few), few.source
    if settings.on_numbers is not None:
        settings.on_numbers(numbers)
    run, method = loaded.run, None if loaded.run is None else loaded.run.method
    folder = run.folder if run is not None else loaded.folder or Path(_file_name(str(settings.model)))
    records = RunFolder(folder)
    own = (folder / "checkpoints").is_dir()
    page = Path("runs") / f"{_file_name(str(settings.model))}.html"
    target = Path(settings.output) if settings.output else records.report if own else page
    if (text_to_image := loaded.text_to_image) is not None:
        return write_drawing_report(
            folder,
            target,
            text_to_image=text_to_image,
            source=source,
            evaluation=numbers,
            history=list(records.metrics.read()),
        )
    if (detector := loaded.detector) is not None:
        return write_detector_report(
            folder,
            target,
            detector=detector,
            source=source,
            names=names_of(loaded, data) or source.categories,
            evaluation=numbers,
            history=list(records.metrics.read()),
            forgetting=_forgetting_of(loaded, detector, source),
        )
    return write_report(
        folder,
        target,
        pair=loaded.encoder,
        method=method,
        source=source,
        evaluation=numbers,
        history=records.metrics.read(),
        also=(lambda page: tour(page, bar=lambda total, label: Bar(total, label, quiet=quiet)))
        if settings.all_parts
        else None,
    )


def _file_name(model: str) -> str:
    """A name for the page of a model: its folder's, or its name without what a file name cannot hold."""
    return Path(model).name if Path(model).is_dir() else re.sub(r"[^\w.-]+", "-", model)


def readable(*data: str) -> None:
    """Raises RizbinError for data that are not there: before a model is loaded, and not after."""
    for spec in data:
        if spec:
            open_source(spec, split="all")


def writable(file: Path) -> None:
    """Makes the folder of a page that is to be written. Raises RizbinError where that cannot be: before the work."""
    if file.is_dir():
        raise RizbinError(f"{file} is a folder; name a file for the page.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RizbinError(
            f"The folder {file.parent} for the page cannot be made ({error.strerror or error}); name another one."
        ) from error


def _no_numbers(few: TooFew) -> Numbers:
    """The report of what was not measured."""
    name = few.source.name if few.source is not None else ""
    return Numbers(measurements=(), left_out=(("all numbers", str(few)),), images=few.images, source=name)


def _forgetting_of(loaded: Loaded, detector: Detector, source: Source) -> list[tuple[str, float, float]]:
    """What training gave and took, where it went on from a trained network and names were held out to tell by."""
    if loaded.run is None or not loaded.run.training.settings.start:
        return []
    settings = loaded.run.training.settings
    groups = {f"{len(settings.names)} taught": settings.names, f"{len(settings.held_out)} held out": settings.held_out}
    return measuring.before_and_after(
        load_detector(settings.start), detector, source, groups, measuring.DetectionSettings()
    )
