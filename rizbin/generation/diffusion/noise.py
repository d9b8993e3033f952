"""Before and beside guidance: a better first noise (InitNO), and several prompts at once (composable diffusion)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion import attention_losses as losses
from rizbin.generation.diffusion.attention import Capture
from rizbin.generation.diffusion.guidance import Latents, Scheduler, frozen
from rizbin.generation.diffusion.spans import TokenSpan

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as UNet
else:  # when the module runs, what it is besides: diffusers costs seconds to import
    UNet = nn.Module


def compose(
    unconditional: Float[Tensor, "batch channels height width"],
    conditionals: Float[Tensor, "prompts batch channels height width"],
    weights: Float[Tensor, " prompts"],
) -> Float[Tensor, "batch channels height width"]:
    """The noise to take away for several prompts that all must hold.

    e = e_u + sum_i w_i (e_i - e_u), a negative weight for what must not be there. One prompt with the guidance scale as
    its weight is ordinary classifier-free guidance.
    Source: Composable Diffusion, arXiv 2206.01714, equation 11.
    """
    return unconditional + torch.einsum("p,p...->...", weights, conditionals - unconditional)


def self_attention_conflict(
    attention: Float[Tensor, "objects rows columns"], looks: Float[Tensor, "rows columns positions"]
) -> Float[Tensor, ""]:
    """How much what two objects' strongest cells look at is the same, 0 to 0.5, the mean over pairs.

    mean_(i<j) sum_q min(S_i, S_j) / sum_q (S_i + S_j), S_i the self-attention of the cell where object i has its most
    cross-attention. Source: InitNO, arXiv 2404.04650, section 3.2. One object has no conflict: 0.
    """
    cells = attention.flatten(1).argmax(dim=1)
    own = looks.flatten(0, 1)[cells]
    pairs = [torch.minimum(a, b).sum() / (a + b).sum() for a, b in combinations(own, 2)]
    return torch.stack(pairs).mean() if pairs else looks.new_zeros(())


def divergence(mean: Float[Tensor, "*shape"], log_sigma: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """KL(N(mean, sigma^2) || N(0, 1)) in nats, the mean over the latents' numbers.

    1/2 (sigma^2 + mean^2 - 1) - log sigma. Source: InitNO, arXiv 2404.04650, section 3.3.
    """
    # expm1: near sigma = 1, where everything happens, the terms cancel.
    return (torch.expm1(2 * log_sigma) / 2 - log_sigma + mean.square() / 2).mean()


class NoiseRecord(TypedDict):
    """What the search for a first noise did."""

    note: str
    """Why nothing was done; empty when something was."""
    cross: float
    """1 - the worst object's peak, 0 to 1, of the noise that was chosen."""
    conflict: float
    """Conflict of self-attention, 0 to 0.5."""
    divergence: float
    """KL divergence from the standard normal distribution, in nats per latent number."""
    passes: int
    rounds: int
    """Number of noises tried."""
    reached: bool
    """Whether both thresholds were reached."""


NOTHING_SOUGHT: NoiseRecord = {
    "note": "There is no object to look for, so the noise is as it was.",
    "cross": 0.0,
    "conflict": 0.0,
    "divergence": 0.0,
    "passes": 0,
    "rounds": 0,
    "reached": True,
}


