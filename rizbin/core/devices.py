"""Which processor does the work: one rule for all jobs."""

import torch

from rizbin.core.errors import RizbinError

BEST = "best"
"""A GPU where there is one, else the CPU."""


def choose(device: str = BEST) -> torch.device:
    """The device that a name stands for: best, cpu, cuda, or cuda:1 for a certain GPU.

    Raises RizbinError for one that is not there.
    """
    if device == BEST:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RizbinError(f"There is no device {device!r}; give best, cpu, cuda, or cuda:1 for a GPU.") from error
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise RizbinError(f"There is no device {device!r} here; {torch.cuda.device_count()} GPUs were found.")
    return chosen
