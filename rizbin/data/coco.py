"""COCO's JSON as a source: captions of pictures, and the objects in them with box and mask where they are given.

Format: cocodataset.org, "Data format"; Lin et al., Microsoft COCO, arXiv 1405.0312.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rizbin.core.errors import RizbinError
from rizbin.data.listing import Entry, Listing, Split, check_any, check_caption
from rizbin.data.sample import Refused, Sample, Thing

Record = dict[str, Any]
Mask = Bool[np.ndarray, "height width"]


def open_coco(path: Path, *, split: Split, size: int = 0, folder: Path | None = None) -> Listing:
    """The pictures of a captions or instances file, each with all its captions and the objects known.

    Beside `captions_val2017.json` the file `instances_val2017.json` is read too when it is there, and the other way
    round. Pictures are in `folder`, or else looked for beside the file, in `images/` there, and in COCO's own layout:
    `../val2017/` and `../images/val2017/` for `annotations/captions_val2017.json`. Crowds are no objects, nor are
    annotations of pictures or categories that the file does not list, which the listing's notices count. Raises
    `RizbinError` when the file is no COCO JSON.
    """
    images, annotations, names = _read(path)
    if (partner := _partner(path)) is not None:
        _, more, more_names = _read(partner)
        annotations, names = annotations + more, names | more_names
    captions: dict[Any, list[str]] = defaultdict(list)
    objects: dict[Any, list[Record]] = defaultdict(list)
    pictured = {_id(image, "id") for image in images} - {None}
    lost: dict[str, list[Record]] = {"image_id": [], "category_id": []}
    for annotation in annotations:
        picture, said = _id(annotation, "image_id"), isinstance(annotation.get("caption"), str)
        if picture not in pictured:
            lost["image_id"].append(annotation)
        elif said:
            captions[picture].append(annotation["caption"])
        elif _id(annotation, "category_id") not in names:
            lost["category_id"].append(annotation)
        elif not annotation.get("iscrowd"):
            objects[picture].append(annotation)
    folder = folder or _picture_folder(path, images)
    # An instances file alone has no captions, which is enough for methods without text and for measuring.
    told = any(isinstance(one.get("caption"), str) for one in annotations)
    entries = [_entry(image, folder, captions[_id(image, "id")] if told else None) for image in images]
    check_any(entries, str(path))
    truths = {
        entry.key: Truth(image, tuple(objects[_id(image, "id")]))
        for entry, image in zip(entries, images, strict=True)
        if objects[_id(image, "id")]
    }
    found = Known(path.name, entries, truths, names, split=split, size=size)
    where = path.name if partner is None else f"{path.name} with {partner.name}"
    found.notices = tuple(_notice(where, kind, some) for kind, some in lost.items() if some)
    return found


NAMED_IDS = 3
"""How many ids a notice names."""


def _notice(file: str, kind: str, annotations: Sequence[Record]) -> str:
    """What is left out because the `kind` of id that it gives is not listed."""
    ids = list(dict.fromkeys(json.dumps(one.get(kind), ensure_ascii=False)[:40] for one in annotations))
    named = ", ".join(ids[:NAMED_IDS]) + (f" and {len(ids) - NAMED_IDS} more" if len(ids) > NAMED_IDS else "")
    one = len(annotations) == 1
    listed = {"image_id": "images", "category_id": "categories"}[kind]
    return (
        f"{file}: {len(annotations)} annotation{' is' if one else 's are'} left out, for {kind} {named} "
        f"{'is' if len(ids) == 1 else 'are'} not among its {listed}."
    )


@dataclass(frozen=True)
class Truth:
    """The objects of one picture, as the file has them."""

    image: Record
    objects: tuple[Record, ...]


class Known(Listing):
    """A listing whose samples have things, from records as COCO has them."""

    def __init__(
        self,
        name: str,
        entries: list[Entry],
        truths: dict[str, Truth],
        names: dict[Any, str],
        *,
        split: Split,
        size: int,
    ):
        super().__init__(name, entries, split=split, size=size if not truths else 0)
        self.categories = tuple(sorted(set(names.values()))) if truths else ()
        self._truths = truths
        self._names = names

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        truth = self._truths.get(sample.key)
        if truth is None:
            return sample
        height, width = sample.image.shape[:2]
        told = (truth.image.get("width", width), truth.image.get("height", height))
        if told != (width, height):
            raise Refused(f"{sample.key} is {width} x {height} pixels, its annotations are for {told[0]} x {told[1]}.")
        try:
            things = [_thing(record, self._names, height, width) for record in truth.objects]
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise Refused(f"{sample.key} has an annotation that is no polygon, run lengths or box; mend it.") from error
        found = tuple(thing for thing in things if thing is not None)
        return Sample(sample.key, sample.image, sample.caption, things=found, captions=sample.captions)


def decode_runs(counts: list[int] | str, height: int, width: int) -> Mask:
    """The mask of COCO's run lengths, plain or compressed: runs of 0 and 1 in turn, column by column."""
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError("the runs do not fill the picture")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T.copy()


