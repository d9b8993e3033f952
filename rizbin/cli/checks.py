"""Checks of a command's arguments before anything heavy is imported: files, folders, models and data by name."""

import glob
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from rizbin import zoo
from rizbin.cli.parsing import near
from rizbin.core.commands import Command, Flag
from rizbin.core.errors import RizbinError

Kind = Literal["encoder", "detector", "text-to-image"]
_SOURCES = ("scenes", "digits", "cutouts:", "shards:")
"""Data by name; all else is a path."""
_TRAINED: Mapping[str, Kind] = {"detector": "detector", "diffusion": "text-to-image"}
"""What the runs of these methods are; all others train encoders."""
_LIBRARIES = ("open_clip:", "timm:", "hf:")
_JUDGE = "conse"
"""The image-text judge of `rizbin/models/conse.py`."""
_WILD = "*?["


def check(command: Command, given: Mapping[str, Any]) -> None:
    """Raises RizbinError for a file, folder, model or data that are not there."""
    for flag in command.flags:
        if flag.check and flag.name in given:
            values = given[flag.name]
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, str) and value:
                    _CHECKS[flag.check](value, flag)


def kind_of(model: str) -> Kind:
    """What a model is, from the small files of its folder; an encoder where nothing says otherwise."""
    folder = _folder(model)
    if (folder / "model_index.json").is_file():
        return "text-to-image"
    settings = _read(folder / "settings.json")
    if str(settings.get("method")) in _TRAINED:
        return _TRAINED[str(settings.get("method"))]
    if "grounding-dino" in str(_read(folder / "config.json").get("model_type", "")).replace("_", "-"):
        return "detector"
    return "encoder"


def is_segmenter(model: str) -> bool:
    """Whether it is a SAM 2, which makes masks of boxes: by the small files of its folder, or by its published name."""
    if str(_read(_folder(model) / "config.json").get("model_type", "")) in ("sam2", "sam2_video"):
        return True
    return model == "sam2" or (model.startswith("facebook/sam2") and not Path(model).is_dir())


def _folder(model: str) -> Path:
    return zoo.folder_of(model) if model in zoo.names() and not Path(model).is_dir() else Path(model)


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size < 1 << 22 else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _image(text: str, flag: Flag) -> None:
    if not Path(text).expanduser().is_file():
        there = "is a folder" if Path(text).expanduser().is_dir() else "is not there"
        raise RizbinError(f"The image {text} {there}; give the path of an image file.")


def _images(text: str, flag: Flag) -> None:
    if any(sign in text for sign in _WILD):
        if not glob.glob(str(Path(text).expanduser()), recursive=True) and not Path(text).exists():
            raise RizbinError(f"No image fits the pattern {text}.")
    elif not Path(text).expanduser().exists():
        raise RizbinError(f"{text} is neither a file nor a folder here; name images, folders or patterns.")


def _path(text: str, flag: Flag) -> None:
    if not Path(text).expanduser().exists():
        raise RizbinError(f"{text} is neither a file nor a folder here.")


def _model(text: str, flag: Flag) -> None:
    """A bundled name, a folder, or a name of another library: OWNER/NAME, open_clip:NAME/WEIGHTS, timm:NAME."""
    if text in (*zoo.names(), _JUDGE) or Path(text).expanduser().exists() or text.startswith(_LIBRARIES):
        return
    if "/" in text and not text.startswith(("/", ".", "~")) and text.count("/") == 1:
        if not Path(text).parent.is_dir():
            return  # a name on Hugging Face
    elif re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", text) and re.search(r"[0-9_]", text):
        return  # as timm names its models; only timm can say whether there is such a one
    raise RizbinError(
        f"There is neither a folder {text} nor a model of that name; {near(text, [*zoo.names()])} "
        "A run, an exported folder, OWNER/NAME of Hugging Face, open_clip:NAME/WEIGHTS or timm:NAME will do too."
    )


def _data(text: str, flag: Flag) -> None:
    if text.startswith(_SOURCES) or Path(text).expanduser().exists():
        return
    file, at, folder = text.rpartition("@")
    if at and Path(file).expanduser().exists():
        if not Path(folder).expanduser().is_dir():
            raise RizbinError(f"There is no folder '{folder}' for the images of {file}; give one that is there.")
        return
    raise RizbinError(
        f"'{text}' is neither a file nor a folder here; give a folder of images, a table (csv, tsv, jsonl), a COCO "
        "file, or one of scenes, scenes:hard, scenes:detail, digits, cutouts:FOLDER, shards:PATTERN."
    )


_CHECKS: Mapping[str, Callable[[str, Flag], None]] = {
    "image": _image,
    "images": _images,
    "path": _path,
    "model": _model,
    "data": _data,
}
