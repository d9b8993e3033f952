"""Grounding DINO's attention on a processor: the same numbers in less time.

Deformable attention, ten times as fast as by `grid_sample`.

The sampling of Deformable DETR, arXiv 2010.04159, equation 3: each query takes a weighted sum of a few places of each
level, read between pixels by bilinear interpolation, zero outside. A place between pixels is four pixels with four
weights, so all a query wants of a head is one weighted sum of rows of a table: `embedding_bag`, which reads each row
once and writes nothing but the sum. transformers calls `grid_sample` for each level, writes every single sample out and
sums them later; at 480x640 that was two fifths of an image's time.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


def sample(
    value: Float[Tensor, "batch places heads dim"],
    sizes: Sequence[tuple[int, int]],
    where: Float[Tensor, "batch queries heads levels points 2"],
    weights: Float[Tensor, "batch queries heads levels points"],
) -> Float[Tensor, "batch queries heads*dim"]:
    """The weighted sum of samples for each query and head; without gradient.

    Args:
        value: What is read, the levels one after another, row by row.
        sizes: Height and width of each level.
        where: x and y as shares of a level's width and height, 0 at its outer edge.
        weights: Of the samples.
    """
    batch, places, heads, dim = value.shape
    queries, points = where.shape[1], where.shape[4]
    count = len(sizes) * points

    def per_sample(numbers: Sequence[int]) -> Int[Tensor, " count"]:
        return torch.tensor(numbers, dtype=torch.int32, device=value.device).repeat_interleave(points)

    heights, widths = per_sample([height for height, _ in sizes]), per_sample([width for _, width in sizes])
    areas = [height * width for height, width in sizes]
    starts = per_sample([sum(areas[:level]) for level in range(len(sizes))])
    # A place's left or upper neighbor and its share of the weight, then its right or lower one and theirs.
    columns, across = _neighbors(where[..., 0].reshape(batch, queries, heads, count), widths)
    rows, down = _neighbors(where[..., 1].reshape(batch, queries, heads, count), heights)
    sample_weights = weights.reshape(batch, queries, heads, count)
    first = starts + places * torch.arange(batch, dtype=torch.int32, device=value.device).view(-1, 1, 1, 1)
    shape = (batch, queries, heads, 4, count)
    index = torch.empty(shape, dtype=torch.int32, device=value.device)
    share = value.new_empty(shape)
    for row, vertical in enumerate(down):
        vertical.mul_(sample_weights)
        rows[row].mul_(widths).add_(first)
        for column, horizontal in enumerate(across):
            torch.add(rows[row], columns[column], out=index[..., 2 * row + column, :])
            torch.mul(vertical, horizontal, out=share[..., 2 * row + column, :])
    index.mul_(heads).add_(torch.arange(heads, dtype=torch.int32, device=value.device).view(-1, 1, 1))
    sums = F.embedding_bag(
        index.view(-1, 4 * count),
        value.reshape(batch * places * heads, dim),
        mode="sum",
        per_sample_weights=share.view(-1, 4 * count),
    )
    return sums.view(batch, queries, heads * dim)


def _neighbors(
    where: Float[Tensor, "batch queries heads samples"], sides: Int[Tensor, " samples"]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both neighbors along one side, kept inside, and their shares; those of neighbors outside are 0."""
    exact = where * sides - 0.5
    low = exact.floor()
    high_share = exact - low
    # Far outside is as good as just outside, and fits an integer.
    before = low.clamp_(-2, 2**24).int()
    after = before + 1
    low_share = (1 - high_share).masked_fill_((before < 0) | (before >= sides), 0)
    high_share.masked_fill_((after < 0) | (after >= sides), 0)
    last = sides - 1
    inside = before.clamp_(min=0).minimum(last), after.clamp_(min=0).minimum(last)
    return inside, (low_share, high_share)


