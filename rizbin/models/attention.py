"""Rows of attention, read from PyTorch's fused kernel while a network runs: whoever wrote the network."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rizbin.core.errors import RizbinError
from rizbin.models.protocol import CLS, NoAttention


class QueryRows(TorchFunctionMode):
    """While it is entered, keeps one query's softmax row of every self-attention that runs.

    It reads query and key as PyTorch's fused kernel gets them: norms, rotary positions and biases are in them, whoever
    wrote the network, and the full matrix is never made. Of `nn.MultiheadAttention`, which calls the kernel out of
    sight, it projects that one query and the keys again. Attention that pools (one query for all keys) or looks through
    windows (shorter than the image) is passed over.
    """

    def __init__(self, token: int, *, least: int = 1) -> None:
        """`token` counts all tokens of the sequence, from the end with a minus; a sequence has `least` tokens."""
        super().__init__()
        self.token = token
        self.least = least
        self.rows: list[Float[Tensor, "batch heads tokens"]] = []
        """Rows of attention in the order in which the layers ran."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._keep(*args, **kwargs)
        elif func is F.multi_head_attention_forward:
            self._keep_packed(*args, **kwargs)
        return func(*args, **kwargs)

    def _keep(
        self,
        query: Float[Tensor, "batch heads tokens dim"],
        key: Float[Tensor, "batch groups keys dim"],
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if query.shape[-2] != key.shape[-2] or query.shape[-2] < self.least:
            return
        row = query[:, :, self.token].unsqueeze(2).float()
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
        scores = (row * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if attn_mask is not None:
            mask = attn_mask.expand(*attn_mask.shape[:-2], query.shape[-2], key.shape[-2])[..., self.token, :]
            mask = mask.unsqueeze(-2)
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
        self.rows.append(scores.softmax(-1)[:, :, 0])

    def _keep_packed(
        self,
        query: Float[Tensor, "tokens batch dim"],
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        *_: Any,
        attn_mask: Tensor | None = None,
        **__: Any,
    ) -> None:
        # Masks are of texts; the images of open_clip's towers, for which this is, have none.
        if key is not query or in_proj_weight is None or attn_mask is not None or query.shape[0] < self.least:
            return
        to_query, to_key = in_proj_weight.float().chunk(3)[:2]
        query_bias, key_bias = (None, None) if in_proj_bias is None else in_proj_bias.float().chunk(3)[:2]
        tokens = query.detach().float().transpose(0, 1)
        row = F.linear(tokens[:, self.token], to_query, query_bias).unflatten(-1, (num_heads, -1))
        keys = F.linear(tokens, to_key, key_bias).unflatten(-1, (num_heads, -1))
        scores = torch.einsum("bhd,bthd->bht", row * row.shape[-1] ** -0.5, keys)
        self.rows.append(scores.softmax(-1))


def row_of_patches(
    forward: Callable[[], object], *, token: int, layer: int, grid: tuple[int, int], has_cls: bool, name: str
) -> Float[Tensor, "batch heads rows columns"]:
    """The row of one token in one layer of whatever `forward` runs, on its patches, which end the sequence.

    Raises RizbinError when there is no such token or layer, NoAttention when no attention ran.
    """
    count = grid[0] * grid[1]
    check_token(token, count, has_cls=has_cls, name=name)
    with QueryRows(0 if token == CLS else token - count, least=count) as watch:
        forward()
    if not watch.rows:
        raise NoAttention(f"{name} computes no attention between patches that could be shown; choose a ViT.")
    check_layer(layer, len(watch.rows), name)
    return watch.rows[layer][..., -count:].unflatten(-1, grid)


def check_token(token: int, count: int, *, has_cls: bool, name: str) -> None:
    """Raises RizbinError for a patch that there is not, NoAttention for CLS where there is none."""
    if not CLS <= token < count:
        raise RizbinError(f"There is no patch {token} among {count}; give 0 to {count - 1}, or {CLS} for CLS.")
    if token == CLS and not has_cls:
        raise NoAttention(f"{name} has no CLS token to show the attention of; ask for the attention of a patch.")


def check_layer(layer: int, layers: int, name: str) -> None:
    """Raises RizbinError for a layer that there is not."""
    if not -layers <= layer < layers:
        raise RizbinError(f"{name} has {layers} layers, there is no layer {layer}; they count from 0.")


@contextmanager
def fused(network: nn.Module) -> Iterator[None]:
    """timm's attention by the fused kernel, which `QueryRows` reads, also where it was switched off."""
    slow: list[Any] = [module for module in network.modules() if getattr(module, "fused_attn", True) is False]
    for module in slow:
        module.fused_attn = True
    try:
        yield
    finally:
        for module in slow:
            module.fused_attn = False
