"""Images at a lower resolution than they have: the input of super-resolution, and its simplest rival."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError


def lowered(images: Float[Tensor, "batch 3 height width"], factor: int) -> Float[Tensor, "batch 3 height width"]:
    """The images shrunk by averaging `factor` x `factor` pixels and enlarged to their size again by bicubic weights.

    Bicubic may overshoot the range of the input by some percent at edges; nothing is cut off. Raises RizbinError when
    the sides do not divide by the factor.
    """
    height, width = images.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise RizbinError(f"Images of {width}x{height} pixels cannot be shrunk by {factor}; choose a divisor of both.")
    if factor == 1:
        return images
    small = F.avg_pool2d(images, factor)
    return F.interpolate(small, size=(height, width), mode="bicubic", align_corners=False)
