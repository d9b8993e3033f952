"""Settings of the evaluation of encoders."""

from dataclasses import dataclass

from rizbin.core.errors import RizbinError
from rizbin.evaluation import zero_shot


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    images: int = 1000
    """Images to measure on; 1,000 put the standard error of a share at 1.6 points or less."""
    train_images: int = 2000
    """Most images of the training source for k-NN, probes and the background threshold; at most twice as many as
    are measured on, so that time follows `images`."""
    least_images: int = 10
    """Data with fewer images than this are refused: of three captions each finds its image almost by itself, and a
    share of ten images has a standard error of up to 16 points."""
    batch: int = 100
    """Images embedded at once; changes speed and memory only."""
    seed: int = 0
    """Decides which images of a finite source are taken, the held-out fifth, and the random weights."""
    templates: zero_shot.TemplateSet = "scenes"
    """Prompts of a category: "scenes" (as the embedded world's captions), "plain" (7 of CLIP's) or "openai80"."""
    k: int = 20
    """Neighbors that vote (DINO, arXiv 2104.14294)."""
    temperature: float = 0.07
    """Temperature of the neighbors' weights (DINO)."""
    decays: tuple[float, ...] = (0.1, 0.01, 0.001, 0.0001)
    """Weight decays that the probes choose from, as a factor of |weight|^2 / 2."""
    probe_steps: int = 40
    """Most L-BFGS iterations of a probe; the loss then moves by less than a percent."""
    probe_patches: int = 8
    """Patches of each training image that the segmentation probe learns from, at random."""
    threshold_images: int = 300
    """Most training images on which the background threshold is chosen; at most as many as are measured on."""
    dense_images: int = 300
    """Most images, of the test and of the training ones, for the dense head: it takes five passes of
    the network, the plain one takes one. 0 leaves it out."""
    size_edges: tuple[float, float] = (0.02, 0.10)
    """An object is small under the first, large from the second, as shares of the image's area."""
    keep_ratio: float = 0.5
    """Share of blocks that the token filter keeps (DetailCLIP, A-CLIP: 0.5)."""
    block: int = 2
    """Side in patches of the squares that the token filter keeps or removes whole; 1 for single patches."""
    mass: float = 0.6
    """Share of a head's attention in its mask, over 0 to 1 (DINO's figure 4)."""
    bands: tuple[float, ...] = (0.25, 0.5)
    """Where frequency bands end, as shares of the Nyquist frequency; the last band has no end."""
    boundary_width: int = 2
    """Width in pixels of the band around boundaries that boundary IoU counts; the paper's 2 percent of the diagonal at
    64 pixels (arXiv 2103.16562)."""
    low_resolutions: tuple[int, ...] = (2, 4)
    """Factors by which images are shrunk for methods that reconstruct detail from a lower resolution."""
    baseline: bool = True
    """Measure the same network with random weights too; doubles the time, once: the numbers are kept for the next
    network of the same architecture on the same data."""


def check(settings: EvaluationSettings) -> None:
    """Refuses settings that nothing can be measured with."""
    for name, least in (
        ("images", 1),
        ("train_images", 0),
        ("least_images", 1),
        ("batch", 1),
        ("k", 1),
        ("probe_steps", 1),
        ("probe_patches", 1),
        ("threshold_images", 1),
        ("dense_images", 0),
        ("block", 1),
        ("boundary_width", 1),
    ):
        if (value := getattr(settings, name)) < least:
            raise RizbinError(f"The evaluation's {name} is {value}; give {least} or more.")
    if settings.temperature <= 0:
        raise RizbinError(f"The evaluation's temperature is {settings.temperature}; give a number above 0.")
    if not 0 < settings.mass <= 1:
        raise RizbinError(f"The evaluation's mass is {settings.mass}; give a share above 0, up to 1.")
    if not 0 < settings.keep_ratio <= 1:
        raise RizbinError(f"The evaluation's keep_ratio is {settings.keep_ratio}; give a share above 0, up to 1.")
    if not settings.decays or min(settings.decays) < 0:
        raise RizbinError(f"The evaluation's decays are {settings.decays}; give one or more numbers from 0 on.")
    if any(factor < 2 for factor in settings.low_resolutions):
        raise RizbinError(f"The evaluation's low_resolutions are {settings.low_resolutions}; give factors from 2 on.")
    for name in ("size_edges", "bands"):
        edges = getattr(settings, name)
        if not edges or edges[0] <= 0 or sorted(set(edges)) != list(edges):
            raise RizbinError(f"The evaluation's {name} are {edges}; give rising numbers above 0.")
