"""Picture files by what a user types: a file, a folder, a pattern."""

import glob
import re
from pathlib import Path

from rizbin.core.errors import RizbinError
from rizbin.data.gate import ENDINGS


def picture_files(text: str) -> dict[Path, str]:
    """The files and what to call them, in the order in which a person counts them (frame 9 before frame 10).

    Of a folder, all pictures in it and in the folders in it, hidden ones left out, called by their path from there.
    Raises RizbinError when there are none.
    """
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            files = [file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and _visible(file, path)]
            names = {file: file.relative_to(path).as_posix() for file in files}
        else:
            files = [path] if path.exists() else [Path(name) for name in glob.glob(str(path), recursive=True)]
            names = {file: file.name for file in files}
    except (OSError, ValueError) as error:
        raise RizbinError(f"{text} cannot be looked into ({error}); give pictures that may be read.") from error
    if not files:
        raise RizbinError(
            f"There are no pictures in {text}; give a folder or files (JPEG, PNG, WebP, BMP, GIF), or scenes:easy."
        )
    return {file: names[file] for file in sorted(files, key=lambda file: _natural(file.as_posix()))}


def _visible(file: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
