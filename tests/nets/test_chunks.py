"""A large batch in chunks: the gradient of the whole batch to 1e-9 in float64, whatever stands in the tower."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rizbin import methods
from rizbin.models.published import build_pair
from rizbin.nets.backbones import VisibleBatchNorm
from rizbin.nets.vision import VisionEncoder
from rizbin.training.method import Progress
from tests.models.published import PAIRS
from tests.toys import NANO, batch_for, tiny


@pytest.fixture(autouse=True)
def in_float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gradients(name: str, pair: Any, **extra: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and buffers of one step."""
    torch.manual_seed(0)
    method = methods.find(name)(tiny(name, {"pair": pair, **extra})).double().train()
    (update,) = list(method.step(batch_for(method, rows=8), Progress(1, 10)))
    update.loss.backward()
    grads = {key: value.grad for key, value in method.named_parameters() if value.grad is not None}
    return update.loss.detach(), grads, dict(method.named_buffers())


@pytest.mark.parametrize(
    ("name", "pair", "extra"),
    [
        ("clip", NANO, {}),
        ("clip", replace(NANO, contrast="sigmoid"), {}),
        ("clip", replace(NANO, vision=VisionEncoder.Settings(name="rizbin_vit_mini_patch8_64", image_size=64)), {}),
        ("detailclip", NANO, {"phrase_weight": 1.0, "hide": "random"}),
    ],
    ids=["softmax", "sigmoid", "batch norms", "detailclip"],
)
def test_chunks_give_the_gradient_of_the_whole_batch(name: str, pair: Any, extra: dict[str, Any]) -> None:
    whole, expected, buffers = gradients(name, pair, **extra)
    loss, found, moved = gradients(name, replace(pair, chunk=3), **extra)
    assert abs(float(loss - whole)) < 1e-9
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-9, atol=1e-9), key
    # Running statistics are shaped once, and by all images.
    for key, value in buffers.items():
        assert torch.allclose(moved[key], value, rtol=1e-9, atol=1e-9), key


def test_the_case_with_batch_norms_has_some() -> None:
    pair = build_pair(replace(NANO, vision=VisionEncoder.Settings(name="rizbin_vit_mini_patch8_64", image_size=64)))
    assert any(isinstance(module, VisibleBatchNorm) for module in pair.modules())


@pytest.mark.parametrize("form", ["open_clip", "SigLIP"])
def test_published_towers_are_chunked_alike(form: str, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)  # what the libraries write
    PAIRS[form](tmp_path / "start")
    pair = replace(NANO, published=str(tmp_path / "start"))
    torch.set_default_dtype(torch.float64)
    whole, expected, _ = gradients("clip", pair)
    loss, found, _ = gradients("clip", replace(pair, chunk=3))
    assert abs(float(loss - whole)) < 1e-9
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-9, atol=1e-9), key
