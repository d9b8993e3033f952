"""A table of pictures as a source: CSV, TSV or JSON lines, with the column names that other tools have made common."""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from rizbin.core.errors import RizbinError
from rizbin.data.listing import Entry, Listing, Split, check_any, check_caption
from rizbin.data.sample import Refused

IMAGE = ("filepath", "image", "file_name", "filename", "path", "image_path", "img", "file")
"""Columns with the picture's path (filepath: open_clip; file_name: Hugging Face), the first that is there."""
CAPTION = ("caption", "text", "title", "description", "captions", "sentence")
"""Columns with the caption (title: open_clip; text: Hugging Face; caption: img2dataset)."""
LABEL = ("label", "category", "class", "class_name")
"""Columns with the one category of the whole picture."""

_SEPARATORS = ",\t;|"
_LONGEST_FIELD = 2**20
"""Characters; a picture written into the table as text would be longer, a caption never is."""
_HEADER_ROWS = 100
"""Rows of JSON lines that are looked at for the columns, as each may have its own."""

Row = dict[str, Any]


def open_table(path: Path, *, split: Split, size: int = 0) -> Listing:
    """The pictures that a table names, their paths being relative to the table's folder.

    Several rows with the same picture make one sample with several captions. A row that cannot be used is refused when
    it is asked for. Raises `RizbinError` when the table cannot be read, is empty, or lacks the columns.
    """
    entries = read_table(path)
    check_any(entries, str(path))
    return Listing(path.name, entries, split=split, size=size)


def read_table(path: Path) -> list[Entry]:
    """One entry for each picture of the table, in order of first appearance."""
    text = _read(path)
    rows = _json_rows(text, path) if path.suffix.lower() == ".jsonl" else _csv_rows(text, path)
    columns = list(dict.fromkeys(name for _, row in rows[:_HEADER_ROWS] for name in row))
    if not rows:
        raise RizbinError(f"{path} holds no rows; give a table with a header and a row for each picture.")
    image, caption, label = (_pick(columns, names) for names in (IMAGE, CAPTION, LABEL))
    if image is None or (caption is None and label is None):
        raise RizbinError(
            f"{path} has the columns {', '.join(columns) or 'none'}; it needs one of {', '.join(IMAGE)} for the "
            f"picture, and one of {', '.join(CAPTION)} for the caption or {', '.join(LABEL)} for the category."
        )
    found: dict[str, Entry] = {}
    for line, row in rows:
        entry = _entry(path, line, row, image, caption, label)
        before = found.get(entry.key)
        found[entry.key] = _merged(before, entry) if before else entry
    return list(found.values())


def _read(path: Path) -> str:
    """The text; bytes that are no UTF-8 stay recognizable as lone surrogates, so that only their rows are refused."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RizbinError(f"{path} is UTF-16, as spreadsheets save it; save it as UTF-8.")
    return data.decode("utf-8-sig", "surrogateescape")


def _csv_rows(text: str, path: Path) -> list[tuple[int, Row]]:
    """Line number and fields of every row. The separator is the one under which the header holds most known columns."""
    known = {*IMAGE, *CAPTION, *LABEL}

    def header(separator: str) -> list[str]:
        return next(csv.reader(StringIO(text, newline=""), delimiter=separator), [])

    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        separator = max(_SEPARATORS, key=lambda mark: sum(_plain(name) in known for name in header(mark)))
        reader = csv.DictReader(StringIO(text, newline=""), delimiter=separator)
        return [
            (reader.line_num, {_plain(name): value for name, value in row.items() if isinstance(name, str)})
            for row in reader
        ]
    except csv.Error as error:
        raise RizbinError(f"{path} cannot be read as a table ({error}); save it as CSV in UTF-8.") from error
    finally:
        csv.field_size_limit(before)


def _json_rows(text: str, path: Path) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            rows.append((line, _json_row(content)))
    if rows and not any(row for _, row in rows):
        raise RizbinError(f"{path} holds no line with a JSON object; give one a line.")
    return rows


def _json_row(content: str) -> Row:
    """The object of a line; empty when the line is broken, so that only this row is refused."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return {_plain(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def _entry(path: Path, line: int, row: Row, image: str, caption: str | None, label: str | None) -> Entry:
    """One row as an entry; what is wrong with it becomes its `problem`."""
    name = row.get(image)
    where = f"{path}, line {line}"
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return Entry(where, path, problem=f"{where} names no picture in its column {image}; fill it in.")
    key = name.strip()
    if "://" in key:
        return Entry(key, path, problem=f"{where} names a network address ({key}); download it first.")
    found = row.get(label) if label else None
    category = str(found).strip() if isinstance(found, str | int) else ""
    try:
        captions = tuple(_captions(row.get(caption) if caption else category, f"{key} ({where})"))
    except Refused as error:
        return Entry(key, path.parent / key, label=category, problem=str(error))
    return Entry(key, path.parent / key, captions, label=category)


def _captions(found: object, name: str) -> Iterator[str]:
    """The captions of a field: a text, or in JSON a list of texts."""
    texts = found if isinstance(found, list) and found else [found]
    for text in texts:
        yield check_caption(text if isinstance(text, str) else "", name)


def _merged(first: Entry, second: Entry) -> Entry:
    """Two rows about one picture; a bad caption does not spoil a good one."""
    if second.problem:
        return first
    if first.problem:
        return second
    return Entry(first.key, first.path, first.captions + second.captions, label=first.label or second.label)


def _pick(columns: list[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)


def _plain(name: str) -> str:
    return name.strip().lower()
