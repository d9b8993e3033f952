"""Open-vocabulary detection: images and phrases in, boxes with scores out."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from rizbin.core import outputs
from rizbin.core.commands import Argument, Place, job, part
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.detection import search
from rizbin.detection.masks import DEFAULT as SAM
from rizbin.detection.masks import Segmenter
from rizbin.detection.phrases import PhraseLike, read_phrases
from rizbin.detection.search import DetectionResults, Search
from rizbin.detection.write import planned
from rizbin.reports.explanations import write_explanations
from rizbin.workflows.load import load_detector

Format = Literal["coco", "csv", "yolo", "voc", "labelme"]
Phrases = str | Sequence[PhraseLike]


@dataclass(frozen=True)
class Detect(Search):
    """Find objects in images by words (Grounding DINO)."""

    images: Annotated[
        Place | Sequence[Place],
        Argument(positional=True, many=True, metavar="IMAGES", check="images"),
    ]
    """Files, folders, patterns."""
    find: Annotated[Phrases, Argument(many=True, metavar="PHRASE")] = ()
    """What to look for, once for each: "a cat", or "remote=a remote control|tv remote" for a name with several prompts;
    "a cat. a dog." are two phrases. Only these names come back."""
    _: KW_ONLY
    distractor: Annotated[Phrases, Argument(many=True, metavar="PHRASE")] = ()
    """What might be mistaken for it, once for each: a distractor takes its boxes away and is not reported."""
    model: Annotated[Place | None, Argument(check="model")] = None
    """A Grounding DINO of Hugging Face by name or folder (MM-Grounding-DINO and LLMDet too), a run, or detector-mini,
    which is bundled and knows drawings. None: LLMDet tiny, fetched over the network once."""
    per_class: tuple[str, ...] | Mapping[str, float] = ()
    """Another score threshold for one name, once for each: "cat=.4"."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """File or folder for the detections. None: they are only printed. Files that Rizbin did not make are kept."""
    format: Format | None = None
    """Format of that file. None: by its ending (.json coco, .csv, else yolo)."""
    draw: Place | None = None
    """Folder for the images with their boxes drawn. None: not drawn."""
    explain: int = 0
    """Boxes of each image to explain: which words, which pixels, and whether they matter, in explained.html in the
    folder of `draw` or in the current one. Six passes a box."""
    masks: Place | None = None
    """A SAM 2 of Hugging Face by name or folder, or sam2 for its tiny one, makes a mask of each box; the masks are
    drawn, and stand as run lengths in COCO's JSON."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@job(Detect)
def detect(settings: Detect) -> DetectionResults:
    """Finds objects in images by words.

    Raises RizbinError when there is nothing to look for or at, or where no image can be used.
    """
    # What cannot be looked for, is not there or must not be written over is said before a model is loaded.
    phrases, distractors = phrases_of(settings.find), phrases_of(settings.distractor)
    read_phrases(phrases)
    thresholds = _thresholds(settings.per_class) or settings.thresholds
    places = paths_of(settings.images)
    files = search.files_of(places)
    quiet = settings.quiet
    with outputs.reading(files):
        if settings.output is not None:
            planned(list(files.values()), Path(settings.output), settings.format or "")
        device = str(choose(settings.device))
        masks = None if settings.masks is None else load_segmenter(settings.masks, device=device)
        detections = search.search(
            load_detector(settings.model or "", device=device),
            places,
            phrases,
            rivals=distractors,
            settings=replace(part(settings, Search), thresholds=thresholds),
            draw=Path(settings.draw) if settings.draw is not None else None,
            explained=settings.explain,
            segmenter=masks,
            bar=lambda total, label: Bar(total, label, quiet=quiet),
            say=lambda text: None if quiet else print(text, file=sys.stderr),
        )
        if settings.output is not None:
            search.save(detections, Path(settings.output), settings.format or "")
        if settings.explain:
            write_explanations(detections.explained, Path(settings.draw or ".") / "explained.html")
    return detections


def load_segmenter(name: Place, *, device: str = "cpu") -> Segmenter:
    """The SAM 2 of that name or folder; sam2 stands for its tiny one. Raises RizbinError where there is none."""
    return Segmenter.from_pretrained(SAM if name == "sam2" else Path(name), device=device)


def phrases_of(given: Phrases) -> list[Any]:
    """One phrase or several as a list."""
    return [given] if isinstance(given, str) else list(given)


def paths_of(given: Place | Sequence[Place]) -> list[str]:
    """One place or several as a list of texts."""
    places = [given] if isinstance(given, str | PathLike) else list(given)
    return [str(place) for place in places]


def _thresholds(given: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """Name -> threshold."""
    if isinstance(given, Mapping):
        return dict(given)
    return dict(_threshold(text) for text in given)


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        if name:
            return name, float(value)
    except ValueError:
        pass
    raise RizbinError(f'"{text}" is no threshold of a name; write it as "cat=.4".')
