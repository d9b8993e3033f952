"""A low-rank adapter inside a weight, where also code that reads weights without calling their layers sees it.

Source: Hu et al., "LoRA", arXiv 2106.09685, equation 3: W + (alpha / r) B A, with A random and B zero at the start.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

ALPHA = 16.0
"""Over the rank, the scale of what is added: a learning rate that suits one rank suits others (the authors' code)."""
Network = TypeVar("Network", bound=nn.Module)


class LowRank(nn.Module):
    """Adds a product of two thin matrices to a weight."""

    def __init__(self, rows: int, columns: int, rank: int, *, alpha: float = ALPHA) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as the authors' code
        self.scale = alpha / rank

    def forward(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        return weight + self.scale * self.up @ self.down


def merge(model: nn.Module) -> None:
    """Adds every adapter's product to its weight, and takes the adapters out.

    Not by torch's `remove_parametrizations`: that takes the weight's name off the class, which copies of a layer share,
    and so breaks the network that was copied.
    """
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        lists: Any = module.parametrizations
        weights = {name: getattr(module, name).detach() for name in lists}
        learns = {name: lists[name].original.requires_grad for name in lists}
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight, requires_grad=learns[name]))


def merged(model: Network) -> Network:
    """The network with every adapter's product added to its weight, what other libraries know: a copy if it has any."""
    if not has_adapters(model):
        return model
    alone = copy.deepcopy(model)
    merge(alone)
    return alone


def has_adapters(model: nn.Module) -> bool:
    """Whether any weight has an adapter."""
    return any(isinstance(module, LowRank) for module in model.modules())


def with_adapters(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network without adapters by the names of one that has them; its adapters keep their beginning."""
    if any(_ORIGINAL in name for name in weights):
        return dict(weights)
    named = {_bare(name): name for name in own if _ORIGINAL in name}
    beginning = {name: value for name, value in own.items() if _ADAPTER in name and _ORIGINAL not in name}
    return {**{named.get(name, name): value for name, value in weights.items()}, **beginning}


_ADAPTER, _ORIGINAL = "parametrizations.", ".original"
"""What torch puts into the names of a weight with an adapter."""


def _bare(name: str) -> str:
    """The name of a weight as it was before its adapter."""
    return name.replace(_ADAPTER, "").removesuffix(_ORIGINAL)
