"""Jobs and their flags: a frozen settings class defines all options of a job, and everything else is derived from it.

```python
@dataclass(frozen=True)
class Detect:
    '''Finds objects in images by words.'''

    images: Annotated[str | Sequence[str], Argument(metavar="IMAGES", many=True, path="images")]
    '''Files, folders, patterns.'''
    threshold: float = 0.3
    '''Lowest score of a detection, 0 to 1.'''

@job(Detect)
def detect(settings: Detect) -> Detections: ...
```

`detect("photos", threshold=0.4)` is then a typed function of the fields, and `flags_of(Detect)` is what the command
line, the shipped schema of the flags, JSON Schema and forms are made from. Nothing here imports torch.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, Generic, Literal, ParamSpec, TypeVar, Union

from rizbin.core.settings import explained

Kind = TypeVar("Kind")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
Place = str | PathLike[str]
"""A name, or the path of a file or folder; also what a job returned that is a path."""
Checked = Literal["", "image", "images", "model", "data", "path"]
"""What the words of a flag name, so that what is not there is said before anything heavy is imported."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """Stands in `Annotated` beside a field's type: how the command line takes the field."""

    metavar: str = ""
    """What help calls the value; a field with a metavar and `positional` has no flag."""
    positional: bool = False
    """Whether it is a word by itself, in the order of the fields."""
    many: bool = False
    """Whether it takes several values; a tuple of any length does by itself."""
    name: str = ""
    """Name of the flag where the field has another."""
    short: tuple[str, ...] = ()
    """Other spellings: ("-o",)."""
    check: Checked = ""
    """What its words name."""
    hidden: bool = False
    """Whether only Python can give it: an object, a callback."""
    flat: bool = False
    """For nested settings: whether their flags stand without the field's name in front."""


HIDDEN = Argument(hidden=True)
FLAT = Argument(flat=True)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag, or one word by itself, as plain data."""

    name: str
    """Dotted name of the field from the settings class: "trainer.learning_rate"."""
    flag: str
    """The flag as it is typed, without dashes: "trainer.learning-rate"."""
    kinds: tuple[str, ...]
    """str, int, float or bool; several where the value may be any of these."""
    default: Any = None
    """Default as JSON holds it; without meaning where `required`."""
    required: bool = False
    choices: tuple[Any, ...] = ()
    """The values that are allowed, besides those of `kinds`; then `kinds` may be empty."""
    optional: bool = False
    """Whether "none" stands for no value."""
    many: bool = False
    """Whether it takes any number of values."""
    count: int = 1
    """Values that belong together: 2 of a range."""
    help: str = ""
    metavar: str = ""
    positional: bool = False
    short: tuple[str, ...] = ()
    check: Checked = ""

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults of this class, ready for JSON."""
        plain = {item.name: item.default for item in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in plain or value != plain[name]
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Flag":
        """The flag that `to_dict` wrote."""
        tuples = {"kinds", "choices", "short"}
        values: dict[str, Any] = {name: tuple(value) if name in tuples else value for name, value in data.items()}
        return Flag(**values)


def flags_of(settings: Any, default: Any = dataclasses.MISSING, *, prefix: str = "") -> list[Flag]:
    """The flags of a settings class, in the order of its fields; those of nested settings follow the others.

    Args:
        settings: A dataclass, perhaps a generic one with its argument.
        default: An instance whose values are the defaults; left out: the class's own.
        prefix: In front of all names: "method.".

    Raises TypeError for a field that no flag can give: that is a fault of the settings class, not of its user.
    """
    origin = typing.get_origin(settings) or settings
    given = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(settings), strict=False))
    kinds, texts = typing.get_type_hints(origin, include_extras=True), explained(settings)
    own: list[Flag] = []
    nested: list[Flag] = []
    for item in dataclasses.fields(origin):
        if not item.init:
            continue
        kind, argument = _split(kinds[item.name])
        if argument.hidden:
            continue
        kind = given.get(kind, kind)
        value = getattr(default, item.name) if default is not dataclasses.MISSING else _default(item)
        where = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value) or dataclasses.is_dataclass(typing.get_origin(kind) or kind):
            inner = value if dataclasses.is_dataclass(value) and not isinstance(value, type) else dataclasses.MISSING
            below = flags_of(type(value) if inner is not dataclasses.MISSING else kind, inner, prefix=f"{where}.")
            flat = [dataclasses.replace(flag, flag=flag.flag.removeprefix(_spelled(f"{where}."))) for flag in below]
            (own if argument.flat else nested).extend(flat if argument.flat else below)
            continue
        own.append(_flag(where, kind, value, argument, texts.get(item.name, "")))
    return [*own, *nested]


def build(settings: Callable[..., Kind], given: Mapping[str, Any], base: Any = None) -> Kind:
    """The settings with the given fields (dotted names, plain values) in place of those of `base` or of the class.

    Lists become tuples. Raises TypeError where a field without a default is missing.
    """
    here = {name: value for name, value in given.items() if "." not in name}
    below: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if "." in name:
            first, rest = name.split(".", 1)
            below.setdefault(first, {})[rest] = value
    origin: Any = typing.get_origin(settings) or settings
    items = {item.name: item for item in dataclasses.fields(origin)}
    for name, inner in below.items():
        old = getattr(base, name) if base is not None else _default(items[name])
        here[name] = build(type(old), inner, old)
    here = {name: _tupled(value) for name, value in here.items()}
    return dataclasses.replace(base, **here) if base is not None else origin(**here)


