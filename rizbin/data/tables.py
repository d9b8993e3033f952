"""A table of images as a source: CSV, TSV or JSON lines, with the column names that other tools have made common."""

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rizbin.core.bounded import parse_json, read_regular
from rizbin.core.errors import RizbinError
from rizbin.data.image_io import ENDINGS, UNREAD
from rizbin.data.listing import (
    Listing,
    ListingEntry,
    Split,
    check_any,
    check_caption,
    counted,
    is_text,
    located,
    such_as,
)
from rizbin.data.sample import Refused

IMAGE = ("filepath", "image", "file_name", "filename", "path", "image_path", "img", "file")
"""Columns with the image's path (filepath: open_clip; file_name: Hugging Face), the first that is there."""
CAPTION = ("caption", "text", "title", "description", "captions", "sentence")
"""Columns with the caption (title: open_clip; text: Hugging Face; caption: img2dataset)."""
LABEL = ("label", "category", "class", "class_name")
"""Columns with the one category of the whole image."""
MOST_TABLE = 2**30
"""Bytes of a table: some ten million rows; more of them belong into several tables, or into shards."""

_SEPARATORS = ",\t;|"
_LONGEST_FIELD = 2**20
"""Characters; an image written into the table as text would be longer, a caption never is."""
_HEADER_ROWS = 100
"""Rows of JSON lines that are looked at for the columns, as each may have its own."""
_SHOWN = 200
"""Characters of a header that a message repeats."""
_SNIFFED = 4096
"""Bytes in which a file of another kind shows a zero byte, which no text has."""

Row = dict[str, Any]
Rows = list[tuple[int, Row, str]]
"""Number of the line, fields, and what is wrong with the row as a whole; empty when nothing is."""


def open_table(path: Path, *, split: Split, size: int = 0) -> Listing:
    """The images that a table names, their paths being relative to the table's folder.

    Several rows with the same image make one sample with several captions. A row that cannot be used is refused when
    it is asked for, or counted in the listing's notices where other rows have the same image. Raises `RizbinError`
    when the table cannot be read, is empty, or lacks the columns.
    """
    entries, notices = read_table(path)
    check_any(entries, str(path))
    return Listing(path.name, entries, split=split, size=size, notices=notices)


def read_table(path: Path, root: Path | None = None) -> tuple[list[ListingEntry], list[str]]:
    """One entry for each image of the table, in order of first appearance; and what is left out, in sentences.

    The images are called by their path from `root`, the table's own folder unless another above it is given.
    """
    text = _read(path)
    rows = _json_rows(text, path) if path.suffix.lower() == ".jsonl" else _csv_rows(text, path)
    if not rows:
        raise RizbinError(f"{path} holds no rows; give a table with a header and a row for each image.")
    columns = list(dict.fromkeys(name for _, row, _ in rows[:_HEADER_ROWS] for name in row))
    image, caption, label = (_pick(columns, names) for names in (IMAGE, CAPTION, LABEL))
    if image is None or (caption is None and label is None):
        raise RizbinError(
            f"{path} has the columns {_short(', '.join(columns)) or 'none'}; it needs one of {', '.join(IMAGE)} for "
            f"the image, and one of {', '.join(CAPTION)} for the caption or {', '.join(LABEL)} for the category."
        )
    prefix = "" if root is None or root == path.parent else f"{path.parent.relative_to(root).as_posix()}/"
    entries: dict[str, ListingEntry] = {}
    captions: dict[str, list[str]] = {}
    bad: list[str] = []
    labelled: list[str] = []
    folder = path.parent
    for line, row, problem in rows:
        entry = _entry(path, folder, line, row, problem, image, caption, label, prefix)
        before = entries.get(entry.key)
        captions.setdefault(entry.key, []).extend(entry.captions)
        if before is None:
            entries[entry.key] = entry
            continue
        bad += [duplicate.problem.rstrip(".") for duplicate in (before, entry) if duplicate.problem]
        if before.label and entry.label and before.label != entry.label:
            labelled.append(f"{entry.key} ({before.label}, {entry.label})")
        entries[entry.key] = _merged(before, entry)
    notices = []
    if bad:
        notices.append(f"{path}: {counted(len(bad), 'row')} left out, as other rows have the same image{such_as(bad)}.")
    if labelled:
        notices.append(
            f"{path}: {counted(len(labelled), 'row')} about an image that has another category already, and the first "
            f"counts{such_as(labelled)}."
        )
    return [
        entry if entry.problem else replace(entry, captions=tuple(captions[key])) for key, entry in entries.items()
    ], notices


def _read(path: Path) -> str:
    """The text; bytes that are no UTF-8 stay recognizable as lone surrogates, so that only their rows are refused."""
    try:
        start = b""
        if path.is_file():  # what is none is refused below
            with path.open("rb") as file:
                start = file.read(_SNIFFED)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise RizbinError(f"{path} is UTF-16, as spreadsheets save it; save it as UTF-8.")
        if b"\0" in start:
            raise RizbinError(f"{path} holds zero bytes, so it is no text; save the table as CSV in UTF-8.")
        data = read_regular(path, MOST_TABLE)
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    return data.decode("utf-8-sig", "surrogateescape")


