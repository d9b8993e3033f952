"""Files that commands write: never over one that Rizbin did not make, never through a link.

Beside the files lies a record (`.rizbin-outputs.jsonl`) of what was written there, with checksums: a file of which the
record knows the content is ours and may be replaced by a later one; every other file is somebody's, also one of ours
that was changed since. Where such a file has the name that is wanted, a new name is taken and said; a name that a
person gave is refused before any work is done (`refuse_taken`). `overwriting` lifts both.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from rizbin.core.errors import RizbinError

RECORD = ".rizbin-outputs.jsonl"
"""Name of the record; hidden, so that no command takes it for data."""
_FIRST_LINE = '{"rizbin": "outputs", "about": "Files here that Rizbin wrote; it replaces no others."}\n'
_LARGEST_RECORD = 64 << 20
"""Bytes; some 500,000 files. A larger one is not read, so that nothing counts as ours."""
_MOST_NAMES = 10_000
"""Numbers tried for a new name."""


@dataclass
class _Session:
    """The state of the running command."""

    overwrite: bool = False
    inputs: frozenset[tuple[int, int]] = frozenset()
    """Device and number of the files that the command reads: these are never replaced."""
    announced: set[str] = field(default_factory=set)
    """Folders of which it was said that new names are used."""


_SESSION: ContextVar[_Session] = ContextVar("outputs")


def _session() -> _Session:
    try:
        return _SESSION.get()
    except LookupError:
        _SESSION.set(_Session())
        return _SESSION.get()


@contextlib.contextmanager
def overwriting(allowed: bool = True) -> Iterator[None]:
    """Within it, files that Rizbin did not make are replaced too, links themselves included; never an input."""
    before = _session()
    token = _SESSION.set(_Session(allowed, before.inputs))
    try:
        yield
    finally:
        _SESSION.reset(token)


@contextlib.contextmanager
def reading(paths: Iterable[str | Path]) -> Iterator[None]:
    """Within it, these files are never replaced, whoever made them: they are what the command works on."""
    before = _session()
    numbers = set(before.inputs)
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(path)
            numbers.add((status.st_dev, status.st_ino))
    token = _SESSION.set(_Session(before.overwrite, frozenset(numbers), before.announced))
    try:
        yield
    finally:
        _SESSION.reset(token)


def free(path: str | Path) -> bool:
    """Whether a file may be written there: nothing is there, or a file of ours that nobody changed.

    With `overwriting` also where a file or a link of somebody else is. A folder is never replaced, an input neither.
    """
    path = Path(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError as error:
        raise RizbinError(f"{path} cannot be written ({error.strerror}); choose another place.") from error
    if stat.S_ISDIR(status.st_mode) or _is_input(path):
        return False
    return _session().overwrite or (stat.S_ISREG(status.st_mode) and _is_ours(path, status.st_size))


def refuse_taken(path: str | Path) -> None:
    """Raises RizbinError where the name that a person gave belongs to a file that may not be replaced."""
    path = Path(path)
    if free(path):
        return
    if path.is_dir() and not path.is_symlink():
        raise RizbinError(f"{path} is a folder; name a file in it.")
    if _is_input(path):
        raise RizbinError(f"{path} is what this command reads; name another file to write, such as {_next(path).name}.")
    raise RizbinError(
        f"{path} is there already and Rizbin did not make it, or it was changed since; name another file, such as "
        f"{_next(path).name}, or give --overwrite."
    )


def free_name(path: str | Path) -> Path:
    """The path itself where it is `free`, else the first of NAME-2, NAME-3 and so on that is; which is said once."""
    path = Path(path)
    if free(path):
        return path
    chosen, session = _next(path), _session()
    if str(path.parent) not in session.announced:
        session.announced.add(str(path.parent))
        from rizbin.core import progress  # here: it loads rich, which `rizbin --help` does without

        progress.warn(
            f"{path} is there already and Rizbin did not make it, or it was changed since; such files are left as they "
            f"are, and new names are used in their place ({chosen.name}); --overwrite replaces them."
        )
    return chosen


def write(path: str | Path, data: bytes | str) -> Path:
    """Writes a file whole or not at all and returns its path, which has a new name where the given one is not `free`.

    The folder is made where there is none. After a kill there is the old file or the new one. Raises RizbinError when
    it cannot be written.
    """
    path, data = Path(path), data.encode("utf-8") if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name[:200]}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            return _put(draft, path, len(data), hashlib.sha256(data).hexdigest())
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another folder"
        raise RizbinError(f"{path} could not be written ({error.strerror or error}); {advice}.") from error


def publish(draft: str | Path, path: str | Path) -> Path:
    """Moves a finished file of ours to its name, as `write` does with bytes: for files too large for memory.

    draft: the finished file, in a folder of the same file system; it is gone afterwards.
    Raises RizbinError when it cannot be moved there.
    """
    draft, path = Path(draft), Path(path)
    try:
        with draft.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        chosen = _put(draft, path, draft.stat().st_size, digest)
        draft.unlink(missing_ok=True)  # where it was linked to its new name
        return chosen
    except OSError as error:
        raise RizbinError(f"{path} could not be written ({error.strerror or error}); choose another folder.") from error


def claim_folder(path: str | Path) -> Path:
    """A folder that Rizbin made and may fill and remove: the path itself where it is free or ours, else a new name."""
    path = Path(path)
    chosen = path
    for number in range(1, _MOST_NAMES):
        chosen = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if _our_folder(chosen):
            return chosen
        if not os.path.lexists(chosen):
            break
    try:
        chosen.parent.mkdir(parents=True, exist_ok=True)
        _note(chosen, {"file": chosen.name, "folder": True})
        chosen.mkdir()
    except OSError as error:
        raise RizbinError(f"{chosen} cannot be made ({error.strerror or error}); choose another place.") from error
    return chosen


def remove_folder(path: str | Path) -> None:
    """Removes a folder that `claim_folder` made, with all that is in it; leaves any other."""
    if _our_folder(Path(path)):
        shutil.rmtree(path, ignore_errors=True)


_KNOWN: dict[tuple[int, int], tuple[int, dict[str, list[dict[str, object]]]]] = {}
"""Device and number of a record -> how many of its bytes were read, and what they say."""
_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


def _put(draft: Path, path: Path, size: int, digest: str) -> Path:
    """Moves the draft to the first free name. The record comes first: after a kill the file is known as ours."""
    for _ in range(_MOST_NAMES):
        chosen = free_name(path)
        _note(chosen, {"file": chosen.name, "size": size, "sha256": digest})
        if os.path.lexists(chosen):
            os.replace(draft, chosen)
            return chosen
        try:
            os.link(draft, chosen)  # fails where another process was faster, and replaces nothing
            return chosen
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            os.replace(draft, chosen)
            return chosen
    raise RizbinError(f"There is no free name beside {path}; choose another folder.")


def _next(path: Path) -> Path:
    for number in range(2, _MOST_NAMES):
        other = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if free(other):
            return other
    raise RizbinError(f"There is no free name beside {path}; choose another folder.")


def _is_input(path: Path) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in _session().inputs


def _is_ours(path: Path, size: int) -> bool:
    known = _read(path.parent).get(path.name, [])
    if not any(record.get("size") == size for record in known):
        return False
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return any(record.get("sha256") == digest for record in known)


def _our_folder(path: Path) -> bool:
    return (
        path.is_dir()
        and not path.is_symlink()
        and any(record.get("folder") is True for record in _read(path.parent).get(path.name, []))
    )


def _read(folder: Path) -> dict[str, list[dict[str, object]]]:
    """Name -> what the folder's record says of it; empty where there is no record, or a file that is none of ours."""
    try:
        descriptor = os.open(folder / RECORD, os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return {}
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RECORD:
        os.close(descriptor)
        return {}
    with os.fdopen(descriptor, "rb") as file:
        key = (status.st_dev, status.st_ino)
        # Lines are only ever added, so what was read before need not be read again for each of thousands of files.
        start, known = _KNOWN.get(key, (0, {}))
        if start > status.st_size:
            start, known = 0, {}
        if start == 0 and file.read(len(_FIRST_LINE)) != _FIRST_LINE.encode():
            return {}
        file.seek(max(start, len(_FIRST_LINE)))
        whole, newline, _ = file.read().rpartition(b"\n")
    for line in whole.decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn by a kill
        if isinstance(record, dict) and isinstance(record.get("file"), str):
            known.setdefault(record["file"], []).append(record)
    _KNOWN[key] = (max(start, len(_FIRST_LINE)) + len(whole) + len(newline), known)
    return known


def _note(path: Path, line: dict[str, object]) -> None:
    """Adds a line to the record of the path's folder, once; a file of that name that is no record is left alone."""
    record = path.parent / RECORD
    if line in _read(path.parent).get(path.name, []):
        return
    flags = os.O_RDWR | os.O_APPEND | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
    try:
        try:
            descriptor = os.open(record, flags | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(descriptor, _FIRST_LINE.encode())
        except FileExistsError:
            descriptor = os.open(record, flags)
    except OSError:
        return  # what is not recorded counts as somebody's: new names, nothing lost
    try:
        status = os.fstat(descriptor)
        first = os.pread(descriptor, len(_FIRST_LINE), 0) if stat.S_ISREG(status.st_mode) else b""
        if first == _FIRST_LINE.encode():
            torn = status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)
