"""Attention by the cheaper of two ways, which say the same but for rounding."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def attend(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads tokens dim"],
    value: Float[Tensor, "batch heads tokens dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch heads queries dim"]:
    """softmax(Q K^T / sqrt(dim)) V, as `F.scaled_dot_product_attention` gives it.

    mask: true, or added, where a query may see a key; broadcast to [batch, heads, queries, tokens]. causal: a token
    sees only itself and what stands before it; queries are then all tokens, and there is no mask.
    Written out where a gradient is wanted of 16 bits on a processor: there the fused one takes three to six times as
    long (33 to 197 tokens, one thread of a Xeon, torch 2.14), which was half of a step. In 32 bits both cost the same.
    """
    wide = query.dtype not in (torch.bfloat16, torch.float16) or query.device.type != "cpu"
    if wide or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if causal:
        mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value
