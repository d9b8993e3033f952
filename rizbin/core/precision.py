"""Numbers of enough bits: sums, softmaxes and running means of 16-bit numbers lose what they are made for."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def wide(numbers: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
    """The numbers in float32 where they have 16 bits; float32 and float64 stay what they are."""
    return numbers.float() if numbers.dtype in (torch.bfloat16, torch.float16) else numbers


def slow_precision(precision: str, device: str) -> list[str]:
    """A sentence where a precision is far slower on this device ("cpu", "cuda", "mps") than the other one, else none.

    CPUs that do not multiply bf16 themselves compute it number by number: with AVX2 alone a step of DetailCLIP (small
    preset at 96 px) took 10.7 seconds in bf16 and 1.6 in fp32.
    """
    if precision != "bf16" or device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return []
    return ["This processor emulates bf16, which is several times slower: use --trainer.precision fp32."]
