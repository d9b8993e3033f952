"""Detection in many images: files in, detections out; unreadable files are listed."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Advance, MakeBar, advancing
from rizbin.core.results import Table
from rizbin.data.files import image_files
from rizbin.data.image_io import read_image
from rizbin.data.sample import Refused
from rizbin.detection.detections import NMS_IOU, THRESHOLD, Detections, Proposals
from rizbin.detection.detector import Detector, Scale
from rizbin.detection.draw import color_of, drawn
from rizbin.detection.explain import Explanation, explain
from rizbin.detection.masks import Segmenter, tinted
from rizbin.detection.phrases import Phrase, PhraseLike, read_phrases
from rizbin.detection.write import ImageDetections, write

GROUP = 16
"""Images held at a time."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """Options of the detection, and which boxes count."""

    threshold: float = THRESHOLD
    """Lowest score of a detection, 0 to 1."""
    thresholds: Annotated[Mapping[str, float] | None, HIDDEN] = None
    """Thresholds of single names, instead of `threshold`."""
    nms_iou: float = NMS_IOU
    """Intersection over union from which two boxes of one name count as one object (non-maximum suppression); 1 keeps
    both."""
    scale: Scale = "full"
    """full, standard or fast: 1, 0.6 and 0.4 of the size that the network was trained at; time grows with the
    square."""
    token_pooling: Literal["mean", "max"] = "mean"
    """Score of a phrase: the mean of its tokens' scores (COCO's protocol), or the largest of them."""
    separate: bool = False
    """One pass for each phrase: slower, for long descriptions that would influence each other."""
    tile: int = 0
    """Side in pixels of square tiles in which small objects are searched for as well; 0: no tiles."""
    batch: int = 4
    """Images of one size in a pass."""


@dataclass(frozen=True, repr=False)
class DetectionResults(Table):
    """The detections in all images: a row a box."""

    images: tuple[ImageDetections, ...]
    names: tuple[str, ...]
    """Names that were searched for, in order."""
    skipped: tuple[str, ...]
    """A sentence for each image that could not be used."""
    notes: tuple[str, ...]
    """Remarks on the phrases, such as words that the network does not know."""
    explained: tuple[tuple[str, UInt8[np.ndarray, "_ _ 3"], tuple[Explanation, ...]], ...] = ()
    """Name, pixels and explanations of each image, where explanations were requested."""

    def __repr__(self) -> str:
        boxes = sum(len(image.answer) for image in self.images)
        return f"DetectionResults({boxes} boxes of {', '.join(self.names)} in {len(self.images)} images)"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each box: image, label, score, left, top, right, bottom in pixels."""
        sides = ("left", "top", "right", "bottom")
        return [
            {
                "image": image.file,
                "label": label,
                "score": float(score),
                **dict(zip(sides, map(float, box), strict=True)),
            }
            for image in self.images
            for label, score, box in zip(image.answer.labels, image.answer.scores, image.answer.boxes, strict=True)
        ]


