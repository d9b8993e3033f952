import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rizbin.core.errors import RizbinError
from rizbin.core.settings import differences, every_field, explained, from_dict, to_dict


class View:
    @dataclass(frozen=True, kw_only=True)
    class Settings:
        size: int = 64
        """Side in pixels."""
        crop_area: tuple[float, float] = (0.5, 1.0)
        """Share of the picture's area,
        smallest and largest."""
        flip: bool = True


class Method:
    @dataclass(frozen=True, kw_only=True)
    class Settings:
        keep_ratio: float = 0.5
        """Share of the patches kept, above 0 and at most 1."""
        selection: Literal["attention", "random", "none"] = "attention"
        """How patches are chosen."""
        views: tuple[View.Settings, ...] = (View.Settings(), View.Settings(size=32))
        """The views."""
        teacher_size: int | None = None
        """None: the student's."""


Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Kind]):
    method: Kind
    """What is trained."""
    view: View.Settings = field(default_factory=lambda: View.Settings(size=96))
    """The view."""
    steps: Annotated[int, "anything"] = 100
    """Number of batches."""
    note: str = ""
    """Free text."""
    stop_at: int | Literal["never"] = "never"
    """Step or "never"."""
    layers: Literal[0, 1] = 0
    """How many."""
    more: tuple[Kind, ...] = ()
    """Others."""


@dataclass(frozen=True, kw_only=True)
class Longer(View.Settings):
    size: int = 128
    """Side, larger."""
    blur: float = 0.0
    """Chance of blur."""


FULL = Training[Method.Settings]


def spelled(**changes: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(to_dict(Training(method=Method.Settings(), more=(Method.Settings(keep_ratio=1),)))))
    for name, value in changes.items():
        *groups, last = name.split("__")
        place = data
        for group in groups:
            place = place[group]
        place[last] = value
    return data


def test_there_and_back_through_json():
    built = from_dict(FULL, spelled())
    assert built == Training(method=Method.Settings(), more=(Method.Settings(keep_ratio=1.0),))
    assert isinstance(built.more[0].keep_ratio, float)
    assert isinstance(built.method.views, tuple) and isinstance(built.method.views[1], View.Settings)
    assert from_dict(Longer, to_dict(Longer(blur=0.25))) == Longer(blur=0.25)


@given(
    st.builds(
        Method.Settings,
        keep_ratio=st.floats(0, 1),
        selection=st.sampled_from(["attention", "random", "none"]),
        views=st.lists(st.builds(View.Settings, size=st.integers(), flip=st.booleans()), max_size=3).map(tuple),
        teacher_size=st.none() | st.integers(),
    )
)
def test_any_settings_come_back_the_same(settings: Method.Settings):
    assert from_dict(Method.Settings, json.loads(json.dumps(to_dict(settings), allow_nan=False))) == settings


WRONG = [
    ({"method__keep_ration": 1}, r"no setting method\.keep_ration; did you mean keep_ratio\?$"),
    ({"nonsense": 1}, r"no setting nonsense; known here are method, view, steps, note, stop_at, layers, more\.$"),
    ({"method__keep_ratio": "half"}, r"The setting method\.keep_ratio is 'half'; give a finite number\.$"),
    ({"method__keep_ratio": True}, r"method\.keep_ratio is True; give a finite number"),
    ({"method__keep_ratio": None}, r"method\.keep_ratio is None; give a finite number"),
    ({"method__keep_ratio": float("nan")}, r"method\.keep_ratio is nan; give a finite number"),
    ({"steps": 1.0}, r"steps is 1\.0; give a whole number"),
    ({"steps": True}, r"steps is True; give a whole number"),
    ({"steps": "1"}, r"steps is '1'; give a whole number"),
    ({"note": 3}, r"note is 3; give text"),
    ({"view__flip": 1}, r"view\.flip is 1; give true or false"),
    ({"method__selection": "atention"}, r"'atention'; give attention, random or none \(did you mean attention\?\)\.$"),
    ({"method__selection": 1}, r"method\.selection is 1; give attention, random or none\.$"),
    ({"view__crop_area": [0.1]}, r"view\.crop_area is \[0\.1\]; give a list of 2: a finite number, a finite number\.$"),
    ({"view__crop_area": [0.1, "x"]}, r"view\.crop_area\[1\] is 'x'; give a finite number"),
    ({"view__crop_area": 0.1}, r"view\.crop_area is 0\.1; give a list"),
    ({"view__crop_area": "ab"}, r"view\.crop_area is 'ab'; give a list"),
    ({"method__views": [{"size": 1}]}, r"The setting method\.views\[0\]\.crop_area is missing; add it with a value\.$"),
    ({"method__views": {"size": 1}}, r"method\.views is .*; give a list, each item a group of named settings\.$"),
    ({"method__teacher_size": "big"}, r"method\.teacher_size is 'big'; give a whole number\.$"),
    ({"stop_at": "nevver"}, r"give a whole number or never \(did you mean never\?\)\.$"),
    ({"layers": True}, r"layers is True; give 0 or 1\.$"),
    ({"layers": 1.0}, r"layers is 1\.0; give 0 or 1\.$"),
    ({"stop_at": None}, r"stop_at is None; give a whole number or never\.$"),
    ({"method": 3}, r"The setting method is 3; give a group of named settings there\.$"),
]


