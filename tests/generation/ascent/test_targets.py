"""Targets: sums of weighted cosines, layers, styles that do not care where, and what is refused in a sentence."""

import pytest
import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.augment import Augment, draw
from rizbin.generation.ascent.layers import layer_of, middle_layer
from rizbin.generation.ascent.targets import (
    Bound,
    ContentTarget,
    Feature,
    ImageTarget,
    StyleTarget,
    TextTarget,
    check,
    gram,
    places_of,
)
from tests.generation.ascent.toy_encoders import Wordless, toy

CANVAS = (16, 16)


def as_they_are(pictures: Tensor) -> Tensor:
    return pictures


def test_words_and_embeddings_are_a_weighted_sum_of_cosines() -> None:
    encoder, shown = toy(), torch.rand(3, 16, 16)
    wishes = [
        [
            TextTarget(text="a fox"),
            TextTarget(text="a bee", weight=0.3),
            TextTarget(text="a bus", weight=-0.3),
            ImageTarget(image=shown),
        ],
        [TextTarget(text="an owl")],
    ]
    views = torch.rand(6, 3, 16, 16)
    total, main = Bound(encoder, wishes, CANVAS).scores(views, slice(0, 2), as_they_are)
    vectors = encoder.encode_image(views)
    fox, bee, bus, owl = encoder.encode_text(["a fox", "a bee", "a bus", "an owl"])
    kept = encoder.encode_image(shown[None])[0]
    for view in range(6):
        cosines = [float(vectors[view] @ one) for one in (fox, bee, bus, kept, owl)]
        expected = cosines[0] + 0.3 * cosines[1] - 0.3 * cosines[2] + cosines[3] if view % 2 == 0 else cosines[4]
        assert abs(float(total[view]) - expected) < 1e-5
        assert abs(float(main[view]) - (cosines[0] if view % 2 == 0 else cosines[4])) < 1e-5


def test_a_channel_of_a_layer_and_a_class_are_climbed() -> None:
    encoder, views = toy(), torch.rand(2, 3, 16, 16)
    bound = Bound(encoder, [[Feature(layer="mix", channel=2)], [Feature(layer="head", channel=5)]], CANVAS)
    total, main = bound.scores(views, slice(0, 2), as_they_are)
    assert torch.allclose(total[0], encoder.module.get_submodule("mix")(encoder.from_pixels(views))[0, 2].mean())
    assert torch.allclose(total[1], encoder.module(encoder.from_pixels(views))[1, 5])
    assert torch.equal(total, main)
    only_second, _ = bound.scores(views[1:], slice(1, 2), as_they_are)
    assert torch.allclose(only_second, total[1:])
    with pytest.raises(RizbinError, match="no channel 9"):
        Bound(encoder, [[Feature(layer="mix", channel=9)]], CANVAS).scores(views, slice(0, 1), as_they_are)


def test_content_is_place_by_place_and_style_is_not() -> None:
    encoder, picture = toy(), torch.rand(3, 16, 16)
    turned = picture.roll(8, dims=-1)
    views = torch.stack([picture, turned])
    content = Bound(encoder, [[ContentTarget(image=picture, layer="mix")]], CANVAS)
    same, moved = content.scores(views, slice(0, 1), as_they_are)[0]
    assert same > 0.999 and moved < 0.9
    style = Bound(encoder, [[StyleTarget(image=picture, layer="mix")]], CANVAS)
    same, moved = style.scores(views, slice(0, 1), as_they_are)[0]
    assert same > 0.999 and moved > 0.98


def test_content_lies_as_the_copies_do() -> None:
    encoder, picture = toy(size=8), torch.rand(1, 3, 16, 16)
    made = draw(Augment(shift=0.25, noise=0.0), CANVAS, 8, 0, 0, 3)
    bound = Bound(encoder, [[ContentTarget(image=picture[0], layer="mix")]], CANVAS)
    assert made.down or made.across
    assert bound.scores(made.apply(picture), slice(0, 1), made.placed)[0] > 0.999


def test_places_of_every_kind_of_layer() -> None:
    assert places_of(torch.zeros(2, 5, 3, 4)).shape == (2, 12, 5)
    assert places_of(torch.zeros(2, 7, 5)).shape == (2, 7, 5) and places_of(torch.zeros(2, 5)).shape == (2, 1, 5)
    assert gram(torch.rand(2, 7, 5)).shape == (2, 5, 5)


def test_layers_are_found_by_name() -> None:
    encoder = toy()
    assert layer_of(encoder, torch.rand(1, 3, 20, 20), "mix").shape == (1, 6, 16, 16)
    with pytest.raises(RizbinError, match=r"no layer 'mux'; there are mix"):
        layer_of(encoder, torch.rand(1, 3, 16, 16), "mux")
    for asked in (lambda: middle_layer(Wordless()), lambda: layer_of(Wordless(), torch.rand(1, 3, 8, 8), "x")):
        with pytest.raises(RizbinError, match="does not show its layers"):
            asked()
    with pytest.raises(RizbinError, match="no row of layers"):
        middle_layer(encoder)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ([], "Say what to draw"),
        ([[]], "nowhere to go"),
        ([[TextTarget(text="  ")]], "empty prompt"),
        ([[TextTarget(text="a", weight=0.0)]], "moves nothing"),
        ([[TextTarget(text="a", weight=float("nan"))]], "moves nothing"),
        (
            [[TextTarget(text="a"), TextTarget(text="b", weight=-0.5), TextTarget(text="c", weight=-0.5)]],
            "weights sum to 0",
        ),
        ([[TextTarget(text="a", weight=-1.0)]], "nothing is left to draw"),
    ],
)
def test_what_cannot_be_climbed_is_said(wishes: list, words: str) -> None:
    with pytest.raises(RizbinError, match=words):
        check(wishes)


def test_an_encoder_without_words_says_so() -> None:
    with pytest.raises(RizbinError, match="reads no words"):
        Bound(toy(reads=False), [[TextTarget(text="a fox")]], CANVAS)
