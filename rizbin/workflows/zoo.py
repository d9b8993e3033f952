"""The bundled models: a list, their cards, and how each is made again."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rizbin import zoo as bundled
from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError


@dataclass(frozen=True)
class Zoo:
    """List the bundled models, show a model's card, or train a model again."""

    name: Annotated[str | None, Argument(positional=True, metavar="NAME")] = None
    """A bundled model. None: list them all."""
    build: Annotated[Place | None, Argument(metavar="DIR")] = None
    """Train the model again in this run folder, or go on there; it is then in DIR/published."""


@job(Zoo)
def zoo(settings: Zoo) -> Place:
    """The list, the card as text, or the folder of the model that was built."""
    if settings.build is not None:
        if settings.name is None:
            raise RizbinError(f"Say which model to build: {', '.join(bundled.names())}.")
        from rizbin.workflows.bundled_models import rebuild

        return rebuild(settings.name, Path(settings.build))
    if settings.name is None:
        return "\n".join(f"{name:<18}{bundled.card_of(name).is_a}" for name in bundled.names())
    card = bundled.card_of(settings.name).text()
    from rizbin.workflows.known_words import known_names

    known = known_names(settings.name)
    listed = textwrap.fill(f"knows      {', '.join(known)}", 100, subsequent_indent=" " * 11) if known else ""
    return f"{card}\n{listed}".rstrip()
