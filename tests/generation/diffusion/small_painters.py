"""Painters small enough for tests, made of diffusers' own parts with random weights."""

from functools import cache
from typing import Any, cast

import torch

from rizbin.data.tokens import Tokenizer
from rizbin.generation.diffusion.small import DiffusionSize, new_tokenizer
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.diffusion.train import LatentDiffusion

SMALL = LatentDiffusion.Settings(
    size=DiffusionSize(
        autoencoder_width=8, widths=(32, 32), attend_fully=True, head_width=16, text_width=16, text_heads=2
    ),
    image_size=32,
)
_FLOW_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "shift_factor": 0.06,
    "scaling_factor": 1.5,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@cache
def painter() -> TextToImage:
    """Draws 32 pixels of nothing in milliseconds."""
    torch.manual_seed(0)
    drawing = LatentDiffusion(SMALL).eval()
    drawing.scale.fill_(0.7)
    return TextToImage(drawing.pipeline(), name="small")


@cache
def flow_painter() -> TextToImage:
    """A Stable Diffusion 3 of the same kind: a transformer, two text encoders (the third left out), straight flows."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    words = Tokenizer(Tokenizer.Settings(context=77))
    tokenizer, kinds = new_tokenizer(words), (SD3Transformer2DModel, AutoencoderKL, StableDiffusion3Pipeline)
    transformer, autoencoder, pipeline = cast(tuple[Any, Any, Any], kinds)
    config = CLIPTextConfig(
        vocab_size=words.size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=words.start,
        eos_token_id=words.end,
    )
    encoders = [CLIPTextModelWithProjection(config).eval() for _ in range(2)]
    made = pipeline(
        transformer=transformer(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(**_FLOW_AUTOENCODER),
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    made.set_progress_bar_config(disable=True)
    return TextToImage(made, name="flow")


@cache
def patched_painter() -> TextToImage:
    """A FLUX of the same kind: latents in patches of two by two, guidance told to the transformer, CLIP and T5."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    words = Tokenizer(Tokenizer.Settings(context=77))
    tokenizer, kinds = new_tokenizer(words), (FluxTransformer2DModel, AutoencoderKL, FluxPipeline)
    transformer, autoencoder, pipeline = cast(tuple[Any, Any, Any], kinds)
    clip = CLIPTextConfig(
        vocab_size=words.size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=words.start,
        eos_token_id=words.end,
    )
    made = pipeline(
        transformer=transformer(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(**_FLOW_AUTOENCODER),
        text_encoder=CLIPTextModel(clip).eval(),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=words.size, d_model=32, d_ff=32, d_kv=8, num_heads=2, num_layers=1)
        ).eval(),
        tokenizer_2=tokenizer,
    )
    made.set_progress_bar_config(disable=True)
    return TextToImage(made, name="patches")
