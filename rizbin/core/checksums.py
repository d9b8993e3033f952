"""Checksums of a folder that was written to be given away: a flipped bit in a weight changes a network silently.

The file is what `sha256sum` writes and reads: `sha256sum -c SHA256SUMS` checks the folder without Rizbin.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rizbin.core.errors import RizbinError

SUMS = "SHA256SUMS"
_CHUNK = 8 * 2**20
"""Bytes read at a time."""
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")
_MOST = 2**20
"""Bytes of the list itself; an exported model has some ten files."""


def write_sums(folder: Path, only: Sequence[str] = ("**/*",)) -> None:
    """Lists the files of the folder and of those in it, with their SHA-256, once all of them are on the disk.

    only: patterns of their names, where the folder may hold files of others. Raises OSError when it cannot be written.
    """
    own, temporary = folder / SUMS, folder / f".tmp-{SUMS}"
    files = {path for pattern in only for path in folder.glob(pattern) if path.is_file()}
    paths = sorted(files - {own, temporary})
    lines = [f"{_sum_of(path, sync=True)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    with temporary.open("w", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, own)


def check_sums(folder: Path) -> None:
    """Compares the folder with its list, where it has one; files that were added later are nobody's business here.

    Raises RizbinError that names the first file that is missing or not what was written.
    """
    listed = folder / SUMS
    if not listed.is_file():
        return
    try:
        with listed.open("rb") as file:
            text = file.read(_MOST + 1)
        lines = [_LINE.fullmatch(line) for line in text.decode("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RizbinError(f"{listed} cannot be read ({error}); export the model again.") from error
    if len(text) > _MOST or not lines or not all(lines):
        raise RizbinError(f"{listed} is not what was written; export the model again, or get it again.")
    for line in lines:
        assert line is not None
        expected, name = line[1], line[2]
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise RizbinError(f"{listed} names {name!r}, which lies outside its folder; get the model again.")
        path = folder / name
        try:
            if not path.is_file():
                raise RizbinError(f"{folder} is damaged: {name} is missing; export the model again, or get it again.")
            actual = _sum_of(path)
        except OSError as error:
            raise RizbinError(f"{path} cannot be read ({error.strerror or error}); allow reading it.") from error
        if actual != expected:
            raise RizbinError(
                f"{folder} is damaged: {name} does not match its checksum in {SUMS}; export the model again, or get it "
                f"again (where you changed that file yourself, remove {SUMS})."
            )


def _sum_of(path: Path, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
