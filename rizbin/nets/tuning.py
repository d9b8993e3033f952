"""How far training moves a network that was trained before: parts at rest, rates by layer, low-rank adapters.

Learning rates that fall towards the first layer are those of BEiT (arXiv 2106.08254) and of timm: layer l of L learns
at `layer_decay ** (L + 1 - l)` of the schedule; the embedding is layer 0, what follows the last block layer L + 1.
A locked image tower under a text tower that learns is LiT (arXiv 2111.07991) and dino.txt (arXiv 2412.16334). Low-rank
adapters are those of LoRA (arXiv 2106.09685), written and read in peft's form (`rizbin.nets.adapters`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.utils import parametrize

from rizbin.core.errors import RizbinError
from rizbin.nets.lora import LowRank

Tower = Literal["learns", "locked"]


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How a pretrained start is tuned: which parts learn, at what rate, and through which parameters."""

    image_tower: Tower = "learns"
    """locked: the image tower keeps its weights and the text tower learns to read it (LiT, arXiv 2111.07991)."""
    text_tower: Tower = "learns"
    """locked: the text tower keeps its weights, so that every word keeps its place."""
    frozen_blocks: int = 0
    """The first so many blocks of the image tower keep their weights, and the patch and position embeddings with
    them; 0: none."""
    layer_decay: float = 1.0
    """Learning rate of a block over that of the block behind it, above 0, up to 1 (BEiT and timm: 0.65 to 0.9); 1: all
    alike."""
    lora_rank: int = 0
    """Rank of low-rank adapters (arXiv 2106.09685) in the attention of every tower that learns, whose own weights then
    rest; 0: none."""
    lora_alpha: float = 16.0
    """What an adapter adds is scaled by this over the rank."""


def tune(network: Any, settings: TuningSettings) -> None:
    """Puts parts to rest and adapters in, as the settings say. Its towers are `vision` and, where it reads, `text`."""
    _check(network, settings)
    towers = {"vision": settings.image_tower, "text": settings.text_tower}
    for name, state in towers.items():
        tower = getattr(network, name, None)
        if not isinstance(tower, nn.Module):
            continue
        if state == "locked":
            tower.requires_grad_(False)
        elif settings.lora_rank:
            tower.requires_grad_(False)
            adapt_attention(tower, settings.lora_rank, settings.lora_alpha)
    if settings.frozen_blocks:
        blocks = blocks_of(network.vision)
        for parameter in network.vision.parameters():
            parameter.requires_grad_(False)
        for part in [*blocks[settings.frozen_blocks :], *_behind(network.vision)]:
            part.requires_grad_(not settings.lora_rank)
        if settings.lora_rank:
            for block in blocks[settings.frozen_blocks :]:
                _learn_adapters(block)


def rates(network: Any, settings: TuningSettings) -> list[tuple[nn.Module, float]]:
    """Parts of the towers with their share of the schedule's learning rate; of a part named twice the last counts."""
    if settings.layer_decay == 1.0:
        return []
    shares: list[tuple[nn.Module, float]] = []
    for name in ("vision", "text"):
        tower = getattr(network, name, None)
        if not isinstance(tower, nn.Module) or not (blocks := blocks_of(tower)):
            continue
        last = len(blocks) + 1
        shares.append((tower, settings.layer_decay**last))
        shares += [(block, settings.layer_decay ** (last - 1 - place)) for place, block in enumerate(blocks)]
        shares += [(part, 1.0) for part in _behind(tower)]
    return shares


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a tower, in the order in which they run: its longest list of modules of one kind."""
    own = getattr(tower, "blocks", None)
    if isinstance(own, list):
        return own
    stacks = [module for module in tower.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    stacks = [stack for stack in stacks if len({type(block) for block in stack}) <= 2 and _has_attention(stack)]
    return list(max(stacks, key=len, default=nn.ModuleList()))


def _has_attention(stack: Any) -> bool:
    return len(stack) > 0 and all(
        any(hasattr(block, name) for name in ("attn", "self_attn", "attention")) for block in stack
    )


def _behind(tower: nn.Module) -> Iterator[nn.Module]:
    """What stands behind the last block of a tower: its last norm, its pooling, its projection."""
    own = getattr(tower, "behind", None)
    if isinstance(own, list):
        yield from own
        return
    projection = getattr(tower, "text_projection", None)
    if isinstance(projection, nn.Parameter):
        yield nn.ParameterList([projection])
    names = ("norm", "fc_norm", "attn_pool", "ln_post", "ln_final", "post_layernorm", "final_layer_norm", "head")
    seen = {id(module) for block in blocks_of(tower) for module in block.modules()}
    for name, module in tower.named_modules():
        if name.rpartition(".")[2] in names and id(module) not in seen:
            yield module


def adapt_attention(tower: nn.Module, rank: int, alpha: float) -> None:
    """Puts adapters into every linear layer of attention in the tower; they alone are left to learn."""
    for name, module, parameter in attention_weights(tower):
        weight: Any = getattr(module, parameter)
        if rank >= min(weight.shape):
            raise RizbinError(
                f"A rank of {rank} is no less than the sides of {name}, {'x'.join(map(str, weight.shape))}; give less."
            )
        adapter = LowRank(int(weight.shape[0]), int(weight.shape[1]), rank, alpha=alpha).to(weight)
        parametrize.register_parametrization(module, parameter, adapter, unsafe=True)


def attention_weights(tower: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """(name of the layer, the layer, name of its weight) of all linear maps in the attention of a tower."""
    weights: list[tuple[str, nn.Module, str]] = []
    # peft 0.21 adds an adapter of this layer twice (lora/layer.py, `merge`), so a file with one would mean two things.
    packed = [module for module in tower.modules() if isinstance(module, nn.MultiheadAttention)]
    left_out = {id(module.out_proj) for module in packed}
    for name, module in tower.named_modules():
        if id(module) in left_out:
            continue
        # Packed weights of queries, keys and values: of `nn.MultiheadAttention` and of Rizbin's text tower.
        if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
            weights.append((name, module, "in_proj_weight"))
        inside = any(part in _ATTENTION for part in name.split(".")[:-1])
        if isinstance(module, nn.Linear) and inside and "mlp" not in name.split("."):
            weights.append((name, module, "weight"))
    return weights


_ATTENTION = ("attn", "self_attn", "attention")
"""What libraries call the attention of a block."""


def _learn_adapters(block: nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, LowRank):
            module.requires_grad_(True)


def _check(network: Any, settings: TuningSettings) -> None:
    if not 0 < settings.layer_decay <= 1:
        raise RizbinError(f"layer_decay is {settings.layer_decay:g}; choose a number above 0, up to 1.")
    if settings.lora_rank < 0 or settings.lora_alpha <= 0:
        raise RizbinError("lora_rank is a whole number from 0, and lora_alpha a number above 0.")
    count = len(blocks_of(network.vision)) if isinstance(getattr(network, "vision", None), nn.Module) else 0
    if not 0 <= settings.frozen_blocks <= count:
        raise RizbinError(f"frozen_blocks is {settings.frozen_blocks}; the image tower has {count} blocks.")
    reads = isinstance(getattr(network, "text", None), nn.Module)
    if settings.image_tower == "locked" and (settings.text_tower == "locked" or not reads):
        raise RizbinError("With every tower locked nothing learns; let a tower learn.")
