"""FSDP2: transformer blocks spread over the processes, for towers too large for one GPU."""

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
    for module in method.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) and _is_block(module[0]):
            for block in module:
                fully_shard(block, mesh=mesh)


def _is_block(module: nn.Module) -> bool:
    # timm's blocks and the text tower's both carry `attn` and `mlp`.
    return hasattr(module, "attn") and hasattr(module, "mlp")


def whole_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, gathered whole where they are sharded, without gradient. A collective: all processes call it."""
    return {name: (value.full_tensor() if hasattr(value, "full_tensor") else value).detach() for name, value in tensors.items() if torch.is_tensor(value)}
