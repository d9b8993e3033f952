"""COCO's JSON as a source: captions of pictures, and the objects in them with box and mask where they are given.

Format: cocodataset.org, "Data format"; Lin et al., Microsoft COCO, arXiv 1405.0312.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rizbin.core.bounded import parse_json, read_regular
from rizbin.core.errors import RizbinError
from rizbin.data.listing import (
    NAMED,
    Entry,
    Listing,
    Split,
    check_any,
    check_caption,
    counted,
    is_text,
    located,
    such_as,
)
from rizbin.data.sample import Refused, Sample, Thing

Record = dict[str, Any]
Mask = Bool[np.ndarray, "height width"]
Id = int | str

MOST_BYTES = 4 * 2**30
"""Of a file; that of Objects365, the largest in use, has three gibibytes."""
MOST_MASKS = 768 * 2**20
"""Bytes of all masks of one picture, one a pixel: 64 objects in 12 million pixels, 2,600 in COCO's 640 x 480."""
MOST_CROSSINGS = 30_000_000
"""Of one outline with the rows of its picture: a second of one core."""
FARTHEST = 1e7
"""Pixels from the picture's corner at which a corner of an outline may lie."""


def open_coco(path: Path, *, split: Split, size: int = 0, folder: Path | None = None) -> Listing:
    """The pictures of a captions or instances file, each with all its captions and the objects known.

    Beside `captions_val2017.json` the file `instances_val2017.json` is read too when it is there, and the other way
    round. Pictures are in `folder`, or else looked for beside the file, in `images/` there, and in COCO's own layout:
    `../val2017/` and `../images/val2017/` for `annotations/captions_val2017.json`. Crowds are no objects. The listing's
    notices count what is left out: annotations of pictures or categories that the file does not list, or lists twice,
    those without an area or outside of their picture, and captions that cannot be used. Pictures with one id or one
    name are refused, since nobody knows whose the annotations are. Raises `RizbinError` when the file is no COCO JSON.
    """
    found = _read(path)
    where, notices = path.name, []
    if (partner := _partner(path)) is not None:
        more = _read(partner)
        if other := _named_otherwise(found.images, more.images):
            notices.append(
                f"{partner.name} is left out, for its images have other names by the same ids{such_as(other)}."
            )
        else:
            found, where = found.with_more(more), f"{path.name} with {partner.name}"
    images, problems, repeated = _once(found.images)
    if repeated:
        notices.append(f"{where}: {counted(len(repeated), 'image')} listed more than once{such_as(repeated)}.")
    sizes = {_id(image, "id"): _told(image) for image in images}
    sizes.pop(None, None)
    placed = _Sorted(where)
    for annotation in found.annotations:
        placed.put(annotation, sizes, found.names, found.ambiguous)
    folder = folder or _picture_folder(path, images)
    # An instances file alone has no captions, which is enough for methods without text and for measuring.
    said = any(isinstance(one.get("caption"), str) for one in found.annotations)
    entries, unusable = [], []
    for number, image in enumerate(images):
        problem = problems.get(number, "")
        texts = placed.captions[_id(image, "id")] if said else None
        entries.append(_entry(image, folder, texts, problem, unusable))
    check_any(entries, str(path))
    truths = {
        entry.key: Truth(image, tuple(objects))
        for entry, image in zip(entries, images, strict=True)
        if (objects := placed.objects[_id(image, "id")])
    }
    listing = Known(path.name, entries, truths, found.names, split=split, size=size)
    if unusable:
        notices.append(f"{where}: {counted(len(unusable), 'caption')} left out{such_as(unusable)}.")
    listing.notices = (*placed.notices(), *notices)
    return listing


