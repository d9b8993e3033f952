"""Looks for things in many pictures: files in, answers out, unreadable ones listed."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN
from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar, advancing
from rizbin.core.results import Table
from rizbin.data.files import picture_files
from rizbin.data.gate import read_image
from rizbin.data.sample import Refused
from rizbin.detection.detector import Detector, Scale
from rizbin.detection.draw import color_of, drawn
from rizbin.detection.explain import Explanation, explain
from rizbin.detection.found import OVERLAP, THRESHOLD, Answer, Found
from rizbin.detection.masks import Segmenter, tinted
from rizbin.detection.phrases import Wanted, read_phrases
from rizbin.detection.write import Labelled, write

GROUP = 16
"""Pictures held at a time."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to look, and what counts as found."""

    threshold: float = THRESHOLD
    """Lowest score of an answer, 0 to 1."""
    thresholds: Annotated[Mapping[str, float] | None, HIDDEN] = None
    """For single names, instead of that."""
    nms_iou: float = OVERLAP
    """Intersection over union from which two boxes of one name are one thing; 1 keeps both."""
    scale: Scale = "full"
    """full, standard or fast: 1, 0.6 and 0.4 of the size that the network was trained at; time goes with the square."""
    token_pooling: Literal["mean", "max"] = "mean"
    """A phrase's score is the mean of its tokens' (COCO's protocol), or the largest."""
    separate: bool = False
    """One pass for each phrase: slower, for long descriptions that would disturb each other."""
    tile: int = 0
    """Also look at squares of so many pixels one by one, for small things; 0 does not."""
    batch: int = 4
    """Pictures of one size in a pass."""


@dataclass(frozen=True, repr=False)
class Searched(Table):
    """The detections in all images: a row a box."""

    pictures: tuple[Labelled, ...]
    names: tuple[str, ...]
    """What was looked for, in order."""
    skipped: tuple[str, ...]
    """A sentence for each picture that could not be used."""
    notes: tuple[str, ...]
    """What the reader should know of the phrases."""
    explained: tuple[tuple[str, UInt8[np.ndarray, "_ _ 3"], tuple[Explanation, ...]], ...] = ()
    """Name, pixels and explanations of each picture, where they were asked for."""

    def __repr__(self) -> str:
        boxes = sum(len(image.answer) for image in self.pictures)
        return f"Searched({boxes} boxes of {', '.join(self.names)} in {len(self.pictures)} images)"

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
            for image in self.pictures
            for label, score, box in zip(image.answer.labels, image.answer.scores, image.answer.boxes, strict=True)
        ]


