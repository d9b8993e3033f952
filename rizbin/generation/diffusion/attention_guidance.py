"""Attention guidance against missing objects, by name: finds the objects, their tokens and the size of the maps.

Guidance by a loss of attention maps, a searched first noise, or the objects' own prompts composed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.data.scenes.captions import article
from rizbin.generation.diffusion.guidance import Guidance, Record
from rizbin.generation.diffusion.noise import InitialNoise, NoiseRecord
from rizbin.generation.diffusion.sampling import ComposedPrompt, StepState
from rizbin.generation.diffusion.spans import TokenSpan, end_of_text, objects_in, spans_of
from rizbin.generation.diffusion.text_to_image import TextToImage

GuidanceKind = Literal[
    "none",
    "attend-and-excite",
    "center-distance",
    "iou",
    "kl",
    "total-variation",
    "contrastive",
    "initial-noise",
    "compose",
]
"""Losses of attention maps, by the names of `attention_losses`; a searched first noise (InitNO, arXiv 2404.04650); the
objects' own prompts, all of which must hold (Composable Diffusion, arXiv 2206.01714)."""
GUIDANCE_KINDS: tuple[GuidanceKind, ...] = get_args(GuidanceKind)
SCALE = 20.0
"""Scale of guidance's updates in all papers, for the maps of 16 x 16 of Stable Diffusion 1; coarser maps have smaller
gradients and need more."""
MOST = 16
"""Most cells along the shorter side of the maps: the papers use 16 in Stable Diffusion."""


@dataclass
class Steering:
    """Attention guidance for one prompt, with a record of each step."""

    guidance: Guidance
    spans: list[TokenSpan]
    ends: int | None
    records: list[Record]

    def __call__(self, step_state: StepState) -> Tensor:
        """The latents to go on with."""
        with torch.enable_grad():
            latents, record = self.guidance.steer(
                step_state.unet,
                step_state.scheduler,
                step_state.latents,
                step_state.step,
                step_state.steps,
                step_state.timestep,
                step_state.words.given,
                self.spans,
                step_state.words.more_given or None,
                self.ends,
            )
        self.records.append(record)
        return latents


@dataclass
class FirstNoise:
    """Replaces the first noise by a searched one, with a record of the search."""

    search: InitialNoise
    spans: list[TokenSpan]
    ends: int | None
    records: list[NoiseRecord]

    def __call__(self, step_state: StepState) -> Tensor:
        """The latents to go on with: at the first step the noise that was found, at the others those that came."""
        if step_state.step:
            return step_state.latents
        if not step_state.from_noise:
            raise RizbinError(
                "The guidance initial-noise searches for a first noise, and an image that is redrawn is begun from the "
                "image; choose another guidance."
            )
        sigma = float(step_state.scheduler.init_noise_sigma)
        noise, record = self.search.search(
            step_state.unet,
            step_state.scheduler,
            step_state.latents / sigma,
            step_state.timestep,
            step_state.words.given,
            self.spans,
            generator=step_state.generator,
            sigma=sigma,
            added=step_state.words.more_given or None,
            end_of_text=self.ends,
        )
        self.records.append(record)
        return noise * sigma


def steering(
    text_to_image: TextToImage,
    prompt: str,
    kind: GuidanceKind,
    *,
    objects: Sequence[str] = (),
    scale: float = SCALE,
    settings: Guidance.Settings | InitialNoise.Settings | None = None,
) -> tuple[Steering | FirstNoise | ComposedPrompt | None, list[str]]:
    """What makes every object of the prompt attended to, for `TextToImage.paint`; sentences about what was not found.

    objects: words of the prompt; empty: those that `spans.objects_in` proposes. None comes back for the guidance
    "none", for a prompt without an object, and, for losses of pairs and compositions, without two. scale: of guidance's
    updates. settings: of guidance in place of it, or of
    the search for a noise where that is the guidance. Raises RizbinError for models without a UNet.
    """
    if not 0 <= scale < float("inf"):
        raise RizbinError(
            f"A scale of {scale:g} for the updates of the guidance is out of range; give a number, 0 or more."
        )
    if kind == "none":
        return None, []
    if text_to_image.unet is None:
        raise RizbinError(f"{text_to_image.name} has no UNet, whose attention could be guided.")
    spans, notes = spans_of(prompt, list(objects) or objects_in(prompt), text_to_image.pipeline.tokenizer)
    needed = 1 if kind in ("attend-and-excite", "initial-noise") else 2
    if len(spans) < needed:
        notes.append(
            f"{'No object was' if not spans else 'One object was'} found in the prompt, {kind} needs {needed}; it is "
            "drawn without."
        )
        return None, notes
    if kind == "compose":
        return ComposedPrompt(tuple(article(span.word) for span in spans)), notes
    # Text encoders whose padding is no copy of the end (Stable Diffusion 2, ours) let it draw attention.
    tokenizer = text_to_image.pipeline.tokenizer
    ends = None if tokenizer.pad_token_id == tokenizer.eos_token_id else end_of_text(prompt, tokenizer)
    if kind == "initial-noise":
        searched = settings if isinstance(settings, InitialNoise.Settings) else InitialNoise.Settings()
        return FirstNoise(
            InitialNoise(replace(searched, resolution=resolution_of(text_to_image))), spans, ends, []
        ), notes
    # Only Attend-and-Excite refines up to thresholds of the peaks; losses of pairs have one update a step.
    usual = Guidance.Settings(scale=scale) if needed == 1 else Guidance.Settings(scale=scale, refinement=())
    guided = settings if isinstance(settings, Guidance.Settings) else usual
    settings = replace(guided, loss=kind.replace("-", "_"), resolution=resolution_of(text_to_image))
    return Steering(Guidance(settings), spans, ends, []), notes


def resolution_of(text_to_image: TextToImage) -> int:
    """Cells of the finest cross-attention with `MOST` or fewer along a side, at the model's own size."""
    config = text_to_image.unet.config
    sides = [
        config.sample_size // 2**level for level, kind in enumerate(config.down_block_types) if "CrossAttn" in kind
    ]
    fitting = [side for side in sides if side <= MOST]
    return max(fitting) if fitting else min(sides)