class Job(Generic[Parameters, Kind, Result]):
    """A function whose arguments are the fields of a settings class; `run` takes the settings themselves."""

    def __init__(self, settings: Callable[Parameters, Kind], run: Callable[[Kind], Result]) -> None:
        functools.update_wrapper(self, run, assigned=("__module__", "__name__", "__qualname__"))
        self.settings = settings
        self.run = run
        self.__doc__ = f"{inspect.getdoc(run) or ''}\n\n{_arguments(settings)}".strip()
        self.__signature__ = inspect.signature(settings).replace(
            return_annotation=inspect.signature(run).return_annotation
        )

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self.run(self.settings(*args, **kwargs))

    def __repr__(self) -> str:
        names = ", ".join(self.__signature__.parameters)
        return f"<rizbin.{self.run.__name__}({names})>"


def job(
    settings: Callable[Parameters, Kind],
) -> Callable[[Callable[[Kind], Result]], Job[Parameters, Kind, Result]]:
    """Makes a function of one settings object into a function of their fields; see `Job`."""
    return lambda run: Job(settings, run)


def part(whole: Any, kind: Callable[..., Kind]) -> Kind:
    """The settings `kind` from a class that inherits their fields."""
    return kind(**{item.name: getattr(whole, item.name) for item in dataclasses.fields(typing.cast(Any, kind))})


def json_schema(flags: Sequence[Flag], *, title: str = "") -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a group of flags, nested as their dotted names are."""
    root: dict[str, Any] = {"type": "object", "title": title, "properties": {}, "additionalProperties": False}
    for flag in flags:
        at = root
        *groups, last = flag.name.split(".")
        for group in groups:
            empty = {"type": "object", "properties": {}, "additionalProperties": False}
            at = at["properties"].setdefault(group, empty)
        at["properties"][last] = _value_schema(flag)
        if flag.required:
            at.setdefault("required", []).append(last)
    return root


_JSON = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _value_schema(flag: Flag) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [{"type": _JSON[kind]} for kind in flag.kinds]
    kinds += [{"enum": list(flag.choices)}] if flag.choices else []
    single = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if flag.count > 1:
        single = {"type": "array", "items": single, "minItems": flag.count, "maxItems": flag.count}
    if flag.many:
        single = {"type": "array", "items": single}
    if flag.optional:
        single = {"anyOf": [single, {"type": "null"}]}
    return {**single, "description": flag.help} | ({} if flag.required else {"default": flag.default})


def _split(kind: Any) -> tuple[Any, Argument]:
    """A type and what `Annotated` says beside it."""
    if typing.get_origin(kind) is not typing.Annotated:
        return kind, Argument()
    bare, *beside = typing.get_args(kind)
    return bare, next((extra for extra in beside if isinstance(extra, Argument)), Argument())


def _spelled(name: str) -> str:
    return name.replace("_", "-").strip("-") if not name.endswith(".") else name.replace("_", "-")


def _default(item: "dataclasses.Field[Any]") -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _flag(name: str, kind: Any, value: Any, argument: Argument, text: str) -> Flag:
    optional, many, count = False, argument.many, 1
    if typing.get_origin(kind) in (Union, types.UnionType):
        optional = types.NoneType in typing.get_args(kind)
        kind = _typed_in(kind)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        many = len(inner) == 2 and inner[1] is Ellipsis
        count, kind = (1, inner[0]) if many else (len(inner), inner[0])
        if typing.get_origin(kind) is tuple:  # a tuple of pairs
            count, kind = len(typing.get_args(kind)), typing.get_args(kind)[0]
    kinds, choices = _kinds(kind, name)
    required = value is dataclasses.MISSING
    return Flag(
        name=name,
        flag=argument.name or _spelled(name),
        kinds=kinds,
        default=None if required else _plain(value),
        required=required,
        choices=choices,
        optional=optional,
        many=many,
        count=count,
        help=text,
        metavar=argument.metavar,
        positional=argument.positional,
        short=argument.short,
        check=argument.check,
    )


def _typed_in(union: Any) -> Any:
    """The part of a union that can be typed as words: its scalars and choices, else its tuple; objects are left out."""
    parts = [part for part in typing.get_args(union) if part is not types.NoneType]
    scalars = [part for part in parts if part in (str, int, float, bool) or typing.get_origin(part) is Literal]
    tuples = [part for part in parts if typing.get_origin(part) is tuple]
    if len(scalars) == 1 or (not scalars and tuples):
        return (scalars or tuples)[0]
    return Union[tuple(scalars)] if scalars else union  # noqa: UP007 (made of a list)


def _kinds(kind: Any, name: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """What single values may be: the kinds, and the literal choices. Python objects in a union are passed over."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return (), typing.get_args(kind)
    options = typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)
    kinds: list[str] = []
    choices: list[Any] = []
    for option in options:
        if typing.get_origin(option) is Literal:
            choices += typing.get_args(option)
        elif option in (str, int, float, bool):
            kinds.append(option.__name__)
    if not kinds and not choices:
        raise TypeError(f"the setting {name} is annotated {kind}, which no flag can give")
    return tuple(kinds), tuple(choices)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _arguments(settings: Any) -> str:
    """The fields as the "Args" of a docstring."""
    texts = explained(settings)
    lines = [f"    {item.name}: {texts.get(item.name, '')}" for item in dataclasses.fields(settings) if item.init]
    return "\n".join(["Args:", *lines]) if lines else ""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One word after `rizbin`, as plain data: what the shipped schema holds of it."""

    name: str
    about: str
    """What it does; the first line is shown in lists."""
    flags: tuple[Flag, ...] = ()
    example: str = ""
    notes: tuple[str, ...] = field(default=())
    """Sentences under the help."""
