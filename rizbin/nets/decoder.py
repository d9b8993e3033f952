"""The decoder of masked reconstruction: fills removed places with a mask token and lets them look at the kept ones.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377; one block, as in DetailCLIP
(arXiv 2409.06809). Order of positions, start of the weights and epsilon of the norms are those of both official codes.
"""

from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.nets.attend import attend


class DecoderBlock(Block):
    """timm's block that can also make some of its tokens alone: those look at all, but nothing else is computed."""

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        at: Int[Tensor, "batch chosen"] | None = None,
    ) -> Float[Tensor, "batch _ width"]:
        """All tokens, or those at the places `at`."""
        if at is None:
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        width, attention = x.shape[-1], cast(Attention, self.attn)
        index = at.unsqueeze(-1).expand(-1, -1, width)
        normed = self.norm1(x)
        to_query, to_rest = attention.qkv.weight.split([width, 2 * width])
        query_bias, rest_bias = attention.qkv.bias.split([width, 2 * width])
        query = F.linear(normed.gather(1, index), to_query, query_bias)
        key, value = F.linear(normed, to_rest, rest_bias).chunk(2, dim=-1)
        by_head = (
            part.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)
            for part in (query, key, value)
        )
        chosen = x.gather(1, index) + attention.proj(attend(*by_head).transpose(1, 2).flatten(2))
        return chosen + self.mlp(self.norm2(chosen))


EPSILON = 1e-6
"""Epsilon of every norm, as in the encoder (timm's vision transformers) and in MAE; torch's own is 1e-5."""


class Decoder(nn.Module):
    """From features of kept patches to a feature for every patch."""

    def __init__(self, dim: int, width: int, *, blocks: int = 1, heads: int = 16) -> None:
        super().__init__()
        if width % heads or width % 4:
            raise RizbinError(
                f"A decoder of width {width} cannot have {heads} heads; "
                "its width must be a multiple of the heads and of 4."
            )
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        norm = partial(nn.LayerNorm, eps=EPSILON)
        make = partial(DecoderBlock, width, heads, qkv_bias=True, norm_layer=norm)  # pyright: ignore[reportArgumentType]
        self.blocks = nn.Sequential(*(make() for _ in range(blocks)))
        self.norm = norm(width)
        self._initialize()

    def _initialize(self) -> None:
        """MAE's start: Xavier-uniform weights, zero biases in the blocks, a mask token of deviation 0.02.

        The embedding's bias stays at torch's start, as the DetailCLIP code leaves it. Norms start at 1 and 0 by
        themselves.
        """
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.xavier_uniform_(self.embed.weight)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        cls: Float[Tensor, "batch dim"],
        visible_tokens: Float[Tensor, "batch kept dim"],
        keep: Int[Tensor, "batch kept"],
        grid: tuple[int, int],
        at: Int[Tensor, "batch chosen"] | None = None,
    ) -> Float[Tensor, "batch _ width"]:
        """Features of all patches in row order, or of those at the places `at`: the last block then makes no others.

        `keep` says where each kept patch stands in the grid (height, width).
        """
        batch, patches = keep.shape[0], grid[0] * grid[1]
        visible = self.embed(visible_tokens)
        full = self.mask_token.to(visible.dtype).expand(batch, patches, -1)
        full = full.scatter(1, keep.unsqueeze(-1).expand(-1, -1, visible.shape[-1]), visible)
        full = full + sincos_positions(grid, full.shape[-1]).to(full)
        tokens = torch.cat([self.embed(cls).unsqueeze(1), full], dim=1)
        if at is None:
            return self.norm(self.blocks(tokens))[:, 1:]
        *others, last = self.blocks
        for block in others:
            tokens = block(tokens)
        return self.norm(last(tokens, at=at + 1))  # behind CLS


def sincos_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "patches width"]:
    """Fixed 2-D sine-cosine positions: a quarter each of sin(column), cos(column), sin(row), cos(row).

    Columns come first, as in MAE's `get_2d_sincos_pos_embed`. Wavelengths go from 2 pi to 10000 * 2 pi.
    """
    quarter = width // 4
    frequency = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(torch.arange(grid[0]).double(), torch.arange(grid[1]).double(), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (columns, rows)]
    return torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1).float()
