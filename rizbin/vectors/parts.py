"""Rows of many files, made part by part, so that a kill at any moment loses few of them and doubles none.

The files are cut, in their order, into parts of `PART`. The rows of a part lie in one file of a folder beside the
output (NAME.parts). That file is written under another name, synced and renamed, so it is there whole or not at all;
its name holds a checksum of all that decides its rows: the network, its preprocessing, and each file's name, size and
time. Started again, parts whose checksum is right are taken as they are, and all others are made. At the end the parts
become the output, which is synced and renamed as well. Nothing here imports torch.
"""

import fcntl
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, Int, Int32

from rizbin.core import outputs
from rizbin.core.errors import RizbinError

PART = 256
"""Files of a part: what is made again after a kill, some seconds of most networks."""
_READS = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile)
"""What reading a damaged part raises."""


@dataclass(frozen=True)
class ImageFile:
    """One image file, with what says whether it was changed."""

    name: str
    """The name under which answers give it."""
    path: str
    """From the folder of the output, so that both may move together."""
    size: int
    """Bytes."""
    time: int
    """Time of the file's last change, in nanoseconds."""

    @property
    def facts(self) -> str:
        """All of it in a line of JSON."""
        return json.dumps([self.name, self.path, self.size, self.time])


@dataclass(frozen=True)
class Rows:
    """The rows of some files, in their order."""

    positions: Int[np.ndarray, " rows"]
    """Which of the files each row is of, from 0."""
    vectors: Float[np.ndarray, "rows dim"]
    """Unit length, float32."""
    sizes: Int32[np.ndarray, "rows 2"]
    """Width and height of each image in pixels."""
    unusable: tuple[str, ...] = ()
    """A sentence for each file that has no row."""
    patches: Float[np.ndarray, "rows height width dim"] | None = None
    """Unit length, float16; None: not asked for."""

    @staticmethod
    def joined(several: Sequence["Rows"], counts: Sequence[int]) -> "Rows":
        """Rows of consecutive groups of files, of so many files each."""
        starts = np.cumsum([0, *counts[:-1]])
        # A group without rows does not know how many dimensions they have.
        groups = [group for group in zip(several, starts, strict=True) if len(group[0].positions)]
        groups = groups or [(several[0], starts[0])]
        return Rows(
            positions=np.concatenate([rows.positions + start for rows, start in groups]),
            vectors=np.concatenate([rows.vectors for rows, _ in groups]),
            sizes=np.concatenate([rows.sizes for rows, _ in groups]),
            unusable=tuple(text for rows in several for text in rows.unusable),
            patches=None if groups[0][0].patches is None else np.concatenate([_patches(rows) for rows, _ in groups]),
        )


def _patches(rows: Rows) -> np.ndarray:
    assert rows.patches is not None
    return rows.patches


class Parts:
    """The parts of one output, from `with` to its end; the folder stays until `clear`."""

    def __init__(self, target: Path, files: Sequence[ImageFile], identity: str, *, part: int = PART) -> None:
        """`identity` says how rows are made: of another identity none is taken over."""
        self.target = target
        self.files = list(files)
        self.names = [
            _named(number, self.files[start : start + part], identity)
            for number, start in enumerate(range(0, len(self.files), part))
        ]
        self._part = part
        self._lock: int | None = None

    def __enter__(self) -> "Parts":
        self.folder = outputs.claim_folder(self.target.with_name(f"{self.target.name}.parts"))
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.__exit__(None, None, None)
            raise RizbinError(
                f"{self.target} is being written by another process; wait until it ends, or name another file."
            ) from error
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)  # the kernel frees the lock, also of a process that was killed
            self._lock = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def missing(self) -> list[int]:
        """The parts that are yet to be made."""
        return [number for number, name in enumerate(self.names) if not (self.folder / name).is_file()]

    def files_of(self, number: int) -> list[ImageFile]:
        """The files of a part."""
        return self.files[number * self._part : (number + 1) * self._part]

    def put(self, number: int, rows: Rows) -> None:
        """Keeps the rows of a part, which are on the disk when this returns."""
        arrays = {
            "positions": rows.positions.astype(np.int64),
            "vectors": np.ascontiguousarray(rows.vectors, np.float32),
            "sizes": rows.sizes.astype(np.int32),
            "unusable": np.array(json.dumps(rows.unusable)),
        }
        if rows.patches is not None:
            arrays["patches"] = np.ascontiguousarray(rows.patches, np.float16)
        held = io.BytesIO()
        np.savez(held, **arrays)  # pyright: ignore[reportArgumentType]
        draft = self.folder / f".draft-{number:06d}"
        try:
            with draft.open("wb") as file:
                file.write(held.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.folder / self.names[number])
        except OSError as error:
            raise RizbinError(
                f"{self.folder} cannot be written ({error.strerror or error}); free some space, and give the same "
                "command again: it goes on."
            ) from error

    def rows(self) -> Iterator[tuple[list[ImageFile], Rows]]:
        """Each part's files that have rows, and the rows. Raises RizbinError for one that is missing or damaged."""
        for number, name in enumerate(self.names):
            try:
                yield self._read(number, self.folder / name)
            except _READS as error:
                (self.folder / name).unlink(missing_ok=True)
                raise RizbinError(
                    f"A part of {self.target} was damaged on the disk and is removed; give the same command again, "
                    "which makes it anew."
                ) from error

    def _read(self, number: int, path: Path) -> tuple[list[ImageFile], Rows]:
        # Opened here: np.load leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            rows = Rows(
                positions=data["positions"],
                vectors=data["vectors"],
                sizes=data["sizes"],
                unusable=tuple(json.loads(str(data["unusable"]))),
                patches=data.get("patches"),
            )
        files = self.files_of(number)
        return [files[position] for position in rows.positions.tolist()], rows

    def clear(self) -> None:
        """Removes the folder of the parts."""
        self.__exit__(None, None, None)
        outputs.remove_folder(self.folder)

    def _sweep(self) -> None:
        """Removes what a kill left, and parts of other files or of another network."""
        right = {*self.names, "lock"}
        for path in self.folder.iterdir():
            if path.name not in right:
                path.unlink(missing_ok=True)


def _named(number: int, files: Sequence[ImageFile], identity: str) -> str:
    digest = hashlib.blake2b("\n".join([identity, *(file.facts for file in files)]).encode(), digest_size=16)
    return f"{number:06d}-{digest.hexdigest()}.npz"
