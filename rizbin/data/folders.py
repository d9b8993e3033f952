"""A folder of images as a source: captions beside them, in tables inside, or as the names of its subfolders."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rizbin.core.errors import RizbinError, printable
from rizbin.data.image_io import ENDINGS, UNREAD
from rizbin.data.listing import Listing, ListingEntry, Split, check_any, counted, leads_out, such_as
from rizbin.data.tables import read_table

TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv", "captions.tsv")
"""Names of a table inside a folder, the first that is there (metadata: Hugging Face's ImageFolder)."""
PARTS: dict[str, Literal["train", "test"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "test", "testing", "eval"), "test"),
}
"""Names of first subfolders that are splits and no labels, as ImageNet and Hugging Face lay data out."""


def open_folder(folder: Path, *, split: Split, size: int = 0) -> Listing:
    """The images in a folder and all folders in it, hidden ones left out, in order of their paths.

    Where the captions come from, the first that applies:
    1. tables inside the folder or the folders in it (see `TABLES`): their rows are the samples;
    2. a `.txt` beside an image, with the same name: then an image without one is refused;
    3. the name of the first subfolder: it is the label, and with spaces for "_" the caption;
    4. nowhere: the images have no captions, which is enough for methods without text.

    Where all first subfolders are called train, val, test or alike (see `PARTS`) they are the splits, and the labels
    are the names of the folders in them. What is left out is counted in the listing's notices. Raises `RizbinError`
    when the folder is missing, unreadable or without images.
    """
    walked = _walk(folder)
    notices = walked.notices()
    tables = _tables(folder, walked.files)
    entries: list[ListingEntry] = []
    if tables:
        for table in tables:
            rows, left_out = read_table(table, folder)
            entries += rows
            notices += left_out
        notices += _unlisted(folder, walked.images, entries)
    else:
        texts = _texts(walked.files)
        captions = {path: _text_of(path, texts) for path in walked.images}
        has_texts, in_parts = any(captions.values()), bool(_parts(folder, walked.images))
        entries += (_entry(folder, path, captions[path], has_texts, in_parts) for path in walked.images)
    check_any(entries, str(folder))
    # A row that names no image stands for its table.
    if parts := _parts(folder, [entry.path for entry in entries if entry.path not in tables]):
        entries = [replace(entry, part=PARTS.get(_first(folder, entry.path).lower(), "")) for entry in entries]
        if not tables or {entry.part for entry in entries} >= {"train", "test"}:
            notices.append(_split_notice(folder, parts))
    own = tables[0].name if tables and tables[0].parent == folder else ""
    return Listing(own or folder.name or str(folder), entries, split=split, size=size, root=folder, notices=notices)


@dataclass
class _Walked:
    """What a folder holds, sorted by path."""

    files: list[Path]
    images: list[Path]
    """Images that are read or refused one by one."""
    copies: list[Path]
    """Images in formats that are not read, with one of the same name beside that is: a camera's raw file."""
    links: list[Path]
    """Folders that are links, which are not followed: they may lead in circles or out of the folder."""

    def notices(self) -> list[str]:
        sentences = []
        if self.copies:
            sentences.append(
                f"{counted(len(self.copies), 'file')} left out, for the same images lie beside them in a format that "
                f"is read{such_as([str(path) for path in self.copies])}."
            )
        if self.links:
            sentences.append(
                f"{counted(len(self.links), 'folder')} left out, for links to folders are not followed"
                f"{such_as([str(path) for path in self.links])}; give the folder itself."
            )
        return sentences


def _walk(folder: Path) -> _Walked:
    def stop(error: OSError) -> None:
        raise RizbinError(
            f"{error.filename} cannot be read ({error.strerror}); give a folder that exists and may be read."
        ) from error

    files: list[Path] = []
    links: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    files.sort(key=lambda path: path.as_posix())
    images, copies = split_images(files)
    return _Walked(files, images, copies, sorted(links))


