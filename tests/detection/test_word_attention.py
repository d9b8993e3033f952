"""Where words look: the attention that the network itself gives, laid over the image."""

import numpy as np
import pytest
import torch

from rizbin import zoo
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.word_attention import density, recording_fusion, word_attention
from rizbin.studies.grounding_words import sentence, word_looks
from tests.detection.test_measure import Sees
from tests.detection.toys import Shapes, tiny, tokenizer


@pytest.fixture(scope="module")
def young() -> Detector:
    return Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))


def test_recorded_attention_is_what_transformers_returns(young: Detector) -> None:
    """Its output_attentions gives the same weights, layer for layer, by its own path."""
    pixels = young.preparation(Shapes(size=64)[0].image, (64, 64))[None]
    text = young.build_prompts(["red disc", "cat"]).texts[0]
    arguments = {"pixel_values": pixels, "input_ids": torch.tensor([text.ids])}
    with torch.inference_mode(), recording_fusion(young.model) as layers:
        made = young.model(**arguments, output_attentions=True)
    theirs = made.encoder_attentions[1]  # vision from text, text from vision, text, deformable
    assert len(layers) == len(theirs) > 1
    for ours, other in zip(layers, theirs, strict=True):
        torch.testing.assert_close(ours, other.reshape(ours.shape), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(ours.sum(dim=-1), torch.ones(ours.shape[:2]), rtol=1e-5, atol=1e-5)
    before = len(layers)
    young.model(**arguments)
    assert len(layers) == before, "nothing is noted afterwards"


def test_density_is_one_on_average_and_high_where_all_attention_is() -> None:
    levels = [(4, 4), (2, 2)]
    even = torch.full((2, 3, 20), 1 / 20)
    np.testing.assert_allclose(density([even], [0, 2], levels, (16, 16)), 1, rtol=1e-5)
    corner = torch.zeros(2, 3, 20)
    corner[:, 1, 0] = 1
    only = density([even, corner], [1], levels, (16, 16))[1]
    assert only.mean() == pytest.approx(1, rel=1e-5) and only[:3, :3].min() > 3 and only[8:].max() == 0
    assert density([], [0], levels, (16, 16)).shape == (0, 16, 16)


def test_phrases_that_cannot_be_asked_for_are_nan(young: Detector) -> None:
    maps = word_attention(young, Shapes(size=64)[0].image, ["red disc", "цитата", "disc=disc|red disc"])
    assert maps.shape[0] == 3 and maps.shape[2:] == (64, 64)
    assert np.isnan(maps[1]).all() and np.isfinite(maps[[0, 2]]).all()
    np.testing.assert_allclose(maps[[0, 2]].mean(axis=(2, 3)), 1, rtol=1e-4)


def test_without_a_network_there_is_nothing_to_see() -> None:
    with pytest.raises(RizbinError, match="exported and shows no insides"):
        word_attention(Sees(lambda name, right: 0.9), Shapes()[0].image, ["red disc"])


def test_the_detector_that_ships_looks_at_the_named_object() -> None:
    """The control: a network with random weights looks at all places alike."""
    detector = Detector.from_pretrained(zoo.folder_of("detector-mini"))
    source = open_source("scenes:several", split="test", size=96)
    samples, names = [source[index] for index in range(16)], source.categories
    advanced: list[int] = []
    looks = word_looks(detector, samples, names, advanced.append)
    assert looks is not None and sum(advanced) == 16 and looks.images >= 8
    own, other, ground = looks.objects.mean(axis=0)
    assert (own > 3).all() and (own > 2 * other).all() and (ground < 1).all()
    assert f"{own[0]:.1f} times as densely" in sentence(looks) and f"in {looks.images} images" in sentence(looks)
    for parameter in detector.model.parameters():
        torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(0))
    random_looks = word_looks(detector, samples, names, lambda done: None)
    assert random_looks is not None
    assert random_looks.objects.mean(axis=0)[0].max() < 2
    assert word_looks(detector, samples[:0], names, lambda done: None) is None
