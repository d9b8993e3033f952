"""Rizbin's own small backbones, registered with timm so that timm and open_clip build them by name.

A plain patch embedding learns small images slowly: a few thousand steps at 64 px gave 13 percent where a
convolutional stem gave 81 (Xiao et al., "Early Convolutions Help Transformers See Better", arXiv 2106.14881, is the
same finding at scale).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.norm_act import BatchNormAct2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.precision import wide


class SumsReached(Exception):
    """A pass that was made for a norm's sums alone has reached it."""

    def __init__(self, sums: Float[Tensor, "3 channels"]) -> None:
        super().__init__()
        self.sums = sums


class VisibleBatchNorm(BatchNormAct2d):
    """Batch norm whose statistics come from what may be seen: kept patches only, over all processes.

    A student sees images with blanked patches, and evaluation whole ones. With statistics of the kept patches alone
    the norm is, on them, the same function in both. (Group norm knows no batch, but learns far slower here: after 50
    steps of CLIP the loss stood at 4.61 where batch norm's stood at 4.28, with ln 128 = 4.85 at the start.)
    """

    # All of them are always there: the norm is built with affine weights and running statistics.
    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float
    eps: float
    act: nn.Module

    visible: Float[Tensor, "batch 1 height width"] | None = None
    """1 on pixels of kept patches, set by `norms_seeing` for one forward pass; None means all."""
    tracked: bool = True
    """Whether that pass shapes the running statistics, which evaluation uses; set by `norms_seeing` as well."""
    given: tuple[Tensor, Tensor] | None = None
    """Mean and variance of the whole batch, of which this pass sees a part; set by `norms_given`."""
    measured: bool = False
    """Whether this pass ends here, at the sums that mean and variance are made of; set by `norms_given` as well."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        if self.measured:
            raise SumsReached(self._sums(wide(x)))
        if self.given is not None:
            return self._normed(wide(x), *self.given)
        if not self.training or (self.visible is None and self.tracked and parallel.world_size() == 1):
            return super().forward(x)
        if self.visible is None and parallel.world_size() == 1:
            normed = F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
            return self.act(normed)
        x = wide(x)  # variances from differences of squares want the bits
        return self._normed(x, *self.statistics(self._sums(x), track=self.tracked))

    def _sums(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "3 channels"]:
        """Sum, sum of squares and number of the values that may be seen."""
        if self.visible is None:
            visible = x.new_ones(len(x), 1, *x.shape[-2:])
        else:
            visible = F.interpolate(self.visible.to(x), x.shape[-2:], mode="nearest")
        masked = x * visible
        return torch.stack([masked.sum((0, 2, 3)), (masked * x).sum((0, 2, 3)), visible.sum().expand(x.shape[1])])

    def statistics(
        self, sums: Float[Tensor, "3 channels"], *, track: bool
    ) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
        """Mean and variance over all processes, from the sums of this one."""
        total, squares, count = parallel.gather(sums[None]).sum(0)
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)  # rounding may leave less than nothing
        if track:
            self._track(mean, variance * count / (count - 1))
        return mean, variance

    def _normed(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = self.weight * (variance + self.eps).rsqrt()
        return self.act(x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None])

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, " channels"], variance: Float[Tensor, " channels"]) -> None:
        # New tensors, not in place: an earlier pass of the same step may need the old ones for its backward.
        self.running_mean = torch.lerp(self.running_mean, mean, self.momentum)
        self.running_var = torch.lerp(self.running_var, variance, self.momentum)
        self.num_batches_tracked.add_(1)


@contextmanager
def norms_given(
    norms: Sequence[VisibleBatchNorm], statistics: Sequence[tuple[Tensor, Tensor]], *, measure: bool = False
) -> Iterator[None]:
    """Within it the first norms take these means and variances, of a batch larger than what they see.

    With `measure` a pass ends at the norm behind them, which raises `SumsReached`.
    """
    for norm, (mean, variance) in zip(norms, statistics, strict=False):
        norm.given = mean, variance
    if measure:
        norms[len(statistics)].measured = True
    try:
        yield
    finally:
        for norm in norms:
            norm.given, norm.measured = None, False


@contextmanager
def norms_seeing(
    norms: Sequence[VisibleBatchNorm],
    visible: Float[Tensor, "batch 1 height width"] | None = None,
    *,
    track: bool = True,
) -> Iterator[None]:
    """Within it these norms take their statistics from the pixels that are 1 in `visible` (None: from all of them).

    With `track` those statistics also shape the running ones, which evaluation uses. A norm is called by timm's own
    stem with nothing but a feature map, so what else one pass is to know is laid down in it, and taken away again at
    the end even when that pass raises: the next one would otherwise be normalized by the wrong pixels.
    """
    for norm in norms:
        norm.visible, norm.tracked = visible, track
    try:
        yield
    finally:
        for norm in norms:
            norm.visible, norm.tracked = None, True


class SmallConvolutions(nn.Module):
    """Convolutions of stride 2 with batch norm, then the mean over the map: sees shapes and colors in a minute on a
    CPU."""

    def __init__(
        self, channels: tuple[int, ...] = (32, 64, 128), num_classes: int = 0, in_chans: int = 3, **_: Any
    ) -> None:
        super().__init__()
        if num_classes:
            raise ValueError("it has no classifier")
        layers = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                VisibleBatchNorm(after, act_layer=nn.ReLU, inplace=False),
            )
            for before, after in zip((in_chans, *channels), channels, strict=False)
        ]
        self.stages = nn.Sequential(*layers)
        self.num_classes, self.num_features = num_classes, channels[-1]

    def forward_features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        """The last map."""
        return self.stages(x)

    def forward_head(self, x: Float[Tensor, "batch dim rows columns"], pre_logits: bool = True) -> Tensor:
        """Its mean."""
        return x.mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        return self.forward_head(self.forward_features(x))


class StemTransformer(VisionTransformer):
    """timm's, with one more way to pool: "both", the mean of CLS and of the patches' mean."""

    both: bool = False

    def __init__(self, *args: Any, global_pool: Any = "token", **kwargs: Any) -> None:
        super().__init__(*args, global_pool="avg" if global_pool == "both" else global_pool, **kwargs)
        self.both = global_pool == "both"

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """The same as timm's, but global_pool may also be "both"."""
        self.both = global_pool == "both"
        super().reset_classifier(num_classes, "avg" if self.both else global_pool)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """One feature an image from its tokens."""
        if self.both and pool_type is None:
            return (x[:, 0] + x[:, self.num_prefix_tokens :].mean(dim=1)) / 2
        return super().pool(x, pool_type)


