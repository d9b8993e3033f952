"""Questions that are answered by experiment: one file each, discovered; each defines a `STUDY`."""

import importlib
import pkgutil

from rizbin.core.errors import RizbinError
from rizbin.studies.lab import Study


def names() -> tuple[str, ...]:
    """Every question, by its file's name."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> Study:
    """The study of that name. Raises RizbinError when there is none."""
    if name not in names():
        raise RizbinError(f"There is no study {name!r}; there are {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}").STUDY
