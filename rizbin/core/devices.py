"""Chooses the device to compute on from a name that the user gave."""

import torch

from rizbin.core.errors import RizbinError

BEST = "best"
"""A GPU where there is one, else the processor."""


def choose(device: str = BEST, *, own: int = 0) -> torch.device:
    """The device of that name, once it is known to be there.

    device: "best" is a GPU of CUDA (or ROCm, which torch calls by that name) where there is one, else the processor;
        "cpu"; "cuda" or "gpu"; "cuda:1", a certain GPU; "mps", the GPU of an Apple processor. That one is taken only
        when it is named: some operations of the networks here are missing there, and none of it was measured.
    own: the number of the GPU that "best" and "cuda" stand for; of several processes on one machine each has its own.
    Raises RizbinError in one sentence for a name that there is not, and for a device that torch does not see.
    """
    kind, colon, number = device.partition(":")
    if device == "cpu" or (device == BEST and not torch.cuda.is_available()):
        return torch.device("cpu")
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise RizbinError("mps was asked for, but torch sees no Apple GPU here; give cpu, or see `rizbin doctor`.")
        return torch.device("mps")
    if kind not in ("best", "cuda", "gpu") or bool(colon) != number.isdecimal() or (colon and kind != "cuda"):
        raise RizbinError(f"There is no device {device!r}; give best, cpu, cuda, mps, or cuda:1 for a certain GPU.")
    present = torch.cuda.device_count()
    if not present:
        raise RizbinError(f"{device} was asked for, but torch sees no GPU here; give cpu, or see `rizbin doctor`.")
    place = int(number) if colon else own
    if place >= present:
        shown = "cuda:0 alone" if present == 1 else f"cuda:0 to cuda:{present - 1}"
        raise RizbinError(f"cuda:{place} was asked for, but torch sees {shown}; give one of these, or cpu.")
    return torch.device("cuda", place)
