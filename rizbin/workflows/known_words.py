"""The names that a model was trained on, and the objects of a prompt that are not among them."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from rizbin import zoo
from rizbin.core.commands import Place
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.generation.diffusion.spans import objects_in

_SHOWN = 20
"""Names that a sentence lists."""


def known_names(model: Place) -> tuple[str, ...]:
    """All that a model of the zoo or a run can know by name; empty where that is not known.

    It is known where a detector was taught names, or where the data were scenes, whose captions name nothing else.
    """
    folder = zoo.folder_of(str(model)) if str(model) in zoo.names() else Path(model)
    return _names_in(folder / "settings.json")


@lru_cache(maxsize=16)
def _names_in(settings: Path) -> tuple[str, ...]:
    try:
        stored = json.loads(settings.read_text(encoding="utf-8"))
        data, names = str(stored["data"]), stored["settings"].get("names", ())
        if names and all(isinstance(name, str) for name in names):
            return tuple(names)
        return tuple(open_source(data, split="train", size=64).categories) if data.startswith("scenes") else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RizbinError):
        return ()


def unknown_in(prompt: str, model: Place) -> list[str]:
    """A sentence where the prompt names objects that the model was not taught, with what it knows; else none."""
    names = known_names(model)
    lacking = [phrase for phrase in objects_in(prompt) if not any(_names(phrase, name) for name in names)]
    if not names or not lacking:
        return []
    shown = _listed(lacking)
    return [
        f"{Path(model).name} was taught {len(names)} objects by name, and {shown} "
        f"{'is' if len(lacking) == 1 else 'are'} not among them, so something else may come out; it knows "
        f"{knows(model)}."
    ]


def knows(model: Place, most: int = _SHOWN) -> str:
    """The names that a model knows, as a list for a sentence; the first ones where they are many."""
    names = known_names(model)
    if len(names) <= most:
        return ", ".join(names)
    more = f"`rizbin zoo {model}` lists them" if str(model) in zoo.names() else f"{len(names)} in all"
    return f"{', '.join(names[:most])} and others ({more})"


def _names(phrase: str, name: str) -> bool:
    """Whether the words of the name stand in the phrase, its last one perhaps as a plural."""
    return re.search(rf"(?<!\w){re.escape(name.casefold())}(?:e?s)?(?!\w)", phrase.casefold()) is not None


def _listed(words: Sequence[str]) -> str:
    quoted = [f'"{word}"' for word in words[:5]]
    if len(words) > 5:
        return f"{', '.join(quoted)} and {len(words) - 5} more"
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