def _unpack(text: str) -> list[int]:
    """Run lengths from COCO's text: 5 bits a character, lowest first, from the fourth on less the one two before."""
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _thing(record: Record, names: dict[Any, str], height: int, width: int) -> Thing | None:
    """An object with its mask, from polygons, run lengths or else its box; None when no pixel is inside."""
    mask = _mask(record, height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Thing(names[record["category_id"]], box, mask)


def _mask(record: Record, height: int, width: int) -> Mask:
    shape = record.get("segmentation")
    if isinstance(shape, dict):
        return decode_runs(shape["counts"], height, width)
    if shape:
        polygons = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in shape]
    else:
        left, top, wide, high = (float(number) for number in record["bbox"])
        polygons = [np.array([(left, top), (left + wide, top), (left + wide, top + high), (left, top + high)])]
    mask = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        if not np.isfinite(polygon).all():
            raise ValueError("a corner is not finite")
        mask |= fill_polygon(polygon, height, width)
    return mask


def fill_polygon(corners: Float[np.ndarray, "corners 2"], height: int, width: int) -> Mask:
    """The pixels whose center is inside, by the even-odd rule; x and y in pixels, 0 being the picture's edge.

    OpenCV and Pillow draw the outline too, which makes every object a pixel larger than its annotation.
    """
    crossings = np.zeros((height, width + 1), np.int32)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = sorted((y1, y2))
        rows = np.arange(max(0, math.ceil(low - 0.5)), min(height, math.ceil(high - 0.5)))
        if rows.size:
            across = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            np.add.at(crossings, (rows, np.ceil(across - 0.5).clip(0, width).astype(np.int64)), 1)
    return crossings[:, :width].cumsum(axis=1) % 2 == 1


def _read(path: Path) -> tuple[list[Record], list[Record], dict[Any, str]]:
    """The file's images, annotations, and names of categories by their id."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise RizbinError(f"{path} is no JSON ({error}); give a COCO captions file.") from error
    parts = ("images", "annotations", "categories")
    if not isinstance(found, dict) or not all(_is_records({"categories": [], **found}.get(name)) for name in parts):
        raise RizbinError(f"{path} is no COCO file; it needs the lists images and annotations. For a table use .jsonl.")
    names = {_id(one, "id"): str(one["name"]).lower() for one in found.get("categories", []) if one.get("name")}
    names.pop(None, None)
    return found["images"], found["annotations"], names


def _id(record: Record, name: str) -> int | str | None:
    """The number or name that one record gives another; None when it is neither."""
    found = record.get(name)
    return found if isinstance(found, int | str) else None


def _is_records(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(one, dict) for one in found)


def _partner(path: Path) -> Path | None:
    """The instances beside captions, or the other way round."""
    for mine, other in (("captions", "instances"), ("instances", "captions")):
        if mine in path.name and (partner := path.with_name(path.name.replace(mine, other))).is_file():
            return partner
    return None


def _picture_folder(path: Path, images: list[Record]) -> Path:
    """The first usual place that holds the first picture; the file's own folder when none does."""
    here = path.parent
    part = path.stem.rpartition("_")[2]
    first = next((str(image["file_name"]) for image in images if image.get("file_name")), "")
    above = here.parent
    places = (here, here / "images", here / part, above / part, above / "images" / part, above / "images")
    return next((place for place in places if first and (place / first).is_file()), here)


def _entry(image: Record, folder: Path, texts: list[str] | None) -> Entry:
    name = image.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        key = f"image {image.get('id')}"
        return Entry(key, folder, problem=f"{key} has no file_name; give it one.")
    if texts is None:
        return Entry(name, folder / name)
    captions: list[str] = []
    problem = f"{name} has no caption among the annotations; add one or remove the picture."
    for text in texts:
        try:
            captions.append(check_caption(text, name))
        except Refused as error:
            problem = str(error)
    return Entry(name, folder / name, tuple(captions), problem="" if captions else problem)
