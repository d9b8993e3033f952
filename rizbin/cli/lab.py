"""Commands of the laboratory: what a model looks at, and why a method works."""

import dataclasses
from typing import Any

from rizbin.cli.parsing import near, parse
from rizbin.core.errors import RizbinError


def visualize(words: list[str]) -> int:
    """`rizbin visualize WHAT MODEL IMAGES ...`."""
    from rizbin.visualize.pictures import DRAWINGS, does

    if not words or words[0] in ("-h", "--help"):
        print("usage: rizbin visualize WHAT MODEL IMAGES... [--to DIR] [--size PIXELS] [--limit COUNT] ...", end="\n\n")
        print(*(f"  {name:<16}{does(drawing)}" for name, drawing in DRAWINGS.items()), sep="\n")
        print("\nMODEL is a run, an exported folder, a model of the zoo, or a ViT of timm or Hugging Face by its name.")
        print("IMAGES are pictures, folders, or data as for train (scenes:single).")
        print("`rizbin visualize WHAT --help` lists what one of them can be told.")
        return 0
    what, rest = words[0], words[1:]
    if what not in DRAWINGS:
        raise RizbinError(f"There is nothing called {what!r} to draw; {near(what, list(DRAWINGS))}")
    from rizbin import api

    flags = parse(_flags(DRAWINGS[what]), rest, f"visualize {what}")
    if not flags.images:
        raise RizbinError(f"Say which pictures: rizbin visualize {what} {flags.model} FOLDER, or scenes:single.")
    names = {field.name for field in dataclasses.fields(DRAWINGS[what].Settings)}
    settings = DRAWINGS[what].Settings(**{name: getattr(flags, name) for name in names})
    page = api.visualize(
        what, flags.model, list(flags.images), settings=settings, to=flags.to, size=flags.size, limit=flags.limit
    )
    print(page)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Around:
    """What every drawing is told besides its own settings."""

    to: str = ""
    """Folder for the pictures and their page. Empty: WHAT-MODEL here."""
    size: int = 0
    """Shorter side in pixels at which pictures are looked at; 0: the model's own."""
    limit: int = 0
    """Most pictures taken; 0: as many as the drawing shows."""


def _flags(drawing: Any) -> type:
    """The flags of one drawing as a class for tyro."""
    from typing import Annotated

    import tyro

    from rizbin.core.settings import explained
    from rizbin.visualize.pictures import does

    text = explained(drawing.Settings) | explained(Around)
    positional = tyro.conf.Positional
    flags: list[Any] = [
        ("model", Annotated[str, positional, tyro.conf.arg(metavar="MODEL", help="Run, folder or name.")]),
        ("images", Annotated[tuple[str, ...], positional, tyro.conf.arg(metavar="IMAGES...", help="What to look at.")]),
    ]
    for group in (drawing.Settings, Around):
        flags += [
            (field.name, Annotated[field.type, tyro.conf.arg(help=text.get(field.name))], field)
            for field in dataclasses.fields(group)
        ]
    made = dataclasses.make_dataclass("Flags", flags, frozen=True, kw_only=True)
    made.__doc__ = does(drawing)
    return made
