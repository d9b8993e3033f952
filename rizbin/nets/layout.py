"""How convolutions want images in memory, which depends on the processor.

A tenth faster with the channels last on an AMD EPYC, a tenth slower on an Intel Xeon (ResNet-18 of SimCLR and BYOL,
benchmarks/README.md). Decided by the kind of processor and not by a clock: sums in another order have other last bits,
and a run that goes on must keep its own.
"""

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

PROCESSORS = Path("/proc/cpuinfo")
"""Where Linux names the processor's maker; elsewhere the layout is left alone."""


def for_convolutions(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """The same images, their channels last in memory where convolutions are faster so."""
    last = images.is_cuda or (images.device.type == "cpu" and _made_by("AuthenticAMD"))
    return images.contiguous(memory_format=torch.channels_last) if last else images


@cache
def _made_by(maker: str) -> bool:
    try:
        return maker in PROCESSORS.read_text(errors="replace")
    except OSError:
        return False
