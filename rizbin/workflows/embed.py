"""Embedding: images in, a table with a vector for each of them out; stopped at any moment, it goes on."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from rizbin import __version__, zoo
from rizbin.core import outputs
from rizbin.core.commands import Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.files import image_files
from rizbin.models.encoder import Encoder
from rizbin.vectors.encode import Clock, default_workers, encoded, fingerprint, preprocessing
from rizbin.vectors.parts import PART, ImageFile, Parts, Rows
from rizbin.vectors.table import Vectors, ending_of, read_table, write_table
from rizbin.workflows.detect import paths_of
from rizbin.workflows.load import load_encoder


@dataclass(frozen=True)
class Embed:
    """Write a vector for each image, to search and classify by."""

    images: Annotated[Place | Sequence[Place], Argument(positional=True, many=True, metavar="IMAGES", check="images")]
    """Files, folders, patterns."""
    _: KW_ONLY
    model: Annotated[Place, Argument(check="model")] = "detailclip-mini"
    """An encoder: a run, a bundled model, or one of open_clip, timm or transformers by name or folder."""
    output: Annotated[Place, Argument(short=("-o",))] = "vectors.npz"
    """The table: NAME.npz, or NAME.parquet (with pyarrow). Stopped and started again, the same command goes on."""
    patches: bool = False
    """Also keep a vector of each patch, to find places in images by; a ViT-B/16 makes 196 of an image."""
    batch: int = 64
    """Images in a pass of the network; changes speed and memory, and vectors by 1e-5 at most."""
    reduced: bool = False
    """Decode large JPEGs at a half, a quarter or an eighth of their size, never below four times what the network
    sees: up to five times as fast, and vectors that differ in their third digit."""
    workers: int = 0
    """Threads that read images; 0: one for each available core, up to 8."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@job(Embed)
def embed(settings: Embed) -> Vectors:
    """The table of vectors of all images that can be used; those that cannot are counted and listed in it.

    Rows stand in the order of the files (frame 9 before frame 10). Raises RizbinError when there is no image, when the
    table may not be written there, or when another process writes it.
    """
    target = Path(settings.output).expanduser()
    ending_of(target)
    outputs.refuse_taken(target)
    if settings.batch < 1 or settings.workers < 0:
        raise RizbinError("--batch is 1 or more, and --workers 0 or more.")
    located = image_files(*paths_of(settings.images))
    encoder = load_encoder(settings.model, device=str(choose(settings.device)))
    if settings.patches and not encoder.has_patches:
        raise RizbinError(f"{encoder.name} gives no features of single patches; leave --patches out, or choose a ViT.")
    record = record_of(settings.model, encoder, reduced=settings.reduced)
    identity = json.dumps([record["network"], record["preprocessing"], settings.patches, PART], sort_keys=True)
    files = [_file(path, name, target.parent) for path, name in located.items()]
    with outputs.reading(located), Parts(target, files, identity) as parts:
        if (finished := _finished(target, identity, files)) is not None:
            parts.clear()
            return finished
        _fill(parts, dict(zip(files, located, strict=True)), encoder, settings)
        path = write_table(parts, record | {"identity": identity, "files": _digest(files)})
        parts.clear()
    return read_table(path)


def record_of(model: Place, encoder: Encoder, *, reduced: bool = False) -> dict[str, Any]:
    """What a table says of how its vectors were made."""
    name = str(model)
    folder = Path(name).expanduser()
    return {
        "rizbin": __version__,
        # A bundled name or a name of a library stands for itself; a folder is found from anywhere.
        "model": str(folder.resolve()) if folder.is_dir() and name not in zoo.names() else name,
        "kind": encoder.kind,
        "network": f"sha256:{fingerprint(encoder)}",
        "preprocessing": preprocessing(encoder, reduced=reduced),
        "patches in the space of texts": encoder.localizes,
    }


def _file(path: Path, name: str, beside: Path) -> ImageFile:
    try:
        facts = path.stat()
        size, changed = facts.st_size, facts.st_mtime_ns
    except OSError:  # it is refused with a sentence when it is read
        size, changed = -1, -1
    return ImageFile(name, Path(os.path.relpath(path, beside)).as_posix(), size, changed)


def _digest(files: Sequence[ImageFile]) -> str:
    return hashlib.blake2b("\n".join(file.facts for file in files).encode(), digest_size=16).hexdigest()


def _finished(target: Path, identity: str, files: Sequence[ImageFile]) -> Vectors | None:
    """The table that is there already, where it is of the same files by the same network."""
    if not target.is_file():
        return None
    try:
        table = read_table(target)
    except RizbinError:
        return None
    same = table.record.get("identity") == identity and table.record.get("files") == _digest(files)
    return table if same else None


def _fill(parts: Parts, located: dict[ImageFile, Path], encoder: Encoder, settings: Embed) -> None:
    """Makes the parts that are missing."""
    missing = parts.missing
    start = len(parts.files) - sum(len(parts.files_of(number)) for number in missing)
    groups = [
        (number, files[first : first + settings.batch])
        for number in missing
        for files in [parts.files_of(number)]
        for first in range(0, len(files), settings.batch)
    ]
    batches: Iterator[list[tuple[Path, str]]] = ([(located[file], file.name) for file in some] for _, some in groups)
    clock, began, done, unusable = Clock(), time.perf_counter(), start, 0
    held: list[Rows] = []
    counts: list[int] = []
    with Bar(len(parts.files), "embedding", start=start, quiet=settings.quiet) as bar:
        made = encoded(
            encoder,
            batches,
            patches=settings.patches,
            reduced=settings.reduced,
            workers=settings.workers or default_workers(),
            clock=clock,
        )
        for place, ((number, some), rows) in enumerate(zip(groups, made, strict=True)):
            held.append(rows)
            counts.append(len(some))
            if place + 1 == len(groups) or groups[place + 1][0] != number:
                parts.put(number, Rows.joined(held, counts))
                held, counts = [], []
            done, unusable = done + len(some), unusable + len(rows.unusable)
            bar.update(done, **({"unusable": unusable} if unusable else {}))
        seconds = time.perf_counter() - began
        if done > start:
            counted = f"{done - start:,} image{'s' * (done - start != 1)}"
            bar.say(
                f"{counted} in {seconds:.1f} s, {(done - start) / seconds:.1f} a second; the network itself took "
                f"{100 * clock.network / seconds:.0f} percent of that."
            )
