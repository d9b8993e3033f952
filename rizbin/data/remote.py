"""Tars in object storage, by fsspec: each is fetched once into a folder of this machine and read there.

A tar in the cache is named by its address and by what the storage says of its state (size, time, tag): one that was
replaced there is fetched again. Processes that want the same tar wait for one another, and a fetch that was killed
leaves nothing behind that counts.
"""

import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rizbin.core.errors import RizbinError, printable
from rizbin.core.progress import Bar
from rizbin.data.listing import counted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PROTOCOLS = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf"),
    *("http", "https", "ftp", "sftp", "hdfs", "webhdfs", "file", "memory"),
)
"""What is fetched. fsspec knows more, and chains of them; those that open archives or act on what they read are not."""
CACHE = "RIZBIN_CACHE"
"""The environment variable with the folder of the cache; without it `~/.cache/rizbin`."""
_AT_ONCE = 8
"""Tars fetched at a time: a single stream from object storage has some 50 MB a second."""
_CHUNK = 2**20
"""Bytes of a tar in memory at a time."""
_ROOM = 2**28
"""Bytes of the disk that stay free: who runs at the very end of a disk loses checkpoints."""


def is_remote(pattern: str) -> bool:
    """Whether a pattern names something by a protocol, and not a file of this machine (nor one of a Windows drive)."""
    return re.match(r"\w+:", pattern) is not None and not re.match(r"[A-Za-z]:[\\/]", pattern)


def fetch_all(patterns: list[str], whole: str) -> list[Path]:
    """The tars that patterns such as s3://bucket/0001.tar or gs://bucket/*.tar name, as files of this machine, sorted.

    whole: the pattern as it was written, for messages.
    Raises RizbinError for a protocol that is not read, for a driver that is missing, and for what cannot be fetched.
    """
    names: set[str] = set()
    with _said(whole):
        files, _ = _opened(patterns[0])
        files.invalidate_cache()  # drivers remember what they listed, also when it has changed since
        for pattern in patterns:
            _, path = _opened(pattern)
            names.update(map(str, files.glob(path)) if glob.has_magic(path) else [path])
        tars = sorted(name for name in names if name.lower().endswith(".tar"))
        if not tars:
            raise RizbinError(f"no .tar file is named by {whole}; give a pattern such as shards:s3://bucket/*.tar.")
        return _fetched(files, tars, whole)


def cache_folder() -> Path:
    """Where fetched tars lie."""
    given = os.environ.get(CACHE)
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "rizbin") / "shards"


def _opened(pattern: str) -> "tuple[AbstractFileSystem, str]":
    """The storage that a pattern speaks of, and the pattern as it is written there."""
    protocol = pattern.partition(":")[0].lower()
    if protocol not in PROTOCOLS or "::" in pattern or "://" not in pattern:
        raise RizbinError(
            f"shards are read from this machine's disk or from {', '.join(PROTOCOLS)}, not from {pattern}; write "
            "shards:s3://bucket/{00000..00099}.tar, or fetch them first."
        )
    try:
        import fsspec

        return fsspec.url_to_fs(pattern)
    except ImportError as error:
        raise RizbinError(
            f"{protocol}:// needs a driver ({' '.join(str(error).split())}); pip install 'rizbin[remote]' brings "
            "fsspec, and 's3fs', 'gcsfs' or 'adlfs' the driver of a storage."
        ) from error


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turns whatever a driver raises into one sentence: each has errors of its own."""
    try:
        yield
    except RizbinError:
        raise
    except Exception as error:
        words = printable(" ".join(str(error).split()))[:200]
        raise RizbinError(
            f"{what} cannot be fetched ({type(error).__name__}: {words}); check the address and who may read it."
        ) from error


def _fetched(files: "AbstractFileSystem", names: Sequence[str], whole: str) -> list[Path]:
    """The files in the cache, fetched where they are not there in the state that the storage has."""
    places: dict[str, Path] = {}
    sizes: dict[str, int | None] = {}
    for name in names:
        facts = files.info(name)
        if facts.get("type") != "file":
            raise RizbinError(f"{name} of {whole} is no file; give a pattern that names tars.")
        places[name], sizes[name] = _place(files, name, facts), facts.get("size")
    absent = [name for name in names if not places[name].is_file()]
    if absent:
        _check_room(cache_folder(), absent, sizes)
        with Bar(len(absent), "fetching shards") as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
            for done, _ in enumerate(pool.map(lambda name: _keep(files, name, sizes[name], places[name]), absent), 1):
                bar.update(done)
    return [places[name] for name in names]


def _check_room(folder: Path, names: Sequence[str], sizes: dict[str, int | None]) -> None:
    """Raises RizbinError where the disk has no room for what is to be fetched, before any of it is."""
    _made(folder)
    needed, free = sum(sizes[name] or 0 for name in names), shutil.disk_usage(folder).free
    if needed + _ROOM > free:
        raise RizbinError(
            f"{counted(len(names), 'shard')} to be fetched, {needed / 1e9:.2f} GB together, and {folder} has "
            f"{free / 1e9:.2f} GB left; free some space, name another folder with {CACHE}, or train on fewer shards."
        )


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RizbinError(f"{folder} cannot be made ({error.strerror}); name another folder with {CACHE}.") from error


def _keep(files: "AbstractFileSystem", name: str, size: int | None, place: Path) -> None:
    """Fetches one file into its place, unless another process does so meanwhile."""
    _made(place.parent)
    with _alone(place.with_name(".lock")):
        if not place.is_file():
            _fetch(files, name, size, place)


def _place(files: "AbstractFileSystem", name: str, facts: dict[str, Any]) -> Path:
    """A folder by the address and the state, and in it the tar under its own name, which samples are named by.

    The state is what may change when the object does; what changes by itself (a time of access, a signed address) is no
    part of it.
    """
    telling = (
        "size",
        "ETag",
        "etag",
        "md5Hash",
        "generation",
        "crc32c",
        "versionId",
        "LastModified",
        "mtime",
        "created",
    )
    state = {key: str(facts[key]) for key in telling if facts.get(key) is not None}
    address = f"{files.unstrip_protocol(name)} {json.dumps(state, sort_keys=True)}"
    return cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:32] / Path(name).name


def _fetch(files: "AbstractFileSystem", name: str, size: int | None, place: Path) -> None:
    """Copies the bytes into a draft and renames it when it is whole."""
    draft = place.with_name(f".{place.name}.draft")
    try:
        with files.open(name, "rb") as source, draft.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)  # type: ignore[arg-type]
            target.flush()
            os.fsync(target.fileno())
        if size is not None and draft.stat().st_size != size:
            raise RizbinError(
                f"{name} came with {draft.stat().st_size} of {size} bytes; start the same command again to fetch it."
            )
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process of this machine at a time. A process that dies gives its lock back."""
    with lock.open("w") as file:
        with suppress(ImportError):  # a system without such locks fetches twice, and the last rename counts
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
