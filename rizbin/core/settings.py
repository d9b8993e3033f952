"""Settings to and from JSON, and what each field means.

A settings class is a frozen, keyword-only dataclass whose fields each have a type, a default with a reason and a
string under it. Flags, `settings.json` and the documentation are derived from it here and never written by hand.
"""

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar, Union

from rizbin.core.errors import RizbinError

Kind = TypeVar("Kind")


class Field(NamedTuple):
    """One leaf of a tree of settings."""

    name: str
    """Dotted from the root: "method.keep_ratio"."""
    type: Any
    """Its annotation, type variables replaced."""
    default: Any
    """The value that the root's defaults give it; `dataclasses.MISSING` when it has none."""
    text: str
    """The string under it: meaning, unit, range, source; empty when there is none."""


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as nested dicts, lists, numbers and text, ready for JSON; `from_dict` gives the same settings back.

    Raises TypeError for a value that JSON cannot hold: that is a fault of the settings class, not of its user.
    """
    return {field.name: _plain(getattr(settings, field.name), field.name) for field in _fields(type(settings))}


def from_dict(cls: Callable[..., Kind], data: Any, where: str = "") -> Kind:
    """The settings that `data` spells out, each field checked.

    cls: a settings class, or a generic one with its argument (`Training[DetailCLIP.Settings]`).
    data: what JSON holds there; checked to be a group of named values.
    where: dotted name of this group inside a larger one, for the messages.
    Raises RizbinError naming the dotted field when a key is unknown, missing or holds a value of the wrong type.
    """
    return _settings(cls, data, where)


def explained(cls: Any) -> dict[str, str]:
    """Field name -> the string under it in the source, on one line; fields without one are left out."""
    texts: dict[str, str] = {}
    for ancestor in reversed(_origin(cls).__mro__):
        if dataclasses.is_dataclass(ancestor):
            texts.update(_strings(ancestor))
    return texts


def every_field(cls: Any) -> Iterator[Field]:
    """All leaves in order of definition; nested settings are entered, with the defaults that the outer class gives."""
    yield from _leaves(cls, dataclasses.MISSING, "")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """One entry "dotted.name: old -> new" for each leaf that differs between two results of `to_dict`."""
    lines = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, _dotted(where, name))
        elif before != after or isinstance(before, bool) != isinstance(after, bool):
            lines.append(f"{_dotted(where, name)}: {_shown(before)} -> {_shown(after)}")
    return lines


ADDED = "added"
"""Key in a field's metadata: the field is younger than files written without it, which mean its default."""
_ABSENT = object()


def added(default: Any) -> Any:
    """A field that came later: a settings file without it is of an older version, and reads as `default`."""
    return dataclasses.field(default=default, metadata={ADDED: True})


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else repr(value)


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _origin(cls: Any) -> Any:
    """The class itself, without its type arguments."""
    return typing.get_origin(cls) or cls


def _is_settings(kind: Any) -> bool:
    origin = _origin(kind)
    return isinstance(origin, type) and dataclasses.is_dataclass(origin)


def _fields(cls: Any) -> list["dataclasses.Field[Any]"]:
    return [field for field in dataclasses.fields(_origin(cls)) if field.init]


@lru_cache(maxsize=1024)
def _types(cls: Any) -> dict[str, Any]:
    """Field name -> type, with the type variables of a generic settings class replaced by its arguments."""
    origin = _origin(cls)
    given = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(cls), strict=False))
    return {name: _replaced(kind, given) for name, kind in typing.get_type_hints(origin).items()}


def _replaced(kind: Any, given: dict[Any, Any]) -> Any:
    if isinstance(kind, TypeVar):
        kind = given.get(kind, kind)
        if isinstance(kind, TypeVar):
            raise TypeError(f"the settings class is generic: give it an argument for {kind}")
        return kind
    parameters = getattr(kind, "__parameters__", ())
    if given and parameters and typing.get_origin(kind) is not None:
        return kind[tuple(given.get(parameter, parameter) for parameter in parameters)]
    return kind


def _plain(value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), _dotted(where, f.name)) for f in _fields(type(value))}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise TypeError(f"the setting {where} holds {value!r}, which JSON cannot hold")


