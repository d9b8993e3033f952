"""Parses the words of the command line into values, by flags that are plain data; every error is one sentence."""

import argparse
import dataclasses
import difflib
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rizbin.core.commands import Command, Flag
from rizbin.core.errors import RizbinError

_NO_VALUE = "none"
"""The word that means "no value" for an optional flag."""
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def near(word: str, known: Sequence[str]) -> str:
    """Advice for a word that is not among the known ones."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."


_WITHOUT_OBJECTS = frozenset(
    word
    for line in (
        "a an the and or of with without on in under over above below at by near next to left right two three from",
        "behind beside between is are",
    )
    for word in line.split()
)
"""Words that are no prompt by themselves: as single arguments they belong to a prompt whose quotes were left out."""


def check_quotes(prompts: Sequence[str], before: str) -> None:
    """Raises RizbinError where a prompt came word by word, since its quotes were left out.

    before: the command up to its prompts, for the advice.
    """
    if len(prompts) > 1 and any(prompt.casefold().strip(".,") in _WITHOUT_OBJECTS for prompt in prompts):
        whole = " ".join(prompts).replace('"', "'")
        raise RizbinError(
            f"{len(prompts)} prompts were given, one of them without an object; put all words of a prompt in quotes: "
            f'{before} "{whole}".'
        )


def parse(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """The fields that the words give, by dotted name: only those that were given.

    Raises RizbinError, one sentence, for words that do not fit.
    """
    parser = _parser(command)
    known, unknown = _intermixed(parser, command, words)
    if unknown:
        raise RizbinError(_unknown(unknown[0], command))
    for flag in command.flags:
        if flag.required and getattr(known, flag.name, None) in (None, []):
            shown = flag.metavar if flag.positional else f"--{flag.flag}"
            raise RizbinError(f"{shown} is missing; `rizbin {command.name} --help` says what it is.")
    positional = {flag.name for flag in command.flags if flag.positional}
    return {name: value for name, value in vars(known).items() if name not in positional or value not in (None, [])}


def wants_help(words: Sequence[str]) -> bool:
    """Whether help was asked for."""
    return bool({"-h", "--help", WHOLE_HELP} & set(words))


WHOLE_HELP = "--help-all"
"""Explains every flag, where `--help` only names the flags of groups."""


def help_text(command: Command, *, whole: bool = True) -> str:
    """The page of `--help`.

    whole: explain the flags of groups ("--trainer.learning-rate") too; else they are named, a paragraph a group, so
    that the flags that everybody needs stand on one page.
    """
    nested = {} if whole else _groups(command)
    if not nested:
        return _parser(command).format_help().rstrip()
    common = dataclasses.replace(command, flags=tuple(flag for flag in command.flags if "." not in flag.flag))
    width = _width()
    lines = [_parser(common, usage=f"rizbin {command.name} [options]").format_help().rstrip()]
    for group, flags in nested.items():
        names = ", ".join(flag.flag.rpartition(".")[2] for flag in flags)
        lines += ["", f"--{group}.NAME ({len(flags)}):"]
        lines += textwrap.wrap(names, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    lines += ["", f"`rizbin {command.name} {WHOLE_HELP}` explains these too, with their values and defaults."]
    return "\n".join(lines)


def _groups(command: Command) -> dict[str, list[Flag]]:
    """The flags of nested settings by the name of their group, in the order in which they come."""
    groups: dict[str, list[Flag]] = {}
    for flag in command.flags:
        if group := flag.flag.rpartition(".")[0]:
            groups.setdefault(group, []).append(flag)
    return groups


def advice_on(command: Command, field: str) -> str:
    """How a missing field is given, for a sentence."""
    flag = next(flag for flag in command.flags if flag.name == field)
    return _shown(flag) if flag.positional else f"--{flag.flag}"


class _Parser(argparse.ArgumentParser):
    """A parser that raises RizbinError where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise RizbinError(_sentence(message))


def _width() -> int:
    """Columns of a page of help."""
    return min(shutil.get_terminal_size((100, 24)).columns - 2, 118)


def _parser(command: Command, *, usage: str | None = None) -> _Parser:
    width = _width()
    parser = _Parser(
        prog=f"rizbin {command.name}",
        usage=usage,
        description=textwrap.fill(command.about, width),
        epilog="\n".join(
            [*([f"example: {command.example}"] if command.example else []), *command.notes],
        )
        or None,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=width),
    )
    # A flag that takes many values would swallow the words by themselves that follow it.
    alone = any(flag.positional for flag in command.flags)
    groups: dict[str, Any] = {}
    for flag in command.flags:
        if flag.positional:
            nargs: dict[str, Any] = {"nargs": "*"} if flag.many else {} if flag.required else {"nargs": "?"}
            named: dict[str, Any] = {"metavar": flag.metavar or None, "help": _help(flag), **nargs}
            parser.add_argument(flag.name, type=_converter(flag), default=None, **named)
            continue
        group = flag.flag.rpartition(".")[0]
        if group and group not in groups:
            groups[group] = parser.add_argument_group(f"{group} options")
        _add(groups[group] if group else parser, flag, alone=alone)
    return parser


