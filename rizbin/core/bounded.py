"""Files read within bounds: regular ones only, up to a size, and JSON that is no deeper than what programs write.

A folder that somebody else packed may hold a pipe, a device, a file of gigabytes or a million brackets under any name;
none of them may hang a program, fill its memory or end it with a traceback.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_JSON = 64 * 2**20
"""Bytes of a JSON file that describes a run, a model or a study; the largest here has some hundred kilobytes."""
DEEPEST = 100
"""Levels of brackets in such a file; settings have five. Walking a much deeper one would exhaust Python's stack."""


def read_regular(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes.

    Raises OSError, whose `strerror` is the reason, for a pipe, a device, a folder or a larger file as well as for what
    the system refuses; ValueError for a name that no file can have.
    """
    with open_regular(path, most) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, _large(most), str(path))
    return data


def open_regular(path: str | Path, most: int) -> BinaryIO:
    """A regular file of at most `most` bytes, open for reading. Raises as `read_regular`."""
    # A pipe without a writer would wait for one; some devices act when they are merely opened, so they are not.
    _check(os.stat(path), path, most)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        _check(os.fstat(descriptor), path, most)  # it may have been exchanged meanwhile
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def _check(facts: os.stat_result, path: str | Path, most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device and no regular file", str(path))
    if facts.st_size > most:
        raise OSError(errno.EFBIG, _large(most), str(path))


def _large(most: int) -> str:
    size = f"{most / 2**20:.0f} MiB" if most >= 2**20 else f"{most / 2**10:.0f} KiB"
    return f"it has more than {size}"


def parse_json(data: bytes | str) -> Any:
    """What JSON text holds. Raises ValueError for all that is none, brackets too deep for the parser among it."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("its brackets are too deep") from error


def read_json(path: str | Path, *, most: int = MOST_JSON) -> Any:
    """What a JSON file holds that describes something, and so is neither large nor deep.

    Raises OSError as `read_regular`, and ValueError for what is no JSON or deeper than `DEEPEST`.
    """
    content = parse_json(read_regular(path, most))
    level = [content]
    for _ in range(DEEPEST):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return content
    raise ValueError(f"its brackets are more than {DEEPEST} deep")
