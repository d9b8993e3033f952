"""Token removal: which patches of a picture are kept, given a score for each."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError

Rule = Literal["attention", "random", "block", "inverse"]
"""Which patches are taken first: the most attended, random ones, a compact random block, the least attended."""


def blocks_kept(blocks: int, keep_ratio: float) -> int:
    """How many of `blocks` stay: int(blocks * keep_ratio) + 1, at most all.

    The rule of the A-CLIP and DetailCLIP code (25 of 49 at 0.5).
    """
    return min(int(blocks * keep_ratio) + 1, blocks)


def select(
    scores: Float[Tensor, "batch patches"], grid: tuple[int, int], *, keep_ratio: float, block: int
) -> tuple[Int[Tensor, "batch kept"], Int[Tensor, "batch removed"]]:
    """Indices (row order, ascending) of the patches kept and of those removed.

    The best-scored squares of `block` x `block` patches stay; a square's score is the mean of its patches'. Raises
    RizbinError when the grid does not divide into squares.
    """
    rows, columns = grid
    if rows % block or columns % block:
        raise RizbinError(
            f"A grid of {rows}x{columns} patches does not divide into blocks of {block}x{block}; "
            "choose block 1 or another picture size."
        )
    batch = scores.shape[0]
    coarse = F.avg_pool2d(scores.view(batch, 1, rows, columns), block).flatten(1)
    kept = blocks_kept(coarse.shape[1], keep_ratio)
    # A stable sort: equal scores (a constant map at initialization) must give the same choice on every machine.
    order = coarse.argsort(dim=1, descending=True, stable=True)
    return _patches(order[:, :kept], grid, block), _patches(order[:, kept:], grid, block)


def block_scores(numbers: Float[Tensor, "batch numbers"], grid: tuple[int, int]) -> Float[Tensor, "batch patches"]:
    """Scores that are highest around a random place: the best-scored patches form one compact rectangle.

    Of each row of `numbers`, uniform in [0, 1), the first three give the place and the rectangle's shape (sides in
    proportion 1:2 to 2:1). Blocks instead of single patches: BEiT, arXiv 2106.08254.
    """
    rows, columns = grid
    down = torch.arange(rows, device=numbers.device) - numbers[:, :1] * (rows - 1)
    across = torch.arange(columns, device=numbers.device) - numbers[:, 1:2] * (columns - 1)
    wide = 2.0 ** (numbers[:, 2] - 0.5)
    down, across = down.abs() * wide[:, None], across.abs() / wide[:, None]
    return -torch.maximum(down[:, :, None].expand(-1, -1, columns), across[:, None, :].expand(-1, rows, -1)).flatten(1)


def _patches(blocks: Int[Tensor, "batch chosen"], grid: tuple[int, int], block: int) -> Int[Tensor, "batch patches"]:
    across = grid[1] // block
    row, column = blocks // across * block, blocks % across * block
    inside = torch.arange(block, device=blocks.device)
    index = (row[:, :, None, None] + inside[:, None]) * grid[1] + column[:, :, None, None] + inside
    return index.flatten(1).sort(dim=1).values


def half_resolution_places(places: Int[Tensor, "batch places"], grid: tuple[int, int]) -> Int[Tensor, "batch places"]:
    """Where patches of `grid` lie in the grid of half its side."""
    return places // grid[1] // 2 * (grid[1] // 2) + places % grid[1] // 2