def split_images(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The images among files; and those in formats that are not read, where one that is has the same name."""
    read = {path.with_suffix("") for path in files if path.suffix.lower() in ENDINGS}
    images, copies = [], []
    for path in files:
        ending = path.suffix.lower()
        if ending in ENDINGS or (ending in UNREAD and path.with_suffix("") not in read):
            images.append(path)
        elif ending in UNREAD:
            copies.append(path)
    return images, copies


def _tables(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The folder's own table, else the first of each folder in it. Raises RizbinError for one that leads out."""
    first: dict[Path, Path] = {}
    for path in files:
        if path.name in TABLES:
            before = first.get(path.parent)
            if before is None or TABLES.index(path.name) < TABLES.index(before.name):
                first[path.parent] = path
    tables = [first[folder]] if folder in first else list(first.values())
    for table in tables:
        if leads_out(table, folder):
            raise RizbinError(f"{table} is a link that leads out of {folder}; put a copy of the table in its place.")
    return tables


def _unlisted(folder: Path, images: Sequence[Path], entries: Sequence[ListingEntry]) -> list[str]:
    """What is said of images that no table names."""
    named = {os.path.normpath(entry.path) for entry in entries}
    left = [path for path in images if os.path.normpath(path) not in named]
    if not left:
        return []
    places = [path.relative_to(folder).as_posix() for path in left]
    return [f"{counted(len(left), 'image')} left out, for no table of {folder} names them{such_as(places)}."]


def _parts(folder: Path, images: Sequence[Path]) -> list[str]:
    """The first subfolders, where all images lie in such and all are called as splits are; else none."""
    names = {_first(folder, path) for path in images}
    return sorted(names) if names and all(name.lower() in PARTS for name in names) else []


def _first(folder: Path, path: Path) -> str:
    """The first subfolder on the way to a file; empty where it lies in the folder itself, or elsewhere."""
    try:
        places = path.relative_to(folder).parts
    except ValueError:
        return ""
    return places[0] if len(places) > 1 else ""


def _split_notice(folder: Path, parts: Sequence[str]) -> str:
    kinds = {PARTS[name.lower()] for name in parts}
    listed = " and ".join(parts)
    single = len(parts) == 1
    if kinds == {"train", "test"}:
        by = [f"{name} is {'trained' if PARTS[name.lower()] == 'train' else 'measured'} on" for name in parts]
        return f"{folder}: the folders {listed} are taken for splits and not for labels: {', '.join(by)}."
    return (
        f"{folder}: the folder{'' if single else 's'} {listed} {'is' if single else 'are'} taken for "
        f"{'a split' if single else 'splits'} and not for {'a label' if single else 'labels'}; the images are split "
        "into train and test by a hash of their names."
    )


def _texts(files: Sequence[Path]) -> dict[str, Path]:
    """Caption files by what they are called without their ending, as their file system spells it and composed (NFC)."""
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    by_stem: dict[str, Path] = {}
    for path in sorted(texts, key=lambda path: path.suffix != ".txt"):
        by_stem.setdefault(str(path.with_suffix("")), path)
    for path in texts:
        by_stem.setdefault(unicodedata.normalize("NFC", str(path.with_suffix(""))), path)
    return by_stem


def _text_of(image: Path, texts: dict[str, Path]) -> Path | None:
    """The caption file of an image: `beach.txt` of `beach.jpg`, else `beach.jpg.txt`; None without one."""
    for name in (str(image.with_suffix("")), str(image)):
        for spelled in (name, unicodedata.normalize("NFC", name)):
            if spelled in texts:
                return texts[spelled]
    return None


def _entry(folder: Path, path: Path, text: Path | None, has_texts: bool, in_parts: bool) -> ListingEntry:
    """One image; `has_texts` says whether any image has a caption file, `in_parts` whether splits come first."""
    place = path.relative_to(folder)
    if not has_texts:
        labels = place.parts[int(in_parts) : -1]
        caption = printable(labels[0]).replace("_", " ").strip() if labels else ""
        return ListingEntry(place.as_posix(), path, (caption,) if caption else (), label=caption)
    if text is None:
        problem = f"{path} has no caption; write one into {path.with_suffix('.txt').name} beside it."
        return ListingEntry(place.as_posix(), path, problem=problem)
    return ListingEntry(place.as_posix(), path, text=text)