class InitialNoise:
    """Searches for a first noise in which every object is attended to and no two share their place.

    z = mu + sigma * noise; Adam on mu and log sigma lowers 1 - (the worst object's peak) + the conflict of
    self-attention, at the first timestep. A round that does not reach both thresholds makes room for a new noise; at
    the end the best of all rounds gets a longer search.
    Source: InitNO, arXiv 2404.04650, algorithm 1.
    Differs: the divergence from the standard normal is a bound, met by drawing mu and log sigma towards 0 after each
    update, not a weighted term; the term of the cleaned maps of the released code is left out.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        learning_rate: float = 0.01
        """Adam's, over 0. InitNO's."""
        rounds: int = 5
        """Noises tried at most, 1 or more. InitNO's."""
        updates: int = 10
        """Updates a round at most, 0 or more. InitNO's."""
        last_updates: int = 50
        """Updates of the best noise at most when no round reached the thresholds, 0 or more. InitNO's."""
        cross_threshold: float = 0.2
        """Reached when 1 - (the worst object's peak) is at most this, 0 to 1. InitNO's."""
        conflict_threshold: float = 0.3
        """Reached when the conflict of self-attention is at most this, 0 to 0.5. InitNO's."""
        most_divergence: float = 0.001
        """Bound of the divergence from the standard normal distribution, nats a number, over 0. InitNO's."""
        resolution: int = 16
        """Cells along the shorter side of the attention maps. InitNO's."""

    def __init__(self, settings: Settings = Settings()) -> None:
        """Raises RizbinError when a setting is out of its range."""
        if settings.rounds < 1 or min(settings.updates, settings.last_updates) < 0:
            raise RizbinError("Give 1 or more rounds, and numbers of updates that are 0 or more.")
        if settings.learning_rate <= 0 or settings.most_divergence <= 0:
            raise RizbinError("Give a learning rate and a bound of the divergence over 0.")
        self.settings = settings

    def search(
        self,
        unet: UNet,
        scheduler: Scheduler,
        noise: Latents,
        timestep: Tensor | int | float,
        embeddings: Float[Tensor, "batch tokens dim"],
        spans: Sequence[TokenSpan],
        *,
        generator: torch.Generator,
        sigma: float = 1.0,
        added: dict[str, Tensor] | None = None,
        end_of_text: int | None = None,
    ) -> tuple[Latents, NoiseRecord]:
        """The noise to begin with, of about unit variance, and what happened.

        Args:
            unet: A UNet of diffusers; its weights are not changed.
            scheduler: The run's, with its timesteps set.
            noise: Standard normal: the first that is tried.
            timestep: The first of the run.
            embeddings: Of the prompt.
            spans: The objects; none: the noise comes back as it is, with a note.
            generator: Draws the noises of later rounds; on the CPU or where the noise is.
            sigma: What the run multiplies its first noise with (`scheduler.init_noise_sigma`).
            added: What SDXL wants besides.
            end_of_text: As for `Guidance.steer`.
        """
        if not spans:
            return noise, {**NOTHING_SOUGHT}
        tokens = [span.tokens for span in spans]
        capture = Capture(unet, (self.settings.resolution,), self_attention=True, stop_after_last=True)

        def look(latents: Tensor) -> tuple[Tensor, Tensor]:
            with capture:
                capture.run(scheduler.scale_model_input(sigma * latents, timestep), timestep, embeddings, added)
            attention, looks = capture.mean_map(), capture.mean_self_map()
            capture.clear()
            cross = losses.attend_and_excite(attention, tokens, end_of_text)
            return cross, self_attention_conflict(losses.maps_of(attention, tokens), looks)

        search = _Search(self.settings, look)
        with frozen(unet), torch.enable_grad():
            best, rounds = self._best(search, noise.detach(), generator)
        return best.latents.to(noise.dtype), {
            "note": "",
            "cross": best.cross,
            "conflict": best.conflict,
            "divergence": float(divergence(best.mean, best.log_sigma)),
            "passes": search.passes,
            "rounds": rounds,
            "reached": best.reached(self.settings),
        }

    def _best(self, search: "_Search", noise: Latents, generator: torch.Generator) -> tuple["_Candidate", int]:
        """The best of the rounds, searched on where none reached the thresholds, and how many rounds there were."""
        best: _Candidate | None = None
        for tried in range(self.settings.rounds):
            if tried:
                noise = torch.randn(noise.shape, generator=generator, device=generator.device).to(noise)
            candidate = search.improved(_Candidate.at(noise), self.settings.updates)
            if candidate.reached(self.settings):
                return candidate, tried + 1
            best = candidate if best is None or candidate.score < best.score else best
        assert best is not None  # there is one round at least
        return search.improved(best, self.settings.last_updates), self.settings.rounds


@dataclass(frozen=True)
class _Candidate:
    """A noise, moved, and how good it was when it was looked at."""

    noise: Latents
    mean: Latents
    log_sigma: Latents
    cross: float = float("inf")
    conflict: float = float("inf")

    @staticmethod
    def at(noise: Latents) -> "_Candidate":
        # In float32, whatever the network's type: Adam's moves are small beside the noise.
        return _Candidate(noise, torch.zeros_like(noise).float(), torch.zeros_like(noise).float())

    @property
    def latents(self) -> Latents:
        return self.mean + self.log_sigma.exp() * self.noise

    @property
    def score(self) -> float:
        return self.cross + self.conflict

    def reached(self, settings: InitialNoise.Settings) -> bool:
        return self.cross <= settings.cross_threshold and self.conflict <= settings.conflict_threshold


class _Search:
    """Adam on mean and log sigma, counting the passes of all rounds."""

    def __init__(self, settings: InitialNoise.Settings, look: Callable[[Latents], tuple[Tensor, Tensor]]) -> None:
        self.settings, self.look = settings, look
        self.passes = 0

    def improved(self, start: _Candidate, most: int) -> _Candidate:
        """The best that is met on the way: until the thresholds are reached, after `most` updates at the latest."""
        mean, log_sigma = start.mean.clone().requires_grad_(), start.log_sigma.clone().requires_grad_()
        optimizer = torch.optim.Adam([mean, log_sigma], lr=self.settings.learning_rate)
        best = start
        for update in range(most + 1):
            here = replace(start, mean=mean, log_sigma=log_sigma)
            cross, conflict = self.look(here.latents.to(start.noise.dtype))
            self.passes += 1
            here = _Candidate(
                start.noise,
                mean.detach().clone(),
                log_sigma.detach().clone(),
                float(cross.detach()),
                float(conflict.detach()),
            )
            best = here if here.score < best.score else best
            if here.reached(self.settings):
                return here
            if update < most:
                gradients = torch.autograd.grad(cross + conflict, [mean, log_sigma])
                mean.grad, log_sigma.grad = gradients
                optimizer.step()
                _bound(mean, log_sigma, self.settings.most_divergence)
        return best


@torch.no_grad()
def _bound(mean: Latents, log_sigma: Latents, most: float) -> None:
    """Draws both towards 0, in place and by one factor, until their divergence is at most `most`."""
    if float(divergence(mean, log_sigma)) <= most:
        return
    # The divergence rises with the factor, so that halving finds it; 30 times is float32's precision.
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if float(divergence(middle * mean, middle * log_sigma)) <= most:
            low = middle
        else:
            high = middle
    mean.mul_(low)
    log_sigma.mul_(low)
