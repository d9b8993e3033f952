"""Settings of sampling, its state at each step, and its result."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.schedulers import OWN, clean_latents, signal_at
from rizbin.generation.film import Pixels

SEEDS = (-(2**63), 2**64 - 1)
"""The least and the largest seed that torch takes: 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an image is drawn."""

    steps: int = 25
    """Number of denoising steps. The UNet runs once per step (on two rows with classifier-free guidance), with Heun and
    KDPM2 twice."""
    guidance_scale: float = 7.5
    """Scale of classifier-free guidance: how far each step is moved away from the prediction without the prompt (arXiv
    2207.12598); 1 moves nothing."""
    scheduler: str = OWN
    """own, the scheduler that the model came with, or one of `schedulers.SCHEDULERS`."""
    height: int = 0
    """Height of the image in pixels, rounded to what the model can divide; 0 is the model's own side."""
    width: int = 0
    """Width of the image in pixels, as for height."""
    seed: int = 0
    """Seed of the first noise and of schedulers that add more. The same seed gives the same image on the processor."""
    strength: float = 0.8
    """Share of the steps that is made from a start image: 0 keeps the image, 1 ignores it."""
    negative: str = ""
    """Negative prompt: what the image should not show."""


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embeddings of a prompt, or of several that all must hold, as the UNet reads them."""

    given: Float[Tensor, "prompts tokens dim"]
    without: Float[Tensor, "1 tokens dim"]
    """Embeddings of the negative prompt."""
    more_given: dict[str, Tensor] = field(default_factory=dict)
    """What Stable Diffusion XL reads beside the embeddings of the prompt."""
    more_without: dict[str, Tensor] = field(default_factory=dict)
    """The same beside the negative prompt."""


@dataclass(frozen=True)
class StepState:
    """State of the sampling loop before a step."""

    unet: Any
    scheduler: Any
    latents: Float[Tensor, "1 channels rows columns"]
    step: int
    steps: int
    timestep: Tensor
    words: PromptEmbeddings
    generator: torch.Generator
    """The generator of the noise, after what was drawn from it so far."""
    from_noise: bool
    """Whether sampling began from noise alone, not from a start image."""


@dataclass(frozen=True)
class DenoisingFrame:
    """One step as it is shown to a `Watch`."""

    step: int
    """Number of the step, from 0."""
    timestep: float
    """Timestep of the noise schedule, large at the start."""
    clean: Float[Tensor, "1 channels rows columns"]
    """The predicted original latents: what the network takes the finished image to be at this step."""
    attention: Float[Tensor, "places_down places_across tokens"] | None = None
    """Cross-attention of each place to each token of the prompt, mean of layers and heads; None when not asked for."""
    noisy: Float[Tensor, "1 channels rows columns"] | None = None
    """The latents as the network sees them at this step: signal and noise whose squares add up to one; None for models
    that run through their own pipeline."""
    with_prompt: Float[Tensor, "1 channels rows columns"] | None = None
    """The predicted original latents by the prediction with the prompt alone; None without classifier-free guidance."""
    without_prompt: Float[Tensor, "1 channels rows columns"] | None = None
    """The same by the prediction with the negative prompt alone."""
    signal: float | None = None
    """Share of the original in `noisy`, squared: alpha bar, 0 to 1. The noise level sigma is sqrt(1 / signal - 1)."""
    noise_change: float | None = None
    """How far guidance is asked to move the predicted noise: the length of the difference of the two predictions, in
    lengths of the one without the prompt."""


Guide = Callable[[StepState], Tensor]
"""Returns the latents [1, channels, rows, columns] to go on with, so that what is drawn fits the words better."""
Watch = Callable[[DenoisingFrame], None]
"""Called after every step."""


@dataclass(frozen=True)
class ComposedPrompt:
    """Prompts that are drawn as one image in which all hold, each with the guidance as its weight.

    Source: Composable Diffusion, arXiv 2206.01714; see `noise.compose`.
    """

    parts: tuple[str, ...]


@dataclass(frozen=True)
class GeneratedImage:
    """An image and how it came to be."""

    image: Pixels
    frames: list[DenoisingFrame]
    notes: list[str]
    """What was rounded, cut off or not possible, each in a sentence."""
    seconds: float
    """Duration of the sampling, decoding included."""


def frame_of(
    scheduler: Any,
    step: int,
    timestep: Tensor,
    latents: Tensor,
    predicted: tuple[Tensor | None, Tensor, Tensor],
    attention: Tensor | None,
) -> DenoisingFrame:
    """The frame of a step, before the scheduler makes it.

    predicted: what the network said without the prompt (None where guidance is off), with it, and the two combined.
    """
    without, given, output = predicted
    clean = clean_latents(scheduler, output, latents, timestep).cpu()
    noisy = scheduler.scale_model_input(latents, timestep).cpu()
    share = signal_at(scheduler, timestep)
    if without is None or len(given) != 1:
        return DenoisingFrame(step, float(timestep), clean, attention, noisy, signal=share)
    change = float((given - without).double().norm() / without.double().norm().clamp(min=1e-12))
    given, without = (clean_latents(scheduler, part, latents, timestep).cpu() for part in (given, without))
    return DenoisingFrame(step, float(timestep), clean, attention, noisy, given, without, share, change)


def check(sampling: Sampling) -> None:
    """Raises RizbinError for a setting that is out of its range."""
    if sampling.steps < 1:
        raise RizbinError(f"{sampling.steps} steps draw nothing; give 1 or more.")
    if not 0 <= sampling.strength <= 1:
        raise RizbinError(f"A strength of {sampling.strength:g} is outside 0 (keep the image) to 1 (ignore it).")
    if not math.isfinite(sampling.guidance_scale):
        raise RizbinError(f"A guidance of {sampling.guidance_scale:g} cannot be followed; give a number, 0 or more.")
    if not SEEDS[0] <= sampling.seed <= SEEDS[1]:
        raise RizbinError(f"The seed {sampling.seed} has more than 64 bits; give one from 0 to {SEEDS[1]}.")
    if sampling.guidance_scale < 0:
        raise RizbinError(f"A guidance of {sampling.guidance_scale:g} would draw the opposite; give 0 or more.")
    if sampling.height < 0 or sampling.width < 0:
        raise RizbinError("Height and width are pixels, 0 for the model's own.")


def seed_after(seed: int, more: int) -> int:
    """The seed that is `more` further on; after the last one of 64 bits comes 0."""
    return seed + more if seed + more <= SEEDS[1] else seed + more - SEEDS[1] - 1


def fingerprint(image: Pixels) -> str:
    """SHA-256 of an image's sides and pixels: whether two images are the same to the bit, however they are kept."""
    sides = "x".join(str(side) for side in image.shape)
    return hashlib.sha256(sides.encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
