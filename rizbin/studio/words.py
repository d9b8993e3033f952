"""A form's values as the words of a command, checked by the command line's own parser.

What the page asks for is a command with values by the names of its settings. They are spelled as words, the words are
parsed as those of a terminal are, and what they name must be something that the page may use. So each result can say
the command that makes it again, and there is one way to do a thing.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rizbin import zoo
from rizbin.cli import schema
from rizbin.cli.parsing import negated, parse
from rizbin.core.commands import Command, Flag
from rizbin.core.errors import RizbinError
from rizbin.studio.places import NotHere, Places

OFFERED = ("generate", "edit", "repair", "ascend", "detect", "train", "study")
"""Commands that the page may start."""
SHOWN = ("visualize", "verify")
"""Commands that the page only spells out, since its desk answers by the same functions."""
OWN = frozenset({"output", "run", "draw", "quiet", "overwrite", "build", "offload", "calibration", "jobs"})
"""Settings that the studio gives itself or leaves alone: where results go, and how loud they are."""


def command_of(name: str, preset: str = "", *, offered: Sequence[str] = OFFERED) -> Command:
    """The command of that name, its flags as on the command line. Raises RizbinError for one that is not offered."""
    family, _, member = name.partition(" ")
    if family not in offered:
        raise RizbinError(f"The page does not start {family!r}.")
    if family == "train":
        if member not in schema.methods():
            raise RizbinError(f"There is no method {member!r}.")
        return schema.training(member, preset)[0]
    if family == "visualize" and member not in schema.members("visualize"):
        raise RizbinError(f"There is no visualization {member!r}.")
    if family == "study" and member not in schema.members("study"):
        raise RizbinError(f"There is no study {member!r}.")
    return schema.command(name)


def words_of(command: Command, given: Mapping[str, Any]) -> list[str]:
    """The words after `rizbin` that give these values; the words by themselves stand last, after `--`-less flags.

    Raises RizbinError for a name that the command does not have and for values that it does not take.
    """
    flags = {flag.name: flag for flag in command.flags}
    if strange := sorted(set(given) - set(flags)):
        raise RizbinError(f"`rizbin {command.name}` has no setting {strange[0]!r}.")
    alone: list[str] = []
    words: list[str] = []
    for name, value in given.items():
        flag = flags[name]
        values = list(value) if isinstance(value, list | tuple) else [value]
        if flag.positional:
            alone += [_text(item, flag) for item in values]
        elif flag.kinds == ("bool",):
            words.append(f"--{flag.flag if value else negated(flag)}")
        elif flag.count > 1:
            rows = values if flag.many else [values]
            for row in rows:
                words += [f"--{flag.flag}", *(_text(item, flag) for item in row)]
        else:
            # With an equals sign, so that a value may begin with a dash.
            words += [f"--{flag.flag}={_text(item, flag)}" for item in values]
    if any(text.startswith("-") for text in alone):
        raise RizbinError("Words do not begin with a dash here; put something before it.")
    words = [*command.name.split(), *alone, *words]
    parse(command, words[len(command.name.split()) :])
    return words


def line_of(words: Sequence[str]) -> str:
    """The command as it is typed, without what only the studio gives it."""
    own = tuple(f"--{name}=" for name in ("output", "run", "draw"))
    return shlex.join(["rizbin", *(word for word in words if not word.startswith(own))])


def check_names(command: Command, given: Mapping[str, Any], places: Places, models: Sequence[str]) -> dict[str, Any]:
    """The values with pictures by their generated names made paths. Raises RizbinError for what the page may not use.

    Models are the bundled ones, those that were named at the start, and runs; images are those of the page; data are
    scenes and digits. So no request opens another path, and none fetches anything.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        flag = next((flag for flag in command.flags if flag.name == name), None)
        if flag is None or name.rpartition(".")[2] in OWN:
            raise RizbinError(f"The page does not set {name!r}.")
        if flag.check in ("image", "images") or name == "images":
            checked[name] = _each(value, lambda item: str(places.picture(item)))
        elif flag.check == "model":
            checked[name] = _each(value, lambda item: model_of(item, places, models))
        elif command.name == "detect" and name == "masks":
            checked[name] = model_of(value, places, models)
        elif flag.check == "data":
            checked[name] = _each(value, _data)
        elif flag.check == "path" or name == "judge":
            raise RizbinError(f"The page does not set {name!r}.")
        else:
            checked[name] = value
    return checked


def model_of(name: Any, places: Places, models: Sequence[str]) -> str:
    """What stands for a model in a command. Raises RizbinError for one that the page may not use."""
    if name in zoo.names() or name in models:
        return str(name)
    try:
        return str(places.run(str(name).removeprefix("runs/")))
    except NotHere:
        raise RizbinError(f"The page knows no model {str(name)[:80]!r}; name it at the start with --model.") from None


def _data(item: Any) -> str:
    if str(item).partition(":")[0] in ("scenes", "digits"):
        return str(item)
    raise RizbinError("The page trains on scenes and digits; name other data on the command line.")


def _each(value: Any, change: Any) -> Any:
    return [change(item) for item in value] if isinstance(value, list) else change(value)


def _text(item: Any, flag: Flag) -> str:
    if item is None:
        return "none"
    if isinstance(item, bool):
        return "true" if item else "false"
    if not isinstance(item, str | int | float):
        raise RizbinError(f"{flag.name} takes text or numbers.")
    text = repr(item) if isinstance(item, float) else str(item)
    if "\0" in text or len(text) > 4000:
        raise RizbinError(f"{flag.name} is too long, or holds what no command can.")
    return text