def _add(group: Any, flag: Flag, *, alone: bool) -> None:
    names = [*flag.short, f"--{flag.flag}"]
    shared: dict[str, Any] = {"dest": flag.name, "default": argparse.SUPPRESS, "help": _help(flag)}
    if flag.kinds == ("bool",):
        group.add_argument(*names, f"--{negated(flag)}", action=_Switch, **shared)
        return
    shared |= {"type": _converter(flag), "metavar": _shown(flag)}
    if flag.many:
        nargs = {} if flag.count == 1 and alone else {"nargs": flag.count if flag.count > 1 else "*"}
        action = "append" if alone or flag.count > 1 else "extend"
        group.add_argument(*names, action=action, **nargs, **shared)
    else:
        group.add_argument(*names, **({"nargs": flag.count} if flag.count > 1 else {}), **shared)


def negated(flag: Flag) -> str:
    """The flag that turns one off: no-report, method.no-distillation."""
    group, _, last = flag.flag.rpartition(".")
    return f"{group}.no-{last}" if group else f"no-{last}"


class _Switch(argparse.Action):
    """A flag and the one that turns it off; neither takes a value."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        vars(namespace)[self.dest] = option_string != self.option_strings[-1]

    def format_usage(self) -> str:
        return " | ".join(option for option in self.option_strings if option.startswith("--"))


def _intermixed(parser: _Parser, command: Command, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags may stand before, between and after the words by themselves."""
    if not any(flag.positional for flag in command.flags):
        return parser.parse_known_args(list(words))
    return parser.parse_known_intermixed_args(list(words))


def _converter(flag: Flag) -> Callable[[str], Any]:
    """Text into one of the values that the flag allows."""

    def convert(text: str) -> Any:
        if flag.optional and text == _NO_VALUE:
            return None
        for choice in flag.choices:
            if str(choice) == text:
                return choice
        for kind in flag.kinds:
            try:
                if kind == "int":
                    return int(text)
                if kind == "float":
                    return float(text)
                if kind == "str":
                    return text
            except ValueError:
                continue
        raise argparse.ArgumentTypeError(_refusal(flag, text))

    convert.__name__ = flag.name
    return convert


def _refusal(flag: Flag, text: str) -> str:
    if flag.choices:
        return f"{text!r} is not among its values; {near(text, [str(choice) for choice in flag.choices])}"
    return f"{text!r} is not {' or '.join(_KINDS[kind] for kind in flag.kinds)}."


def _shown(flag: Flag) -> str:
    """The placeholder of the value in help."""
    if flag.metavar:
        return flag.metavar
    if flag.choices:
        return "{" + ",".join([*map(str, flag.choices), *(kind.upper() for kind in flag.kinds)]) + "}"
    return flag.kinds[0].upper()


def _help(flag: Flag) -> str:
    """The text of a flag with its default; a percent sign would be read as a format."""
    text = flag.help
    if not flag.required and not flag.positional and flag.default not in (None, "", [], False):
        shown = " ".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
        text = f"{text} (default: {shown})"
    return text.replace("%", "%%")


def _unknown(word: str, command: Command) -> str:
    if not word.startswith("-"):
        return f"{word!r} is one word too many; `rizbin {command.name} --help` lists what there is."
    name = word.split("=", 1)[0]
    known = [f"--{flag.flag}" for flag in command.flags if not flag.positional]
    known += [short for flag in command.flags for short in flag.short]
    known += [f"--{negated(flag)}" for flag in command.flags if flag.kinds == ("bool",)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:  # the last part of a dotted name is what one remembers
        last = name.lstrip("-").rpartition(".")[2]
        close = [flag for flag in known if flag.rpartition(".")[2].lstrip("-") == last][:1]
    advice = f"did you mean {close[0]}?" if close else f"`rizbin {command.name} --help` lists what there is."
    return f"There is no flag {name}; {advice}"


def _sentence(message: str) -> str:
    """argparse's message as a sentence of ours."""
    flagged = re.match(r"argument ([^:]+): (.*)", message, re.DOTALL)
    if flagged:
        name = next((part for part in flagged.group(1).split("/") if part.startswith("--")), flagged.group(1))
        complaint = flagged.group(2)
        if complaint.startswith("expected"):
            return f"{name} needs a value: {complaint.replace('argument', 'value')}."
        return f"{name}: {complaint}"
    missing = re.match(r"the following arguments are required: (.*)", message)
    if missing:
        return f"{missing.group(1)} is missing; --help says what it is."
    return f"{message[:1].upper()}{message[1:]}."
