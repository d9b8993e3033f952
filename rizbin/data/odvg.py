"""ODVG lines as a source: an image with named boxes a line, as Open-GroundingDino, MMDetection and TAO train on.

{"filename": "a.jpg", "height": 480, "width": 640, "detection": {"instances": [{"bbox": [x1, y1, x2, y2], "category":
"cat"}]}}, or with "grounding": {"caption": "...", "regions": [{"bbox": [...], "phrase": "a cat"}]}; a bbox may be a
list of boxes. Format: github.com/longzw1997/Open-GroundingDino, data_format.md.
"""

from pathlib import Path
from typing import Any

from rizbin.core.bounded import parse_json, read_regular
from rizbin.core.errors import RizbinError
from rizbin.data.coco import ImageTruth, Known
from rizbin.data.coco_file import whole
from rizbin.data.listing import Listing, ListingEntry, Split, check_any, counted, is_text, located, such_as
from rizbin.data.tables import MOST_TABLE

_LONGEST_LINE = 2**20
"""Bytes of the line that tells the format; ten thousand boxes take as many."""


def is_odvg(path: Path) -> bool:
    """Whether the file's first line is an image with boxes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(_LONGEST_LINE).lstrip()
        first = parse_json(start.splitlines()[0] if start else b"null")
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and "filename" in first and ("detection" in first or "grounding" in first)


def open_odvg(path: Path, *, split: Split, folder: Path | None = None) -> Listing:
    """The images of an ODVG file with their objects; lines about one image add up.

    Boxes without an area are left out and counted in the listing's notices. Images whose lines give different sizes
    are refused. Raises RizbinError naming the first line that is no record, or has a box whose right or bottom edge
    comes before the other one, as left, top, width and height in the place of corners do.
    """
    folder = folder or _folder(path)
    try:
        lines = read_regular(path, MOST_TABLE).splitlines()
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    sizes: dict[str, dict[str, Any]] = {}
    objects: dict[str, list[dict[str, Any]]] = {}
    problems: dict[str, str] = {}
    numbers: dict[str, int] = {}
    flat: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
            name = _text(record["filename"], "filename")
            boxes = _named(record)
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
            raise RizbinError(
                f"Line {number} of {path} is no ODVG record ({type(error).__name__}: {error}); it needs filename, and "
                "detection with instances or grounding with regions."
            ) from error
        size = {key: record[key] for key in ("width", "height") if record.get(key) is not None}
        before = sizes.setdefault(name, size)
        if any(whole(before.get(key, value)) != whole(value) for key, value in size.items()):
            problems[name] = f"{name} has lines with different sizes in {path}, such as line {number}; mend them."
        records = objects.setdefault(name, [])
        for phrase, (left, top, right, bottom) in boxes:
            if right == left or bottom == top:
                flat.append(f"{phrase} of {name}, line {number}")
                continue
            place = numbers.setdefault(phrase, len(numbers))
            records.append({"category_id": place, "bbox": [left, top, right - left, bottom - top]})
    # Without captions: a grounding's caption names its phrases, which are the names here.
    entries = [ListingEntry(name, located(folder, name), problem=problems.get(name, "")) for name in objects]
    truths = {name: ImageTruth(sizes[name], tuple(records)) for name, records in objects.items() if records}
    check_any(entries, str(path))
    notices = []
    if flat:
        notices.append(f"{path.name}: {counted(len(flat), 'box', 'boxes')} left out for having no area{such_as(flat)}.")
    names = {place: phrase for phrase, place in numbers.items()}
    return Known(path.name, entries, truths, names, split=split, size=0, notices=notices)


def _named(record: dict[str, Any]) -> list[tuple[str, list[float]]]:
    """Every box with its name."""
    if "detection" in record:
        return [
            (_name(instance["category"]), _corners(instance["bbox"])) for instance in record["detection"]["instances"]
        ]
    named_boxes = []
    for region in record["grounding"]["regions"]:
        phrases = region["phrase"] if isinstance(region["phrase"], list) else [region["phrase"]]
        boxes = region["bbox"] if isinstance(region["bbox"][0], list) else [region["bbox"]]
        named_boxes += [(_name(phrases[0]), _corners(box)) for box in boxes]
    return named_boxes


def _name(value: Any) -> str:
    return _text(str(value) if isinstance(value, int) else value, "category").lower()


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip() or not is_text(value) or "\0" in value:
        raise ValueError(f"{what} is no text")
    return value


def _corners(box: Any) -> list[float]:
    """Left, top, right, bottom, in this order."""
    left, top, right, bottom = (float(value) for value in box)
    if right < left or bottom < top:
        raise ValueError(f"the box {[left, top, right, bottom]} is not left, top, right, bottom")
    return [left, top, right, bottom]


def _folder(path: Path) -> Path:
    """`images` beside the file where there is one, else the file's own folder."""
    return path.parent / "images" if (path.parent / "images").is_dir() else path.parent
