"""Methods: images (and captions) in, an encoder out.

One file each; a new file is a new method, nothing is registered by hand.
"""

import importlib
import pkgutil

from rizbin.core.errors import RizbinError
from rizbin.training.method import Method
from rizbin.training.settings import ImageSettings, ImageTextSettings


def names() -> tuple[str, ...]:
    """Every method that can be trained, by its file's name."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> type[Method]:
    """The method class that the file `name` defines. Raises RizbinError when it does not define one."""
    if name not in names():
        raise RizbinError(f"There is no method '{name}'; choose one of {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [item for item in vars(module).values() if _is_method(item) and item.__module__ == module.__name__]
    if len(classes) != 1:
        raise RizbinError(f"rizbin/methods/{name}.py defines {len(classes)} methods; it must define exactly one.")
    (method,) = classes
    if not issubclass(getattr(method, "Settings", object), ImageSettings | ImageTextSettings):
        raise RizbinError(
            f"The settings of {name} derive from neither ImageSettings nor ImageTextSettings "
            "(rizbin/training/settings.py); derive them from the one that says what the method reads."
        )
    return method


def _is_method(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, Method)
