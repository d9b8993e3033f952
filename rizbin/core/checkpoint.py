"""Checkpoints that survive a kill at any moment, a full disk and a flipped bit.

One checkpoint is one directory::

    step_000000123/
        <group>.safetensors    tensors; one file for each group (weights, optimizer, ...)
        state.json             everything that is no tensor
        manifest.json          step, size and SHA-256 of each file above, and a SHA-256 of the manifest itself

It is built under a name that starts with `.tmp-`, each file is fsynced, the manifest is written last, and a rename
puts it in its place; only then are older ones removed. A full disk is the one exception: where the newest one verifies,
those that it replaces make room. No pickle is written or read.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rizbin.core.bounded import MOST_JSON, parse_json, read_regular
from rizbin.core.errors import RizbinError

_CHUNK = 8 * 2**20
"""Bytes read or written at a time: large enough for the disk, small beside the tensors."""

_TEMPORARY = ".tmp-"

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The disk is full, or its user's share of it."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls torch's types."""


class SaveFailed(RizbinError):
    """A checkpoint could not be written. The ones before it are untouched; warn, go on and try again later."""


class _Damaged(Exception):
    """Why a checkpoint does not verify."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One that has been verified and read; its tensors are on the CPU and belong to nobody else."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    path: Path


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Writes the checkpoint of `step` into `folder`, removes all but the newest `keep`, and returns its directory.

    tensors: group -> name -> tensor on any device; tensors that share storage are written out one by one.
    state: what JSON holds exactly (text keys; lists come back for tuples).
    A checkpoint of the same step that verifies is left as it is: a step has one state. Those of later steps are
    removed, since the run has gone back behind them. One process at a time may save into a folder.
    On a full disk, all but the newest one that verifies are removed first and the save is tried once more.
    Raises SaveFailed when the disk is full or refuses; nothing of the failed attempt stays.
    """
    if keep < 1 or step < 0:
        raise ValueError(f"at least one checkpoint is kept (asked: {keep}), of a step from 0 on (given: {step})")
    final, temporary = folder / f"step_{step:09d}", folder / f"{_TEMPORARY}step_{step:09d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        if not _intact(final, step):
            shutil.rmtree(final, ignore_errors=True)
            try:
                _put(temporary, final, step, tensors, state)
            except OSError as error:
                if error.errno not in _FULL or not _make_room(folder, step):
                    raise
                _put(temporary, final, step, tensors, state)
            _sync_folder(folder)
    except OSError as error:
        raise SaveFailed(
            f"The checkpoint of step {step} could not be saved in {folder} ({error.strerror or error}); free space or "
            "allow writing there: the checkpoints before it are untouched and the next save tries again."
        ) from error
    _prune(folder, step, keep)
    return final


def load(folder: Path, step: int | None = None, *, warn: Callable[[str], object] = warnings.warn) -> Checkpoint | None:
    """The newest checkpoint in `folder` that verifies; None when there is none.

    step: that one and no other.
    warn: gets one sentence for each damaged checkpoint that was passed over.
    Every byte is compared with its checksum before any of it is used. Raises RizbinError when the `step` that was
    asked for is missing or damaged.
    """
    if step is not None:
        path = folder / f"step_{step:09d}"
        try:
            return _read(path, step)
        except _Damaged as error:
            there = ", ".join(str(number) for number, _ in _listed(folder)) or "none"
            raise RizbinError(
                f"The checkpoint {path} cannot be used ({error}); choose another one (there: {there})."
            ) from error
    for number, path in _listed(folder):
        try:
            return _read(path, number)
        except _Damaged as error:
            warn(f"The checkpoint {path} is damaged ({error}); it is passed over and the one before it is used.")
    return None


def sweep(folder: Path) -> None:
    """Removes what killed or failed attempts left, and nothing else. For the one process that may save there."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _put(
    temporary: Path, final: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Builds the directory and moves it into its place; nothing of a failed attempt stays."""
    with _removed_on_failure(temporary):
        _build(temporary, step, tensors, state)
        os.rename(temporary, final)


def _make_room(folder: Path, step: int) -> bool:
    """Removes all checkpoints but the newest one that verifies; whether there was any to remove.

    One before `step` is kept rather than a later one, which the next save removes anyway. Where none verifies, none is
    removed: damaged ones are all that is left of the run.
    """
    listed = sorted(_listed(folder), key=lambda numbered: (numbered[0] > step, -numbered[0]))
    good = next((path for number, path in listed if _intact(path, number)), None)
    others = [path for _, path in listed if path != good]
    if good is None or not others:
        return False
    _remove(folder, others)
    return True


