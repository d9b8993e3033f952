"""Large JSON files of records, read piece by piece and held in about as many bytes as they have on disk.

Python's objects for a file of a gibibyte take five to ten. So the lists at the top of the file are decoded one record
at a time, of each record only what is used is kept, and that packed (`PackedRecords`).
"""

import codecs
import json
import marshal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

from rizbin.core.bounded import open_regular

Record = dict[str, Any]
CHUNK = 2**20
"""Bytes read at a time."""
MOST_RECORD = 64 * 2**20
"""Characters of one record, or of one value beside the lists; masks of one object have some hundred thousand."""
_BLANKS = " \t\n\r"
_NEAR_END = 16
"""Characters: a fault so near the end of what was read may be a number, a word or an escape that is not yet whole."""


class PackedRecords(Sequence[Record]):
    """PackedRecords of which only some fields are kept, packed; each is unpacked anew when it is asked for."""

    def __init__(self, fields: tuple[str, ...], packed: Iterable[bytes] = ()) -> None:
        self.fields = fields
        self.packed = list(packed)

    def append(self, record: Record) -> None:
        """Takes the kept fields of a record in. Raises ValueError for one that is too deep to be packed."""
        # marshal writes numbers, texts and lists of them in a fraction of their size in memory, and it reads here
        # nothing but what it wrote a moment before. `...` stands for a field that is not there, which JSON has none of.
        self.packed.append(marshal.dumps(tuple(record.get(field, ...) for field in self.fields)))

    def drained(self) -> Iterator[Record]:
        """Each record in order, given up once it was handed out, so that nothing is held twice."""
        self.packed.reverse()
        while self.packed:
            yield self._unpacked(self.packed.pop())

    def __add__(self, other: "PackedRecords") -> "PackedRecords":
        return PackedRecords(self.fields, [*self.packed, *other.packed])

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "list[Record]": ...
    def __getitem__(self, index: int | slice) -> "Record | list[Record]":
        if isinstance(index, slice):
            return [self._unpacked(packed) for packed in self.packed[index]]
        return self._unpacked(self.packed[index])

    def _unpacked(self, packed: bytes) -> Record:
        return {
            field: value for field, value in zip(self.fields, marshal.loads(packed), strict=True) if value is not ...
        }


def read_lists(path: Path, fields: dict[str, tuple[str, ...]], most: int) -> dict[str, PackedRecords] | None:
    """The lists of records at the top of a JSON file, by name, with the fields to keep of each.

    fields: Name of a list -> the fields of its records.
    most: Bytes of the largest file that is read.

    None where the file is JSON but no object at the top, or where something else than a list of records has one of the
    names. Raises OSError for what is no regular file or too large, ValueError for what is no JSON.
    """
    with open_regular(path, most) as file:
        return _Reader(file).lists(fields)


class _Reader:
    """Text of a file as it comes in, and the place in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogatepass")
        self._parser = json.JSONDecoder()
        self._text, self._place, self._before, self._ended = "", 0, 0, False

    def lists(self, fields: dict[str, tuple[str, ...]]) -> dict[str, PackedRecords] | None:
        if self._next() != "{":
            self._value()
            self._end()
            return None
        lists: dict[str, PackedRecords] | None = {}
        self._skip("{")
        while self._next() != "}":
            name = self._value()
            if not isinstance(name, str):
                raise self._fault("a name in quotes is missing")
            self._skip(":")
            if name in fields:
                records = self._records(fields[name])
                lists = {**lists, name: records} if lists is not None and records is not None else None
            else:
                self._value()
            if self._next() != "}":
                self._skip(",")
        self._skip("}")
        self._end()
        return lists

    def _records(self, fields: tuple[str, ...]) -> PackedRecords | None:
        """A list of records; None where it is something else, which is read over."""
        if self._next() != "[":
            self._value()
            return None
        records: PackedRecords | None = PackedRecords(fields)
        self._skip("[")
        while self._next() != "]":
            record = self._value()
            records = records if isinstance(record, dict) else None
            if records is not None:
                records.append(record)
            if self._next() != "]":
                self._skip(",")
        self._skip("]")
        return records

    def _value(self) -> Any:
        """The value at the place, which ends up behind it."""
        self._next()
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._place)
                # "12" at the end of what was read may be the beginning of "123".
                if end + _NEAR_END < len(self._text) or not self._more():
                    self._place = end
                    return value
            except RecursionError as error:
                raise ValueError("its brackets are too deep") from error
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos + _NEAR_END >= len(self._text)
                if not cut or not self._more():
                    raise self._fault(error.msg, error.pos) from error

    def _next(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANKS:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _skip(self, mark: str) -> None:
        if self._next() != mark:
            raise self._fault(f"Expecting {mark!r}")
        self._place += 1

    def _end(self) -> None:
        if self._next():
            raise self._fault("Extra data")

    def _more(self) -> bool:
        """Reads on, as much as is held already, so that a long record is not tried too often; False at the end."""
        held = len(self._text) - self._place
        if held > MOST_RECORD:
            raise ValueError(f"a record in it has more than {MOST_RECORD // 2**20} million characters")
        while not self._ended:
            data = self._file.read(max(CHUNK, held))
            self._ended = not data
            if text := self._decode.decode(data, final=not data):
                self._before += self._place
                self._text, self._place = self._text[self._place :] + text, 0
                return True
        return False

    def _fault(self, what: str, place: int | None = None) -> ValueError:
        return ValueError(f"{what} at character {self._before + (self._place if place is None else place)}")
