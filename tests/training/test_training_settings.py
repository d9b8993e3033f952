"""What settings say of themselves, and what they refuse."""

import math
from types import SimpleNamespace

import pytest

from rizbin.core.errors import RizbinError
from rizbin.methods import find, names
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.training.settings import ImageSettings, ImageTextSettings, Sized, check_between


def test_all_say_at_which_size_they_learn() -> None:
    encoder = ImageEncoder.Settings(image_size=96)
    assert ImageSettings(encoder=encoder).image_size == 96
    pair = ImageTextPair.Settings()
    assert ImageTextSettings(pair=pair).image_size == pair.vision.image_size
    assert all(isinstance(find(name).Settings(), Sized) for name in names())


@pytest.mark.parametrize(
    ("value", "low", "high", "open_ends", "words"),
    [
        (-0.1, 0, 1, {}, "share is -0.1; choose a number from 0 to 1."),
        (0.0, 0, 1, {"above": True}, "share is 0; choose a number above 0, up to 1."),
        (1.0, 0, 1, {"below": True}, "share is 1; choose a number from 0 to below 1."),
        (1.0, 0, 1, {"above": True, "below": True}, "share is 1; choose a number above 0 and below 1."),
        (0.0, 0, math.inf, {"above": True}, "share is 0; choose a number above 0."),
        (math.nan, 0, 1, {}, "share is nan"),
    ],
)
def test_a_number_out_of_its_range_is_named_with_the_range(
    value: float, low: float | int, high: float | int, open_ends: dict[str, bool], words: str
) -> None:
    with pytest.raises(RizbinError) as refused:
        check_between(SimpleNamespace(share=value), low, high, "share", **open_ends)
    assert str(refused.value).startswith(words)
    check_between(SimpleNamespace(share=0.5), low, high, "share", **open_ends)
