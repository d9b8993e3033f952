"""Which optimizer moves the weights, and which of them decay."""

from typing import Any

import torch
from torch import nn

from rizbin.core.errors import RizbinError


def make_optimizer(
    kind: str,
    groups: list[dict[str, Any]],
    *,
    learning_rate: float,
    momentum: float,
    betas: tuple[float, float],
    epsilon: float,
) -> torch.optim.Optimizer:
    """AdamW, SGD or LARS over groups of parameters with their `weight_decay`.

    LARS leaves alone the scale of what does not decay (norms and biases), as SimCLR and BYOL do.
    """
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=True)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)
    if kind == "lars":
        from timm.optim.lars import Lars

        for group in groups:  # by dimensions, as timm's own rule (what decays) fails where nothing decays
            group["always_adapt"] = all(parameter.ndim > 1 for parameter in group["params"])
        keywords: dict[str, Any] = {"momentum": momentum}  # annotated int there, and meant as a share
        return Lars(groups, lr=learning_rate, trust_coeff=1e-3, **keywords)
    raise RizbinError(f"There is no optimizer {kind!r}; there are adamw, sgd and lars.")


def decay_groups(modules: list[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of `modules`, each once: those that decay, and those that do not.

    Norms, biases and scales, which have fewer than two dimensions, do not.
    """
    parameters: dict[int, nn.Parameter] = {}
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameters.setdefault(id(parameter), parameter)
    decay = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    keep = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    return decay, keep
