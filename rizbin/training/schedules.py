"""Learning rate and weight decay over a run."""

import math


def warmup_cosine(step: int, steps: int, *, peak: float, floor: float, warmup: float, start: float) -> float:
    """Learning rate of `step`.

    Linear from `start` at step 0 to `peak` at the last step of the warm-up, which is the first `warmup` (a fraction) of
    `steps`; then a cosine from `peak` to `floor`. A warm-up of a step or less is none. So the official code of DINO and
    DetailCLIP has it.
    """
    rise = warmup * steps
    if step < rise and rise > 1:
        return start + (peak - start) * min(step / (rise - 1), 1.0)
    return floor + (peak - floor) * (1 + math.cos(math.pi * max(step - rise, 0.0) / max(steps - rise, 1))) / 2


def growth(step: int, steps: int, factor: float) -> float:
    """From 1 at the first step to `factor` at the end, along half a cosine (DINO's weight decay)."""
    return factor + (1 - factor) * (1 + math.cos(math.pi * step / max(steps, 1))) / 2