def search(
    detector: Detector,
    where: Sequence[str],
    find: Sequence[Wanted],
    *,
    rivals: Sequence[Wanted] = (),
    settings: Search = Search(),
    draw: Path | None = None,
    explained: int = 0,
    segmenter: Segmenter | None = None,
    bar: MakeBar | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Searched:
    """Looks for `find` in all pictures that `where` names.

    Args:
        detector: What looks.
        where: Files, folders, patterns.
        find: See `rizbin.detection.phrases.read_phrases`.
        rivals: Phrases that may take a box away ("toy cat") and are no answers themselves.
        settings: See there.
        draw: Folder for the pictures with their answers drawn, as PNG files; None: none.
        explained: Boxes of each picture to explain.
        segmenter: Makes a mask of each answer's box.
        bar: Makes a progress bar.
        say: Is told how long it will take, before it starts.

    Raises RizbinError when there is nothing to look for or at, or no picture can be used.
    """
    wanted = read_phrases(find)
    against = [one for one in (read_phrases(rivals) if rivals else ()) if one.name not in {w.name for w in wanted}]
    files = files_of(where)
    if settings.batch < 1:
        raise RizbinError(f"batch is {settings.batch}; give 1 or more pictures a pass.")
    if draw is not None:
        _made(draw)
    pictures: list[Labelled] = []
    skipped: list[str] = []
    notes: tuple[str, ...] = ()
    told_why: list[tuple[str, np.ndarray, tuple[Explanation, ...]]] = []
    told = False
    with advancing(bar, len(files), "looking") as advance:
        items = list(files.items())
        for start in range(0, len(items), GROUP):
            group: list[tuple[str, np.ndarray]] = []
            for file, name in items[start : start + GROUP]:
                try:
                    group.append((name, read_image(file, name=name)))
                except Refused as reason:
                    skipped.append(str(reason))
                    advance(1)
            if group and not told:
                seconds = detector.expected_seconds(
                    group[0][1].shape[:2],
                    [*wanted, *against],
                    scale=settings.scale,
                    alone=settings.separate,
                    tile=settings.tile,
                )
                say(f"{len(files)} pictures, about {_duration(seconds * len(files))} on this machine.")
                told = True

            found = detector.detect(
                [pixels for _, pixels in group],
                [*wanted, *against],
                scale=settings.scale,
                over=settings.token_pooling,
                alone=settings.separate,
                tile=settings.tile,
                batch=settings.batch,
                advance=advance,
            )
            for (name, pixels), one in zip(group, found, strict=True):
                answer, notes = _answer(one, settings, len(wanted)), one.notes
                masks = segmenter.masks(pixels, answer.boxes)[0] if segmenter is not None else None
                pictures.append(Labelled(name, one.width, one.height, answer, masks))
                if explained:
                    reasons = explain(
                        detector,
                        pixels,
                        wanted,
                        rivals=against,
                        most=explained,
                        threshold=settings.threshold,
                        overlap=settings.nms_iou,
                        tile=settings.tile,
                    )
                    told_why.append((name, pixels, tuple(reasons)))
                if draw is not None:
                    shown_here = pixels
                    if masks is not None:
                        colors = [color_of(int(number)) for number in answer.classes]
                        shown_here = tinted(pixels, list(masks), colors)
                    held = io.BytesIO()
                    Image.fromarray(drawn(shown_here, answer)).save(held, "PNG")
                    outputs.write(draw / f"{Path(name).stem}-{len(pictures):04d}.png", held.getvalue())
    if not pictures:
        raise RizbinError(f"None of the {len(files)} pictures could be used; the first: {skipped[0]}")
    return Searched(tuple(pictures), tuple(one.name for one in wanted), tuple(skipped), notes, tuple(told_why))


def files_of(where: Sequence[str]) -> dict[Path, str]:
    """The picture files and what to call them in answers.

    Where two would have one name, all are called by their path from the folder that holds them all: x/a.png, y/a.png.
    Raises RizbinError when there are none.
    """
    files = {file: name for text in where for file, name in picture_files(text).items()}
    if not files:
        raise RizbinError("There are no pictures to look at; name files, folders or patterns.")
    # A file that is named twice, by itself and by its folder, is one file.
    single = {os.path.abspath(file): (file, name) for file, name in reversed(files.items())}
    files = {file: name for file, name in files.items() if single[os.path.abspath(file)][0] == file}
    if len(set(files.values())) < len(files):
        common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
        files = {file: Path(os.path.relpath(os.path.abspath(file), common)).as_posix() for file in files}
    return files


def _answer(found: Found, settings: Search, wanted: int) -> Answer:
    """The answers without those of rivals, which have taken their boxes."""
    answer = found.choose(settings.threshold, thresholds=settings.thresholds, overlap=settings.nms_iou)
    kept = answer.classes < wanted
    return replace(
        answer,
        boxes=answer.boxes[kept],
        classes=answer.classes[kept],
        scores=answer.scores[kept],
        rows=answer.rows[kept],
        names=answer.names[:wanted],
    )


def save(found: Searched, to: Path, form: str = "") -> list[Path]:
    """Writes all answers; see `rizbin.detection.write.write`."""
    return write(found.pictures, found.names, to, form)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RizbinError(f"{folder} cannot be made ({error.strerror}); choose another folder to draw into.") from error


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"{round(seconds)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
