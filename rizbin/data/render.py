"""Writes samples of any source as webdataset tars, which `shards:` and other readers load without composing them again.

Of each sample: the image as PNG (the same pixels) or JPEG, `.txt` with its caption, `.json` with caption, objects and
relations, and `.masks.png` with the objects' exact masks. The same command again goes on where it stopped: a shard
appears under its name only when it is whole, and is then never touched.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.open import notices_of, open_source
from rizbin.data.sample import Refused, Sample, Source
from rizbin.data.scenes import CREDIT
from rizbin.data.shards import HEADER, MASKS

RECORD = "render.json"
"""Name of the record of what was rendered, so that only the same is added to the folder."""


MOST_OBJECTS = 255
"""Most objects of one sample: as many as 8 bits number beside the background."""


class Rendered(NamedTuple):
    """What a call of `render` did."""

    folder: Path
    written: int
    """Samples written now."""
    present: int
    """Samples in shards that were there already."""
    refused: tuple[tuple[str, str], ...]
    """Samples that could not be read and are left out: index and reason."""
    notices: tuple[str, ...] = ()
    """What the data hold that is no sample, each in a sentence."""

    @property
    def pattern(self) -> str:
        """What `--data` reads them by."""
        return f"shards:{self.folder}/*.tar"

    def text(self) -> str:
        """What was done, for a person."""
        lines = [f"{self.folder}: {self.written:,} samples written, {self.present:,} were there already."]
        if self.refused:
            index, reason = self.refused[0]
            lines.append(f"{len(self.refused):,} could not be used and are left out, such as sample {index}: {reason}")
        lines += self.notices
        return "\n".join([*lines, f"Read it by --data '{self.pattern}'."])


class Render:
    """Writes samples of one source into a folder."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        data: str = "scenes:detail"
        """Data to write, in any form that `rizbin train` accepts."""
        count: int = 2000
        """How many samples; of a finite source at most as many as it has."""
        start: int = 0
        """Index of the first sample, so that several folders or machines can share the work."""
        size: int = 128
        """Side in pixels of composed scenes; other images keep their size, up to four times this for large JPEGs."""
        seed: int = 0
        """Seed of the scenes."""
        split: Literal["train", "test", "all"] = "train"
        """Which part of the data. Read back, a hash of their keys splits the shards anew: --data shards:... of the
        training scenes alone never shows a test scene."""
        format: Literal["png", "jpeg"] = "png"
        """Format of the images: png keeps every pixel; jpeg (quality 92) is about a quarter as large."""
        shard: int = 1000
        """Samples in a tar."""

    def __init__(self, settings: Settings) -> None:
        if settings.count < 1 or settings.shard < 1 or settings.start < 0:
            raise RizbinError("count and shard are 1 or more, and start is 0 or more.")
        self.settings = settings
        self.source: Source = open_source(settings.data, split=settings.split, size=settings.size, seed=settings.seed)

    def write(self, folder: str | Path, *, bar: MakeBar | None = None) -> Rendered:
        """Writes all shards that are not yet in `folder`, and returns what was done.

        Raises RizbinError when the folder holds anything else, or samples that were rendered otherwise.
        """
        folder = Path(folder)
        settings, source = self.settings, self.source
        end = settings.start + settings.count
        if not source.endless:
            end = min(end, len(source))
        if end <= settings.start:
            raise RizbinError(f"{source.name} has {len(source)} samples, so none from {settings.start} on.")
        self._claim(folder)
        written = present = 0
        refused: list[tuple[str, str]] = []
        with advancing(bar, end - settings.start, f"rendering {source.name}") as advance:
            for first in range(settings.start, end, settings.shard):
                indices = range(first, min(first + settings.shard, end))
                path = folder / f"{first:09d}.tar"
                if path.exists():
                    self._check(path)
                    present += len(indices)
                    advance(len(indices))
                    continue
                done = self._write_shard(path, indices, refused)
                written += done
                advance(len(indices))
        if not written and not present:
            raise RizbinError(f"None of these samples of {source.name} can be used; {refused[0][1]}")
        return Rendered(folder, written, present, tuple(refused), notices_of(source))

    def _header(self) -> dict[str, Any]:
        facts = asdict(self.settings)
        return {
            **facts,
            "fingerprint": self.source.fingerprint,
            "categories": list(self.source.categories),
            "credit": CREDIT if self.source.name.startswith("scenes:") else "",
        }

    def _claim(self, folder: Path) -> None:
        """Makes the folder ours, or finds that it is."""
        path = folder / RECORD
        record = self._header()
        if path.is_file():
            try:
                before = read_json(path)
            except (OSError, ValueError) as error:
                raise RizbinError(f"{path} cannot be read; give another folder.") from error
            changed = [name for name in record if not isinstance(before, dict) or before.get(name) != record[name]]
            if changed:
                raise RizbinError(
                    f"{folder} was rendered with another {' and '.join(changed)}; give a folder of its own."
                )
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise RizbinError(f"{folder} holds files that were not rendered here; give a new folder.")
        except FileExistsError as error:
            raise RizbinError(f"{folder} is a file; give a new folder.") from error
        _put(path, json.dumps(record, indent=1).encode())

    def _check(self, path: Path) -> None:
        """Raises unless the shard is one that these settings made."""
        try:
            with tarfile.open(path, "r:") as tar:
                first = tar.next()
                file = tar.extractfile(first) if first is not None and first.name == HEADER else None
                same = file is not None and json.loads(file.read()) == self._header()
        except (OSError, ValueError, tarfile.TarError):
            same = False
        if not same:
            raise RizbinError(f"{path} was not rendered here; move it away or give a new folder.")

    def _write_shard(self, path: Path, indices: range, refused: list[tuple[str, str]]) -> int:
        """One tar, whole or not at all; returns how many samples it holds."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        written = 0
        try:
            with draft.open("xb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    _add(tar, HEADER, json.dumps(self._header()).encode())
                    for index in indices:
                        try:
                            encoded = list(members(self.source[index], self.settings.format))
                        except Refused as reason:
                            refused.append((str(index), str(reason)))
                            continue
                        for ending, data in encoded:
                            _add(tar, f"{index:09d}{ending}", data)
                        written += 1
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return written


def members(sample: Sample, form: Literal["png", "jpeg"] = "png") -> Iterator[tuple[str, bytes]]:
    """Endings and bytes of the members that hold a sample: its first caption, and masks that share no pixel.

    Where masks overlap, the later object keeps the pixels. Raises `Refused` when there are too many objects.
    """
    yield (".png", _encode(".png", sample.image)) if form == "png" else (".jpg", _encode(".jpg", sample.image))
    if sample.caption:
        yield ".txt", sample.caption.encode()
    if sample.label:
        yield ".cls", sample.label.encode()
    objects = [*sample.objects, *sample.distractors]
    if not objects:
        return
    owner = np.full(sample.image.shape[:2], -1, np.int32)
    for position, drawn in enumerate(objects):
        owner[drawn.mask] = position
    # Scenes' masks share no pixel; of other data's objects those that others hide wholly are left out.
    visible = [position for position in range(len(objects)) if (owner == position).any()]
    if len(visible) > MOST_OBJECTS:
        raise Refused(f"{sample.key} has {len(visible)} objects; an 8-bit image of masks holds {MOST_OBJECTS}.")
    numbers = np.zeros(len(objects) + 1, np.uint8)  # the last is the background's, -1
    numbers[visible] = np.arange(1, len(visible) + 1)
    rows = [{"name": objects[k].name, "box": objects[k].box, "distractor": k >= len(sample.objects)} for k in visible]
    relations = [
        (visible.index(first), words, visible.index(second))
        for first, words, second in sample.relations
        if first in visible and second in visible
    ]
    record = {"caption": sample.caption, "key": sample.key, "objects": rows, "relations": relations}
    yield ".json", json.dumps(record).encode()
    yield MASKS, _encode(".png", numbers[owner])


def _encode(ending: str, image: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if ending == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 6]
    done, data = cv2.imencode(ending, image, options)
    if not done:
        raise RizbinError(f"an image of {image.shape} could not be written as {ending}.")
    return data.tobytes()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Without owner and time, so that the same samples give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, BytesIO(data))


def _put(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