def _csv_rows(text: str, path: Path) -> Rows:
    """Every row. The separator is the one under which the header holds most known columns."""
    known = {*IMAGE, *CAPTION, *LABEL}

    def header(separator: str) -> list[str]:
        return [_plain(name) for name in next(csv.reader(StringIO(text, newline=""), delimiter=separator), [])]

    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        separator = max(_SEPARATORS, key=lambda mark: sum(name in known for name in header(mark)))
        columns = header(separator)
        if twice := sorted(name for name, count in Counter(columns).items() if name in known and count > 1):
            raise RizbinError(f"{path} has the column {twice[0]} twice; give one of them another name.")
        place = next((columns.index(name) for name in IMAGE if name in columns), None)
        read = _records(re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text), separator, len(columns), place)
        next(read, None)
        rows = [_csv_row(line, fields, problem, columns) for line, fields, problem in read]
    except csv.Error as error:
        raise RizbinError(f"{path} cannot be read as a table ({error}); save it as CSV in UTF-8.") from error
    finally:
        csv.field_size_limit(before)
    if rows and all(problem for _, _, problem in rows):
        raise RizbinError(f"{path} cannot be read as a table ({rows[0][2]}); save it as CSV in UTF-8.")
    return rows


def _csv_row(line: int, fields: list[str], problem: str, columns: list[str]) -> tuple[int, Row, str]:
    """A row by its columns. One with more fields than those has lost a piece of a text that holds the separator."""
    if not problem and any(field.strip() for field in fields[len(columns) :]):
        problem = (
            f"it has {len(fields)} fields under a header of {len(columns)}; put quotes around texts with separators"
        )
    # What was read of a broken row still names its image, for the message; its other fields may have slipped.
    return line, dict(zip(columns, fields, strict=False)), problem


def _records(
    lines: Sequence[str], separator: str, columns: int, image: int | None
) -> Iterator[tuple[int, list[str], str]]:
    """Number of the last line, fields and fault of every row that holds something.

    A quote that is never closed, or closed by the one that opens a later row's text, would swallow the rows between.
    Where a row is broken or holds lines that are rows of their own, it ends with its first line, and the next line
    begins another.
    """
    at = 0
    while at < len(lines):
        start = at
        reader = csv.reader((lines[number] for number in range(start, len(lines))), delimiter=separator, strict=True)
        while True:
            first = start + reader.line_num
            problem, fields = "", []
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"its quotes are not closed or not doubled: {error}"
            last = start + reader.line_num
            if not problem and last - first > 1 and _swallowed(lines[first + 1 : last], separator, columns, image):
                problem = "its quotes are not closed before the next row"
            if problem:
                at = first + 1
                yield at, lines[first].rstrip("\r\n").split(separator)[: max(columns, 1)], problem
                break
            if fields:
                yield last, fields, ""


def _swallowed(lines: Sequence[str], separator: str, columns: int, image: int | None) -> bool:
    """Whether one of the lines that a quoted text goes on over is a row: as many fields, an image in its place."""
    for line in lines:
        fields = line.rstrip("\r\n").split(separator)
        if image is not None and image < len(fields) >= columns > 1:
            name = fields[image].strip().strip('"').lower()
            if name.endswith((*ENDINGS, *UNREAD)):
                return True
    return False


def _json_rows(text: str, path: Path) -> Rows:
    rows: Rows = []
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            rows.append((line, _json_row(content), ""))
    if rows and not any(row for _, row, _ in rows):
        raise RizbinError(f"{path} holds no line with a JSON object; give one a line.")
    return rows


def _json_row(content: str) -> Row:
    """The object of a line; empty when the line is broken, so that only this row is refused."""
    try:
        record = parse_json(content)
    except ValueError:
        return {}
    return {_plain(name): value for name, value in record.items()} if isinstance(record, dict) else {}


def _entry(
    path: Path,
    folder: Path,
    line: int,
    row: Row,
    problem: str,
    image: str,
    caption: str | None,
    label: str | None,
    prefix: str,
) -> ListingEntry:
    """One row as an entry; what is wrong with it becomes its `problem`. `folder` is the table's, which is asked for by
    every row of millions.
    """
    name = row.get(image)
    where = f"{path}, line {line}"
    if problem:
        named = name.strip() if isinstance(name, str) else ""
        file = located(folder, named) if named else path
        return ListingEntry(where, file, problem=f"{where} ({named[:80] or 'no name'}) is left out: {problem}.")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return ListingEntry(where, path, problem=f"{where} names no image in its column {image}; fill it in.")
    key = name.strip()
    if "://" in key:
        return ListingEntry(key, path, problem=f"{where} names a network address ({key}); download it first.")
    file = located(folder, key)
    if not key.isascii() or "\\" in key:  # the only names that may be spelled otherwise on disk
        key = key if file == folder / key else file.relative_to(folder).as_posix()
    key = key if os.path.isabs(key) else prefix + key
    category = _category(row.get(label) if label else None)
    if not is_text(category):
        return ListingEntry(key, file, problem=f"the category of {key} ({where}) is not UTF-8; save it as UTF-8.")
    try:
        captions = tuple(_captions(row.get(caption) if caption else category, f"{key} ({where})"))
    except Refused as error:
        return ListingEntry(key, file, label=category, problem=str(error))
    return ListingEntry(key, file, captions, label=category)


def _category(value: object) -> str:
    """A label as text; numbers that a table has made fractions of (3.0) are whole again, what is no label is none."""
    if isinstance(value, float):
        return "" if not math.isfinite(value) else str(int(value)) if value == int(value) else str(value)
    return str(value).strip() if isinstance(value, str | int) else ""


def _captions(value: object, name: str) -> Iterator[str]:
    """The captions of a field: a text, or in JSON a list of texts."""
    texts = value if isinstance(value, list) and value else [value]
    for text in texts:
        yield check_caption(text if isinstance(text, str) else "", name)


def _merged(first: ListingEntry, second: ListingEntry) -> ListingEntry:
    """Two rows about one image, but for the captions; a bad one does not spoil a good one."""
    if second.problem:
        return first
    if first.problem:
        return second
    return first if first.label or not second.label else replace(first, label=second.label)


def _pick(columns: list[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)


def _plain(name: str) -> str:
    return name.strip().lower()


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
