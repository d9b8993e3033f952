"""Token removal: which patches of an image are kept, given a score for each."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError

Rule = Literal["attention", "random", "block", "inverse"]
"""Which patches are taken first: the most attended, random ones, a compact random block, the least attended."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Which patches meet the caption, and which must be predicted: what DetailCLIP and its ablations choose from."""

    selection: Literal["attention", "random", "block", "inverse", "none"] = "attention"
    """Which tokens meet the caption: those that the teacher's CLS attends to most, random ones, a random block, the
    least attended ones, or all (no removal)."""
    keep_ratio: float = 0.5
    """Share of tokens that selection keeps, above 0 to 1 (the paper's code calls this the mask ratio; 0.5)."""
    selection_share: float = 1.0
    """Share of the run in which selection removes tokens, above 0 to 1; after it all are seen, as at inference
    (FLIP's unmasked tuning, arXiv 2212.00794). 1: to the end (paper)."""
    block: int = 2
    """Side in patches of the squares that are kept or hidden together (paper's code: 2; its figures show 1)."""
    hide: Literal["removed", "attention", "random", "block", "inverse"] = "removed"
    """Which patches must be predicted: those that selection removes from the views (paper), or in a pass of its own
    the most attended ones (AttMask, arXiv 2203.12719), random ones, a random block, or the least attended ones.
    Selection then removes tokens from what meets the caption alone."""
    hide_ratio: float = 0.5
    """Share of patches that `hide` takes, above 0 and below 1; with "removed" it is what selection leaves."""

    @property
    def hides(self) -> bool:
        """Whether there is a patch to predict: of what selection removes, or in a pass of its own."""
        return self.hide != "removed" or self.selection != "none"

    def removes(self, fraction: float) -> bool:
        """Whether selection removes tokens at this part of the run."""
        return self.selection != "none" and fraction < self.selection_share


def blocks_to_keep(blocks: int, keep_ratio: float) -> int:
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
            "choose block 1 or another image size."
        )
    batch = scores.shape[0]
    coarse = F.avg_pool2d(scores.view(batch, 1, rows, columns), block).flatten(1)
    keep = blocks_to_keep(coarse.shape[1], keep_ratio)
    # A stable sort: equal scores (a constant map at initialization) must give the same choice on every machine.
    order = coarse.argsort(dim=1, descending=True, stable=True)
    return _patches(order[:, :keep], grid, block), _patches(order[:, keep:], grid, block)


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


def rule_scores(
    rule: Rule, grid: tuple[int, int], given: Float[Tensor, "batch patches"]
) -> Float[Tensor, "batch patches"]:
    """How much each patch is one that `rule` takes first; `given` is the attention, or for rules of chance random
    numbers in [0, 1)."""
    if rule == "block":
        return block_scores(given, grid)
    return -given if rule == "inverse" else given


def take(
    tokens: Float[Tensor, "batch all dim"], places: Int[Tensor, "batch places"]
) -> Float[Tensor, "batch places dim"]:
    """The tokens at these places, those of each image its own."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def from_half_resolution(
    attention: Float[Tensor, "batch quarter"], grid: tuple[int, int]
) -> Float[Tensor, "batch patches"]:
    """The values of a map of half the side for all patches of `grid`: each stands four times."""
    coarse = attention.view(-1, 1, grid[0] // 2, grid[1] // 2)
    return F.interpolate(coarse, scale_factor=2, mode="nearest").flatten(1)


def half_resolution_places(places: Int[Tensor, "batch places"], grid: tuple[int, int]) -> Int[Tensor, "batch places"]:
    """Where patches of `grid` lie in the grid of half its side."""
    return places // grid[1] // 2 * (grid[1] // 2) + places % grid[1] // 2
