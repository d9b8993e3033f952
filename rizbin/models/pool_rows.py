"""Rows of pooling attention, in which one learned query looks at all tokens (SigLIP's and timm's latent pooling)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PoolRows(TorchFunctionMode):
    """While it is entered, keeps the softmax row of every attention in which one query looks at several tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Float[Tensor, "batch heads tokens"]] = []
        """Rows of attention in the order in which the attentions ran."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._keep(*args[:2])
        elif func is F.multi_head_attention_forward:
            self._keep_packed(*args[:7])
        return func(*args, **kwargs)

    def _keep(self, query: Tensor, key: Tensor) -> None:
        if query.shape[-2] == 1 < key.shape[-2]:
            scores = query.float() * query.shape[-1] ** -0.5 @ key.float().transpose(-2, -1)
            self.rows.append(scores.softmax(-1)[:, :, 0])

    def _keep_packed(
        self,
        query: Float[Tensor, "queries batch dim"],
        key: Float[Tensor, "tokens batch dim"],
        value: Tensor,
        dim: int,
        heads: int,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> None:
        if len(query) != 1 or len(key) == 1 or weight is None:
            return
        to_query, to_key = weight.float().chunk(3)[:2]
        query_bias, key_bias = (None, None) if bias is None else bias.float().chunk(3)[:2]
        row = F.linear(query[0].float(), to_query, query_bias).unflatten(-1, (heads, -1))
        keys = F.linear(key.float().transpose(0, 1), to_key, key_bias).unflatten(-1, (heads, -1))
        self.rows.append(torch.einsum("bhd,bthd->bht", row * row.shape[-1] ** -0.5, keys).softmax(-1))
