"""Attention guidance for a painter, ready to use: objects found in the prompt, their tokens, the maps' resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generate.diffusion.guidance import Guidance, Record
from rizbin.generate.diffusion.painter import Moment, Painter
from rizbin.generate.diffusion.spans import Span, end_of_text, objects_in, spans_of

Cure = Literal["none", "attend-and-excite", "center-distance", "iou", "kl", "total-variation", "contrastive"]
"""Losses of attention maps, by the names of `attention_losses`."""
CURES: tuple[Cure, ...] = get_args(Cure)
MOST = 16
"""Cells along the shorter side of the maps at most: what the papers look at in Stable Diffusion."""


@dataclass
class Steering:
    """A guide for one prompt, and what it did."""

    guidance: Guidance
    spans: list[Span]
    ends: int | None
    records: list[Record]

    def __call__(self, moment: Moment) -> Tensor:
        """The latents to go on with."""
        with torch.enable_grad():
            latents, record = self.guidance.steer(
                moment.unet,
                moment.scheduler,
                moment.latents,
                moment.step,
                moment.steps,
                moment.timestep,
                moment.words.given,
                self.spans,
                moment.words.more_given or None,
                self.ends,
            )
        self.records.append(record)
        return latents


def steering(
    painter: Painter,
    prompt: str,
    cure: Cure,
    *,
    objects: Sequence[str] = (),
    settings: Guidance.Settings | None = None,
) -> tuple[Steering | None, list[str]]:
    """A guide that makes every object of the prompt attended to, and sentences about what it could not find.

    objects: words of the prompt; empty: those that `spans.objects_in` proposes. None comes back for the cure "none",
    for a prompt without an object, and, for losses of pairs, without two. Raises RizbinError for models
    without a UNet.
    """
    if cure == "none":
        return None, []
    if painter.unet is None:
        raise RizbinError(f"{painter.name} has no UNet, whose attention could be guided.")
    spans, notes = spans_of(prompt, list(objects) or objects_in(prompt), painter.pipeline.tokenizer)
    needed = 1 if cure == "attend-and-excite" else 2
    if len(spans) < needed:
        notes.append(
            f"{'No object was' if not spans else 'One object was'} found in the prompt, {cure} needs {needed}; it is "
            "drawn without."
        )
        return None, notes
    # Only Attend-and-Excite refines up to thresholds of the peaks; losses of pairs have one update a step.
    usual = Guidance.Settings() if needed == 1 else Guidance.Settings(refinement=())
    wanted = replace(settings or usual, loss=cure.replace("-", "_"), resolution=resolution_of(painter))
    # Text encoders whose padding is no copy of the end (Stable Diffusion 2, ours) let it draw attention.
    tokenizer = painter.pipeline.tokenizer
    ends = None if tokenizer.pad_token_id == tokenizer.eos_token_id else end_of_text(prompt, tokenizer)
    return Steering(Guidance(wanted), spans, ends, []), notes


def resolution_of(painter: Painter) -> int:
    """Cells of the finest cross-attention with `MOST` or fewer along a side, at the model's own size."""
    config = painter.unet.config
    sides = [
        config.sample_size // 2**level for level, kind in enumerate(config.down_block_types) if "CrossAttn" in kind
    ]
    fitting = [side for side in sides if side <= MOST]
    return max(fitting) if fitting else min(sides)