def search(
    detector: Detector,
    where: Sequence[str],
    find: Sequence[PhraseLike],
    *,
    rivals: Sequence[PhraseLike] = (),
    settings: Search = Search(),
    draw: Path | None = None,
    explained: int = 0,
    segmenter: Segmenter | None = None,
    bar: MakeBar | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> DetectionResults:
    """Looks for `find` in all images that `where` names.

    Args:
        detector: What looks.
        where: Files, folders, patterns.
        find: See `rizbin.detection.phrases.read_phrases`.
        rivals: Phrases that may take a box away ("toy cat") and are no answers themselves.
        settings: See there.
        draw: Folder for the images with their answers drawn, as PNG files; None: none.
        explained: Boxes of each image to explain.
        segmenter: Makes a mask of each answer's box.
        bar: Makes a progress bar.
        say: Is told how long it will take, before it starts.

    Raises RizbinError when there is nothing to look for or at, or no image can be used.
    """
    phrases = read_phrases(find)
    names = {phrase.name for phrase in phrases}
    others = tuple(phrase for phrase in (read_phrases(rivals) if rivals else ()) if phrase.name not in names)
    files = files_of(where)
    if settings.batch < 1:
        raise RizbinError(f"batch is {settings.batch}; give 1 or more images a pass.")
    if draw is not None:
        _make(draw)
    with advancing(bar, len(files), "looking") as advance:
        run = _Run(detector, phrases, others, settings, draw, explained, segmenter, advance)
        items, foretold = list(files.items()), False
        for start in range(0, len(items), GROUP):
            images = run.read(items[start : start + GROUP])
            if images and not foretold:
                time_left = _duration(run.seconds(images[0][1].shape) * len(files))
                say(f"{len(files)} image{'s' * (len(files) > 1)}, about {time_left} on this machine.")
                foretold = True
            run.look(images)
    if not run.labelled:
        none = "The image cannot" if len(files) == 1 else f"None of the {len(files)} images can"
        raise RizbinError(f"{none} be used: {run.skipped[0]}")
    return DetectionResults(
        tuple(run.labelled),
        tuple(phrase.name for phrase in phrases),
        tuple(run.skipped),
        run.notes,
        tuple(run.explanations),
    )


_NamedImage = tuple[str, UInt8[np.ndarray, "_ _ 3"]]  # of any sizes


@dataclass
class _Run:
    """The state of one search."""

    detector: Detector
    phrases: tuple[Phrase, ...]
    rivals: tuple[Phrase, ...]
    settings: Search
    draw: Path | None
    explained: int
    segmenter: Segmenter | None
    advance: Advance
    labelled: list[ImageDetections] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    explanations: list[tuple[str, np.ndarray, tuple[Explanation, ...]]] = field(default_factory=list)

    def read(self, files: Sequence[tuple[Path, str]]) -> list[_NamedImage]:
        """Names and pixels of the files that can be used; of the others the reason is listed."""
        images = []
        for file, name in files:
            try:
                images.append((name, read_image(file, name=name)))
            except Refused as reason:
                self.skipped.append(str(reason))
                self.advance(1)
        return images

    def seconds(self, size: tuple[int, ...]) -> float:
        """About how long an image of that height and width takes."""
        settings = self.settings
        return self.detector.expected_seconds(
            (size[0], size[1]),
            [*self.phrases, *self.rivals],
            scale=settings.scale,
            separate=settings.separate,
            tile=settings.tile,
        )

    def look(self, images: Sequence[_NamedImage]) -> None:
        """Detects in some images, and explains and draws the detections where that was requested."""
        settings = self.settings
        all_proposals = self.detector.detect(
            [pixels for _, pixels in images],
            [*self.phrases, *self.rivals],
            scale=settings.scale,
            token_pooling=settings.token_pooling,
            separate=settings.separate,
            tile=settings.tile,
            batch=settings.batch,
            advance=self.advance,
        )
        for (name, pixels), proposals in zip(images, all_proposals, strict=True):
            answer = _answer(proposals, settings, len(self.phrases))
            self.notes = proposals.notes
            masks = self.segmenter.masks(pixels, answer.boxes)[0] if self.segmenter is not None else None
            self.labelled.append(ImageDetections(name, proposals.width, proposals.height, answer, masks))
            if self.explained:
                self.explanations.append((name, pixels, tuple(self._explain(pixels))))
            if self.draw is not None:
                self._draw(self.draw, name, pixels, answer, masks)

    def _explain(self, pixels: np.ndarray) -> list[Explanation]:
        return explain(
            self.detector,
            pixels,
            self.phrases,
            rivals=self.rivals,
            most=self.explained,
            threshold=self.settings.threshold,
            nms_iou=self.settings.nms_iou,
            tile=self.settings.tile,
        )

    def _draw(self, folder: Path, name: str, pixels: np.ndarray, answer: Detections, masks: np.ndarray | None) -> None:
        if masks is not None:
            pixels = tinted(pixels, list(masks), [color_of(int(number)) for number in answer.classes])
        content = io.BytesIO()
        Image.fromarray(drawn(pixels, answer)).save(content, "PNG")
        outputs.write(folder / f"{Path(name).stem}-{len(self.labelled):04d}.png", content.getvalue())


def files_of(where: Sequence[str]) -> dict[Path, str]:
    """The image files and what to call them in answers.

    Where two would have one name, all are called by their path from the folder that holds them all: x/a.png, y/a.png.
    Raises RizbinError when there are none.
    """
    files = {file: name for text in where for file, name in image_files(text).items()}
    if not files:
        raise RizbinError("There are no images to look at; name files, folders or patterns.")
    # A file that is named twice, by itself and by its folder, is one file.
    single = {os.path.abspath(file): (file, name) for file, name in reversed(files.items())}
    files = {file: name for file, name in files.items() if single[os.path.abspath(file)][0] == file}
    if len(set(files.values())) < len(files):
        common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
        files = {file: Path(os.path.relpath(os.path.abspath(file), common)).as_posix() for file in files}
    return files


def _answer(proposals: Proposals, settings: Search, phrases: int) -> Detections:
    """The answers for the first `phrases` without those of rivals, which have taken their boxes."""
    answer = proposals.choose(settings.threshold, thresholds=settings.thresholds, nms_iou=settings.nms_iou)
    own = answer.classes < phrases
    return replace(
        answer,
        boxes=answer.boxes[own],
        classes=answer.classes[own],
        scores=answer.scores[own],
        rows=answer.rows[own],
        names=answer.names[:phrases],
    )


def save(results: DetectionResults, to: Path, form: str = "") -> list[Path]:
    """Writes all answers; see `rizbin.detection.write.write`."""
    return write(results.images, results.names, to, form)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RizbinError(f"{folder} cannot be made ({error.strerror}); choose another folder to draw into.") from error


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"{round(seconds)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
