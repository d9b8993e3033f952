"""Learning rate over a run, and which parameters decay."""

import math

from torch import nn


def warmup_cosine(step: int, steps: int, *, peak: float, floor: float, warmup: float) -> float:
    """Learning rate of `step`.

    Linear from `floor` to `peak` over the first `warmup` (a fraction) of `steps`, then a cosine back to `floor`.
    """
    rise = warmup * steps
    if step < rise:
        return floor + (peak - floor) * (step + 1) / max(rise, 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


def decay_groups(modules: list[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of `modules`, each once: those that decay, and those that do not.

    Norms, biases and scales, which have fewer than two dimensions, do not.
    """
    seen: dict[int, nn.Parameter] = {}
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                seen.setdefault(id(parameter), parameter)
    decay = [parameter for parameter in seen.values() if parameter.ndim >= 2]
    keep = [parameter for parameter in seen.values() if parameter.ndim < 2]
    return decay, keep
