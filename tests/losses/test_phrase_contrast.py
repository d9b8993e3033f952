"""The phrase term against its formula in loops, and what it does to patches."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional as F

from rizbin.losses.phrases import phrase_contrast, phrase_keys

BATCH, PATCHES, SIZE = 4, 5, 6
KEYS = torch.tensor([[11, 22, 0], [33, 0, 0], [11, 44, 33], [0, 0, 0]])
"""Phrases shared between captions, captions of one to three, and an image without any."""


def made() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    patches = F.normalize(torch.randn(BATCH, PATCHES, SIZE, dtype=torch.float64), dim=-1)
    words = {key: F.normalize(torch.randn(SIZE, dtype=torch.float64), dim=0) for key in (11, 22, 33, 44, 0)}
    phrases = torch.stack([torch.stack([words[int(key)] for key in row]) for row in KEYS])
    return patches, phrases


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in values]
    return [each / sum(exponentials) for each in exponentials]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow(scale: float, patch_temperature: float, phrase_temperature: float) -> float:
    """The docstring, one image, phrase and patch at a time."""
    patches, phrases = (tensor.tolist() for tensor in made())
    captions = [[int(key) for key in row if key] for row in KEYS]
    vector = {int(KEYS[i, k]): phrases[i][k] for i in range(BATCH) for k in range(3) if KEYS[i, k]}
    vocabulary = sorted(vector)

    def similarity(image: int, key: int) -> float:
        cosines = [dot(patch, vector[key]) for patch in patches[image]]
        weights = softmax([cosine / patch_temperature for cosine in cosines])
        return dot(weights, cosines)

    total = 0.0
    for image, caption in enumerate(captions):
        for key in caption:
            logits = []
            for patch in patches[image]:
                choice = softmax([dot(patch, vector[other]) / phrase_temperature for other in caption])
                logits.append(dot(patch, vector[key]) / patch_temperature + math.log(choice[caption.index(key)]))
            weights = softmax(logits)
            region = [dot(weights, [patch[d] for patch in patches[image]]) for d in range(SIZE)]
            among = softmax([scale * dot(region, vector[other]) for other in vocabulary])
            to_phrases = -math.log(among[vocabulary.index(key)])
            others = [i for i in range(BATCH) if i == image or key not in captions[i]]
            to_images = -math.log(softmax([scale * similarity(i, key) for i in others])[others.index(image)])
            total += (to_phrases + to_images) / 2 / len(caption) / BATCH
    return total


def test_the_phrase_term_equals_its_formula() -> None:
    patches, phrases = made()
    scale = torch.tensor(3.0, dtype=torch.float64)
    value = phrase_contrast(patches, phrases, KEYS, scale, None, patch_temperature=0.2, phrase_temperature=0.5)
    assert abs(value.item() - slow(3.0, 0.2, 0.5)) < 1e-9


def test_the_sigmoid_form_judges_every_image_and_phrase() -> None:
    patches, phrases = made()
    scale, bias = torch.tensor(3.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    settings = {"patch_temperature": 0.2, "phrase_temperature": 1e9}  # no choice among phrases: all weigh alike
    value = phrase_contrast(patches, phrases, KEYS, scale, bias, **settings).item()
    total = 0.0
    for image in range(BATCH):
        for key in (11, 22, 33, 44):
            place = torch.eq(KEYS, key).nonzero()[0].tolist()
            cosines = patches[image] @ phrases[place[0], place[1]]
            similarity = float(((cosines / 0.2).softmax(0) * cosines).sum())
            sign = 1 if (KEYS[image] == key).any() else -1
            total += math.log1p(math.exp(-sign * (3.0 * similarity - 1.0))) / BATCH
    assert abs(value - total) < 1e-7


def test_gradient_reaches_patches_and_phrases_and_is_finite() -> None:
    """Softmax over masked phrases must not leak a nan, also from the image that names nothing."""
    patches, phrases = (tensor.float().requires_grad_() for tensor in made())
    scale = torch.tensor(10.0)
    phrase_contrast(patches, phrases, KEYS, scale, None, patch_temperature=0.1, phrase_temperature=0.1).backward()
    for tensor in (patches, phrases):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all() and tensor.grad.abs().sum() > 0


def test_a_whole_scene_in_one_word_costs_more_than_each_object_in_its_own() -> None:
    """What pooling by the whole caption cannot tell apart."""
    words = torch.eye(4)[:2]
    phrases, keys = words.expand(2, 2, 4), torch.tensor([[1, 2], [1, 2]])
    ground = torch.eye(4)[2:3]
    apart = torch.cat([words[:1], words[:1], words[1:], words[1:], ground]).expand(2, 5, 4)
    both = F.normalize(words.sum(0, keepdim=True), dim=-1)
    mixed = torch.cat([both.expand(4, -1), ground]).expand(2, 5, 4)

    def loss(patches: torch.Tensor) -> float:
        settings = {"patch_temperature": 0.1, "phrase_temperature": 0.1}
        return float(phrase_contrast(patches, phrases, keys, torch.tensor(20.0), None, **settings))

    assert loss(apart) < 0.1 < 0.3 < loss(mixed)


def test_keys_are_equal_for_equal_tokens_alone() -> None:
    tokens = torch.tensor([[[5, 7, 9], [5, 9, 7]], [[5, 7, 9], [0, 0, 0]]])
    keys = phrase_keys(tokens)
    assert keys[0, 0] == keys[1, 0] and keys[0, 0] != keys[0, 1] and keys[1, 1] == 0
    assert (phrase_keys(F.pad(tokens, (0, 3))) == keys).all(), "what was trimmed changes nothing"
    many = torch.randint(0, 49_408, (1, 20_000, 12), generator=torch.Generator().manual_seed(0))
    assert len(phrase_keys(many).unique()) == len(many[0].unique(dim=0))


def test_no_phrase_at_all_is_no_loss() -> None:
    patches, phrases = made()
    settings = {"patch_temperature": 0.1, "phrase_temperature": 0.1}
    scale = torch.tensor(3.0, dtype=torch.float64)
    assert float(phrase_contrast(patches, phrases, torch.zeros_like(KEYS), scale, None, **settings)) == 0.0


def test_shapes_are_checked() -> None:
    patches, phrases = made()
    with pytest.raises(TypeCheckError):
        phrase_contrast(
            patches, phrases[:2], KEYS, torch.tensor(1.0), None, patch_temperature=0.1, phrase_temperature=0.1
        )
