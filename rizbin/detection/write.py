"""Detections as files that other tools read: COCO's JSON, YOLO's text, Pascal VOC's XML, LabelMe's JSON, a table."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.detection.detections import Detections
from rizbin.detection.masks import run_lengths


@dataclass(frozen=True)
class ImageDetections:
    """An image with its detections."""

    file: str
    """Name of the image's file, as it is written into the results."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    answer: Detections
    masks: Bool[np.ndarray, "answers height width"] | None = None
    """Masks of the answers, where they were asked for."""


def coco(images: Sequence[ImageDetections], names: Sequence[str]) -> dict[str, Any]:
    """One object for all: images, categories from 1 on in the order asked for, annotations with boxes and scores."""
    annotations = []
    for number, image in enumerate(images, 1):
        for place, (box, kind, score) in enumerate(
            zip(image.answer.boxes, image.answer.classes, image.answer.scores, strict=True)
        ):
            left, top, right, bottom = (float(value) for value in box)
            mask = None if image.masks is None else image.masks[place]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(kind) + 1,
                    "bbox": [round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2)],
                    "area": round((right - left) * (bottom - top), 2) if mask is None else int(mask.sum()),
                    "iscrowd": 0,
                    "score": round(float(score), 5),
                    **({} if mask is None else {"segmentation": run_lengths(mask)}),
                }
            )
    return {
        "images": [
            {"id": number, "file_name": image.file, "width": image.width, "height": image.height}
            for number, image in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": annotations,
    }


def yolo(image: ImageDetections) -> str:
    """A line each: class from 0 on, center and size as shares of the image, score."""
    lines = []
    for box, kind, score in zip(image.answer.boxes, image.answer.classes, image.answer.scores, strict=True):
        left, top, right, bottom = (float(value) for value in box)
        shares = (
            (left + right) / 2 / image.width,
            (top + bottom) / 2 / image.height,
            (right - left) / image.width,
            (bottom - top) / image.height,
        )
        lines.append(" ".join([str(int(kind)), *(f"{value:.6f}" for value in shares), f"{float(score):.5f}"]))
    return "".join(f"{line}\n" for line in lines)


def voc(image: ImageDetections) -> str:
    """Pascal VOC's annotation of one image; pixels count from 1 there."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = image.file
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    for box, label, score in zip(image.answer.boxes, image.answer.labels, image.answer.scores, strict=True):
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = _plain(label)
        ElementTree.SubElement(element, "difficult").text = "0"
        ElementTree.SubElement(element, "score").text = f"{float(score):.5f}"
        corners = ElementTree.SubElement(element, "bndbox")
        # First and last pixel, both inside, counted from 1.
        first = (int(box[0]) + 1, int(box[1]) + 1)
        last = (max(round(float(box[2])), first[0]), max(round(float(box[3])), first[1]))
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (*first, *last), strict=True):
            ElementTree.SubElement(corners, name).text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def labelme(image: ImageDetections) -> dict[str, Any]:
    """LabelMe's object of one image, a rectangle for each answer."""
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": label,
                "points": [[float(box[0]), float(box[1])], [float(box[2]), float(box[3])]],
                "shape_type": "rectangle",
                "group_id": None,
                "description": f"score {float(score):.5f}",
                "flags": {},
            }
            for box, label, score in zip(image.answer.boxes, image.answer.labels, image.answer.scores, strict=True)
        ],
        "imagePath": image.file,
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def table(images: Sequence[ImageDetections]) -> str:
    """Comma-separated, a row for each answer: file, name, score, left, top, right, bottom."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "name", "score", "left", "top", "right", "bottom"])
    for image in images:
        for box, label, score in zip(image.answer.boxes, image.answer.labels, image.answer.scores, strict=True):
            writer.writerow([image.file, label, f"{float(score):.5f}", *(f"{float(value):.2f}" for value in box)])
    return out.getvalue()


def write(images: Sequence[ImageDetections], names: Sequence[str], to: Path, form: str = "") -> list[Path]:
    """Writes the answers and returns the files.

    form: coco or csv (one file), yolo, voc or labelme (a folder with a file for each image; yolo's has the names in
    `classes.txt`). Empty: csv where the name ends in .csv, coco where it ends in .json, else yolo. Raises RizbinError
    as `planned` does, and when nothing can be written.
    """
    form = form_of(to, form)
    files = planned([image.file for image in images], to, form)
    if form in ("coco", "csv"):
        text = table(images) if form == "csv" else json.dumps(coco(images, names), ensure_ascii=False, indent=1)
        return [outputs.write(to, text if text.endswith("\n") else text + "\n")]
    _, make = _EACH[form]
    texts = [make(image) for image in images]
    if form == "yolo":
        texts.append("".join(f"{_plain(name)}\n" for name in names))
    return [outputs.write(file, text) for file, text in zip(files, texts, strict=True)]


def form_of(to: Path, form: str = "") -> str:
    """The form in which answers are written there. Raises RizbinError for one that does not exist."""
    form = form or {".csv": "csv", ".json": "coco"}.get(to.suffix.lower(), "yolo")
    if form not in FORMS:
        raise RizbinError(f"There is no form {form!r} to write; give one of {', '.join(FORMS)}.")
    return form


def planned(names: Sequence[str], to: Path, form: str = "") -> list[Path]:
    """The files that answers of images of these names are written to; none of them is somebody else's.

    Of yolo, voc and labelme a file for each image, of its name, as other tools look for them: where two images in
    different folders share a name, in the same folders. Raises RizbinError where a file is there that Rizbin did not
    make, so that it can be known before anything is looked for, and for two images that would share a file.
    """
    form = form_of(to, form)
    if form in ("coco", "csv"):
        outputs.refuse_taken(to)
        return [to]
    paths = [PurePosixPath(path) for path in names]
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        stems = [path.with_suffix("").as_posix() for path in paths]
        if strange := [path for path in paths if path.is_absolute() or ".." in path.parts]:
            raise RizbinError(f"{strange[0]} leads out of the folder {to}; write coco or csv.")
    if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise RizbinError(
            f"Two images are called {twice[0]}, and {form} has one file for each name; write coco or csv."
        )
    files = [to / f"{stem}{_EACH[form][0]}" for stem in stems]
    if form == "yolo":
        files.append(to / "classes.txt")
    if taken := [file for file in files if not outputs.free(file)]:
        raise RizbinError(
            f"{taken[0]}{f' and {len(taken) - 1} more' if len(taken) > 1 else ''} would be written over, and Rizbin "
            "did not make it, or it was changed since; name another folder, or give --overwrite."
        )
    return files


_EACH: dict[str, tuple[str, Callable[[ImageDetections], str]]] = {
    "yolo": (".txt", yolo),
    "voc": (".xml", voc),
    "labelme": (".json", lambda image: json.dumps(labelme(image), ensure_ascii=False, indent=1) + "\n"),
}
FORMS = ("coco", "csv", *_EACH)
"""What answers can be written as."""


def _plain(text: str) -> str:
    """One line without the control characters that XML and line-based files cannot hold."""
    return "".join(character if character.isprintable() else " " for character in text)
