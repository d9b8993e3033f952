"""The layout of images follows the kind of processor, and changes no value."""

from pathlib import Path

import pytest
import torch

from rizbin.nets import layout


@pytest.mark.parametrize(("maker", "last"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)])
def test_channels_are_last_where_that_is_faster(
    maker: str | None, last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if maker is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nvendor_id : {maker}\n")
    monkeypatch.setattr(layout, "PROCESSORS", tmp_path / "cpuinfo")
    layout._made_by.cache_clear()
    images = torch.randn(2, 3, 8, 8)
    laid = layout.for_convolutions(images)
    layout._made_by.cache_clear()
    assert laid.is_contiguous(memory_format=torch.channels_last) == last
    assert torch.equal(laid, images)
