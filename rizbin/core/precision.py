"""Numbers of enough bits: sums, softmaxes and running means of 16-bit numbers lose what they are made for."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def wide(numbers: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
    """The numbers in float32 where they have 16 bits; float32 and float64 stay what they are."""
    return numbers.float() if numbers.dtype in (torch.bfloat16, torch.float16) else numbers
