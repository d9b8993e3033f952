"""A tower over a large batch in chunks: the numbers and gradients of the whole batch, the memory of one chunk.

Contrast compares all images of a batch with all texts, so gradients of parts of a batch do not add up to its own. Here
each chunk is embedded without keeping what is between, the loss is taken of all embeddings together, and on the way
back each chunk is embedded again to get its gradient: GradCache, Gao et al., arXiv 2101.06983, section 3.2, written as
torch's checkpointing of one chunk after the other. It costs a second forward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Parts = tuple[Tensor, ...]


def in_chunks(run: Callable[..., Parts], rows: int, size: int, *tensors: Tensor | None) -> Parts:
    """What `run` gives of all rows, made of `size` rows at a time.

    Args:
        run: Tensors with one row a row of its arguments, in and out.
        rows: How many there are.
        size: Rows at once.
        tensors: Arguments of `run`; None stays None.
    """
    made: list[Parts] = []
    for start in range(0, rows, size):
        some = [None if tensor is None else tensor[start : start + size] for tensor in tensors]
        if torch.is_grad_enabled():
            made.append(checkpoint(run, *some, use_reentrant=False))  # pyright: ignore[reportArgumentType]
        else:
            made.append(run(*some))
    return tuple(torch.cat(parts) for parts in zip(*made, strict=True))


def anew(run: Callable[[], Tensor]) -> Tensor:
    """What `run` gives, computed anew on the way back.

    For what looks at the whole batch, as a batch norm does, and so stays out of the chunks. It runs twice, and shall
    change nothing on the way.
    """
    made: Any = checkpoint(run, use_reentrant=False) if torch.is_grad_enabled() else run()
    return made
