"""Low-rank adapters: a linear layer's weight stays as it was, and what it learns is a product of two thin matrices.

Source: Hu et al., "LoRA", arXiv 2106.09685, equation 3: W + (alpha / r) B A, with A random and B zero at the start.
An adapter stands inside the weight (torch's parametrizations) and not around the layer, as peft has it: so the faster
fusion of `rizbin.detection.fast`, which reads weights without calling their layers, sees it too. peft 0.21 itself
refuses MM-Grounding-DINO, which has no `get_input_embeddings`.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from rizbin.nets.lora import ALPHA as ALPHA
from rizbin.nets.lora import LowRank
from rizbin.nets.lora import merged as merged

HEADS = ("class_embed", "bbox_embed", "enc_output", "encoder_output_bbox_embed", "encoder_output_class_embed")
"""Parts that begin a new domain's names and boxes: they learn whole, beside the adapters."""


def adapt(model: Any, rank: int, *, without: Sequence[nn.Module] = ()) -> None:
    """Puts adapters into every linear layer of the network; they and the heads alone learn from then on.

    A layer with a side no longer than the rank gains nothing by it and rests. `without`: parts that get none and rest.
    """
    resting = {id(module) for part in without for module in part.modules()}
    model.requires_grad_(False)
    heads = [module for name, module in model.named_modules() if name.rpartition(".")[2] in HEADS]
    whole = {id(module) for head in heads for module in head.modules()}
    for module in list(model.modules()):
        fits = isinstance(module, nn.Linear) and rank < min(module.weight.shape)
        if fits and id(module) not in resting | whole:
            rows, columns = module.weight.shape
            adapter = LowRank(rows, columns, rank).to(module.weight)
            parametrize.register_parametrization(module, "weight", adapter, unsafe=True)
    for head in heads:
        head.requires_grad_(True)
