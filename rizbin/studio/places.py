"""The studio's folder: what lies where, and the only way to a file in it that a request names.

`pictures/` what was dropped into the page, decoded and written anew; `jobs/ID/` one job each; `stills/` images of runs
at their checkpoints; `cache/` what can be made again. Runs lie in a folder of their own. Names that reach a path are
generated; of a path that a request names each part is opened by itself, and a link is never followed.
"""

import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rizbin.core.errors import RizbinError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,127}")
"""One part of a path that a request may name: no dot first, no slash, no control character."""
LARGEST = 256 << 20
"""Bytes of a file that is sent."""


class NotHere(RizbinError):
    """There is no such file, or none that may be read: the two are not told apart."""


@dataclass(frozen=True)
class Places:
    """The folders that the page may read and its jobs may write."""

    folder: Path
    """The studio's own."""
    runs: Path
    """Folder of trainings, each a folder in it."""

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def stills(self) -> Path:
        return self.folder / "stills"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def incoming(self) -> Path:
        """Uploads before they are decoded."""
        return self.folder / "incoming"

    def make(self) -> None:
        """Makes the folders, for their owner alone. Raises RizbinError where they cannot be."""
        for place in (self.folder, self.pictures, self.jobs, self.stills, self.cache, self.incoming):
            if place.is_symlink():
                raise RizbinError(f"{place} is a link, and nothing is written through links; name another folder.")
            try:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise RizbinError(
                    f"{place} cannot be made ({error.strerror or error}); name another folder."
                ) from error
        for old in self.incoming.iterdir():
            old.unlink(missing_ok=True)

    def root(self, name: str) -> Path:
        """The folder that the first word of a request's path stands for. Raises NotHere."""
        roots = {"pictures": self.pictures, "jobs": self.jobs, "stills": self.stills, "runs": self.runs}
        if name not in roots:
            raise NotHere("There is no such file.")
        return roots[name]

    def read(self, root: str, parts: Sequence[str], *, most: int = LARGEST) -> bytes:
        """The bytes of a regular file below a root. Raises NotHere for all else."""
        return read_below(self.root(root), parts, most=most)

    def picture(self, name: object) -> Path:
        """The file of a picture of the page by its generated name. Raises NotHere where there is none."""
        path = self.pictures / f"{name}.png"
        if not isinstance(name, str) or not re.fullmatch(r"[0-9a-f]{16}", name) or not is_plain_file(path):
            raise NotHere("There is no such picture; drop it into the page again.")
        return path

    def run(self, name: object) -> Path:
        """The folder of a run by its name. Raises NotHere where there is none."""
        path = self.runs / str(name)
        plain = isinstance(name, str) and _PART.fullmatch(name) and path.is_dir() and not path.is_symlink()
        if not plain or not is_plain_file(path / "settings.json"):
            raise NotHere("There is no such run.")
        return path


def read_below(root: Path, parts: Sequence[str], *, most: int = LARGEST) -> bytes:
    """The bytes of a regular file below `root`, each part opened without following links. Raises NotHere."""
    if not parts or not all(_PART.fullmatch(part) for part in parts):
        raise NotHere("There is no such file.")
    opened: list[int] = []
    try:
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        for part in parts[:-1]:
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        # Not to block on a pipe that lies there in place of a file.
        opened.append(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        facts = os.fstat(opened[-1])
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            raise NotHere("There is no such file.")
        with os.fdopen(os.dup(opened[-1]), "rb") as file:
            return file.read(most)
    except OSError as error:
        raise NotHere("There is no such file.") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def is_plain_file(path: Path) -> bool:
    """Whether there is a regular file that is no link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def new_name() -> str:
    """A name that nobody chose: 16 hexadecimal digits."""
    return secrets.token_hex(8)
