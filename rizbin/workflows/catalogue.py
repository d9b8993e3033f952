"""Everything that can be trained, by name: the methods for encoders, the detector and the diffusion model."""

from rizbin import methods
from rizbin.core.errors import RizbinError
from rizbin.training.method import Method

DETECTOR, DIFFUSION = "detector", "diffusion"


def names() -> tuple[str, ...]:
    """All names, in alphabetical order."""
    return tuple(sorted((*methods.names(), DETECTOR, DIFFUSION)))


def find(name: str) -> type[Method]:
    """The class of a method, of `DETECTOR` or of `DIFFUSION`. Raises RizbinError naming the choices."""
    if name == DETECTOR:
        from rizbin.detection.train import GroundingDINOTraining

        return GroundingDINOTraining
    if name == DIFFUSION:
        from rizbin.generation.diffusion.train import LatentDiffusion

        return LatentDiffusion
    if name not in methods.names():
        raise RizbinError(f"There is no method '{name}'; choose one of {', '.join(names())}.")
    return methods.find(name)