class _Sorted:
    """Annotations by what they say of which picture, and those that cannot be used by the reason."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.captions: dict[Id | None, list[str]] = defaultdict(list)
        self.objects: dict[Id | None, list[Record]] = defaultdict(list)
        self._unlisted: dict[str, list[Record]] = {"image_id": [], "category_id": []}
        self._left: dict[str, list[str]] = defaultdict(list)

    def put(
        self,
        annotation: Record,
        sizes: dict[Id | None, tuple[int | None, int | None]],
        names: dict[Id, str],
        ambiguous: dict[Id, str],
    ) -> None:
        """Takes one annotation in, or counts it."""
        picture, category = _id(annotation, "image_id"), _id(annotation, "category_id")
        if picture not in sizes:
            self._unlisted["image_id"].append(annotation)
        elif isinstance(annotation.get("caption"), str):
            self.captions[picture].append(annotation["caption"])
        elif category in ambiguous:
            self._left[f"category_id {category} stands for {ambiguous[category]}"].append(_call(annotation))
        elif category not in names:
            self._unlisted["category_id"].append(annotation)
        elif not _is_crowd(annotation):
            flaw = _flaw(annotation, sizes[picture])
            if flaw == _THIN:
                self._left[_THIN].append(_call(annotation))
                annotation = {**annotation, "segmentation": None}
            elif flaw:
                self._left[flaw].append(_call(annotation))
                return
            self.objects[picture].append(annotation)

    def notices(self) -> list[str]:
        """What is left out, each in a sentence."""
        said = [_unlisted(self.where, kind, some) for kind, some in self._unlisted.items() if some]
        for reason, some in self._left.items():
            if reason == _THIN:
                said.append(
                    f"{self.where}: {counted(len(some), 'object')} taken by the box, for {reason}{such_as(some)}."
                )
            else:
                said.append(f"{self.where}: {counted(len(some), 'annotation')} left out, for {reason}{such_as(some)}.")
        return said


_THIN = "the outline has less than three corners"
_FLAT = "the box or outline has no area"
_OUTSIDE = "the object lies outside of its picture"


def _call(annotation: Record) -> str:
    """What a notice calls an annotation."""
    named = [f"{name} {json.dumps(annotation.get(name))[:40]}" for name in ("id", "image_id") if name in annotation]
    return " of ".join(named)


def _flaw(annotation: Record, size: tuple[int | None, int | None]) -> str:
    """Why an annotation cannot be used as it stands; empty when it can, or when its picture is to be refused for it."""
    try:
        box = _box(annotation)
    except (ValueError, TypeError, KeyError, OverflowError):
        box = None
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        return ""
    outlines = shape if isinstance(shape, list) and all(isinstance(one, list) for one in shape) else None
    if outlines:
        if all(len(one) < 6 for one in outlines):
            return "" if box is None else _FLAT if min(box[2:]) <= 0 else _THIN
        if box is not None and min(box[2:]) > 0:  # then an outline without an area is taken by the box when it is read
            return ""
        try:
            left, right = (pick(float(x) for one in outlines for x in one[::2]) for pick in (min, max))
            top, bottom = (pick(float(y) for one in outlines for y in one[1::2]) for pick in (min, max))
        except (ValueError, TypeError, OverflowError):
            return ""
        return _FLAT if right <= left or bottom <= top else ""
    if box is None:
        return ""
    if min(box[2:]) == 0:
        return _FLAT
    width, height = size
    outside = box[0] + box[2] <= 0 or box[1] + box[3] <= 0
    outside |= (width is not None and box[0] >= width) or (height is not None and box[1] >= height)
    return _OUTSIDE if outside and min(box[2:]) > 0 else ""


def _is_crowd(annotation: Record) -> bool:
    flag = annotation.get("iscrowd")
    return flag is True or whole(flag) not in (None, 0)


def _unlisted(file: str, kind: str, annotations: Sequence[Record]) -> str:
    """What is left out because the `kind` of id that it gives is not listed."""
    ids = list(dict.fromkeys(json.dumps(one.get(kind), ensure_ascii=False)[:40] for one in annotations))
    named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
    listed = {"image_id": "images", "category_id": "categories"}[kind]
    return (
        f"{file}: {counted(len(annotations), 'annotation')} left out, for {kind} {named} "
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
        notices: Sequence[str] = (),
    ):
        super().__init__(name, entries, split=split, size=size if not truths else 0, notices=notices)
        self.categories = tuple(sorted(set(names.values()))) if truths else ()
        self._truths = truths
        self._names = names

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        truth = self._truths.get(self._entries[index].key)
        if truth is None:
            return sample
        key, (height, width) = sample.key, sample.image.shape[:2]
        for side, told, real in zip(("width", "height"), _told(truth.image), (width, height), strict=True):
            if told is None and truth.image.get(side) is not None:
                raise Refused(f"{key} has the {side} {_spelled(truth.image[side])} in its record; give whole pixels.")
            if told not in (None, real):
                stands = [truth.image.get(name) for name in ("width", "height")]
                raise Refused(
                    f"{key} is {width} x {height} pixels, its annotations are for {stands[0]} x {stands[1]}; bring "
                    "both to one size."
                )
        if len(truth.objects) * height * width > MOST_MASKS:
            raise Refused(
                f"{key} has {len(truth.objects)} objects in {width} x {height} pixels, whose masks would take more "
                f"than {MOST_MASKS // 2**20} MiB; make it smaller or cut it into tiles."
            )
        try:
            things = tuple(_thing(record, self._names, height, width) for record in truth.objects)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            reason = f" ({error})" if isinstance(error, _Unfit) else ""
            raise Refused(
                f"{key} has an annotation that is no polygon, run lengths or box{reason}; mend it."
            ) from error
        return Sample(key, sample.image, sample.caption, things=things, captions=sample.captions)


class _Unfit(ValueError):
    """An annotation whose fault can be named."""


def _spelled(value: object) -> str:
    return json.dumps(value)[:40]


def decode_runs(counts: list[int] | str, height: int, width: int) -> Mask:
    """The mask of COCO's run lengths, plain or compressed: runs of 0 and 1 in turn, column by column."""
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise _Unfit(f"run lengths that do not fill {width} x {height} pixels")
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


