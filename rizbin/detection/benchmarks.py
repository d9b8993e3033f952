"""Detection on COCO and LVIS, by pycocotools; LVIS's own rules (arXiv 1908.03195) on top of it.

LVIS knows of each image only some categories that are there or are not. Detections of other categories do not count,
nor do those without a true box in an image whose boxes of that category are not all drawn; 300 detections an image
count, over all categories, and the mean is over categories, also of rare, common and frequent ones.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rizbin.core.bounded import parse_json, read_regular
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.coco_file import MOST_BYTES
from rizbin.data.image_io import read_image
from rizbin.data.listing import leads_out
from rizbin.data.sample import Refused
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import named

COCO_LAYOUT = "annotations/instances_val2017.json and the images in val2017/ (or images/val2017/)"
LVIS_LAYOUT = "lvis_v1_val.json (or in annotations/), and COCO's images in train2017/ and val2017/"
MOST = {"coco": 100, "lvis": 300}
"""Detections that count: of a category and image on COCO, of an image on LVIS."""
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass
class LabeledBoxes:
    """A file of COCO's form, and what was detected in its images."""

    data: dict[str, Any]
    folder: Path
    results: list[dict[str, Any]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def read_boxes(kind: str, root: Path) -> LabeledBoxes:
    """The annotations of COCO or LVIS below a folder."""
    layout = COCO_LAYOUT if kind == "coco" else LVIS_LAYOUT
    name = "instances_val2017.json" if kind == "coco" else "lvis_v1_val.json"
    file = next((path for path in (root / "annotations" / name, root / name) if path.is_file()), None)
    if file is None:
        place = root / "annotations" / name if kind == "coco" else root / name
        raise RizbinError(f"{kind} needs {place}, which is not there; its folder holds {layout}.")
    try:
        data = parse_json(read_regular(file, MOST_BYTES))
    except (OSError, ValueError) as error:
        raise RizbinError(f"{file} cannot be read as JSON ({error}); get it again.") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in lists):
        raise RizbinError(f"{file} has not the lists {', '.join(lists)}; its folder holds {layout}.")
    return LabeledBoxes(data, root)


def image_path(record: dict[str, Any], root: Path) -> Path:
    """Where an image lies: COCO names a file, LVIS its address, whose last two parts are folder and file."""
    name = str(record.get("file_name") or "/".join(str(record.get("coco_url", "")).split("/")[-2:]))
    places = [root / name, root / "val2017" / name, root / "images" / "val2017" / name, root / "images" / name]
    path = next((place for place in places if place.is_file()), places[1])
    if leads_out(path, root):
        raise RizbinError(f"{name} lies outside of {root}; get the annotations again.")
    return path


def measure(kind: str, detector: Detector, root: Path, options: Any, bar: MakeBar | None) -> Report:
    """COCO's or LVIS's summary of a detector that is asked for all of the categories."""
    _pycocotools()  # before hours of detection
    boxes = read_boxes(kind, root)
    categories = boxes.data["categories"]
    names = [_spoken(str(category["name"])) for category in categories]
    numbers = [int(category["id"]) for category in categories]
    images = boxes.data["images"][: options.limit] if options.limit is not None else boxes.data["images"]
    phrases = named(names)
    with advancing(bar, len(images), kind) as advance:
        for start in range(0, len(images), options.batch):
            pixels, records = [], []
            for record in images[start : start + options.batch]:
                try:
                    pixels.append(read_image(image_path(record, root)))
                    records.append(record)
                except Refused as reason:
                    boxes.refused.append((str(record.get("id")), str(reason)))
                    advance(1)
            if not pixels:
                continue
            for record, proposals in zip(
                records, detector.detect(pixels, phrases, batch=options.batch, advance=advance), strict=True
            ):
                boxes.seen.append(int(record["id"]))
                boxes.results += rows_of(proposals, int(record["id"]), numbers, MOST["lvis"])
    if not boxes.seen:
        raise RizbinError(f"No image of {len(images)} could be used. The first reason: {boxes.refused[0][1]}")
    left_out = ()
    if options.limit is not None:
        left_out = (("all images", f"Only the first {options.limit:,} were asked for (--limit)."),)
    return Report(
        measurements=tuple(summarized(kind, boxes)),
        left_out=left_out,
        images=len(boxes.seen),
        source=kind,
        refused=tuple(boxes.refused),
    )


def rows_of(proposals: Proposals, image: int, numbers: Sequence[int], most: int) -> list[dict[str, Any]]:
    """COCO's rows of the best pairs of box and name in an image."""
    pairs = proposals.pairs(most)
    assert pairs.scores is not None
    return [
        {
            "image_id": image,
            "category_id": numbers[int(place)],
            "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
            "score": float(score),
        }
        for box, place, score in zip(pairs.xyxy, pairs.classes, pairs.scores, strict=True)
    ]


def summarized(kind: str, boxes: LabeledBoxes) -> list[Measurement]:
    """The numbers that are published: AP, AP50, AP75, by size, and on LVIS by how frequent a category is."""
    values = coco_summary(boxes) if kind == "coco" else lvis_summary(boxes)
    counted = (
        "100 detections a category and image"
        if kind == "coco"
        else "300 detections an image, categories that an image was not checked for left out"
    )
    return [
        Measurement(
            name=f"{kind}/{name}",
            value=100 * value,
            protocol=f"{about} of boxes by pycocotools, {counted}, mean over categories.",
        )
        for name, (about, value) in values.items()
        if value >= 0  # pycocotools says -1 where there is nothing of the kind
    ]


