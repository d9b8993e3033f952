"""Attention guidance: while an image is made, its latents are moved so that every object is attended to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion import attention_losses as losses
from rizbin.generation.diffusion.attention import Capture
from rizbin.generation.diffusion.spans import TokenSpan

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as UNet
else:  # when the module runs, what it is besides: diffusers costs seconds to import
    UNet = nn.Module

Loss = Literal["attend_and_excite", "center_distance", "iou", "kl", "total_variation", "contrastive"]
"""Names in `attention_losses`."""

Latents = Float[Tensor, "batch channels height width"]
"""Latents of one image."""


@runtime_checkable
class Scheduler(Protocol):
    """What guidance needs of a scheduler of diffusers."""

    # The schedulers annotate the timestep differently from each other, and take what they give in `timesteps`.
    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """The network's input of noisy latents."""
        ...


class Record(TypedDict, total=False):
    """What happened at one step."""

    note: str
    """Why nothing was done; absent when something was."""
    loss: float
    """Loss of the latents before any update of this step."""
    peaks: list[float]
    """Each object's highest sharpened attention, 0 to 1, before any update."""
    statistics: dict[str, float]
    """`attention_losses.statistics` of the maps as they came."""
    last_loss: float
    """Loss in the last pass, before the last update."""
    last_peaks: list[float]
    passes: int
    """Passes with gradient."""
    updates: int
    """Number of updates of the latents."""


