"""Answers as files that other tools read: COCO's JSON, YOLO's text, Pascal VOC's XML, LabelMe's JSON, a table."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool

from rizbin.core.errors import RizbinError
from rizbin.detect.found import Answer
from rizbin.detect.masks import run_lengths


@dataclass(frozen=True)
class Labelled:
    """One picture with its answer."""

    file: str
    """Its file's name, as it shall stand in what is written."""
    width: int
    """Pixels."""
    height: int
    answer: Answer
    masks: Bool[np.ndarray, "answers height width"] | None = None
    """Of the answers, where they were asked for."""


def coco(pictures: Sequence[Labelled], names: Sequence[str]) -> dict[str, Any]:
    """One object for all: images, categories from 1 on in the order asked for, annotations with boxes and scores."""
    annotations = []
    for number, one in enumerate(pictures, 1):
        for place, (box, kind, score) in enumerate(
            zip(one.answer.boxes, one.answer.classes, one.answer.scores, strict=True)
        ):
            left, top, right, bottom = (float(value) for value in box)
            mask = None if one.masks is None else one.masks[place]
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
            {"id": number, "file_name": one.file, "width": one.width, "height": one.height}
            for number, one in enumerate(pictures, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": annotations,
    }


def yolo(one: Labelled) -> str:
    """A line each: class from 0 on, center and size as shares of the picture, score."""
    lines = []
    for box, kind, score in zip(one.answer.boxes, one.answer.classes, one.answer.scores, strict=True):
        left, top, right, bottom = (float(value) for value in box)
        shares = (
            (left + right) / 2 / one.width,
            (top + bottom) / 2 / one.height,
            (right - left) / one.width,
            (bottom - top) / one.height,
        )
        lines.append(" ".join([str(int(kind)), *(f"{value:.6f}" for value in shares), f"{float(score):.5f}"]))
    return "".join(f"{line}\n" for line in lines)


def voc(one: Labelled) -> str:
    """Pascal VOC's annotation of one picture; pixels count from 1 there."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = one.file
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", one.width), ("height", one.height), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    for box, label, score in zip(one.answer.boxes, one.answer.labels, one.answer.scores, strict=True):
        thing = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(thing, "name").text = _plain(label)
        ElementTree.SubElement(thing, "difficult").text = "0"
        ElementTree.SubElement(thing, "score").text = f"{float(score):.5f}"
        corners = ElementTree.SubElement(thing, "bndbox")
        # First and last pixel, both inside, counted from 1.
        first = (int(box[0]) + 1, int(box[1]) + 1)
        last = (max(round(float(box[2])), first[0]), max(round(float(box[3])), first[1]))
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (*first, *last), strict=True):
            ElementTree.SubElement(corners, name).text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def labelme(one: Labelled) -> dict[str, Any]:
    """LabelMe's object of one picture, a rectangle for each answer."""
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
            for box, label, score in zip(one.answer.boxes, one.answer.labels, one.answer.scores, strict=True)
        ],
        "imagePath": one.file,
        "imageData": None,
        "imageHeight": one.height,
        "imageWidth": one.width,
    }


def table(pictures: Sequence[Labelled]) -> str:
    """Comma-separated, a row for each answer: file, name, score, left, top, right, bottom."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "name", "score", "left", "top", "right", "bottom"])
    for one in pictures:
        for box, label, score in zip(one.answer.boxes, one.answer.labels, one.answer.scores, strict=True):
            writer.writerow([one.file, label, f"{float(score):.5f}", *(f"{float(value):.2f}" for value in box)])
    return out.getvalue()


def write(pictures: Sequence[Labelled], names: Sequence[str], to: Path, form: str = "") -> list[Path]:
    """Writes the answers and returns the files.

    form: coco or csv (one file), yolo, voc or labelme (a folder with a file for each picture; yolo's has the names in
    `classes.txt`). Empty: csv where the name ends in .csv, coco where it ends in .json, else yolo. Raises RizbinError
    for another form, for two pictures that would share a file, and when nothing can be written.
    """
    form = form or {".csv": "csv", ".json": "coco"}.get(to.suffix.lower(), "yolo")
    if form not in FORMS:
        raise RizbinError(f"There is no form {form!r} to write; give one of {', '.join(FORMS)}.")
    try:
        if form in ("coco", "csv"):
            to.parent.mkdir(parents=True, exist_ok=True)
            text = table(pictures) if form == "csv" else json.dumps(coco(pictures, names), ensure_ascii=False, indent=1)
            to.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
            return [to]
        ending, make = _EACH[form]
        stems = [Path(one.file).stem for one in pictures]
        if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
            raise RizbinError(
                f"Two pictures are called {twice[0]}, and {form} has one file for each name; write coco or csv."
            )
        to.mkdir(parents=True, exist_ok=True)
        written = []
        for stem, one in zip(stems, pictures, strict=True):
            written.append(to / f"{stem}{ending}")
            written[-1].write_text(make(one), encoding="utf-8")
        if form == "yolo":
            written.append(to / "classes.txt")
            written[-1].write_text("".join(f"{_plain(name)}\n" for name in names), encoding="utf-8")
        return written
    except OSError as error:
        raise RizbinError(f"{to} could not be written ({error.strerror}); choose another place.") from error


_EACH: dict[str, tuple[str, Callable[[Labelled], str]]] = {
    "yolo": (".txt", yolo),
    "voc": (".xml", voc),
    "labelme": (".json", lambda one: json.dumps(labelme(one), ensure_ascii=False, indent=1) + "\n"),
}
FORMS = ("coco", "csv", *_EACH)
"""What answers can be written as."""


def _plain(text: str) -> str:
    """One line without the control characters that XML and line-based files cannot hold."""
    return "".join(character if character.isprintable() else " " for character in text)
