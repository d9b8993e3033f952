"""ODVG lines as a source: a picture with named boxes a line, as Open-GroundingDino, MMDetection and TAO train on.

{"filename": "a.jpg", "height": 480, "width": 640, "detection": {"instances": [{"bbox": [x1, y1, x2, y2], "category":
"cat"}]}}, or with "grounding": {"caption": "...", "regions": [{"bbox": [...], "phrase": "a cat"}]}; a bbox may be a
list of boxes. Format: github.com/longzw1997/Open-GroundingDino, data_format.md.
"""

import json
from pathlib import Path
from typing import Any

from rizbin.core.errors import RizbinError
from rizbin.data.coco import Known, Truth
from rizbin.data.listing import Entry, Listing, Split, check_any


def is_odvg(path: Path) -> bool:
    """Whether the file's first line is a picture with boxes."""
    try:
        with path.open("rb") as lines:
            first = json.loads(next((line for line in lines if line.strip()), b"null"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "filename" in first and ("detection" in first or "grounding" in first)


def open_odvg(path: Path, *, split: Split, folder: Path | None = None) -> Listing:
    """The pictures of an ODVG file with their objects; lines about one picture add up.

    Raises RizbinError naming the line that is none.
    """
    folder = folder or _folder(path)
    sizes: dict[str, dict[str, int]] = {}
    objects: dict[str, list[dict[str, Any]]] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name = str(record["filename"])
            found = [
                {"category_id": numbers.setdefault(said, len(numbers)), "bbox": _wide(box)}
                for said, box in _named(record)
            ]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise RizbinError(
                f"Line {number} of {path} is no ODVG record ({type(error).__name__}: {error}); it needs filename, and "
                "detection with instances or grounding with regions."
            ) from error
        sizes[name] = {key: record[key] for key in ("width", "height") if isinstance(record.get(key), int)}
        objects.setdefault(name, []).extend(found)
    # Without captions: a grounding's caption names its phrases, which are the names here.
    entries = [Entry(name, folder / name) for name in objects]
    truths = {name: Truth(sizes[name], tuple(found)) for name, found in objects.items() if found}
    check_any(entries, str(path))
    return Known(path.name, entries, truths, {place: said for said, place in numbers.items()}, split=split, size=0)


def _named(record: dict[str, Any]) -> list[tuple[str, list[float]]]:
    """Every box with its name."""
    if "detection" in record:
        return [(str(one["category"]).lower(), _floats(one["bbox"])) for one in record["detection"]["instances"]]
    found = []
    for region in record["grounding"]["regions"]:
        phrases = region["phrase"] if isinstance(region["phrase"], list) else [region["phrase"]]
        boxes = region["bbox"] if isinstance(region["bbox"][0], list) else [region["bbox"]]
        found += [(str(phrases[0]).lower(), _floats(box)) for box in boxes]
    return found


def _floats(box: Any) -> list[float]:
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right, bottom]


def _wide(box: list[float]) -> list[float]:
    """Left, top, width, height of corners."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _folder(path: Path) -> Path:
    """`images` beside the file where there is one, else the file's own folder."""
    return path.parent / "images" if (path.parent / "images").is_dir() else path.parent
