"""The quick attention: equal to transformers' own, everywhere, and out of the way where it must be."""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rizbin.detection.detector import Detector
from rizbin.detection.fast import DeformableSampling, disable_fast_attention, enable_fast_attention, fuse, sample
from tests.detection.toys import run, text_of, tiny, tokenizer

SIZES = [(7, 5), (3, 4), (1, 2)]


def stock() -> nn.Module:
    from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import MultiScaleDeformableAttention

    return MultiScaleDeformableAttention()


def case(batch: int = 2, queries: int = 11, heads: int = 3, points: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(batch, sum(height * width for height, width in SIZES), heads, 8, generator=generator)
    # Half of them outside, some far away.
    where = torch.randn(batch, queries, heads, len(SIZES), points, 2, generator=generator) + 0.5
    where[:, 0] = 1e9
    where[:, 1] = -1e9
    weights = torch.rand(batch, queries, heads, len(SIZES), points, generator=generator)
    return value, where, weights


def by_loops(value: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """The definition: pixel by pixel, each with the weight of its distance."""
    batch, queries, heads, _, points, _ = where.shape
    out = torch.zeros(batch, queries, heads, value.shape[-1])
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                start = 0
                for level, (height, width) in enumerate(SIZES):
                    for p in range(points):
                        x, y = (where[b, q, h, level, p] * torch.tensor([width, height]) - 0.5).tolist()
                        for row in range(height):
                            for column in range(width):
                                near = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                                pixel = value[b, start + row * width + column, h]
                                out[b, q, h] += float(weights[b, q, h, level, p]) * near * pixel
                    start += height * width
    return out.flatten(2)


def test_it_is_the_definition() -> None:
    value, where, weights = case(batch=2, queries=5)
    assert torch.allclose(sample(value, SIZES, where, weights), by_loops(value, where, weights), atol=1e-5)


def test_it_is_what_transformers_computes_and_leaves_its_inputs_alone() -> None:
    value, where, weights = case()
    kept = [one.clone() for one in (value, where, weights)]
    theirs = stock()(value, torch.tensor(SIZES), SIZES, torch.zeros(3), where, weights, 64)
    assert torch.allclose(sample(value, SIZES, where, weights), theirs, atol=1e-5)
    assert all(torch.equal(one, before) for one, before in zip((value, where, weights), kept, strict=True))


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
def test_a_whole_network_gives_the_same(kind: str) -> None:
    model = tiny().eval() if kind == "mm-grounding-dino" else original(tiny())
    images = torch.randn(2, 3, 64, 96)
    texts = [text_of("red disc", "cat"), text_of("blue square")]
    with torch.inference_mode():
        before, _ = run(model, images, texts)
        enable_fast_attention(model)
        assert any(isinstance(one, DeformableSampling) for one in model.modules())
        after, _ = run(model, images, texts)
    assert torch.allclose(after.pred_boxes, before.pred_boxes, atol=1e-4)
    seen = before.logits.isfinite()
    assert torch.allclose(after.logits[seen], before.logits[seen], atol=1e-4)
    disable_fast_attention(model)
    assert not any(isinstance(one, DeformableSampling) for one in model.modules())


def original(like: Any) -> Any:
    """A Grounding DINO of the first kind, of the same size."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    torch.manual_seed(0)
    kept = {name: value for name, value in like.config.to_dict().items() if name in GroundingDinoConfig().to_dict()}
    return GroundingDinoForObjectDetection(GroundingDinoConfig(**{**kept, "model_type": "grounding-dino"})).eval()


def test_learning_takes_the_way_that_has_gradients() -> None:
    model = tiny()
    images, texts = torch.randn(1, 3, 64, 64), [text_of("cat")]
    gradients = []
    for one in (copy.deepcopy(model), model):
        if one is model:
            enable_fast_attention(one)
        one.eval()
        outputs, _ = run(one, images, texts)
        outputs.pred_boxes.sum().backward()
        gradients.append({name: p.grad for name, p in one.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        assert torch.allclose(value, gradients[1][name], atol=1e-5), name


@pytest.mark.parametrize("masked", [False, True])
def test_fusion_in_another_order_is_the_same(masked: bool) -> None:
    from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import MMGroundingDinoBiMultiHeadAttention

    torch.manual_seed(3)
    module = MMGroundingDinoBiMultiHeadAttention(tiny().config).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases too, which start at zero
    vision, text = torch.randn(2, 50, 32), torch.randn(2, 9, 32)
    of_vision, of_text = torch.zeros(2, 50, dtype=torch.bool), torch.zeros(2, 9, dtype=torch.bool)
    of_vision[1, 40:], of_text[0, 5:] = True, True
    masks = (of_vision, of_text) if masked else (None, None)
    theirs, mine = module(vision, text, *masks), fuse(module, vision, text, *masks)
    for a, b in zip((*theirs[0], *theirs[1]), (*mine[0], *mine[1]), strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def test_a_long_text_takes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a text has as many tokens as a head has channels, the other order would cost more."""
    model, texts = tiny(), [text_of("red disc", "cat", "dog", "a bird", "tree", "blue square", "green disc")]
    assert len(texts[0].ids) >= 16
    enable_fast_attention(model)
    monkeypatch.setattr(torch, "baddbmm", None)
    with torch.inference_mode():
        run(model, torch.randn(1, 3, 64, 64), texts)


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
def test_all_that_transformers_has_of_both_kinds_is_replaced_and_given_back(kind: str) -> None:
    """One sampling a layer of encoder and decoder, one fusion a layer of the encoder: else a name there has changed."""
    model = tiny() if kind == "mm-grounding-dino" else original(tiny())
    layers = model.config.encoder_layers, model.config.decoder_layers

    def replaced() -> tuple[int, int]:
        samplings = [module for module in model.modules() if isinstance(module, DeformableSampling)]
        fusions = [module for module in model.modules() if "forward" in vars(module)]
        assert all(vars(module)["forward"].__func__ is fuse for module in fusions)
        return len(samplings), len(fusions)

    assert min(layers) > 0 and replaced() == (0, 0)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    before = [module.inplace for module in relus]
    enable_fast_attention(model)
    assert replaced() == (sum(layers), layers[0])
    disable_fast_attention(model)
    assert replaced() == (0, 0) and [module.inplace for module in relus] == before


def test_transformers_calls_the_replaced_modules_as_they_expect() -> None:
    from transformers.models.grounding_dino import modeling_grounding_dino as first
    from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as second

    ours = [list(inspect.signature(kind).parameters) for kind in (DeformableSampling.forward, fuse)]
    for samples, fuses in (
        (first.MultiScaleDeformableAttention, first.GroundingDinoBiMultiHeadAttention),
        (second.MultiScaleDeformableAttention, second.MMGroundingDinoBiMultiHeadAttention),
    ):
        assert [list(inspect.signature(kind.forward).parameters) for kind in (samples, fuses)] == ours


def test_a_detector_is_quick_and_is_kept_as_it_was() -> None:
    names = set(tiny().state_dict())
    detector = Detector(tiny(), tokenizer())
    assert any(isinstance(one, DeformableSampling) for one in detector.model.modules())
    assert set(detector.model.state_dict()) == names
