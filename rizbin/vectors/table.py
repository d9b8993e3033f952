"""The file of vectors: an npz or a Parquet table, written from parts and read without unpickling anything.

| npz member, Parquet column | type | what |
|---|---|---|
| files, file | text | what the image is called |
| paths, path | text | where it is, from the folder of the table |
| sizes; width, height | int32 | of the image, pixels |
| vectors, vector | float32 [dim] | of unit length |
| patches, patches | float16 [rows columns dim], flat in Parquet | only where they were asked for |
| record, the metadata `rizbin` | JSON | model, checksum, preprocessing, counts, unusable images |

Members of an npz that hold numbers are not compressed, so that they are mapped and not read: a table of patches may be
larger than memory.
"""

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int32

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.core.results import Table
from rizbin.vectors.parts import Parts

FORMAT = 1
"""Version of the record; a table with a higher one is refused."""
_LOCAL_HEADER = 30
"""Bytes of a zip member's own header before its name (PKWARE APPNOTE 4.3.7)."""
_LARGEST_TEXT = 2**32
"""Bytes of the names in a table when they are unpacked; 10 million names of 100 letters."""
Ending = Literal[".npz", ".parquet"]


@dataclass(frozen=True, repr=False)
class Vectors(Table):
    """A row for each image: its name, path, size and vector; and how they were made."""

    path: Path
    """The table's file."""
    files: Sequence[str]
    paths: Sequence[str]
    """Paths of the images, relative to the folder of the table."""
    sizes: Int32[np.ndarray, "rows 2"]
    """Width and height, pixels."""
    vectors: Float[np.ndarray, "rows dim"]
    """Unit length."""
    record: Mapping[str, Any]
    _patches: Any = field(default=None)
    """An array [rows height width dim] that is mapped, or a Parquet file; None: there are none."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"Vectors({len(self)} images, {self.vectors.shape[1]} dimensions, by {self.record.get('model')})"

    @property
    def unusable(self) -> tuple[str, ...]:
        """A sentence for each image that has no row."""
        return tuple(map(str, self.record.get("unusable", ())))

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches of an image; None where the table has none."""
        patches = self.record.get("patches")
        return (int(patches["rows"]), int(patches["columns"])) if patches and self._patches is not None else None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each image: file, path, width, height, vector."""
        return [
            {"file": file, "path": path, "width": int(size[0]), "height": int(size[1]), "vector": vector.tolist()}
            for file, path, size, vector in zip(self.files, self.paths, self.sizes, self.vectors, strict=True)
        ]

    def image_path(self, row: int) -> Path:
        """Where the image of a row is."""
        return self.path.parent / self.paths[row]

    def patch_chunks(self, count: int = 256) -> Iterator[tuple[int, Float[np.ndarray, "some rows columns dim"]]]:
        """(first row, patches) of some rows at a time, as float32."""
        if isinstance(self._patches, np.ndarray):
            for start in range(0, len(self), count):
                yield start, np.asarray(self._patches[start : start + count], np.float32)
            return
        start = 0
        for group in range(self._patches.num_row_groups):
            chunk = self._of_group(group)
            yield start, chunk
            start += len(chunk)

    def patches_of(self, row: int) -> Float[np.ndarray, "rows columns dim"]:
        """The patches of one row, as float32."""
        if isinstance(self._patches, np.ndarray):
            return np.asarray(self._patches[row], np.float32)
        start = 0
        for group in range(self._patches.num_row_groups):
            length = self._patches.metadata.row_group(group).num_rows
            if row < start + length:
                return self._of_group(group)[row - start]
            start += length
        raise IndexError(row)

    def _of_group(self, group: int) -> np.ndarray:
        assert self.grid is not None
        column = self._patches.read_row_group(group, columns=["patches"]).column(0).combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values, np.float32).reshape(len(column), *self.grid, -1)


def ending_of(path: Path) -> Ending:
    """Which table a name asks for. Raises RizbinError for another one, or where its library is not installed."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        _parquet()
        return ".parquet"
    if ending == ".npz":
        return ".npz"
    raise RizbinError(f"{path.name} is no name of a table of vectors; let it end in .npz or .parquet.")


def write_table(parts: Parts, record: Mapping[str, Any]) -> Path:
    """The parts as one table at their target; counts and unusable images are added to the record.

    The parts are read twice and never held together: first what is counted, then what is written.
    """
    counted = dict(record)
    rows, unusable, dim, grid = 0, [], 0, None
    for files, part in parts.rows():
        rows, dim = rows + len(files), part.vectors.shape[1] or dim
        unusable += part.unusable
        grid = part.patches.shape[1:3] if part.patches is not None and len(part.patches) else grid
    if not rows:
        first = f" The first reason: {unusable[0]}" if unusable else ""
        raise RizbinError(f"No image of {len(parts.files)} could be used.{first}")
    counted |= {"format": FORMAT, "images": len(parts.files), "rows": rows, "dim": dim, "unusable": unusable}
    counted["patches"] = None if grid is None else {"rows": grid[0], "columns": grid[1]}
    draft = parts.folder / ".draft-table"
    try:
        (_write_npz if parts.target.suffix.lower() == ".npz" else _write_parquet)(draft, parts, counted)
    except OSError as error:
        raise RizbinError(
            f"{parts.target} could not be written ({error.strerror or error}); free some space, and give the same "
            "command again: it goes on."
        ) from error
    return outputs.publish(draft, parts.target)


