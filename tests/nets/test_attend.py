"""Attention written out says what torch's fused one says, and runs where it is the faster one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.nets.attend import attend


def drawn(dtype: torch.dtype, *, gradient: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, 17, 16, generator=generator).to(dtype).requires_grad_(gradient) for _ in range(3)
    ]  # query, key, value


def masks() -> dict[str, dict]:
    seen = torch.rand(2, 1, 17, 17, generator=torch.Generator().manual_seed(1)) > 0.4
    seen[..., 0] = True
    added = torch.randn(17, 17, generator=torch.Generator().manual_seed(2))
    return {"none": {}, "causal": {"causal": True}, "seen": {"mask": seen}, "added": {"mask": added}}


@pytest.mark.parametrize("kind", ["none", "causal", "seen", "added"])
def test_the_written_out_one_and_its_gradient_are_those_of_exact_numbers(kind: str) -> None:
    """In 16 bits to their precision: three digits of what 64 bits give."""
    given = masks()[kind]
    exact = [value.detach().double().requires_grad_(True) for value in drawn(torch.bfloat16, gradient=True)]
    coarse = drawn(torch.bfloat16, gradient=True)
    mask = given.get("mask")
    told = mask.to(torch.float64) if mask is not None and mask.dtype != torch.bool else mask
    right = F.scaled_dot_product_attention(*exact, attn_mask=told, is_causal="causal" in given)
    if mask is not None and mask.dtype != torch.bool:
        given = {"mask": mask.to(torch.bfloat16)}
    out = attend(*coarse, **given)
    torch.testing.assert_close(out.double(), right, rtol=0, atol=0.03)
    weights = torch.randn(right.shape, generator=torch.Generator().manual_seed(3))
    (right * weights).sum().backward()
    (out * weights.to(out)).sum().backward()
    for mine, true in zip(coarse, exact, strict=True):
        assert mine.grad is not None and true.grad is not None
        assert (mine.grad.double() - true.grad).norm() < 0.02 * true.grad.norm()


@pytest.mark.parametrize(("dtype", "gradient", "fused"), [
    (torch.bfloat16, True, False),
    (torch.bfloat16, False, True),
    (torch.float32, True, True),
])  # fmt: skip
def test_it_is_written_out_for_gradients_of_16_bits_alone(
    dtype: torch.dtype, gradient: bool, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k))
    attend(*drawn(dtype, gradient=gradient))
    assert bool(calls) is fused
