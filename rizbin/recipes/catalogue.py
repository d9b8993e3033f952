"""Everything that can be trained, by name: the methods that train encoders, and the detector from its own room."""

from rizbin import methods
from rizbin.core.errors import RizbinError
from rizbin.train.method import Method

DETECTOR = "detector"


def names() -> tuple[str, ...]:
    """In alphabetical order."""
    return tuple(sorted((*methods.names(), DETECTOR)))


def find(name: str) -> type[Method]:
    """The class of a method, or of `DETECTOR`. Raises RizbinError naming the choices."""
    if name == DETECTOR:
        from rizbin.detect.teach import Teaching

        return Teaching
    if name not in methods.names():
        raise RizbinError(f"There is no method '{name}'; choose one of {', '.join(names())}.")
    return methods.find(name)
