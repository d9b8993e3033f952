"""Methods: images (and captions) in, an encoder out.

One file each; a new file is a new method, nothing is registered by hand.
"""

import importlib
import pkgutil

from rizbin.core.errors import RizbinError
from rizbin.training.method import Method


def names() -> tuple[str, ...]:
    """Every method that can be trained, by its file's name."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> type[Method]:
    """The method class that the file `name` defines."""
    if name not in names():
        raise RizbinError(f"There is no method '{name}'; choose one of {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [item for item in vars(module).values() if _is_method(item) and item.__module__ == module.__name__]
    if len(found) != 1:
        raise RizbinError(f"rizbin/methods/{name}.py defines {len(found)} methods; it must define exactly one.")
    return found[0]


def _is_method(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, Method)