def _thing(record: Record, names: dict[Any, str], height: int, width: int) -> Thing:
    """An object with its mask, from polygons, run lengths or else its box. Raises ValueError when it lies outside."""
    mask = _mask(record, height, width)
    if not mask.any():  # an outline that is thinner than a pixel, beside which the box may be good
        mask = _box_mask(_box(record), height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Thing(names[_id(record, "category_id")], box, mask)


def _mask(record: Record, height: int, width: int) -> Mask:
    shape = record.get("segmentation")
    if isinstance(shape, dict):
        size = shape.get("size")
        if size is not None and size != [height, width]:
            raise _Unfit(f"run lengths of size {_spelled(size)} for a picture of size [{height}, {width}]")
        return decode_runs(shape["counts"], height, width)
    if not shape:
        return _box_mask(_box(record), height, width)
    mask = np.zeros((height, width), np.bool_)
    for polygon in shape:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not (np.abs(corners) <= FARTHEST).all():
            raise _Unfit("a corner that is no place near the picture")
        mask |= fill_polygon(corners, height, width)
    return mask


def _box(record: Record) -> tuple[float, float, float, float]:
    """Left, top, width and height. Raises ValueError for what is no box, TypeError or KeyError where there is none."""
    left, top, wide, high = (float(number) for number in record["bbox"])
    if not all(abs(number) <= FARTHEST for number in (left, top, wide, high)):
        raise _Unfit("a box that is no place near the picture")
    if min(wide, high) < 0:
        raise _Unfit(f"a box with a width of {wide:g} and a height of {high:g}")
    return left, top, wide, high


def _box_mask(box: tuple[float, float, float, float], height: int, width: int) -> Mask:
    """The pixels whose center is in the box; of one that holds no center, the pixel in its own center."""
    left, top, wide, high = box
    right, bottom = left + wide, top + high
    mask = np.zeros((height, width), np.bool_)
    (first, last), (low, high) = (
        (max(math.ceil(start - 0.5), 0), max(math.ceil(end - 0.5), 0)) for start, end in ((left, right), (top, bottom))
    )
    mask[low:high, first:last] = True
    if first >= min(last, width) or low >= min(high, height):
        column, row = (
            math.floor((max(left, 0) + min(right, width)) / 2),
            math.floor((max(top, 0) + min(bottom, height)) / 2),
        )
        if right <= 0 or bottom <= 0 or left >= width or top >= height or right == left or bottom == top:
            raise _Unfit(f"a box outside of the {width} x {height} pixels, or without an area")
        mask[min(row, height - 1), min(column, width - 1)] = True
    return mask


def fill_polygon(corners: Float[np.ndarray, "corners 2"], height: int, width: int) -> Mask:
    """The pixels whose center is inside, by the even-odd rule; x and y in pixels, 0 being the picture's edge.

    OpenCV and Pillow draw the outline too, which makes every object a pixel larger than its annotation. Raises
    ValueError for an outline that crosses the rows more than `MOST_CROSSINGS` times.
    """
    mask = np.zeros((height, width), np.bool_)
    ends = np.roll(corners, -1, axis=0)
    lows, highs = np.minimum(corners[:, 1], ends[:, 1]), np.maximum(corners[:, 1], ends[:, 1])
    first, last = (np.clip(np.ceil(rows - 0.5), 0, height).astype(np.int64) for rows in (lows, highs))
    counts = np.maximum(last - first, 0)
    if counts.sum() > MOST_CROSSINGS:
        raise _Unfit(f"an outline of {len(corners)} corners that crosses the rows {counts.sum()} times")
    used = np.flatnonzero(counts)
    if not used.size:
        return mask
    top, bottom = int(first[used].min()), int(last[used].max())
    # How often the outline is crossed on the way from the left edge, modulo 256, which leaves odd and even alone.
    crossings = np.zeros((bottom - top) * (width + 1), np.uint8)
    for part in np.split(used, np.flatnonzero(np.diff(np.cumsum(counts[used]) // _AT_ONCE)) + 1):
        edges = np.repeat(part, counts[part])
        before = np.cumsum(counts[part]) - counts[part]
        rows = first[edges] + np.arange(len(edges)) - np.repeat(before, counts[part])
        (x1, y1), (x2, y2) = corners[edges].T, ends[edges].T
        across = np.ceil(x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1) - 0.5).clip(0, width).astype(np.int64)
        np.add.at(crossings, (rows - top) * (width + 1) + across, np.uint8(1))
    inside = crossings.reshape(-1, width + 1)[:, :width].cumsum(axis=1, dtype=np.uint8) % 2 == 1
    mask[top:bottom] = inside
    return mask


_AT_ONCE = 2**20
"""Crossings that are worked out together: some ten megabytes."""


@dataclass(frozen=True)
class _File:
    """What a file holds."""

    images: list[Record]
    annotations: list[Record]
    names: dict[Id, str]
    """Of categories, by their id."""
    ambiguous: dict[Id, str]
    """Ids that stand for several categories, with those."""

    def with_more(self, other: "_File") -> "_File":
        """Both files' annotations of this one's images."""
        names, ambiguous = dict(self.names), self.ambiguous | other.ambiguous
        for number, name in other.names.items():
            if names.setdefault(number, name) != name:
                ambiguous[number] = f"{names[number]} and {name}"
        return _File(self.images, self.annotations + other.annotations, names, ambiguous)


def _read(path: Path) -> _File:
    """The file's images, annotations, and names of categories by their id."""
    try:
        if path.is_file():  # what is none is refused below
            with path.open("rb") as file:
                if b"\0" in file.read(4096):  # before gigabytes of something else are read
                    raise ValueError("it holds zero bytes")
        found = parse_json(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    except ValueError as error:
        raise RizbinError(f"{path} is no JSON ({error}); give a COCO captions file.") from error
    parts = ("images", "annotations", "categories")
    if not isinstance(found, dict) or not all(_is_records({"categories": [], **found}.get(name)) for name in parts):
        raise RizbinError(f"{path} is no COCO file; it needs the lists images and annotations. For a table use .jsonl.")
    names: dict[Id, str] = {}
    ambiguous: dict[Id, str] = {}
    for one in found.get("categories", []):
        number, name = _id(one, "id"), one.get("name")
        if number is None or not isinstance(name, int | str) or not str(name).strip() or not is_text(str(name)):
            continue  # its annotations are counted, as of a category that is not listed
        if names.setdefault(number, str(name).lower()) != str(name).lower():
            ambiguous[number] = f"{names[number]} and {str(name).lower()}"
    for number in ambiguous:
        names.pop(number, None)
    return _File(found["images"], found["annotations"], names, ambiguous)


def _id(record: Record, name: str) -> Id | None:
    """The number or name that one record gives another, a fraction like 1.0 being whole; None when it is neither."""
    found = record.get(name)
    return found if isinstance(found, str) else whole(found) if isinstance(found, int | float) else None


def whole(value: object) -> int | None:
    """A whole number, also where a table has made 640.0 or "640" of it; None when it is none."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _told(image: Record) -> tuple[int | None, int | None]:
    """Width and height in pixels, each None where the record has none."""
    return whole(image.get("width")), whole(image.get("height"))


def _once(images: Sequence[Record]) -> tuple[list[Record], dict[int, str], list[str]]:
    """Images, each once; the problem of those whose id or name others have, by position; and the names of repeats."""
    kept: dict[tuple[object, object], Record] = {}
    repeated = []
    for number, image in enumerate(images):
        name = image.get("file_name")
        same = (_id(image, "id"), name) if isinstance(name, str) and _id(image, "id") is not None else (number, None)
        if same in kept:
            repeated.append(str(name))
        kept.setdefault(same, image)
    by_id: dict[Id | None, list[str]] = defaultdict(list)
    by_name: dict[str, list[Id | None]] = defaultdict(list)
    for image in kept.values():
        by_id[_id(image, "id")].append(str(image.get("file_name")))
        by_name[str(image.get("file_name"))].append(_id(image, "id"))
    found: list[Record] = []
    problems: dict[int, str] = {}
    for image in kept.values():
        name, number = str(image.get("file_name")), _id(image, "id")
        ids, names = by_name[name], by_id[number]
        if image.get("file_name") and len(ids) > 1:
            if ids[0] != number:
                continue  # refused once, with the first
            listed = ", ".join(str(one) for one in ids[:NAMED])
            problems[len(found)] = (
                f"{name} stands {len(ids)} times among the images, with the ids {listed}, so nobody knows whose the "
                "annotations are; give each picture a name of its own."
            )
        elif number is not None and len(names) > 1:
            listed = ", ".join(names[:NAMED])
            problems[len(found)] = (
                f"{name} shares the id {number} ({listed}), so nobody knows whose the annotations are; number the "
                "images anew."
            )
        found.append(image)
    return found, problems, repeated


def _named_otherwise(images: Iterable[Record], others: Iterable[Record]) -> list[str]:
    """Ids that two files give to pictures of different names."""
    names = {_id(image, "id"): image.get("file_name") for image in images}
    return [
        f"{number} ({names[number]}, {image.get('file_name')})"
        for image in others
        if (number := _id(image, "id")) is not None and names.get(number) not in (None, image.get("file_name"))
    ]


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
    return next((place for place in places if first and _is_file(located(place, first))), here)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # names that are too long or that no file can have
        return False


def _entry(image: Record, folder: Path, texts: list[str] | None, problem: str, unusable: list[str]) -> Entry:
    """One image as an entry. Captions that are left out beside better ones are added to `unusable`."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        key = f"image {_spelled(image.get('id'))}"
        return Entry(key, folder, problem=f"{key} has no file_name; give it one.")
    path = located(folder, name)
    if texts is None or problem:
        return Entry(name, path, problem=problem)
    captions: list[str] = []
    bad: list[str] = []
    for text in texts:
        try:
            captions.append(check_caption(text, name))
        except Refused as error:
            bad.append(str(error))
    if captions:
        unusable += [sentence.rstrip(".") for sentence in bad]
        return Entry(name, path, tuple(captions))
    problem = bad[-1] if bad else f"{name} has no caption among the annotations; add one or remove the picture."
    return Entry(name, path, problem=problem)
