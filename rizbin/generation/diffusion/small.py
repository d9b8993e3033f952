"""A Stable Diffusion of a few million parameters, built from diffusers' own parts, so that all of its software runs it.

Sizes: docs/LOG.md says what was tried. Source of the architecture: Rombach et al., "High-Resolution Image Synthesis
with Latent Diffusion Models", arXiv 2112.10752.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer

STEPS = 1000
"""Number of timesteps of the noise schedule in training (DDPM, arXiv 2006.11239)."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSize:
    """How large the networks are. The defaults make 8.9 million parameters, 8.0 of them the UNet's."""

    latent_channels: int = 8
    """Channels of the latent, whose side is a quarter of the image's (Stable Diffusion: 4 channels, an eighth)."""
    autoencoder_width: int = 32
    """Channels of the autoencoder at every size, 8 or more."""
    widths: tuple[int, int] = (64, 192)
    """Channels of the UNet at the latent's side and at its half; multiples of 32. Most of the work lies at the half,
    where a channel costs a quarter."""
    attend_fully: bool = False
    """Attend to words at the latent's side too, not at its half alone; a third slower on a processor."""
    head_width: int = 32
    """Channels of an attention head."""
    text_width: int = 128
    """Width of the text encoder and of what the UNet reads."""
    text_layers: int = 2
    """Number of layers of the text encoder (CLIP ViT-L: 12)."""
    text_heads: int = 4
    """Number of attention heads of the text encoder."""


def new_autoencoder(size: DiffusionSize, *, image_size: int) -> Any:
    """An AutoencoderTiny that shrinks sides to a quarter; before any training it makes a mosaic of the image."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    if image_size % 8:
        raise RizbinError(f"Images of {image_size} pixels cannot be halved three times; take a multiple of 8.")
    if min(size.autoencoder_width, size.latent_channels) < 3:
        raise RizbinError("Colors need three channels; give the autoencoder and its latent as many or more.")
    kind: Any = AutoencoderTiny  # its annotations ask for other tuples than it takes
    widths, blocks = (size.autoencoder_width,) * 3, (1, 1, 1)
    made = kind(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
        latent_channels=size.latent_channels,
    )
    for part in (made.encoder, made.decoder):
        _pass_colors(part.layers)
    # Latents around zero, as the noise that they are mixed with.
    made.encoder.layers[-1].bias.data[:3] = -0.5
    made.decoder.layers[0].bias.data[:3] = 0.5
    return made


@torch.no_grad()
def _pass_colors(layers: nn.Sequential) -> None:
    """Three channels begin as red, green and blue, averaged where sides are halved; blocks begin as nothing.

    From random weights a net this small learns outlines in minutes and colors in none; from here it has the colors and
    only adds the detail (docs/LOG.md).
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.weight[:3] = 0
            if layer.bias is not None:
                layer.bias[:3] = 0
            for channel in range(3):
                if layer.stride == (2, 2):
                    layer.weight[channel, channel, 1:, 1:] = 0.25
                else:
                    layer.weight[channel, channel, 1, 1] = 1
        elif hasattr(layer, "fuse"):
            last = [module for module in layer.modules() if isinstance(module, nn.Conv2d)][-1]
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)


def new_unet(size: DiffusionSize, *, image_size: int) -> Any:
    """An untrained UNet2DConditionModel for latents of a quarter of `image_size`."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kind: Any = UNet2DConditionModel
    kinds = ("CrossAttn" if size.attend_fully else "", "CrossAttn")
    return kind(
        sample_size=image_size // 4,
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        block_out_channels=size.widths,
        layers_per_block=1,
        down_block_types=tuple(f"{start}DownBlock2D" for start in kinds),
        up_block_types=tuple(f"{start}UpBlock2D" for start in reversed(kinds)),
        cross_attention_dim=size.text_width,
        # diffusers takes this for the number of heads.
        attention_head_dim=tuple(width // size.head_width for width in size.widths),
        norm_num_groups=16,
    )


def new_text_encoder(size: DiffusionSize, tokenizer: Tokenizer) -> Any:
    """An untrained CLIPTextModel for the numbers of `tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.size,
            hidden_size=size.text_width,
            intermediate_size=4 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads,
            max_position_embeddings=tokenizer.settings.context,
            projection_dim=size.text_width,
            bos_token_id=tokenizer.start,
            eos_token_id=tokenizer.end,
            pad_token_id=0,
        )
    )


def new_tokenizer(tokenizer: Tokenizer) -> Any:
    """The same vocabulary as a CLIPTokenizer, which pipelines of diffusers ask for; captions get the same numbers."""
    from transformers import CLIPTokenizer

    simple = tokenizer._simple
    spelled = {number: piece for piece, number in simple.encoder.items()}
    start, end = spelled[tokenizer.start], spelled[tokenizer.end]
    kind: Any = CLIPTokenizer  # its annotation of the merges lacks the pairs that it takes
    return kind(
        vocab=dict(simple.encoder),
        merges=sorted(simple.bpe_ranks, key=lambda pair: simple.bpe_ranks[pair]),
        bos_token=start,
        eos_token=end,
        unk_token=end,
        pad_token=spelled[0],  # our own tokenizer fills up with zeros
        model_max_length=tokenizer.settings.context,
    )


def new_scheduler() -> Any:
    """The noise of Stable Diffusion's training, for a network that predicts v (arXiv 2202.00512, section 4)."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        # Latents are not pixels: nothing bounds them to -1 to 1.
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
