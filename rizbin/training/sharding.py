"""Transformer blocks as units: spread over processes by FSDP2 (towers too large for one GPU), or compiled in place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rizbin.core import parallel
from rizbin.core.errors import RizbinError


def shard(method: nn.Module) -> None:
    """Shards every transformer block of `method` over all processes; what is outside blocks stays replicated."""
    if parallel.world_size() == 1:
        raise RizbinError("sharding fsdp needs several processes; start with torchrun, or use sharding replicated.")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(parallel.device().type, (parallel.world_size(),))
    for block in blocks(method):
        # Explicitly: a block without a parent is a root to FSDP, and a teacher, having no backward, would stay whole.
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def compile_blocks(method: nn.Module) -> None:
    """Compiles every transformer block in place: names in the state stay, and equal blocks share one compilation."""
    for block in blocks(method):
        block.compile()


def blocks(method: nn.Module) -> list[nn.Module]:
    """The transformer blocks of all towers, teachers and decoders in `method`."""
    stacks = [module for module in method.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    return [block for stack in stacks for block in stack if _is_block(block)]


def _is_block(module: nn.Module) -> bool:
    # timm's blocks and the text tower's both carry `attn` and `mlp`.
    return hasattr(module, "attn") and hasattr(module, "mlp")


def is_sharded(tensor: Tensor) -> bool:
    """True for a tensor of which this process holds a part."""
    return hasattr(tensor, "full_tensor")


def split_sharded(tensors: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Sharded and whole ones apart: torch's fused operations take one kind at a time."""
    kinds = [[tensor for tensor in tensors if is_sharded(tensor) is kind] for kind in (False, True)]
    return [kind for kind in kinds if kind]


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, the same on every process."""
    norms = []
    for kind in (False, True):
        if alike := [gradient for gradient in gradients if is_sharded(gradient) is kind]:
            norm: Any = nn.utils.get_total_norm(alike)
            norms.append(norm.full_tensor() if kind else norm)
    return torch.stack(norms).norm() if norms else torch.zeros(())


def whole_state(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among these, gathered whole where they are sharded, without gradient.

    A collective: all processes call it.
    """
    state: dict[str, Any] = {name: value for name, value in tensors.items() if torch.is_tensor(value)}
    return {name: (value.full_tensor() if is_sharded(value) else value).detach() for name, value in state.items()}
