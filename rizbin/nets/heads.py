"""Heads: small networks that training needs and throws away."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel


class PrototypeHead(nn.Module):
    """Scores of each feature against learned prototypes: MLP, unit length, then a linear layer with unit-length rows.

    Three layers with GELU and the normalized bottleneck as in DINO (arXiv 2104.14294, section 3) and iBOT (arXiv
    2111.07832). The rows' length is fixed at one, DINO's `norm_last_layer`: a free length lets the teacher sharpen
    without learning.
    """

    def __init__(
        self, dim: int, prototypes: int, *, hidden: int = 2048, bottleneck: int = 256, norm: bool = False
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before in (dim, hidden):
            parts += [nn.Linear(before, hidden), *([GatheredBatchNorm(hidden)] if norm else []), nn.GELU()]
        self.mlp = nn.Sequential(*parts, nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)  # nn.Linear's own start, as in DINO's last layer

    def forward(
        self, features: Float[Tensor, "tokens dim"], *, frozen: bool = False
    ) -> Float[Tensor, "tokens prototypes"]:
        """Cosines with every prototype, in [-1, 1]. `frozen`: no gradient for the prototypes."""
        prototypes = self.prototypes.detach() if frozen else self.prototypes
        return F.linear(F.normalize(self.mlp(features), dim=-1), F.normalize(prototypes, dim=-1))


class GatheredBatchNorm(nn.BatchNorm1d):
    """Batch norm over the batch of all processes, on any backend (torch's SyncBatchNorm knows GPUs only)."""

    def forward(self, input: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        if not self.training or parallel.world_size() == 1:
            return super().forward(input)
        own = slice(parallel.rank() * len(input), (parallel.rank() + 1) * len(input))
        return super().forward(parallel.gather(input))[own]


def mlp_head(
    dim: int, hidden: int, out: int, *, layers: int = 3, norm: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """A projection or prediction head: `layers` linear layers, between them batch norm (over all processes) and ReLU.

    SimCLR v2 and SLIP use three layers of 4096 to 256; BYOL two. `last_norm` puts batch norm behind the last layer as
    well.
    """
    parts: list[nn.Module] = []
    for index in range(layers):
        last = index == layers - 1
        with_norm = last_norm if last else norm
        parts.append(nn.Linear(dim if index == 0 else hidden, out if last else hidden, bias=not with_norm))
        if with_norm:
            parts.append(GatheredBatchNorm(out if last else hidden))
        if not last:
            parts.append(nn.ReLU())
    return nn.Sequential(*parts)
