"""Painters small enough for tests, made of diffusers' own parts with random weights."""

from functools import cache

import torch

from rizbin.generate.diffusion.learn import Drawing
from rizbin.generate.diffusion.painter import Painter
from rizbin.generate.diffusion.small import Size

SMALL = Drawing.Settings(
    size=Size(autoencoder_width=8, widths=(32, 32), attend_fully=True, head_width=16, text_width=16, text_heads=2),
    image_size=32,
)


@cache
def painter() -> Painter:
    """Draws 32 pixels of nothing in milliseconds."""
    torch.manual_seed(0)
    drawing = Drawing(SMALL).eval()
    drawing.scale.fill_(0.7)
    return Painter(drawing.pipeline(), name="small")
