"""Rizbin's own small backbones, registered with timm so that timm and open_clip build them by name.

A plain patch embedding learns small pictures slowly: a few thousand steps at 64 px gave 13 percent where a convolutional
stem gave 81 (Xiao et al., "Early Convolutions Help Transformers See Better", arXiv 2106.14881, is the same finding at scale).
"""

from functools import partial
from typing import Any

from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.norm import GroupNorm1
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn


def _cfg(size: int) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 0,
        "input_size": (3, size, size),
        "pool_size": None,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.backbone.0.conv",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {
        "rizbin_vit_mini_patch8_64": _cfg(64),
        "rizbin_vit_mini_reg4_patch8_64": _cfg(64),
        "rizbin_vit_nano_patch8_32": _cfg(32),
    }
)


def _stem_vit(
    variant: str, pretrained: bool, *, size: int, channels: tuple[int, ...], dim: int, depth: int, heads: int, **kwargs: Any
) -> VisionTransformer:
    # GroupNorm, not BatchNorm: the student sees blanked pictures and the teacher whole ones, so batch statistics would
    # differ between them, and between one process and two.
    stem = ConvStem(channels=channels, depth=len(channels), stride=(2,) * len(channels), norm_layer=GroupNorm1, act_layer=nn.GELU)
    model_kwargs = {"img_size": size, "patch_size": 1, "embed_dim": dim, "depth": depth, "num_heads": heads, "num_classes": 0}
    return build_model_with_cfg(
        VisionTransformer, variant, pretrained, embed_layer=partial(HybridEmbed, backbone=stem), **{**model_kwargs, **kwargs}
    )


@register_model
def rizbin_vit_mini_patch8_64(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """64 px, 8x8 tokens, width 128, 4 blocks: 0.9 million parameters; the embedded world's backbone."""
    return _stem_vit(
        "rizbin_vit_mini_patch8_64", pretrained, size=64, channels=(32, 64, 128), dim=128, depth=4, heads=4, **kwargs
    )


@register_model
def rizbin_vit_mini_reg4_patch8_64(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """The same with four registers (Darcet et al., arXiv 2309.16588)."""
    kwargs = {"reg_tokens": 4, **kwargs}
    return _stem_vit(
        "rizbin_vit_mini_reg4_patch8_64", pretrained, size=64, channels=(32, 64, 128), dim=128, depth=4, heads=4, **kwargs
    )


@register_model
def rizbin_vit_nano_patch8_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """32 px, 4x4 tokens, width 32, 2 blocks: for tests that must be quick."""
    return _stem_vit("rizbin_vit_nano_patch8_32", pretrained, size=32, channels=(8, 16, 32), dim=32, depth=2, heads=2, **kwargs)
