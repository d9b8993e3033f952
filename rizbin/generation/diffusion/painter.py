"""Draws with a Stable Diffusion: from words, from a picture and words, step by step.

The loop is our own for models with a UNet (Stable Diffusion 1, 2, XL), so that every step can be seen and steered; the
others (3, FLUX) run through their pipeline of diffusers and can be seen. Source: arXiv 2112.10752; from a picture,
SDEdit, arXiv 2108.01073.
"""

import hashlib
import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.data.gate import AnyImage, as_rgb
from rizbin.generation.diffusion.attention import Capture
from rizbin.generation.diffusion.loading import Offload, load_pipeline
from rizbin.generation.diffusion.noise import compose
from rizbin.generation.diffusion.schedulers import OWN, clean_latents, scheduler_named
from rizbin.generation.film import Pixels

SEEDS = (-(2**63), 2**64 - 1)
"""The least and the largest seed that torch takes: 64 bits."""
EDIT_ORDER = 2
"""Highest order of LMS and PNDM from a picture. Its first slopes are not those of a path that the network would take,
and with few steps the orders 3 and 4 carry that jump on, larger from step to step (Adams-Bashforth is stable up to 1,
0.55 and 0.3 at the orders 2, 3 and 4, and late steps are near 0.9). Ten steps of diffusion-mini at strength 0.5 then
end 2 gray levels from DDIM's; at order 4 it is 17."""
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says on the processor, where it has no error of its own for it."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a picture is drawn."""

    steps: int = 25
    """Of the scheduler; the network is asked about as often, by some schedulers twice."""
    guidance: float = 7.5
    """How far each step goes from what it would draw without the words (arXiv 2207.12598); 1 does not."""
    scheduler: str = OWN
    """own: the model's; or one of `schedulers.SCHEDULERS`."""
    height: int = 0
    """Pixels; 0: the model's own side. Rounded to what the model can divide."""
    width: int = 0
    """Pixels, as height."""
    seed: int = 0
    """Of the first noise and of schedulers that add more. The same seed gives the same picture on the processor."""
    strength: float = 0.8
    """Of a start picture: 0 keeps it, 1 ignores it; the share of steps that is made."""
    negative: str = ""
    """Words for what to stay away from."""


@dataclass(frozen=True)
class Words:
    """A prompt, or several that all must hold, as the UNet reads them."""

    given: Float[Tensor, "prompts tokens dim"]
    without: Float[Tensor, "1 tokens dim"]
    """The negative prompt's."""
    more_given: dict[str, Tensor] = field(default_factory=dict)
    """What Stable Diffusion XL reads beside, with the prompt."""
    more_without: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """Where a drawing stands, before a step."""

    unet: Any
    scheduler: Any
    latents: Float[Tensor, "1 channels rows columns"]
    step: int
    steps: int
    timestep: Tensor
    words: Words
    generator: torch.Generator
    """Of the drawing's noise, after what was drawn so far."""
    from_noise: bool
    """Whether it was begun from noise alone, not from a picture."""


@dataclass(frozen=True)
class Frame:
    """What one step saw."""

    step: int
    """From 0."""
    timestep: float
    """Of the noise schedule, large at the start."""
    clean: Float[Tensor, "1 channels rows columns"]
    """The finished latents as the network sees them at this step."""
    attention: Float[Tensor, "places_down places_across tokens"] | None = None
    """How much each place looks at each token of the prompt, mean of layers and heads; None when not asked for."""


Guide = Callable[[Moment], Tensor]
"""Returns the latents [1, channels, rows, columns] to go on with, so that what is drawn fits the words better."""
Watch = Callable[[Frame], None]
"""Told of every step."""


@dataclass(frozen=True)
class Composed:
    """Prompts that are drawn as one picture in which all hold, each with the guidance as its weight.

    Source: Composable Diffusion, arXiv 2206.01714; see `noise.compose`.
    """

    parts: tuple[str, ...]


@dataclass(frozen=True)
class Painted:
    """A picture and how it came to be."""

    image: Pixels
    frames: list[Frame]
    notes: list[str]
    """What was rounded, cut off or not possible, each in a sentence."""
    seconds: float


