"""The members of a tar by reading its headers alone, within bounds: no member is unpacked, no header kept.

POSIX ustar and pax (IEEE 1003.1), and GNU's names and sizes. Python's tarfile reads what a header claims to need, a
gibibyte of attributes if it says so, and calls itself for each header that belongs to the next.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

BLOCK = 512
MOST_EXTRA = 2**20
"""Bytes of a header with a long name or attributes; systems allow names of 4 KiB."""
_PADDING = 20 * BLOCK
"""Zeros that writers fill the end of a tar with."""
MOST_CHAINED = 16
"""Headers in a row that belong to one member; pax and GNU's names together make three."""

_REGULAR = (b"0", b"\0", b"7")
"""Plain files; 7 is one that lies in one piece on the disk."""
_LONG_NAME, _LONG_LINK, _PAX, _PAX_ALL, _PAX_SUN, _OLD_SPARSE = b"L", b"K", b"x", b"g", b"X", b"S"
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, folders and pipes: what their size says is not there."""


class Damaged(Exception):
    """From some byte on this is no tar, or none that is read; says why."""


@dataclass(frozen=True)
class Member:
    """One member, as its header describes it."""

    name: str
    offset: int
    """Where its bytes begin."""
    size: int
    kind: Literal["file", "folder", "other"]
    """Links, devices, pipes and sparse files are others."""


def members(path: Path) -> Iterator[Member]:
    """All members in order. Raises Damaged where the tar is cut short or broken, OSError where it cannot be read."""
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise Damaged("it is no regular file")
        yield from _members(file, facts.st_size)


def _members(file: BinaryIO, end: int) -> Iterator[Member]:
    place = 0
    everywhere: dict[str, str] = {}
    attributes: dict[str, str] = {}
    long_name, chained = "", 0
    while True:
        file.seek(place)
        header = file.read(BLOCK)
        if not header.strip(b"\0"):
            if len(header) < BLOCK:
                raise Damaged("it lacks its end, so it may have been cut short")
            # Tars that were merely put one behind the other have zeros between them.
            behind = file.read(_PADDING)
            more = len(behind) - len(behind.lstrip(b"\0"))
            if more == len(behind):
                return
            place += BLOCK + more // BLOCK * BLOCK
            continue
        kind, size = _checked(header)
        data = place + BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_ALL, _PAX_SUN):
            chained += 1
            if size > MOST_EXTRA or chained > MOST_CHAINED:
                raise Damaged("the header of a member is too long")
            extra = file.read(size)
            if len(extra) < size:
                raise Damaged("it is cut short within a header")
            if kind == _LONG_NAME:
                long_name = _text(extra)
            elif kind == _PAX_ALL:
                everywhere |= _attributes(extra)
            elif kind != _LONG_LINK:
                attributes |= _attributes(extra)
            place = _after(data, size)
            continue
        known = everywhere | attributes
        if "size" in known:
            size = _decimal(known["size"])
        name = known.get("path") or long_name or _name(header)
        sparse = kind == _OLD_SPARSE or any(key.startswith("GNU.sparse.") for key in known)
        if kind == _OLD_SPARSE:
            data = _after_sparse(file, header, data)
        held = 0 if kind in _WITHOUT_DATA else size
        if data + held > end:
            raise Damaged(f"it is cut short within {name[:80]!r}")
        yield Member(name, data, held, "other" if sparse else _kind(kind, name))
        place = _after(data, held)
        attributes, long_name, chained = {}, "", 0


def _checked(header: bytes) -> tuple[bytes, int]:
    """Kind and size of what follows a header. Raises Damaged when it is none."""
    if len(header) < BLOCK:
        raise Damaged("it is cut short within a header")
    total = sum(header) - sum(header[148:156]) + 8 * 32
    signed = total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])  # as some old programs count
    if _number(header[148:156]) not in (total, signed):
        raise Damaged("the checksum of a header does not match")
    return header[156:157], _number(header[124:136])


def _number(field: bytes) -> int:
    """Octal digits; or GNU's binary where the first bit is set."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    try:
        number = int(text or b"0", 8)
    except ValueError as error:
        raise Damaged("a number in a header is none") from error
    if number < 0:
        raise Damaged("a number in a header is negative")
    return number


def _kind(flag: bytes, name: str) -> Literal["file", "folder", "other"]:
    # An old tar marks a folder by its name alone.
    if flag == b"5" or (flag in _REGULAR and name.endswith("/")):
        return "folder"
    return "file" if flag in _REGULAR else "other"


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise Damaged("a size in a header is no number")
    return int(text)


def _attributes(data: bytes) -> dict[str, str]:
    """Pax attributes: lines "LENGTH KEY=VALUE", the length counting the whole line."""
    attributes: dict[str, str] = {}
    place = 0
    while place < len(data) and data[place]:
        space = data.find(b" ", place, place + 8)
        digits = data[place:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        line = data[place : place + length]
        key, equals, value = line[len(digits) + 1 : -1].partition(b"=")
        if not equals or not line.endswith(b"\n") or len(line) != length:
            raise Damaged("the attributes of a member are broken")
        attributes[_text(key)] = _text(value)
        place += length
    return attributes


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _after_sparse(file: BinaryIO, header: bytes, data: int) -> int:
    """Where the data of an old sparse file begins: behind the blocks that go on with its map."""
    more = header[482:483] != b"\0"
    while more:
        file.seek(data)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise Damaged("it is cut short within a header")
        data += BLOCK
        more = block[504:505] != b"\0"
    return data


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _after(data: int, size: int) -> int:
    """The next header's place: members fill whole blocks."""
    return data + (size + BLOCK - 1) // BLOCK * BLOCK