def _settings(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise RizbinError(f"The setting {where or 'at the root'} is {data!r}; give a group of named settings there.")
    fields = {field.name: field for field in _fields(cls)}
    for name in data:
        if name not in fields:
            raise RizbinError(f"There is no setting {_dotted(where, str(name))}; {_nearest(str(name), list(fields))}")
    for name, field in fields.items():
        if name not in data and not field.metadata.get(ADDED):
            raise RizbinError(f"The setting {_dotted(where, name)} is missing; add it with a value.")
    kinds = _types(cls)
    return _origin(cls)(**{name: _value(kinds[name], value, _dotted(where, name)) for name, value in data.items()})


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here are {', '.join(known) or 'none'}."


def _value(kind: Any, data: Any, where: str) -> Any:
    """`data` as a value of the annotation `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _value(arguments[0], data, where)
    if origin in (Union, types.UnionType):
        return _alternative(kind, arguments, data, where)
    if origin is Literal:
        # Compared with the type, because Python finds True == 1 and 1 == 1.0.
        for choice in arguments:
            if choice == data and type(choice) is type(data):
                return choice
        raise _wrong(kind, data, where)
    if origin is tuple or kind is tuple:
        return _tuple(kind, arguments, data, where)
    if _is_settings(kind):
        return _settings(kind, data, where)
    if kind is None or kind is types.NoneType:
        if data is not None:
            raise _wrong(kind, data, where)
        return None
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        if not math.isfinite(data):
            raise _wrong(kind, data, where)
        return float(data)
    if kind in (bool, int, str):
        if type(data) is not kind:
            raise _wrong(kind, data, where)
        return data
    if kind is float:
        raise _wrong(kind, data, where)
    raise TypeError(f"the setting {where} is annotated {kind}, which settings cannot be")


def _alternative(kind: Any, arguments: tuple[Any, ...], data: Any, where: str) -> Any:
    """`data` as the first alternative that takes it."""
    if data is None and types.NoneType in arguments:
        return None
    choices = [choice for choice in arguments if choice is not types.NoneType]
    if len(choices) == 1 and data is not None:
        return _value(choices[0], data, where)  # its own message is the more exact one
    for choice in choices:
        try:
            return _value(choice, data, where)
        except RizbinError:
            continue
    raise _wrong(kind, data, where)


def _tuple(kind: Any, arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise _wrong(kind, data, where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(data)
    if len(arguments) != len(data):
        raise _wrong(kind, data, where)
    pairs = zip(arguments, data, strict=True)
    return tuple(_value(part, item, f"{where}[{place}]") for place, (part, item) in enumerate(pairs))


def _wrong(kind: Any, data: Any, where: str) -> RizbinError:
    hint = ""
    if isinstance(data, str):
        choices = [choice for choice in _choices(kind) if isinstance(choice, str)]
        near = difflib.get_close_matches(data, choices, n=1, cutoff=0.6)
        hint = f" (did you mean {near[0]}?)" if near else ""
    return RizbinError(f"The setting {where} is {data!r}; give {_spelled(kind)}{hint}.")


def _choices(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    if typing.get_origin(kind) in (Union, types.UnionType):
        return tuple(choice for part in typing.get_args(kind) for choice in _choices(part))
    return ()


_PLAIN_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    types.NoneType: "nothing (null)",
}


def _spelled(kind: Any) -> str:
    """An annotation in words: "a whole number", "one of first, second"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PLAIN_NAMES:
        return _PLAIN_NAMES[kind]
    if origin is Literal:
        words = [str(choice) for choice in arguments]
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if origin in (Union, types.UnionType):
        return " or ".join(_spelled(part) for part in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"a list, each item {_spelled(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(_spelled(part) for part in arguments)}"
    return "a group of named settings" if _is_settings(kind) else "a list" if kind is tuple else str(kind)


@lru_cache(maxsize=1024)
def _strings(cls: type) -> dict[str, str]:
    """The strings that stand right under the annotated names in the body of this class alone."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError):  # made at a prompt or by make_dataclass: there is no source to read
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    texts = {}
    for line, below in pairwise(body):
        if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            texts[line.target.id] = " ".join(below.value.value.split())
    return texts


def _leaves(cls: Any, given: Any, where: str) -> Iterator[Field]:
    kinds, texts = _types(cls), explained(cls)
    for field in _fields(cls):
        default = _default(field) if given is dataclasses.MISSING else getattr(given, field.name)
        kind, name = kinds[field.name], _dotted(where, field.name)
        if default is not dataclasses.MISSING and dataclasses.is_dataclass(default):
            yield from _leaves(kind if _is_settings(kind) else type(default), default, name)
        elif default is dataclasses.MISSING and _is_settings(kind):
            yield from _leaves(kind, dataclasses.MISSING, name)
        else:
            yield Field(name, kind, default, texts.get(field.name, ""))


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
