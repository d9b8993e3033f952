"""Images at a lower resolution."""

import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.data.resolution import lowered


def test_a_flat_image_stays_and_fine_stripes_vanish() -> None:
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(lowered(flat, 4), flat)
    stripes = (torch.arange(8) % 2).float().expand(1, 3, 8, 8)
    torch.testing.assert_close(lowered(stripes, 2), torch.full((1, 3, 8, 8), 0.5))
    assert lowered(stripes, 1) is stripes


def test_nothing_moves() -> None:
    ramp = torch.arange(16.0).expand(1, 3, 16, 16)
    middle = lowered(ramp, 2)[..., 4:12]
    torch.testing.assert_close(middle, ramp[..., 4:12], atol=0.1, rtol=0)


def test_sides_must_divide() -> None:
    with pytest.raises(RizbinError, match="cannot be shrunk by 3"):
        lowered(torch.zeros(1, 3, 8, 9), 3)