def coco_summary(boxes: LabeledBoxes) -> dict[str, tuple[str, float]]:
    """Name -> (what it is, value from 0 to 1, or -1)."""
    judge = _judge(boxes, _pycocotools().cocoeval.COCOeval)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return _named_values(judge.stats, 8)


def _named_values(stats: Any, recall: int) -> dict[str, tuple[str, float]]:
    abouts = {
        "ap": "Average precision, mean of those at 0.50, 0.55 to 0.95,",
        "ap50": "Average precision at 0.5",
        "ap75": "Average precision at 0.75",
        "ap_small": "Average precision of objects under 32 x 32 pixels",
        "ap_medium": "Average precision of objects from 32 x 32 to 96 x 96 pixels",
        "ap_large": "Average precision of objects over 96 x 96 pixels",
    }
    metrics = {name: (about, float(stats[place])) for place, (name, about) in enumerate(abouts.items())}
    return metrics | {"recall": ("Average recall", float(stats[recall]))}


def lvis_summary(boxes: LabeledBoxes) -> dict[str, tuple[str, float]]:
    """The same on LVIS, with the means of rare, common and frequent categories."""
    records = {int(record["id"]): record for record in boxes.data["images"]}
    negative = {image: set(record.get("neg_category_ids", ())) for image, record in records.items()}
    partly = {image: set(record.get("not_exhaustive_category_ids", ())) for image, record in records.items()}
    positive: dict[int, set[int]] = {image: set() for image in records}
    for annotation in boxes.data["annotations"]:
        positive.setdefault(int(annotation["image_id"]), set()).add(annotation["category_id"])
    best: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(boxes.results, key=lambda row: -row["score"]):
        best.setdefault(row["image_id"], []).append(row)
    results = [
        row
        for image, rows in best.items()
        for row in rows[: MOST["lvis"]]
        if row["category_id"] in positive[image] | negative[image]
    ]
    judge = _judge(LabeledBoxes(_as_coco(boxes.data), boxes.folder, results, boxes.seen), _partly_drawn(partly))
    judge.params.maxDets = [MOST["lvis"]]
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    metrics = {
        "ap": ("Average precision, mean of those at 0.50, 0.55 to 0.95,", _mean(precision[:, :, :, 0, 0])),
        "ap50": ("Average precision at 0.5", _mean(precision[0, :, :, 0, 0])),
        "ap75": ("Average precision at 0.75", _mean(precision[5, :, :, 0, 0])),
    }
    for place, size in enumerate(("small", "medium", "large"), 1):
        metrics[f"ap_{size}"] = (f"Average precision of {size} objects", _mean(precision[:, :, :, place, 0]))
    order = {int(number): place for place, number in enumerate(judge.params.catIds)}
    for letter, word in FREQUENCIES.items():
        places = [order[c["id"]] for c in boxes.data["categories"] if c.get("frequency") == letter and c["id"] in order]
        metrics[f"ap_{word}"] = (f"Average precision of {word} categories", _mean(precision[:, :, places, 0, 0]))
    return metrics | {"recall": ("Average recall", _mean(recall[:, :, 0, 0]))}


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _as_coco(data: dict[str, Any]) -> dict[str, Any]:
    """LVIS's annotations with COCO's flag for crowds, which it has none of."""
    return {**data, "annotations": [{"iscrowd": 0, **annotation} for annotation in data["annotations"]]}


def _judge(boxes: LabeledBoxes, kind: Any) -> Any:
    """An evaluation of pycocotools on the images that were seen."""
    coco_class = _pycocotools().coco.COCO
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = boxes.data
        truth.createIndex()
        if boxes.results:
            results = truth.loadRes([dict(row) for row in boxes.results])
        else:
            results = coco_class()
            results.dataset = {**boxes.data, "annotations": []}
            results.createIndex()
        judge = kind(truth, results, "bbox")
    judge.params.imgIds = sorted(boxes.seen)
    return judge


def _partly_drawn(partly: dict[int, set[int]]) -> Any:
    """COCO's evaluation in which what matches nothing is passed over where not all boxes of a category are drawn."""
    base: Any = _pycocotools().cocoeval.COCOeval

    class PartlyDrawn(base):
        def evaluateImg(self, imgId: Any, catId: Any, aRng: Any, maxDet: Any) -> Any:
            evaluated = super().evaluateImg(imgId, catId, aRng, maxDet)
            if evaluated is not None and int(catId) in partly.get(int(imgId), ()):
                evaluated["dtIgnore"] = np.logical_or(evaluated["dtIgnore"], evaluated["dtMatches"] == 0)
            return evaluated

    return PartlyDrawn


def _spoken(name: str) -> str:
    """A category as one says it: LVIS writes "bow_(decorative_ribbons)"."""
    return " ".join(name.replace("_", " ").replace("(", " ").replace(")", " ").split())


def _pycocotools() -> Any:
    try:
        package = import_module("pycocotools")
        import_module("pycocotools.coco")
        import_module("pycocotools.cocoeval")
    except ImportError as error:
        raise RizbinError(
            "coco and lvis are measured by pycocotools, which is not installed: pip install 'rizbin[benchmarks]' "
            "brings it."
        ) from error
    return package


RUNS = {kind: partial(measure, kind) for kind in ("coco", "lvis")}
"""Benchmark -> what measures a detector on it."""
ABOUT = {"coco": "Detection on COCO, 80 categories.", "lvis": "Detection on LVIS v1, 1,203 categories."}
LAYOUTS = {"coco": COCO_LAYOUT, "lvis": LVIS_LAYOUT}
