"""DetailCLIP's architecture on a page: drawn from the live model, with one batch followed through it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rizbin.core.commands import Argument, Place
from rizbin.core.environment import describe
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.open import open_source
from rizbin.data.views import normalize
from rizbin.evaluation.embed import LabeledImages, read
from rizbin.methods.detailclip import DetailCLIP
from rizbin.pages.page import Page
from rizbin.reports.architecture import show_architecture
from rizbin.reports.encoder import OPENMOJI
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import build, load_run

TECHNIQUES: dict[str, Any] = {
    "selection": "attention",
    "distillation": True,
    "reconstruction": True,
    "late_start": 0.0,
    "low_resolution": 1,
}
"""All three techniques from the first step: what a model without a run is drawn with."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """DetailCLIP's parts and losses drawn from the live model, and one batch followed through them."""

    model: Annotated[Place, Argument(positional=True, metavar="MODEL", check="model")]
    """A run of detailclip, with its heads; or a bundled model of it, whose heads are then new."""
    images: Annotated[Place, Argument(positional=True, metavar="DATA", check="data")]
    """Images with captions, as for train: scenes:easy."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """Folder for the page. None: runs/visualize/architecture-MODEL."""
    limit: int | None = None
    """Images of the batch. None: 4."""


def architecture(settings: Architecture) -> Path:
    """Writes the page and returns its path. Raises RizbinError for a model of another method, or without captions."""
    folder, count = Path(settings.model), settings.limit or 4
    method, says = _method(settings.model)
    size = method.pair.image_size
    source = open_source(str(settings.images), split="test", size=size)
    samples, _ = read(source, count, size, seed=0, advance=lambda _: None)
    if len(samples) < 2 or not all(sample.caption for sample in samples):
        raise RizbinError(f"{settings.images} has not two images with captions; give scenes:easy, or a table of them.")
    labeled = LabeledImages.of(samples, source.categories, size, method.pair.grid)
    objects = labeled.labels > 0 if len(labeled.labels) == len(samples) else None
    machine = describe()
    page = Page(
        "How DetailCLIP is put together",
        subtitle=f"{folder.name}, {len(samples)} images of {settings.images} · commit {machine.get('commit')}",
    )
    page.lead(
        "A caption meets the whole image, a slowly moving teacher says what each hidden patch is, and a decoder paints "
        "what was hidden: four losses on one encoder."
    )
    if says:
        page.note(says)
    show_architecture(page, method, normalize(labeled.pixels), labeled.captions, objects)
    if source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    target = Path(settings.output) if settings.output else Path("runs") / "visualize" / f"architecture-{folder.name}"
    return page.write(target / "index.html")


def _method(model: Place) -> tuple[DetailCLIP, str]:
    """The method of a run; around a bundled encoder a new one with all techniques, and a sentence that says so."""
    if RunFolder(Path(model)).exists:
        method = load_run(Path(model)).method
        if not isinstance(method, DetailCLIP):
            raise RizbinError(f"{model} is a run of another method; give one of detailclip.")
        return method, ""
    training = preset("detailclip", "small")
    training = replace(training, start=str(model), settings=replace(training.settings, **TECHNIQUES))
    method = build(training)
    assert isinstance(method, DetailCLIP)  # of its own preset
    if method.teacher is not None:
        method.teacher.follow(method.taught(), 0.0)
    return method, (
        "The towers are trained; heads and decoder are new, since a bundled model leaves them out: shapes and what is "
        "hidden are right, and what they predict means nothing yet. Give the folder of a run to see trained ones."
    )
