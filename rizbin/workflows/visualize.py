"""Visualization: what an encoder attends to, groups, confuses, as sheets of images on one page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from rizbin.core import outputs
from rizbin.core.commands import Argument, Place, part
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.models.readings import read_by
from rizbin.visualization.album import write_album
from rizbin.visualization.inputs import check_images, read_images
from rizbin.visualization.visualizers import VISUALIZERS, does
from rizbin.workflows.architecture import Architecture, architecture
from rizbin.workflows.checkpoints import Checkpoints, checkpoints
from rizbin.workflows.detect import paths_of
from rizbin.workflows.load import load_encoder


@dataclass(frozen=True, kw_only=True)
class Visualize:
    """Settings that all visualizations share."""

    model: Annotated[Place, Argument(positional=True, metavar="MODEL", check="model")]
    """A run, an exported folder, a bundled model, or a ViT of timm or Hugging Face by folder or name."""
    images: Annotated[Place | Sequence[Place], Argument(positional=True, many=True, metavar="IMAGES")] = ()
    """Images, folders, or data as for train (scenes:single)."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """Folder for the images and their page. None: runs/visualize/WHAT-MODEL."""
    size: int | None = None
    """Shorter side in pixels to which images are scaled. None: the model's own."""
    limit: int | None = None
    """Most images taken. None: as many as the visualization shows."""
    masks: Annotated[Place | None, Argument(check="path")] = None
    """Folder with the true masks of image files, a PNG of each one's name: a flat color an object, black elsewhere.
    None: only data that bring masks along are scored."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""


OF_RUNS: Mapping[str, tuple[type[Any], Callable[[Any], Path]]] = {
    "architecture": (Architecture, architecture),
    "checkpoints": (Checkpoints, checkpoints),
}
"""Settings and function of what shows a method with its heads and losses, or a run, and not an encoder alone."""


def names() -> tuple[str, ...]:
    """Every visualization."""
    return (*VISUALIZERS, *OF_RUNS)


def about(what: str) -> str:
    """What a visualization shows, in a line."""
    if what in OF_RUNS:
        return " ".join((OF_RUNS[what][0].__doc__ or "").split("\n\n")[0].split())
    return does(VISUALIZERS[what])


@cache
def settings_of(what: str) -> type[Any]:
    """The settings of one visualization: its own and those of `Visualize`. Raises RizbinError for what is none."""
    if what in OF_RUNS:
        return OF_RUNS[what][0]
    if what not in VISUALIZERS:
        raise RizbinError(f"There is no visualization {what!r}; there are {', '.join(names())}.")
    drawing = VISUALIZERS[what]
    made: Any = make_dataclass(type(drawing).__name__, [], bases=(drawing.Settings, Visualize), frozen=True)
    made.__doc__ = does(drawing)
    return made


def visualize(
    what: str,
    model: Place,
    images: Place | Sequence[Place],
    **options: Place | int | float | tuple[tuple[float, float], ...] | None,
) -> Path:
    """Shows what a model sees in images; returns the page, which lies in a folder with the sheets as PNG files.

    what: the name of a visualization: attention, patch, pca ... (`rizbin visualize --help` lists them).
    model: a run, an exported folder, a bundled model, or a ViT of timm or Hugging Face by folder or name.
    images: files, folders, or data as for training ("scenes:single").
    options: fields of `Visualize` (output, size, limit, masks) and of that visualization.
    """
    kind = settings_of(what)
    known = {item.name for item in fields(kind)}
    if strange := sorted(set(options) - known):
        raise RizbinError(f"{what} has no option {strange[0]!r}; there are {', '.join(sorted(known))}.")
    made: Any = kind
    return draw(what, made(model=model, images=images, **options))


def draw(what: str, settings: Any) -> Path:
    """The page of a visualization with settings of `settings_of(what)`."""
    if what in OF_RUNS:
        return OF_RUNS[what][1](settings)
    kind = VISUALIZERS[what]
    drawing = kind(part(settings, kind.Settings))
    masks = Path(settings.masks) if settings.masks else ""
    if not paths_of(settings.images):
        raise RizbinError(f"Say which images: rizbin visualize {what} {settings.model} FOLDER, or scenes:single.")
    check_images(paths_of(settings.images), masks=masks)
    model, folder = settings.model, Path(settings.model)
    encoder = load_encoder(model, device=str(choose(settings.device)))
    own: Any = settings
    reading: Any = getattr(own, "dense", "plain")
    if reading != "plain" or getattr(own, "guide", ""):
        guide = str(getattr(own, "guide", ""))
        encoder = read_by(encoder, reading, load_encoder(guide, device=str(choose(settings.device))) if guide else None)
    limit = settings.limit or drawing.most
    images = read_images(paths_of(settings.images), encoder, size=settings.size or 0, limit=limit, masks=masks)
    target = Path(settings.output) if settings.output else Path("runs") / "visualize" / f"{what}-{folder.name}"
    sheets = drawing(encoder, images.shown)
    title = f"{does(kind).split(':')[0].rstrip('.')}: {model}"
    with outputs.reading(_named_files([*paths_of(settings.images), *([masks] if masks else [])])):
        return write_album(sheets, target, title=title, notes=images.skipped, credit=images.credit)


def _named_files(places: Sequence[Place]) -> list[Path]:
    """The files among these words of a command, and those in its folders: what it reads."""
    files: list[Path] = []
    for place in map(Path, places):
        files += [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]
    return files
