"""A tower over a large batch in chunks: the numbers and gradients of the whole batch, the memory of one chunk.

Contrast compares all images of a batch with all texts, so gradients of parts of a batch do not add up to its own. Here
each chunk is embedded without keeping what is between, the loss is taken of all embeddings together, and on the way
back each chunk is embedded again to get its gradient: GradCache, Gao et al., arXiv 2101.06983, section 3.2, written as
torch's checkpointing of one chunk after the other. It costs a second forward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Parts = tuple[Tensor, ...]


def in_chunks(
    run: Callable[..., Parts], rows: int, size: int, *tensors: Tensor | None, shared: Sequence[Tensor] = ()
) -> Parts:
    """What `run` gives of all rows, made of `size` rows at a time.

    Args:
        run: Tensors with one row a row of its arguments, in and out.
        rows: How many there are.
        size: Rows at once.
        tensors: Arguments of `run`; None stays None.
        shared: Arguments behind those, the same for all chunks.
    """
    made = list(_each(run, rows, size, tensors, shared))
    return tuple(torch.cat(parts) for parts in zip(*made, strict=True))


def sum_of_chunks(
    run: Callable[..., Parts], rows: int, size: int, *tensors: Tensor | None, shared: Sequence[Tensor] = ()
) -> Tensor:
    """The sum of what `run` gives of each chunk: one tensor without rows."""
    return torch.stack([parts[0] for parts in _each(run, rows, size, tensors, shared)]).sum(dim=0)


def _each(
    run: Callable[..., Parts], rows: int, size: int, tensors: Sequence[Tensor | None], shared: Sequence[Tensor]
) -> Iterator[Parts]:
    for start in range(0, rows, size):
        some = [None if tensor is None else tensor[start : start + size] for tensor in tensors]
        if torch.is_grad_enabled():
            parts: Any = checkpoint(run, *some, *shared, use_reentrant=False)
            yield parts
        else:
            yield run(*some, *shared)
