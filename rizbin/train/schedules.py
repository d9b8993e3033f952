"""Learning rate and weight decay over a run."""

import math


def warmup_cosine(step: int, steps: int, *, peak: float, floor: float, warmup: float) -> float:
    """Learning rate of `step`.

    Linear from `floor` to `peak` over the first `warmup` (a fraction) of `steps`, then a cosine back to `floor`.
    """
    rise = warmup * steps
    if step < rise:
        return floor + (peak - floor) * (step + 1) / max(rise, 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


def growth(step: int, steps: int, factor: float) -> float:
    """From 1 at the first step to `factor` at the end, along half a cosine (DINO's weight decay)."""
    return factor + (1 - factor) * (1 + math.cos(math.pi * step / max(steps, 1))) / 2