class DeformableSampling(nn.Module):
    """Stands where transformers has its sampling: `sample` on a processor without gradient, else what was there."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.stock = stock

    def forward(
        self,
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        learns = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (value, sampling_locations, attention_weights)
        )
        # The rows of the table are numbered in 32 bits.
        fits = value.shape[0] * value.shape[1] * value.shape[2] < 2**31
        if learns or not fits or value.device.type != "cpu" or value.dtype != torch.float32:
            return self.stock(
                value,
                value_spatial_shapes,
                value_spatial_shapes_list,
                level_start_index,
                sampling_locations,
                attention_weights,
                im2col_step,
            )
        return sample(value, value_spatial_shapes_list, sampling_locations, attention_weights)


def fuse(
    self: Any,
    vision_features: Float[Tensor, "batch places dim"],
    text_features: Float[Tensor, "batch tokens dim"],
    vision_attention_mask: Bool[Tensor, "batch places"] | None = None,
    text_attention_mask: Bool[Tensor, "batch tokens"] | None = None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What a `BiMultiHeadAttention` of transformers computes, with its products in another order.

    Image and text attend to each other through projections four times as wide as they are. An image has thousands of
    places and a text some dozen tokens, and <W x, k> = <x, W' k>: so the tokens are brought to the places, once for all
    of them, and no place is ever projected. Likewise a sum of projected values is the projected sum. Masks are true on
    padding. Gives outputs and weights of the image, then of the text.
    """
    heads, dim = self.num_heads, self.head_dim
    if text_features.shape[1] >= dim or (self.training and self.dropout):
        return type(self).forward(self, vision_features, text_features, vision_attention_mask, text_attention_mask)
    split = (heads, dim)
    keys = self.text_proj(text_features).unflatten(-1, split) * self.scale
    place_keys = torch.einsum("bthe,hed->bhtd", keys, self.vision_proj.weight.unflatten(0, split)).flatten(1, 2)
    offset = torch.einsum("bthe,he->bht", keys, self.vision_proj.bias.unflatten(0, split)).flatten(1)
    scores = torch.baddbmm(offset.unsqueeze(1), vision_features, place_keys.transpose(1, 2)).unflatten(-1, (heads, -1))
    scores = (scores - scores.max()).clamp(-50000, 50000)  # as there, for half precision

    by_token = scores.permute(0, 2, 3, 1)
    by_token = (by_token - by_token.amax(dim=-1, keepdim=True)).clamp(-50000, 50000)
    if vision_attention_mask is not None:
        by_token = by_token.masked_fill(vision_attention_mask[:, None, None], float("-inf"))
    of_text = by_token.softmax(dim=-1)
    if text_attention_mask is not None:
        scores = scores.masked_fill(text_attention_mask[:, None, None], float("-inf"))
    of_vision = scores.softmax(dim=-1)

    values = self.values_text_proj(text_features).unflatten(-1, split)
    mixed = torch.einsum("bthe,dhe->bhtd", values, self.out_vision_proj.weight.unflatten(1, split)).flatten(1, 2)
    vision = of_vision.flatten(2) @ mixed + self.out_vision_proj.bias
    gathered = (of_text.flatten(1, 2) @ vision_features).unflatten(1, (heads, -1))
    visual = torch.einsum("bhtd,hed->bthe", gathered, self.values_vision_proj.weight.unflatten(0, split))
    text = self.out_text_proj((visual + self.values_vision_proj.bias.unflatten(0, split)).flatten(2))
    return (vision, of_vision.transpose(1, 2).flatten(0, 1)), (text, of_text.flatten(0, 1))


def enable_fast_attention(model: Any) -> None:
    """Puts `DeformableSampling` and `fuse` where a Grounding DINO of transformers has its own; weights stay.

    This is the one place where a method of transformers is replaced: `fuse` becomes the `forward` of each fusion module
    of this one network, and transformers' classes stay as they are. A module in its place, as `DeformableSampling` is,
    would have to hold the same weights under the same names as the one beside it for the long texts that are left to
    transformers, and adapters or a cast put on the one would have to reach the other. tests/detection/test_fast.py
    compares both ways, counts what was replaced, and fails when transformers names or calls these modules otherwise.
    """
    for module in model.modules():
        # Of what a linear layer has just made, and nobody else reads: a twentieth of the time.
        if isinstance(getattr(module, "activation_fn", None), nn.ReLU):
            module.activation_fn.inplace = True
        inner = getattr(module, "attn", None)
        if type(inner).__name__ == "MultiScaleDeformableAttention":
            module.attn = DeformableSampling(cast(nn.Module, inner))
        if type(module).__name__.endswith("BiMultiHeadAttention"):
            module.forward = MethodType(fuse, module)


def disable_fast_attention(model: Any) -> None:
    """Takes them out again, for those who trace or copy the model."""
    for module in model.modules():
        if isinstance(getattr(module, "activation_fn", None), nn.ReLU):
            module.activation_fn.inplace = False
        if isinstance(getattr(module, "attn", None), DeformableSampling):
            module.attn = module.attn.stock
        if getattr(vars(module).get("forward"), "__func__", None) is fuse:
            del module.forward
