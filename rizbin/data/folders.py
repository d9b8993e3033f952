"""A folder of pictures as a source: captions beside them, in one table inside, or as the names of its subfolders."""

import os
from pathlib import Path

from rizbin.core.errors import RizbinError
from rizbin.data.gate import ENDINGS
from rizbin.data.listing import Entry, Listing, Split, check_any
from rizbin.data.tables import open_table

TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv", "captions.tsv")
"""Names of a table inside a folder, the first that is there (metadata: Hugging Face's ImageFolder)."""


def open_folder(folder: Path, *, split: Split, size: int = 0) -> Listing:
    """The pictures in a folder and all folders in it, hidden ones left out, in order of their paths.

    Where the captions come from, the first that applies:
    1. a table inside the folder (see `TABLES`): its rows are the samples;
    2. a `.txt` beside a picture, with the same name: then a picture without one is refused;
    3. the name of the first subfolder: it is the label, and with spaces for "_" the caption;
    4. nowhere: the pictures have no captions, which is enough for methods without text.

    Raises `RizbinError` when the folder is missing, unreadable or without pictures.
    """
    for name in TABLES:
        if (folder / name).is_file():
            return open_table(folder / name, split=split, size=size)
    files = _walk(folder)
    pictures = [path for path in files if path.suffix.lower() in ENDINGS]
    texts = {path.with_suffix("") for path in files if path.suffix == ".txt"}
    has_texts = any(path.with_suffix("") in texts for path in pictures)
    entries = [_entry(folder, path, texts if has_texts else None) for path in pictures]
    check_any(entries, str(folder))
    return Listing(folder.name or str(folder), entries, split=split, size=size)


def _walk(folder: Path) -> list[Path]:
    """All files, sorted by path."""

    def stop(error: OSError) -> None:
        raise RizbinError(
            f"{error.filename} cannot be read ({error.strerror}); give a folder that exists and may be read."
        ) from error

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: path.as_posix())


def _entry(folder: Path, path: Path, texts: set[Path] | None) -> Entry:
    """One picture; `texts` are the caption files without their ending, None when the folder has none at all."""
    place = path.relative_to(folder)
    if texts is None:
        label = place.parts[0] if len(place.parts) > 1 else ""
        caption = label.replace("_", " ")
        return Entry(place.as_posix(), path, (caption,) if caption else (), label=caption)
    if path.with_suffix("") not in texts:
        problem = f"{path} has no caption; write one into {path.with_suffix('.txt').name} beside it."
        return Entry(place.as_posix(), path, problem=problem)
    return Entry(place.as_posix(), path, text=path.with_suffix(".txt"))