def _build(temporary: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Writes and fsyncs the whole directory under its temporary name."""
    os.mkdir(temporary)
    files = {}
    for group, named in tensors.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", group):
            raise ValueError(f"a group of tensors becomes a file name, which {group!r} cannot be")
        files[f"{group}.safetensors"] = _write(temporary / f"{group}.safetensors", _safetensors(named))
    files["state.json"] = _write(temporary / "state.json", [json.dumps(state).encode()])
    _write(temporary / "manifest.json", [_spelled(_sealed({"format": 2, "step": step, "files": files}))])
    _sync_folder(temporary)


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The safetensors file piece by piece, so that no second copy of all tensors stands in memory.

    Format: 8 bytes length of the header, the header as JSON, the tensors' bytes without gaps, wide types first so that
    each one is aligned.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    begin = 0
    for name in order:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def _write(path: Path, pieces: "list[bytes] | Iterator[bytes | memoryview]") -> dict[str, Any]:
    """Writes and fsyncs one new file; returns its line of the manifest."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            digest.update(rest)
            size += len(rest)
            while rest:
                rest = rest[os.write(descriptor, rest[:_CHUNK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": digest.hexdigest()}


def _spelled(manifest: dict[str, Any]) -> bytes:
    """The one spelling of a manifest, so that a flipped bit in it shows too."""
    return json.dumps(manifest, indent=1, sort_keys=True).encode()


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of its own: a flipped bit in it shall not look like damage to a file it names."""
    bare = {name: value for name, value in manifest.items() if name != "sha256"}
    return {**bare, "sha256": hashlib.sha256(_spelled(bare)).hexdigest()}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _listed(folder: Path) -> list[tuple[int, Path]]:
    """(step, directory) of all checkpoints, newest first, verified or not."""
    matches = [(re.fullmatch(r"step_(\d{9,})", path.name), path) for path in folder.glob("step_*")]
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Removes later checkpoints and all but the newest `keep`; the space is worth no failed run."""
    listed = _listed(folder)
    survivors = [path for number, path in listed if number <= step][:keep]
    _remove(folder, [path for _, path in listed if path not in survivors])


def _remove(folder: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            # The rename takes it out of the list at once; a kill while removing leaves nothing half there.
            os.rename(path, folder / f"{_TEMPORARY}old-{path.name}")
    sweep(folder)


def _intact(path: Path, step: int) -> bool:
    try:
        return bool(_verify(path, step))
    except _Damaged:
        return False


def _verify(path: Path, step: int) -> list[str]:
    """The names of the files of a checkpoint, all compared with the manifest; raises _Damaged."""
    try:
        text = read_regular(path / "manifest.json", MOST_JSON)
        manifest = parse_json(text)
        # Format 1, which older runs hold, had no checksum of the manifest.
        known = manifest["format"] == 1 or (manifest["format"] == 2 and _sealed(manifest) == manifest)
        intact = known and _spelled(manifest) == text and manifest["step"] == step
        files = {str(name): (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except OSError as error:
        raise _Damaged(f"manifest.json: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged("manifest.json is not what was written") from error
    if not intact or "state.json" not in files:
        raise _Damaged("manifest.json is not what was written")
    for name, expected in files.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.safetensors|state\.json", name):
            raise _Damaged(f"manifest.json names a file {name!r} that no checkpoint has")
        _compare(path / name, *expected)
    return list(files)


def _compare(path: Path, size: int, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        actual = path.stat().st_size
        if actual != size:
            raise _Damaged(f"{path.name} has {actual} bytes instead of {size}")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _Damaged(f"{path.name}: {error.strerror or error}") from error
    if digest.hexdigest() != sha256:
        raise _Damaged(f"{path.name} does not match its checksum")


def _read(path: Path, step: int) -> Checkpoint:
    """A checkpoint whose every byte verifies; raises _Damaged."""
    names = _verify(path, step)
    try:
        tensors = {name.removesuffix(".safetensors"): _tensors(path / name) for name in names if name != "state.json"}
        state = json.loads((path / "state.json").read_bytes())
    except OSError as error:
        raise _Damaged(f"it cannot be read: {error.strerror or error}") from error
    return Checkpoint(step=step, tensors=tensors, state=state, path=path)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, copied out of it: `load_file` only maps it, and the file may be removed later."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