def _write_npz(draft: Path, parts: Parts, record: Mapping[str, Any]) -> None:
    rows, dim, grid = record["rows"], record["dim"], record["patches"]
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "vectors": ((rows, dim), np.float32),
        "sizes": ((rows, 2), np.int32),
    }
    if grid:
        shapes["patches"] = ((rows, grid["rows"], grid["columns"], dim), np.float16)
    names: list[str] = []
    paths: list[str] = []
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for member, (shape, kind) in shapes.items():
            with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, facts)
                for files, part in parts.rows():
                    file.write(np.ascontiguousarray(getattr(part, member), kind).tobytes())
                    if member == "vectors":
                        names += [file.name for file in files]
                        paths += [file.path for file in files]
        for member, texts in (("files", names), ("paths", paths), ("record", json.dumps(record))):
            info = zipfile.ZipInfo(f"{member}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(texts), allow_pickle=False)


def _write_parquet(draft: Path, parts: Parts, record: Mapping[str, Any]) -> None:
    arrow, parquet = import_module("pyarrow"), _parquet()
    dim, grid = record["dim"], record["patches"]
    columns = [("file", arrow.string()), ("path", arrow.string()), ("width", arrow.int32()), ("height", arrow.int32())]
    columns += [("vector", arrow.list_(arrow.float32(), dim))]
    if grid:
        columns += [("patches", arrow.list_(arrow.float16(), grid["rows"] * grid["columns"] * dim))]
    schema = arrow.schema(columns, metadata={"rizbin": json.dumps(record)})
    with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        for files, part in parts.rows():
            if not files:
                continue
            arrays = [arrow.array([file.name for file in files]), arrow.array([file.path for file in files])]
            arrays += [arrow.array(part.sizes[:, side]) for side in (0, 1)]
            values = np.ascontiguousarray(part.vectors, np.float32).reshape(-1)
            arrays += [arrow.FixedSizeListArray.from_arrays(arrow.array(values), dim)]
            if grid and part.patches is not None:
                values = np.ascontiguousarray(part.patches, np.float16).reshape(-1)
                arrays += [arrow.FixedSizeListArray.from_arrays(arrow.array(values), len(values) // len(files))]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def read_table(path: str | Path) -> Vectors:
    """The table that `rizbin embed` wrote. Raises RizbinError, one sentence, for what is none or damaged."""
    path = Path(path).expanduser()
    ending = ending_of(path)
    try:
        stored = _read_npz(path) if ending == ".npz" else _read_parquet(path)
    except FileNotFoundError as error:
        raise RizbinError(f"There is no {path}; rizbin embed FOLDER --output {path.name} makes it.") from error
    except (ValueError, KeyError, OSError, EOFError, struct.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        raise RizbinError(f"{path} is no table of vectors, or a damaged one ({reason}); make it again.") from error
    if int(stored.record.get("format", 0)) > FORMAT:
        raise RizbinError(f"{path} was written by a newer Rizbin; install that one, or make the table again.")
    rows = len(stored.files)
    lengths = (len(stored.paths), len(stored.sizes), len(stored.vectors))
    if stored.vectors.ndim != 2 or stored.sizes.shape != (rows, 2) or any(length != rows for length in lengths):
        raise RizbinError(f"The columns of {path} are of several lengths; make the table again.")
    return stored


def _read_npz(path: Path) -> Vectors:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        texts = {}
        for name in ("files", "paths", "record"):
            if members[f"{name}.npy"].file_size > _LARGEST_TEXT:
                raise ValueError(f"its {name} are too large")
            with archive.open(f"{name}.npy") as file:
                texts[name] = np.lib.format.read_array(file, allow_pickle=False)
    mapped = {
        name: _mapped(path, members[f"{name}.npy"])
        for name in ("vectors", "sizes", "patches")
        if f"{name}.npy" in members
    }
    return Vectors(
        path=path,
        files=texts["files"].tolist(),
        paths=texts["paths"].tolist(),
        sizes=np.asarray(mapped["sizes"], np.int32),
        vectors=mapped["vectors"],
        record=_record(str(texts["record"])),
        _patches=mapped.get("patches"),
    )


def _mapped(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    """An array of a zip as it lies in the file. Raises ValueError for one that is compressed or too short."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
        name, extra = struct.unpack("<HH", header[26:30])
        start = info.header_offset + _LOCAL_HEADER + name + extra
        file.seek(start)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(file)
        begin = file.tell()
    if kind.hasobject or fortran or begin - start + int(np.prod(shape)) * kind.itemsize != info.file_size:
        raise ValueError(f"{info.filename} is not as long as it says")
    if not all(shape):
        return np.zeros(shape, kind)
    return np.asarray(np.memmap(path, kind, "r", begin, shape))


def _read_parquet(path: Path) -> Vectors:
    if not path.is_file():
        raise FileNotFoundError(path)
    file = _parquet().ParquetFile(path)
    columns = ["file", "path", "width", "height", "vector"]
    data = file.read(columns=columns)
    vectors = data.column("vector").combine_chunks()
    vectors = np.asarray(vectors.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(data), -1)
    sizes = np.stack([data.column(name).to_numpy() for name in ("width", "height")], axis=1).astype(np.int32)
    metadata = file.schema_arrow.metadata or {}
    return Vectors(
        path=path,
        files=data.column("file").to_pylist(),
        paths=data.column("path").to_pylist(),
        sizes=sizes,
        vectors=vectors,
        record=_record(metadata[b"rizbin"].decode()),
        _patches=file if "patches" in file.schema_arrow.names else None,
    )


def _record(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("its record is too deep") from error
    if not isinstance(record, dict):
        raise ValueError("its record is no object")
    return record


def _parquet() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise RizbinError(
            "Parquet needs pyarrow, which is not installed: pip install 'rizbin[vectors]' brings it; or let the name "
            "end in .npz."
        ) from error