@pytest.mark.parametrize("changes, says", WRONG)
def test_bad_settings_are_one_sentence_naming_the_field(changes: dict[str, Any], says: str):
    with pytest.raises(RizbinError, match=says) as caught:
        from_dict(FULL, spelled(**changes))
    assert "\n" not in str(caught.value)


def test_where_leads_the_name_and_missing_is_refused_even_with_a_default():
    with pytest.raises(RizbinError, match=r"The setting run\.view\.size is missing"):
        from_dict(View.Settings, {"crop_area": [0, 1], "flip": True}, where="run.view")
    with pytest.raises(RizbinError, match=r"The setting at the root is \[\]"):
        from_dict(View.Settings, [])  # type: ignore[arg-type]


def test_a_class_that_settings_cannot_be_is_our_own_fault():
    @dataclass(frozen=True, kw_only=True)
    class Odd:
        table: dict = field(default_factory=dict)

    with pytest.raises(TypeError, match="table"):
        to_dict(Odd())
    with pytest.raises(TypeError, match="table"):
        from_dict(Odd, {"table": {}})
    with pytest.raises(TypeError, match="give it an argument"):
        from_dict(Training, spelled())
    with pytest.raises(TypeError, match="keep_ratio"):
        to_dict(Method.Settings(keep_ratio=float("inf")))


def test_explained_reads_the_strings_of_the_class_and_what_it_inherits():
    assert explained(View.Settings) == {
        "size": "Side in pixels.",
        "crop_area": "Share of the picture's area, smallest and largest.",
    }
    assert explained(Longer)["size"] == "Side, larger."
    assert explained(Longer)["crop_area"] == explained(View.Settings)["crop_area"]
    assert explained(FULL)["note"] == "Free text."
    assert explained(dataclasses.make_dataclass("Made", [("x", int)])) == {}


def test_every_field_has_dotted_names_and_the_outer_defaults():
    fields = {leaf.name: leaf for leaf in every_field(FULL)}
    assert list(fields) == [
        *("method.keep_ratio", "method.selection", "method.views", "method.teacher_size"),
        *("view.size", "view.crop_area", "view.flip", "steps", "note", "stop_at", "layers", "more"),
    ]
    assert fields["view.size"] == ("view.size", int, 96, "Side in pixels.")
    assert fields["method.keep_ratio"].default == 0.5
    assert fields["view.flip"].text == ""
    assert fields["more"].type == tuple[Method.Settings, ...]


def test_every_field_without_default():
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        steps: int
        """Number."""

    assert [*every_field(Needy)] == [("steps", int, dataclasses.MISSING, "Number.")]


def test_differences_name_leaves_old_and_new():
    old, new = spelled(), spelled(steps=200, view__size=32, method__selection="random")
    new["extra"], _ = 1, new.pop("note")
    assert differences(old, old) == []
    assert differences(old, new) == [
        "method.selection: 'attention' -> 'random'",
        "view.size: 96 -> 32",
        "steps: 100 -> 200",
        "note: '' -> (absent)",
        "extra: (absent) -> 1",
    ]
    assert differences({"a": 1}, {"a": True}) == ["a: 1 -> True"]
    assert differences({"a": 1}, {"a": 1.0}) == []
