"""Commands for data itself."""

import dataclasses
from typing import Annotated, Any

from rizbin.cli.parsing import near, parse
from rizbin.core.errors import RizbinError

_COMMANDS = {"render": "write samples of any data as webdataset tars, with masks, for fast loading"}


def data(words: list[str]) -> int:
    """`rizbin data render DATA ...`."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: rizbin data render DATA --output DIR [--count N] [--size PIXELS] [--split S] ...", end="\n\n")
        print(*(f"  {name:<10}{does}" for name, does in _COMMANDS.items()), sep="\n")
        print("\n`rizbin data render --help` lists what it can be told. The same command again goes on.")
        return 0
    if words[0] not in _COMMANDS:
        raise RizbinError(f"There is no command 'data {words[0]}'; {near(words[0], list(_COMMANDS))}")
    return _render(words[1:])


def _render(words: list[str]) -> int:
    from rizbin import api
    from rizbin.core.progress import Bar
    from rizbin.data.render import Render

    settings, output = parse(_flags(Render.Settings), words, "data render").values()
    rendered = api.render(settings, output, bar=Bar)
    print(rendered.text())
    return 0


def _flags(kind: Any) -> Any:
    """The flags: fields of the settings, the first without a name, and where to write."""
    import tyro

    from rizbin.core.settings import explained

    text = explained(kind)
    positional = tyro.conf.Positional
    flags: list[Any] = []
    for field in dataclasses.fields(kind):
        if field.name == "data":
            argument = tyro.conf.arg(metavar="DATA", help=text[field.name])
            flags.append(("data", Annotated[str, positional, argument]))
        else:
            flags.append((field.name, Annotated[field.type, tyro.conf.arg(help=text[field.name])], field))
    output = tyro.conf.arg(aliases=("-o",), metavar="DIR", help="A new folder, or one that the same command began.")
    flags.append(("output", Annotated[str, output]))
    made = dataclasses.make_dataclass("Flags", flags, frozen=True, kw_only=True)
    made.__doc__ = "Writes samples of any data as webdataset tars, with captions and exact masks where they are known."

    def values(self: Any) -> tuple[Any, str]:
        given = dataclasses.asdict(self)
        output = given.pop("output")
        return kind(**given), output

    made.values = values
    return made