def _norm(channels: int, **_: Any) -> VisibleBatchNorm:
    return VisibleBatchNorm(channels, act_layer=nn.GELU, inplace=False)


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
        "rizbin_vit_mini_patch16_64": _cfg(64),
        "rizbin_vit_nano_patch8_32": _cfg(32),
        "rizbin_conv_mini_32": _cfg(32),
    }
)


def _stem_vit(
    variant: str,
    pretrained: bool,
    *,
    size: int,
    channels: tuple[int, ...],
    dim: int,
    depth: int,
    heads: int,
    **kwargs: Any,
) -> VisionTransformer:
    norm = cast(type[nn.Module], _norm)  # timm calls whatever makes a norm, but its annotation names classes only
    stem = ConvStem(channels=channels, depth=len(channels), stride=(2,) * len(channels), norm_layer=norm)
    model_kwargs = {
        "img_size": size,
        "patch_size": 1,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": heads,
        "num_classes": 0,
    }
    return build_model_with_cfg(
        StemTransformer,
        variant,
        pretrained,
        embed_layer=partial(HybridEmbed, backbone=stem),
        **{**model_kwargs, **kwargs},
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
        "rizbin_vit_mini_reg4_patch8_64",
        pretrained,
        size=64,
        channels=(32, 64, 128),
        dim=128,
        depth=4,
        heads=4,
        **kwargs,
    )


@register_model
def rizbin_vit_mini_patch16_64(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """64 px, 4x4 tokens, width 192, 3 blocks behind four convolutions: 1.6 million parameters; mostly a convolutional
    network, so that it can judge what the one above is fooled by."""
    return _stem_vit(
        "rizbin_vit_mini_patch16_64",
        pretrained,
        size=64,
        channels=(24, 48, 96, 192),
        dim=192,
        depth=3,
        heads=6,
        **kwargs,
    )


@register_model
def rizbin_vit_nano_patch8_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """32 px, 4x4 tokens, width 32, 2 blocks: for tests that must be quick."""
    return _stem_vit(
        "rizbin_vit_nano_patch8_32", pretrained, size=32, channels=(8, 16, 32), dim=32, depth=2, heads=2, **kwargs
    )


@register_model
def rizbin_conv_mini_32(pretrained: bool = False, **kwargs: Any) -> SmallConvolutions:
    """32 px, three convolutions, 128 features, 0.09 million parameters: for experiments by the dozen on a CPU."""
    return build_model_with_cfg(SmallConvolutions, "rizbin_conv_mini_32", pretrained, **kwargs)
