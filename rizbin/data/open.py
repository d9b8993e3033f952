"""Opens a source of data from the text of `--data`."""

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

from rizbin.core.errors import RizbinError
from rizbin.data.coco import open_coco
from rizbin.data.digits import Digits
from rizbin.data.folders import open_folder
from rizbin.data.listing import Listing, Split
from rizbin.data.odvg import is_odvg, open_odvg
from rizbin.data.sample import Source
from rizbin.data.scenes import Scenes
from rizbin.data.shards import Shards
from rizbin.data.tables import open_table

ACCEPTED = (
    "scenes, scenes:easy, scenes:several, scenes:hard, scenes:single, scenes:tinted or scenes:detail (the embedded "
    "world; with options: scenes:easy,categories=32,seed=1 or scenes:detail,distractors=4), "
    "digits (scikit-learn's), cutouts:FOLDER (PNGs with transparency to compose scenes of), FOLDER (images with "
    "captions), "
    "FILE.csv, FILE.tsv or FILE.jsonl (tables; a .jsonl with boxes: ODVG), FILE.json (COCO; FILE.json@FOLDER: with its "
    "images in FOLDER), shards:PATTERN (webdataset tars)"
)
"""What a person may write, for messages and help."""

_CHOICES = {field.name: get_args(field.type) for field in fields(Scenes.Settings) if field.name in ("preset", "split")}


def open_source(spec: str, *, split: Split = "train", size: int = 64, seed: int = 0) -> Source:
    """The source that `spec` names; `ACCEPTED` lists the forms.

    `size` is the side of the views to come, in pixels, and `seed` says which scenes there are: both shape the composed
    scenes. Real images come at their own size (large JPEGs at four times `size` or more), and a hash of their names,
    the same for every seed, puts 5 percent of them into the test split. Raises `RizbinError` when nothing can be read.
    """
    kind, _, rest = spec.partition(":")
    if kind == "scenes":
        return Scenes(_scenes(rest, split, size, seed))
    if spec == "digits":
        return Digits(split=split, size=size)
    if kind == "cutouts":
        return Scenes.from_cutouts(_existing(rest, spec), replace(_scenes("", split, size, seed), categories=0))
    if kind == "shards":
        return Shards(rest, split=split, size=size)
    spec, folder = _apart(spec)
    path = _existing(spec, spec)
    if path.is_dir():
        return open_folder(path, split=split, size=size)
    ending = path.suffix.lower()
    if ending == ".jsonl" and is_odvg(path):
        return open_odvg(path, split=split, folder=folder)
    if ending in (".csv", ".tsv", ".jsonl"):
        return open_table(path, split=split, size=size)
    if ending == ".json":
        return open_coco(path, split=split, size=size, folder=folder)
    raise RizbinError(f"'{spec}' is no data that can be opened; give {ACCEPTED}.")


def notices_of(source: Source) -> tuple[str, ...]:
    """What a source's files hold that is left out, each in a sentence; nothing of scenes."""
    return source.notices if isinstance(source, Listing | Shards) else ()


def _apart(spec: str) -> tuple[str, Path | None]:
    """A file and the folder of its images, where "FILE@FOLDER" is no file itself. Raises when there is no folder."""
    file, at, folder = spec.rpartition("@")
    if not at or Path(spec).expanduser().exists():
        return spec, None
    if not Path(folder).expanduser().is_dir():
        raise RizbinError(f"There is no folder '{folder}' for the images of {file}; give one that is there.")
    return file, Path(folder).expanduser()


def _existing(text: str, spec: str) -> Path:
    """The path, when there is something."""
    path = Path(text).expanduser()
    try:
        exists = bool(text) and path.exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise RizbinError(f"'{spec}' is neither a file nor a folder here; give {ACCEPTED}.")
    return path


def _scenes(text: str, split: Split, size: int, seed: int) -> Scenes.Settings:
    """The settings of "hard,categories=64": a preset, then options, each of which may be left out.

    Scenes are endless, so their "all" is their training split; "split=heldout" and "split=pairs" are theirs alone.
    """
    settings = Scenes.Settings(size=size, seed=seed, split="train" if split == "all" else split)
    for number, part in enumerate(part.strip() for part in text.split(",") if part.strip()):
        name, equals, value = part.partition("=")
        if number == 0 and not equals:
            name, value = "preset", name
        settings = replace(settings, **{name: _option(name, value)})
    return settings


def _option(name: str, value: str) -> int | str:
    """The value of one option of the scenes."""
    if name in ("categories", "seed", "distractors") and value.isdecimal():
        return int(value)
    if value in _CHOICES.get(name, ()):
        return value
    raise RizbinError(
        f"scenes do not know '{name}={value}'; give preset={'|'.join(_CHOICES['preset'])}, categories=NUMBER, "
        f"seed=NUMBER, distractors=NUMBER or split={'|'.join(_CHOICES['split'])}."
    )
