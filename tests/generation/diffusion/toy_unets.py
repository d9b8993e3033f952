"""UNets small enough for tests."""

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

TOKENS, WIDTH = 9, 32


def unet(levels: int = 2, seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    """Stable Diffusion's shape: cross-attention at half the latents' sides (and at a quarter with three levels).

    Weights of the queries and keys are larger than new ones are, so that attention is not even.
    """
    torch.manual_seed(seed)
    model = UNet2DConditionModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(32, 64, 64)[:levels],
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)),
        up_block_types=(*["CrossAttnUpBlock2D"] * (levels - 1), "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        **changes,
    )
    for name, weight in model.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(4)
    return model.eval()


def inputs(batch: int = 1, height: int = 32, width: int = 32, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and text embeddings."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, height, width, generator=generator)
    return latents, torch.randn(batch, TOKENS, WIDTH, generator=generator)