class Painter:
    """A model that draws."""

    def __init__(self, pipeline: Any, *, name: str = "") -> None:
        self.pipeline = pipeline
        self.name = name
        self.unet: Any = getattr(pipeline, "unet", None)
        """None where a transformer draws."""
        if self.unet is None and getattr(pipeline, "transformer", None) is None:
            raise RizbinError(f"{name or type(pipeline).__name__} has neither a UNet nor a transformer to draw with.")
        if self.unet is not None and self.unet.config.in_channels != pipeline.vae.config.latent_channels:
            raise RizbinError(f"{name or type(pipeline).__name__} wants more than words and a picture to draw.")

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str = "cpu", half: bool = False, offload: Offload = "none"
    ) -> "Painter":
        """A pipeline folder of diffusers, or a name on Hugging Face. See `loading.load_pipeline`."""
        return cls(load_pipeline(name, device=device, half=half, offload=offload), name=str(name))

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return torch.device(self.pipeline._execution_device)

    @property
    def side(self) -> int:
        """Of the square pictures that it is used to, pixels."""
        network = self.unet if self.unet is not None else self.pipeline.transformer
        # FLUX's transformer does not say at which size it was trained; its pipeline does.
        own = network.config.get("sample_size") or self.pipeline.default_sample_size
        return int(own) * int(self.pipeline.vae_scale_factor)

    @property
    def divisor(self) -> int:
        """Sides are multiples of this, pixels."""
        if self.unet is None:
            return int(self.pipeline.vae_scale_factor) * 2  # patches of two by two
        return int(self.pipeline.vae_scale_factor) * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @torch.no_grad()
    def paint(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        *,
        start: AnyImage | None = None,
        guide: Guide | Composed | None = None,
        watch: Watch | None = None,
        attend: int = 0,
    ) -> Painted:
        """A picture of `prompt`, from noise or from the picture `start` (see `rizbin.data.gate.as_rgb`).

        guide: steers before each step, or says what is read in place of the prompt. watch: called after each step.
        attend: cells along a side of the attention maps that each frame keeps, 0 for none; none are kept where the
        prompt is not what is read. Raises RizbinError for settings outside their range, for a guide where
        there is no UNet, and when memory does not suffice.
        """
        sampling = sampling or Sampling()
        _check(sampling)
        begin, notes = time.perf_counter(), []
        pixels = None if start is None else as_rgb(start, name="the start picture")
        height, width = self._size(sampling, pixels, notes)
        notes += self._cut_off(prompt)
        frames: list[Frame] = []

        def saw(frame: Frame) -> None:
            frames.append(frame)
            if watch is not None:
                watch(frame)

        try:
            if self.unet is None:
                if guide is not None or start is not None:
                    raise RizbinError(f"{self.name} has no UNet; it draws from words alone and cannot be steered yet.")
                image = self._through_pipeline(prompt, sampling, height, width, saw)
            else:
                image = self.decode(self._loop(prompt, sampling, height, width, pixels, guide, saw, attend))
                if not frames:
                    notes.append(
                        f"0 of {sampling.steps} steps are made at a strength of {sampling.strength:g}, so the picture "
                        f"is the one it started from; give a strength of {1 / sampling.steps:.2g} or more."
                    )
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
            raise RizbinError(
                f"A picture of {width}x{height} pixels does not fit into memory; lower --height and --width, or give "
                "--half or --offload model."
            ) from error
        return Painted(image, frames, notes, time.perf_counter() - begin)

    def timesteps(self, scheduler: Any, sampling: Sampling, *, from_picture: bool) -> Tensor:
        """The timesteps that are made: all, or of a start picture the last `strength` of them."""
        try:
            scheduler.set_timesteps(sampling.steps, device=self.device)
        except (ValueError, ZeroDivisionError, IndexError) as error:
            most = scheduler.config.get("num_train_timesteps", 1000)
            raise RizbinError(
                f"The scheduler {sampling.scheduler} cannot make {sampling.steps} steps ({error}); give fewer than "
                f"{most}, or another scheduler."
            ) from error
        if not from_picture:
            return scheduler.timesteps
        made = min(int(sampling.steps * sampling.strength + 1e-9), sampling.steps)
        if not made:  # PNDM keeps one step more than it was asked for
            return scheduler.timesteps[:0]
        if hasattr(scheduler, "plms_timesteps"):
            return _late_plms(scheduler, made)
        first = (sampling.steps - made) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        return scheduler.timesteps[first:]

    def _loop(
        self,
        prompt: str,
        sampling: Sampling,
        height: int,
        width: int,
        start: Pixels | None,
        guide: Guide | Composed | None,
        saw: Watch,
        attend: int,
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The latents at the end."""
        scheduler = scheduler_named(sampling.scheduler, self.pipeline.scheduler)
        timesteps = self.timesteps(scheduler, sampling, from_picture=start is not None)
        # On the processor, so that a seed means the same picture on every device.
        generator = torch.Generator().manual_seed(sampling.seed)
        latents = self._begin(scheduler, timesteps, sampling, height, width, start, generator)
        parts = (prompt,)
        if isinstance(guide, Composed):
            parts, guide, attend = guide.parts, None, 0
        words = self._read(parts, sampling.negative, height, width)
        from_noise = start is None or sampling.strength == 1
        # The last row of the batch is the one with the words.
        capture = Capture(self.unet, (attend,), rows=slice(-1, None)) if attend else None
        takes = inspect.signature(scheduler.step).parameters
        for step, timestep in enumerate(timesteps):
            if guide is not None:
                here = (self.unet, scheduler, latents, step, len(timesteps), timestep, words, generator, from_noise)
                latents = guide(Moment(*here))
            with capture if capture is not None else nullcontext():
                output = self.predict(scheduler, latents, timestep, words, sampling.guidance)
            clean = clean_latents(scheduler, output, latents, timestep).cpu()
            saw(Frame(step, float(timestep), clean, capture.mean_map().cpu() if capture is not None else None))
            more: dict[str, Any] = {"generator": generator} if "generator" in takes else {}
            most = takes["order"].default if "order" in takes else 4
            if not from_noise:
                most = min(most, EDIT_ORDER)
            if "order" in takes:
                # LMS takes its order from the place in the schedule; begun late it would weigh steps never made.
                more["order"] = min(step + 1, most)
            elif hasattr(scheduler, "ets"):
                scheduler.ets = scheduler.ets[max(len(scheduler.ets) + 1 - most, 0) :]
            latents = scheduler.step(output, timestep, latents, **more).prev_sample
            if not torch.isfinite(latents).all():
                raise RizbinError(
                    f"Step {step + 1} gave numbers that are not finite, of which no picture can be made; give a lower "
                    "guidance, or leave --half."
                )
        return latents

    def _begin(
        self,
        scheduler: Any,
        timesteps: Tensor,
        sampling: Sampling,
        height: int,
        width: int,
        start: Pixels | None,
        generator: torch.Generator,
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The latents before the first step: noise, or a start picture under as much of it as its strength says."""
        factor = int(self.pipeline.vae_scale_factor)
        shape = (1, self.pipeline.vae.config.latent_channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=generator).to(self.device, self.unet.dtype)
        # Even the noisiest step lets a little of a picture through; a strength of 1 is to ignore it.
        if start is None or sampling.strength == 1:
            return noise * scheduler.init_noise_sigma
        latents = self.encode(start, height, width)
        return scheduler.add_noise(latents, noise, timesteps[:1]) if len(timesteps) else latents

    @torch.no_grad()
    def noised(self, start: Pixels, sampling: Sampling) -> Float[Tensor, "1 channels rows columns"]:
        """A start picture's latents before the first step, scaled to signal and noise as the network sees them."""
        height, width = self._size(sampling, start, [])
        scheduler = scheduler_named(sampling.scheduler, self.pipeline.scheduler)
        timesteps = self.timesteps(scheduler, sampling, from_picture=True)
        generator = torch.Generator().manual_seed(sampling.seed)
        latents = self._begin(scheduler, timesteps, sampling, height, width, start, generator)
        return scheduler.scale_model_input(latents, timesteps[0]) if len(timesteps) else latents

    def predict(
        self,
        scheduler: Any,
        latents: Float[Tensor, "1 channels rows columns"],
        timestep: Tensor,
        words: Words,
        guidance: float,
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The network's answer, moved away from what it says without the words."""
        seen = scheduler.scale_model_input(latents, timestep)
        count = len(words.given)
        if guidance == 1 and count == 1:
            return self._ask(seen, timestep, words.given, words.more_given)
        more = {name: torch.cat([words.more_without[name], value]) for name, value in words.more_given.items()}
        answers = self._ask(torch.cat([seen] * (1 + count)), timestep, torch.cat([words.without, words.given]), more)
        without, given = answers[:1], answers[1:]
        if count > 1:
            return compose(without, given[:, None], torch.full((count,), guidance).to(answers))
        return without + guidance * (given - without)

    def _ask(self, seen: Tensor, timestep: Tensor, texts: Tensor, more: dict[str, Tensor]) -> Tensor:
        return self.unet(seen, timestep, encoder_hidden_states=texts, added_cond_kwargs=more or None).sample

    def words(self, prompt: str, negative: str, height: int, width: int) -> Words:
        """A prompt and a negative one as this model's UNet reads them."""
        pipeline, more = self.pipeline, {"negative_prompt": negative, "device": self.device}
        more |= {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        encoded = pipeline.encode_prompt(prompt, **more)
        if len(encoded) == 2:
            return Words(encoded[0], encoded[1])
        given, without, pooled, pooled_without = encoded
        side = pipeline.text_encoder_2.config.projection_dim
        numbers = pipeline._get_add_time_ids(
            (height, width), (0, 0), (height, width), dtype=given.dtype, text_encoder_projection_dim=side
        ).to(self.device)
        return Words(
            given,
            without,
            {"text_embeds": pooled, "time_ids": numbers},
            {"text_embeds": pooled_without, "time_ids": numbers},
        )

    def _read(self, prompts: tuple[str, ...], negative: str, height: int, width: int) -> Words:
        """Several prompts that all must hold, beside one negative one."""
        read = [self.words(one, negative, height, width) for one in prompts]
        more = {name: torch.cat([one.more_given[name] for one in read]) for name in read[0].more_given}
        return Words(torch.cat([one.given for one in read]), read[0].without, more, read[0].more_without)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "1 channels rows columns"]) -> Pixels:
        """The picture that latents stand for."""
        vae = self.pipeline.vae
        shift = vae.config.get("shift_factor", None) or 0.0
        scaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor + shift
        pixels = vae.decode(scaled, return_dict=False)[0].float()
        if not torch.isfinite(pixels).all():
            raise RizbinError(
                "The autoencoder gave numbers that are not finite, of which no picture can be made; leave --half."
            )
        return ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    @torch.no_grad()
    def encode(self, picture: Pixels, height: int, width: int) -> Float[Tensor, "1 channels rows columns"]:
        """The latents of a picture, resized to `height` and `width`: the mean, so that nothing is drawn by chance."""
        import cv2

        vae = self.pipeline.vae
        if picture.shape[:2] != (height, width):
            shrinks = picture.shape[0] * picture.shape[1] > height * width
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
        pixels = torch.tensor(picture).permute(2, 0, 1)[None].to(self.device, vae.dtype) / 127.5 - 1
        encoded = vae.encode(pixels)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * vae.config.scaling_factor

    def _size(self, sampling: Sampling, start: Pixels | None, notes: list[str]) -> tuple[int, int]:
        own = self.side
        wanted = [sampling.height or own, sampling.width or own]
        if start is not None and not sampling.height and not sampling.width:
            # The shape of the picture at the size that the model is used to.
            share = own / min(start.shape[:2])
            wanted = [round(side * share) for side in start.shape[:2]]
        sides = [max(round(side / self.divisor), 1) * self.divisor for side in wanted]
        if sides != wanted:
            notes.append(
                f"{wanted[1]}x{wanted[0]} pixels became {sides[1]}x{sides[0]}: this model draws multiples of "
                f"{self.divisor}."
            )
        return sides[0], sides[1]

    def _cut_off(self, prompt: str) -> list[str]:
        """A sentence where the prompt is longer than what any text encoder reads."""
        parts = (getattr(self.pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3"))
        # Of several the one that reads most: T5 beside CLIP in Stable Diffusion 3 and FLUX.
        tokenizer = max(filter(None, parts), key=lambda one: one.model_max_length, default=None)
        if tokenizer is None:
            return []
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        limit = tokenizer.model_max_length
        if len(ids) <= limit:
            return []
        return [f"The prompt has {len(ids) - 2} tokens, this model reads the first {limit - 2}; the rest is not drawn."]

    def _through_pipeline(self, prompt: str, sampling: Sampling, height: int, width: int, saw: Watch) -> Pixels:
        """By the pipeline's own loop, seen through the steps of its scheduler."""
        pipeline = self.pipeline
        more = {"negative_prompt": sampling.negative} if sampling.negative else {}
        scheduler = scheduler_named(sampling.scheduler, pipeline.scheduler)

        def told(step: int, timestep: float, clean: Tensor) -> None:
            saw(Frame(step, timestep, self._unpacked(clean, height, width)))

        with _seen(pipeline, scheduler, told):
            made = pipeline(
                prompt,
                height=height,
                width=width,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                generator=torch.Generator().manual_seed(sampling.seed),
                output_type="np",
                **more,
            )
        return (made.images[0] * 255).round().astype(np.uint8)

    def _unpacked(self, clean: Tensor, height: int, width: int) -> Float[Tensor, "1 channels rows columns"]:
        """Latents as the autoencoder knows them, where the transformer has them in patches (FLUX)."""
        if clean.ndim == 4:
            return clean
        return self.pipeline._unpack_latents(clean, height, width, self.pipeline.vae_scale_factor)


@contextmanager
def _seen(pipeline: Any, scheduler: Any, saw: Callable[[int, float, Tensor], object]) -> Iterator[None]:
    """Puts a scheduler into the pipeline whose every step is told; takes it out again."""
    own, step, count = pipeline.scheduler, scheduler.step, [0]

    def told(output: Tensor, timestep: Tensor, latents: Tensor, *rest: Any, **more: Any) -> Any:
        clean = clean_latents(scheduler, output, latents, timestep)
        saw(count[0], float(timestep), clean.detach().cpu())
        count[0] += 1
        return step(output, timestep, latents, *rest, **more)

    scheduler.step = told
    pipeline.scheduler = scheduler
    try:
        yield
    finally:
        pipeline.scheduler = own


def _late_plms(scheduler: Any, made: int) -> Tensor:
    """The timesteps of the last `made` steps of PNDM, the second of them twice as at the beginning of a full run.

    Its first step is made in two looks, which are told apart by count; cut out of a full run they would be two steps,
    the second of which goes nowhere. Runge-Kutta steps, which only a full run has, are left out.
    """
    scheduler.register_to_config(skip_prk_steps=True)
    scheduler.prk_timesteps = np.array([])
    late = np.asarray(scheduler._timesteps)[::-1][-made:].astype(np.int64)
    scheduler.plms_timesteps = np.concatenate([late[:2], late[1:]])
    scheduler.timesteps = torch.from_numpy(scheduler.plms_timesteps.copy()).to(scheduler.timesteps.device)
    return scheduler.timesteps


def seed_after(seed: int, more: int) -> int:
    """The seed that is `more` further on; after the last one of 64 bits comes 0."""
    return seed + more if seed + more <= SEEDS[1] else seed + more - SEEDS[1] - 1


def fingerprint(image: Pixels) -> str:
    """SHA-256 of a picture's sides and pixels: whether two pictures are the same to the bit, however they are kept."""
    sides = "x".join(str(side) for side in image.shape)
    return hashlib.sha256(sides.encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _check(sampling: Sampling) -> None:
    if sampling.steps < 1:
        raise RizbinError(f"{sampling.steps} steps draw nothing; give 1 or more.")
    if not 0 <= sampling.strength <= 1:
        raise RizbinError(f"A strength of {sampling.strength:g} is outside 0 (keep the picture) to 1 (ignore it).")
    if not math.isfinite(sampling.guidance):
        raise RizbinError(f"A guidance of {sampling.guidance:g} cannot be followed; give a number, 0 or more.")
    if not SEEDS[0] <= sampling.seed <= SEEDS[1]:
        raise RizbinError(f"The seed {sampling.seed} has more than 64 bits; give one from 0 to {SEEDS[1]}.")
    if sampling.guidance < 0:
        raise RizbinError(f"A guidance of {sampling.guidance:g} would draw the opposite; give 0 or more.")
    if sampling.height < 0 or sampling.width < 0:
        raise RizbinError("Height and width are pixels, 0 for the model's own.")