class Guidance:
    """Moves the latents against the gradient of a loss of the objects' attention maps, before each denoising step.

    z <- z - scale * sqrt(1 - 1/2 * step / (steps - 1)) * dL/dz, from one pass with the prompt alone, and at some steps
    more than once, until every object has its peak; z are the latents as the network sees them.
    Source: Attend-and-Excite, arXiv 2301.13826, algorithm 1, and its released code; for losses of pairs
    arXiv 2410.20972.
    Differs: the latents are scaled as the scheduler wants them before the pass, without which samplers that count in
    sigmas (Euler, Heun, LMS) show the network something up to 157 times too large; the move is made in that scale and
    taken back to the sampler's, so that all samplers get the same (in their own it would be 157^2 times weaker). The
    pass ends at the last layer that is looked at.

    One object serves one image at a time: the contrastive loss remembers the maps of the step before.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        loss: Loss = "attend_and_excite"
        """What is made lower. attend_and_excite: the worst object gets a peak (arXiv 2301.13826). The others pull two
        objects and more apart: center_distance, iou, kl, total_variation (arXiv 2410.20972) and contrastive (CONFORM,
        arXiv 2312.06059)."""
        scale: float = 20.0
        """Size of an update at the first step, in the network's input per unit of gradient, 0 or more; at the last it
        is 0.71 of that. 20 in the code of every paper named here."""
        steps: float = 0.5
        """Share of the sampling steps that are guided, from the first on, 0 to 1: 25 of 50 in Attend-and-Excite."""
        refinement: tuple[tuple[float, float], ...] = ((0.0, 0.05), (0.2, 0.5), (0.4, 0.8))
        """At these shares of the run (0 to 1) updates are repeated until every object's peak (0 to 1) reaches the
        threshold beside it. Steps 0, 10 and 20 of 50 with 0.05, 0.5 and 0.8 in Attend-and-Excite; empty for one update
        a step, as in arXiv 2410.20972."""
        most_refinements: int = 20
        """Most repeated updates at one such step, 0 or more. 20 in Attend-and-Excite."""
        resolution: int = 16
        """Cells along the shorter side of the attention maps that are looked at. 16 of Stable Diffusion's 64, 32, 16
        and 8 at 512 pixels in every paper named here."""
        floor: float = 0.2
        """The highest attention, 0 to 1, that every object should have at least somewhere before floor_weight
        penalizes it. 0.2 is well over an even share of 77 tokens (0.013); ours, not measured on a large model."""
        floor_weight: float = 0.0
        """Weight of what is missing to the floor, beside the loss, 0 or more. Losses of pairs do not see that a map is
        faint everywhere. 0 is what the papers do."""

    def __init__(self, settings: Settings = Settings()) -> None:
        """Raises RizbinError when a setting is out of its range."""
        shares = [("steps", settings.steps), *(("refinement", share) for pair in settings.refinement for share in pair)]
        for name, share in shares:
            if not 0 <= share <= 1:
                raise RizbinError(f"The setting {name} holds {share}; give shares from 0 to 1.")
        if min(settings.scale, settings.most_refinements, settings.floor_weight) < 0:
            raise RizbinError("The settings scale, most_refinements and floor_weight must be 0 or more.")
        self.settings = settings
        self._capture: Capture | None = None
        self._previous: Tensor | None = None
        self._step = -1

    def steer(
        self,
        unet: UNet,
        scheduler: Scheduler,
        latents: Latents,
        step: int,
        steps: int,
        timestep: Tensor | int | float,
        embeddings: Float[Tensor, "prompts tokens dim"],
        spans: Sequence[TokenSpan],
        added: dict[str, Tensor] | None = None,
        end_of_text: int | None = None,
    ) -> tuple[Latents, Record]:
        """The latents to denoise at this step instead of those given, and what happened.

        Args:
            unet: A UNet of diffusers. Its weights get no gradient and are not changed.
            scheduler: The run's, with its timesteps set.
            latents: Of one image, as the scheduler keeps them: not scaled.
            step: Which of the sampling steps comes, from 0.
            steps: Sampling steps in all.
            timestep: Of this step.
            embeddings: Of the prompt; not those of the negative one.
            spans: The objects. None, or one where pairs are compared: the latents come back as they are, with a note.
            added: What SDXL wants besides.
            end_of_text: Where the prompt ends; what follows is then left out of the softmax of the peaks. Wanted for
                text encoders whose padding draws attention (SD 2.x); the released code for SD 1.x uses none.
        """
        if len(latents) != 1 or len(embeddings) != 1:
            raise RizbinError(f"Guidance takes one image at a time, not {len(latents)}; steer each by itself.")
        needed = 1 if self.settings.loss == "attend_and_excite" else 2
        if len(spans) < needed:
            return latents, {"note": f"The loss {self.settings.loss} needs {needed} or more objects, not {len(spans)}."}
        threshold = self._threshold(step, steps)
        guided = step < self.settings.steps * steps
        if not guided and threshold is None:
            return latents, {"note": f"Step {step} of {steps} is not guided."}
        if step <= self._step:
            self._previous = None  # another image has begun
        self._step = step
        run = _Run(self, unet, scheduler, timestep, embeddings, [span.tokens for span in spans], added, end_of_text)
        size = self.settings.scale * (1 - step / max(steps - 1, 1) / 2) ** 0.5
        with frozen(unet), torch.enable_grad():
            moved, record = self._moved(run, latents.detach(), size, guided, threshold)
        return moved.to(latents.dtype), record

    def _threshold(self, step: int, steps: int) -> float | None:
        """The peak to be reached at this step, if it is one of refinement."""
        peaks = [peak for share, peak in self.settings.refinement if round(share * steps) == step]
        return max(peaks, default=None)

    def _moved(
        self, run: "_Run", latents: Latents, size: float, guided: bool, threshold: float | None
    ) -> tuple[Latents, Record]:
        """Algorithm 1 of Attend-and-Excite for one step."""
        look = run.look(latents)
        record: Record = {"loss": look.loss, "peaks": look.peaks, "statistics": losses.statistics(look.maps)}
        updates = 0
        while threshold is not None and min(look.peaks) < threshold and updates < self.settings.most_refinements:
            latents, updates = latents - size * look.gradient, updates + 1
            look = run.look(latents)
        if guided:
            latents, updates = latents - size * look.gradient, updates + 1
        self._previous = look.maps
        record["last_loss"], record["last_peaks"] = look.loss, look.peaks
        record["passes"], record["updates"] = run.passes, updates
        return latents, record

    def capture_of(self, unet: UNet) -> Capture:
        """Made once for a network, so that what it learned of the layers is kept."""
        if self._capture is None or self._capture.unet is not unet:
            self._capture = Capture(unet, (self.settings.resolution,), stop_after_last=True)
        return self._capture

    def loss_of(
        self, attention: Float[Tensor, "rows columns tokens"], tokens: losses.Tokens, end_of_text: int | None
    ) -> Float[Tensor, ""]:
        """The chosen loss of one averaged map, with what is missing to the floor."""
        maps = losses.maps_of(attention, tokens)
        if self.settings.loss == "attend_and_excite":
            loss = losses.attend_and_excite(attention, tokens, end_of_text)
        elif self.settings.loss == "contrastive":
            # At the first step the maps stand for their own past: only the others push.
            previous = maps if self._previous is None or self._previous.shape != maps.shape else self._previous
            loss = losses.contrastive(maps, previous)
        else:
            loss = PAIRS[self.settings.loss](maps)
        if self.settings.floor_weight:
            loss = loss + self.settings.floor_weight * losses.intensity_floor(maps, self.settings.floor)
        return loss


PAIRS = {
    "center_distance": losses.center_distance,
    "iou": losses.iou,
    "kl": losses.kl,
    "total_variation": losses.total_variation,
}


@dataclass(frozen=True)
class _Look:
    """What one pass showed."""

    loss: float
    gradient: Latents
    """Gradient with respect to the network's input, in the sampler's scale; a guided step subtracts it from the
    latents."""
    peaks: list[float]
    maps: losses.Maps


@dataclass
class _Run:
    """The passes of one step."""

    guidance: Guidance
    unet: UNet
    scheduler: Scheduler
    timestep: Tensor | int | float
    embeddings: Tensor
    tokens: list[tuple[int, ...]]
    added: dict[str, Tensor] | None
    end_of_text: int | None
    passes: int = 0

    def look(self, latents: Latents) -> _Look:
        """Loss and gradient at these latents, by the network's input and back in the sampler's scale.

        Raises RizbinError when the gradient is not finite: a move by it would spoil the image.
        """
        seen = self.scheduler.scale_model_input(latents, self.timestep).detach().requires_grad_()
        # Every scheduler multiplies by a number, which it does not tell.
        factor = self.scheduler.scale_model_input(torch.ones(1, 1, 1, 1, device=latents.device), self.timestep)
        with self.guidance.capture_of(self.unet) as capture:
            capture.run(seen, self.timestep, self.embeddings, self.added)
        attention = capture.mean_map()
        capture.clear()
        loss = self.guidance.loss_of(attention, self.tokens, self.end_of_text)
        (gradient,) = torch.autograd.grad(loss, seen)
        self.passes += 1
        if not bool(gradient.isfinite().all()):
            raise RizbinError(
                f"The gradient of the loss {self.guidance.settings.loss} is not finite; run the network in float32 or "
                "bfloat16."
            )
        attention = attention.detach()
        peaks = losses.peaks(attention, self.tokens, self.end_of_text).tolist()
        return _Look(
            float(loss.detach()), gradient / factor.to(gradient.dtype), peaks, losses.maps_of(attention, self.tokens)
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, no weight of the network asks for a gradient; afterwards each is as it was."""
    asking = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in asking:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)
