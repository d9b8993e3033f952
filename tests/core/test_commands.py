"""Jobs: settings into flags, flags into settings, and functions with the same arguments."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal

import pytest

from rizbin.core.commands import FLAT, HIDDEN, Argument, Flag, build, flags_of, job, json_schema, part


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 3
    """Pixels."""
    ranges: tuple[float, float] = (0.0, 1.0)
    """From, to."""


@dataclass(frozen=True)
class Outer:
    """Does something."""

    images: Annotated[str | list[str], Argument(positional=True, many=True, metavar="IMAGES")]
    """What to look at."""
    _: KW_ONLY
    mode: Literal["a", "b"] = "a"
    """One of two."""
    limit: int | None = None
    """At most; none: all."""
    names: tuple[str, ...] = ()
    """Any number."""
    level: Literal[1, 2] = 2
    """A number among some."""
    callback: Annotated[object, HIDDEN] = None
    """For Python alone."""
    inner: Inner = field(default_factory=Inner)
    """A group."""
    flat: Annotated[Inner, FLAT] = field(default_factory=lambda: Inner(width=7))
    """A group whose flags stand alone."""


def flag(name: str) -> Flag:
    return next(item for item in flags_of(Outer) if item.name == name)


def test_each_field_is_a_flag_with_its_default_and_text() -> None:
    names = [item.name for item in flags_of(Outer)]
    assert names == [
        "images",
        "mode",
        "limit",
        "names",
        "level",
        "flat.width",
        "flat.ranges",
        "inner.width",
        "inner.ranges",
    ]
    assert flag("mode").choices == ("a", "b") and flag("mode").default == "a" and flag("mode").help == "One of two."
    assert flag("limit").optional and flag("limit").kinds == ("int",)
    assert flag("names").many and flag("names").default == []
    assert flag("level").choices == (1, 2)
    assert (flag("inner.width").flag, flag("flat.width").flag) == ("inner.width", "width")
    assert (flag("inner.width").default, flag("flat.width").default) == (3, 7)
    assert flag("inner.ranges").count == 2 and flag("inner.ranges").default == [0.0, 1.0]
    assert flag("images").positional and flag("images").required and flag("images").many


def test_flags_survive_as_plain_data() -> None:
    assert [Flag.from_dict(item.to_dict()) for item in flags_of(Outer)] == flags_of(Outer)


def test_values_become_settings_over_a_base() -> None:
    base = Outer(["x"], inner=Inner(ranges=(2.0, 3.0)))
    built = build(Outer, {"mode": "b", "names": ["p", "q"], "inner.width": 5}, base)
    assert built == Outer(["x"], mode="b", names=("p", "q"), inner=Inner(width=5, ranges=(2.0, 3.0)))
    assert build(Outer, {"images": ["y"], "flat.ranges": [1.0, 2.0]}).flat == Inner(width=7, ranges=(1.0, 2.0))


def test_a_job_is_a_function_of_the_fields() -> None:
    @job(Outer)
    def count(settings: Outer) -> int:
        """Counts."""
        return len(settings.images) + (settings.limit or 0)

    assert count(["a", "b"], limit=3) == 5
    assert count.run(Outer(["a"])) == 1 and count.settings is Outer
    assert "limit: At most; none: all." in (count.__doc__ or "") and "limit" in str(count.__signature__)
    wrong: Any = {"limt": 3}
    with pytest.raises(TypeError):
        count(["a"], **wrong)


def test_a_part_is_what_was_inherited() -> None:
    @dataclass(frozen=True, kw_only=True)
    class More(Inner):
        depth: int = 1
        """Layers."""

    assert part(More(width=9), Inner) == Inner(width=9)


def test_a_field_that_no_flag_can_give_is_a_fault() -> None:
    @dataclass(frozen=True)
    class Wrong:
        table: Mapping[str, int]

    with pytest.raises(TypeError, match="table"):
        flags_of(Wrong)


def test_json_schema_nests_as_the_names_do() -> None:
    schema = json_schema(flags_of(Outer), title="outer")
    assert schema["required"] == ["images"] and schema["properties"]["inner"]["properties"]["width"]["default"] == 3
    assert schema["properties"]["limit"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert schema["properties"]["mode"]["enum"] == ["a", "b"]
    assert schema["properties"]["images"]["items"] == {"type": "string"}
