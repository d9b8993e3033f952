"""What a COCO file lists: its images, annotations and names of categories, and where its images may lie."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rizbin.core.errors import RizbinError
from rizbin.data.listing import NAMED, is_text, located
from rizbin.data.records import PackedRecords, Record, read_lists

Id = int | str
MOST_BYTES = 4 * 2**30
"""Largest file that is read; that of Objects365, the largest in use, has three gibibytes. About as many are held in
memory."""
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "caption", "iscrowd", "bbox", "segmentation"),
    "categories": ("id", "name"),
}
"""What is read of a file: its lists, and what is used of each record."""


@dataclass(frozen=True)
class CocoFile:
    """What a file holds."""

    images: Sequence[Record]
    annotations: PackedRecords
    names: dict[Id, str]
    """Name of each category by its id."""
    ambiguous: dict[Id, str]
    """Ids that stand for several categories, with those."""

    def with_more(self, other: "CocoFile") -> "CocoFile":
        """Both files' annotations of this one's images."""
        names, ambiguous = dict(self.names), self.ambiguous | other.ambiguous
        for number, name in other.names.items():
            if names.setdefault(number, name) != name:
                ambiguous[number] = f"{names[number]} and {name}"
        return CocoFile(self.images, self.annotations + other.annotations, names, ambiguous)


def read_file(path: Path) -> CocoFile:
    """The file's images, annotations, and names of categories by their id. Raises RizbinError when it is none."""
    try:
        if path.is_file():  # what is none is refused below
            with path.open("rb") as file:
                if b"\0" in file.read(4096):  # before gigabytes of something else are read
                    raise ValueError("it holds zero bytes")
        content = read_lists(path, FIELDS, MOST_BYTES)
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    except ValueError as error:
        raise RizbinError(f"{path} is no JSON ({error}); give a COCO captions file.") from error
    if content is None or not {"images", "annotations"} <= content.keys():
        raise RizbinError(f"{path} is no COCO file; it needs the lists images and annotations. For a table use .jsonl.")
    names: dict[Id, str] = {}
    ambiguous: dict[Id, str] = {}
    for category in content.get("categories", ()):
        number, name = id_of(category, "id"), category.get("name")
        if number is None or not isinstance(name, int | str) or not str(name).strip() or not is_text(str(name)):
            continue  # its annotations are counted, as of a category that is not listed
        if names.setdefault(number, str(name).lower()) != str(name).lower():
            ambiguous[number] = f"{names[number]} and {str(name).lower()}"
    for number in ambiguous:
        names.pop(number, None)
    return CocoFile(list(content["images"]), content["annotations"], names, ambiguous)


def id_of(record: Record, name: str) -> Id | None:
    """The number or name that one record gives another, a fraction like 1.0 being whole; None when it is neither."""
    value = record.get(name)
    return value if isinstance(value, str) else whole(value) if isinstance(value, int | float) else None


def whole(value: object) -> int | None:
    """A whole number, also where a table has made 640.0 or "640" of it; None when it is none."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def sides_of(image: Record) -> tuple[int | None, int | None]:
    """Width and height in pixels, each None where the record has none."""
    return whole(image.get("width")), whole(image.get("height"))


def each_once(images: Sequence[Record]) -> tuple[list[Record], dict[int, str], list[str]]:
    """Images, each once; the problem of those whose id or name others have, by position; and the names of repeats."""
    different: dict[tuple[object, object], Record] = {}
    repeated = []
    for number, image in enumerate(images):
        name = image.get("file_name")
        same = (
            (id_of(image, "id"), name) if isinstance(name, str) and id_of(image, "id") is not None else (number, None)
        )
        if same in different:
            repeated.append(str(name))
        different.setdefault(same, image)
    by_id: dict[Id | None, list[str]] = defaultdict(list)
    by_name: dict[str, list[Id | None]] = defaultdict(list)
    for image in different.values():
        by_id[id_of(image, "id")].append(str(image.get("file_name")))
        by_name[str(image.get("file_name"))].append(id_of(image, "id"))
    usable: list[Record] = []
    problems: dict[int, str] = {}
    for image in different.values():
        name, number = str(image.get("file_name")), id_of(image, "id")
        ids, names = by_name[name], by_id[number]
        if image.get("file_name") and len(ids) > 1:
            if ids[0] != number:
                continue  # refused once, with the first
            listed = ", ".join(str(number) for number in ids[:NAMED])
            problems[len(usable)] = (
                f"{name} stands {len(ids)} times among the images, with the ids {listed}, so nobody knows whose the "
                "annotations are; give each image a name of its own."
            )
        elif number is not None and len(names) > 1:
            listed = ", ".join(names[:NAMED])
            problems[len(usable)] = (
                f"{name} shares the id {number} ({listed}), so nobody knows whose the annotations are; number the "
                "images anew."
            )
        usable.append(image)
    return usable, problems, repeated


def named_otherwise(images: Iterable[Record], others: Iterable[Record]) -> list[str]:
    """Ids that two files give to images of different names."""
    names = {id_of(image, "id"): image.get("file_name") for image in images}
    return [
        f"{number} ({names[number]}, {image.get('file_name')})"
        for image in others
        if (number := id_of(image, "id")) is not None and names.get(number) not in (None, image.get("file_name"))
    ]


def partner_of(path: Path) -> Path | None:
    """The instances beside captions, or the other way round."""
    for mine, other in (("captions", "instances"), ("instances", "captions")):
        if mine in path.name and (partner := path.with_name(path.name.replace(mine, other))).is_file():
            return partner
    return None


def image_folder(path: Path, images: Sequence[Record]) -> Path:
    """The first usual place that holds the first image; the file's own folder when none does."""
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


def spelled(value: object) -> str:
    """A value as the file has it, short enough for a sentence."""
    return json.dumps(value)[:40]
