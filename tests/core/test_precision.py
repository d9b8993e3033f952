"""Slow number formats are said before a run begins."""

import pytest
import torch

from rizbin.core.precision import slow_precision


class Kernels:
    """What oneDNN answers on a processor that has bf16, or has not."""

    def __init__(self, native: bool) -> None:
        self.native = native

    def _is_mkldnn_bf16_supported(self) -> bool:
        return self.native


@pytest.mark.parametrize(
    ("precision", "device", "native", "slow"),
    [
        ("bf16", "cpu", False, True),
        ("bf16", "cpu", True, False),
        ("fp32", "cpu", False, False),
        ("bf16", "cuda", False, False),
    ],
)
def test_an_emulated_format_is_said(
    precision: str, device: str, native: bool, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", Kernels(native))
    assert [("fp32" in sentence) for sentence in slow_precision(precision, device)] == [True] * slow


def test_torch_answers_the_question() -> None:
    """The question is asked by a name that torch does not promise to keep."""
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() in (True, False)
