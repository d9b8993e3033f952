"""Draws with a Stable Diffusion: from words, from an image and words, step by step.

The loop is our own for models with a UNet (Stable Diffusion 1, 2, XL), so that every step can be seen and steered; the
others (3, FLUX) run through their pipeline of diffusers and can be seen. Source: arXiv 2112.10752; from an image,
SDEdit, arXiv 2108.01073.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import AnyImage, as_rgb
from rizbin.generation.diffusion.attention import Capture
from rizbin.generation.diffusion.diffusers_internals import (
    execution_device,
    late_timesteps,
    make_step,
    size_ids,
    unpacked,
    watched_steps,
)
from rizbin.generation.diffusion.loading import Offload, load_pipeline
from rizbin.generation.diffusion.noise import compose
from rizbin.generation.diffusion.sampling import (
    SEEDS,
    ComposedPrompt,
    DenoisingFrame,
    GeneratedImage,
    Guide,
    PromptEmbeddings,
    Sampling,
    StepState,
    Watch,
    check,
    fingerprint,
    frame_of,
    seed_after,
)
from rizbin.generation.diffusion.schedulers import scheduler_named
from rizbin.generation.film import Pixels

__all__ = [
    "SEEDS",
    "ComposedPrompt",
    "DenoisingFrame",
    "GeneratedImage",
    "Guide",
    "PromptEmbeddings",
    "Sampling",
    "StepState",
    "TextToImage",
    "Watch",
    "fingerprint",
    "seed_after",
]

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says on the processor, where it has no error of its own for it."""


def guided(
    unconditional: Float[Tensor, "1 channels rows columns"] | None,
    conditional: Float[Tensor, "prompts channels rows columns"],
    scale: float,
) -> Float[Tensor, "1 channels rows columns"]:
    """Classifier-free guidance, away from the prediction without the prompt (arXiv 2207.12598); several compose."""
    if unconditional is None:
        return conditional
    if len(conditional) > 1:
        return compose(unconditional, conditional[:, None], torch.full((len(conditional),), scale).to(conditional))
    return unconditional + scale * (conditional - unconditional)


class TextToImage:
    """A model that draws."""

    def __init__(self, pipeline: Any, *, name: str = "") -> None:
        self.pipeline = pipeline
        self.name = name
        self.unet: Any = getattr(pipeline, "unet", None)
        """None where a transformer draws."""
        if self.unet is None and getattr(pipeline, "transformer", None) is None:
            raise RizbinError(f"{name or type(pipeline).__name__} has neither a UNet nor a transformer to draw with.")
        if self.unet is not None and self.unet.config.in_channels != pipeline.vae.config.latent_channels:
            raise RizbinError(f"{name or type(pipeline).__name__} wants more than words and an image to draw.")

    def __repr__(self) -> str:
        return f"<text-to-image model {self.name or type(self.pipeline).__name__}>"

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str = "cpu", half: bool = False, offload: Offload = "none"
    ) -> "TextToImage":
        """A pipeline folder of diffusers, or a name on Hugging Face. See `loading.load_pipeline`."""
        return cls(load_pipeline(name, device=device, half=half, offload=offload), name=str(name))

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return execution_device(self.pipeline)

    @property
    def side(self) -> int:
        """Side in pixels of the square images that the model was trained on."""
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
        guide: Guide | ComposedPrompt | None = None,
        watch: Watch | None = None,
        attend: int = 0,
    ) -> GeneratedImage:
        """An image of `prompt`, from noise or from the image `start` (see `rizbin.data.image_io.as_rgb`).

        guide: steers before each step, or says what is read in place of the prompt. watch: called after each step.
        attend: cells along a side of the attention maps that each frame keeps, 0 for none; none are kept where the
        prompt is not what is read. Raises RizbinError for settings outside their range, for a guide where
        there is no UNet, and when memory does not suffice.
        """
        sampling = sampling or Sampling()
        check(sampling)
        begin, notes = time.perf_counter(), []
        pixels = None if start is None else as_rgb(start, name="the start image")
        height, width = self._size(sampling, pixels, notes)
        notes += self._cut_off(prompt)
        frames: list[DenoisingFrame] = []

        def saw(frame: DenoisingFrame) -> None:
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
                        f"0 of {sampling.steps} steps are made at a strength of {sampling.strength:g}, so the image "
                        f"is the one it started from; give a strength of {1 / sampling.steps:.2g} or more."
                    )
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
            raise RizbinError(
                f"An image of {width}x{height} pixels does not fit into memory; lower --height and --width, or give "
                "--half or --offload model."
            ) from error
        return GeneratedImage(image, frames, notes, time.perf_counter() - begin)

    def timesteps(self, scheduler: Any, sampling: Sampling, *, from_image: bool) -> Tensor:
        """The timesteps that are made: all, or of a start image the last `strength` of them."""
        try:
            scheduler.set_timesteps(sampling.steps, device=self.device)
        except (ValueError, ZeroDivisionError, IndexError) as error:
            most = scheduler.config.get("num_train_timesteps", 1000)
            raise RizbinError(
                f"The scheduler {sampling.scheduler} cannot make {sampling.steps} steps ({error}); give fewer than "
                f"{most}, or another scheduler."
            ) from error
        if not from_image:
            return scheduler.timesteps
        made = min(int(sampling.steps * sampling.strength + 1e-9), sampling.steps)
        if not made:  # PNDM keeps one step more than it was asked for
            return scheduler.timesteps[:0]
        return late_timesteps(scheduler, made, sampling.steps)

    def _loop(
        self,
        prompt: str,
        sampling: Sampling,
        height: int,
        width: int,
        start: Pixels | None,
        guide: Guide | ComposedPrompt | None,
        saw: Watch,
        attend: int,
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The latents at the end."""
        scheduler = scheduler_named(sampling.scheduler, self.pipeline.scheduler)
        timesteps = self.timesteps(scheduler, sampling, from_image=start is not None)
        # On the processor, so that a seed means the same image on every device.
        generator = torch.Generator().manual_seed(sampling.seed)
        latents = self._begin(scheduler, timesteps, sampling, height, width, start, generator)
        parts = (prompt,)
        if isinstance(guide, ComposedPrompt):
            parts, guide, attend = guide.parts, None, 0
        words = self._read(parts, sampling.negative, height, width)
        from_noise = start is None or sampling.strength == 1
        # The last row of the batch is the one with the words.
        capture = Capture(self.unet, (attend,), rows=slice(-1, None)) if attend else None
        for step, timestep in enumerate(timesteps):
            if guide is not None:
                here = (self.unet, scheduler, latents, step, len(timesteps), timestep, words, generator, from_noise)
                latents = guide(StepState(*here))
            with capture if capture is not None else nullcontext():
                without, given = self.predictions(scheduler, latents, timestep, words, sampling.guidance_scale)
            output = guided(without, given, sampling.guidance_scale)
            attention = capture.mean_map().cpu() if capture is not None else None
            saw(frame_of(scheduler, step, timestep, latents, (without, given, output), attention))
            latents = make_step(
                scheduler, output, timestep, latents, step=step, from_noise=from_noise, generator=generator
            )
            if not torch.isfinite(latents).all():
                raise RizbinError(
                    f"Step {step + 1} gave numbers that are not finite, of which no image can be made; give a lower "
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
        """The latents before the first step: noise, or a start image under as much of it as its strength says."""
        factor = int(self.pipeline.vae_scale_factor)
        shape = (1, self.pipeline.vae.config.latent_channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=generator).to(self.device, self.unet.dtype)
        # Even the noisiest step lets a little of an image through; a strength of 1 is to ignore it.
        if start is None or sampling.strength == 1:
            return noise * scheduler.init_noise_sigma
        latents = self.encode(start, height, width)
        return scheduler.add_noise(latents, noise, timesteps[:1]) if len(timesteps) else latents

    @torch.no_grad()
    def noised(self, start: Pixels, sampling: Sampling) -> Float[Tensor, "1 channels rows columns"]:
        """A start image's latents before the first step, scaled to signal and noise as the network sees them."""
        height, width = self._size(sampling, start, [])
        scheduler = scheduler_named(sampling.scheduler, self.pipeline.scheduler)
        timesteps = self.timesteps(scheduler, sampling, from_image=True)
        generator = torch.Generator().manual_seed(sampling.seed)
        latents = self._begin(scheduler, timesteps, sampling, height, width, start, generator)
        return scheduler.scale_model_input(latents, timesteps[0]) if len(timesteps) else latents

    def predict(
        self,
        scheduler: Any,
        latents: Float[Tensor, "1 channels rows columns"],
        timestep: Tensor,
        words: PromptEmbeddings,
        guidance_scale: float,
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The network's prediction by classifier-free guidance, moved away from the one without the prompt."""
        return guided(*self.predictions(scheduler, latents, timestep, words, guidance_scale), guidance_scale)

    def predictions(
        self,
        scheduler: Any,
        latents: Float[Tensor, "1 channels rows columns"],
        timestep: Tensor,
        words: PromptEmbeddings,
        guidance_scale: float,
    ) -> tuple[Float[Tensor, "1 channels rows columns"] | None, Float[Tensor, "prompts channels rows columns"]]:
        """What the network says with the negative prompt (None where nothing is guided), and with each prompt."""
        scaled = scheduler.scale_model_input(latents, timestep)
        count = len(words.given)
        if guidance_scale == 1 and count == 1:
            return None, self._run_unet(scaled, timestep, words.given, words.more_given)
        more = {name: torch.cat([words.more_without[name], value]) for name, value in words.more_given.items()}
        texts = torch.cat([words.without, words.given])
        predictions = self._run_unet(torch.cat([scaled] * (1 + count)), timestep, texts, more)
        return predictions[:1], predictions[1:]

    def _run_unet(self, scaled: Tensor, timestep: Tensor, texts: Tensor, more: dict[str, Tensor]) -> Tensor:
        return self.unet(scaled, timestep, encoder_hidden_states=texts, added_cond_kwargs=more or None).sample

    def words(self, prompt: str, negative: str, height: int, width: int) -> PromptEmbeddings:
        """A prompt and a negative one as this model's UNet reads them."""
        pipeline, more = self.pipeline, {"negative_prompt": negative, "device": self.device}
        more |= {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        encoded = pipeline.encode_prompt(prompt, **more)
        if len(encoded) == 2:
            return PromptEmbeddings(encoded[0], encoded[1])
        conditional, unconditional, pooled, pooled_unconditional = encoded
        numbers = size_ids(height, width, conditional.dtype).to(self.device)
        return PromptEmbeddings(
            conditional,
            unconditional,
            {"text_embeds": pooled, "time_ids": numbers},
            {"text_embeds": pooled_unconditional, "time_ids": numbers},
        )

    def _read(self, prompts: tuple[str, ...], negative: str, height: int, width: int) -> PromptEmbeddings:
        """Several prompts that all must hold, beside one negative one."""
        words = [self.words(prompt, negative, height, width) for prompt in prompts]
        more = {name: torch.cat([part.more_given[name] for part in words]) for name in words[0].more_given}
        return PromptEmbeddings(
            torch.cat([part.given for part in words]), words[0].without, more, words[0].more_without
        )

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "1 channels rows columns"]) -> Pixels:
        """The image that latents stand for."""
        vae = self.pipeline.vae
        shift = vae.config.get("shift_factor", None) or 0.0
        scaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor + shift
        pixels = vae.decode(scaled, return_dict=False)[0].float()
        if not torch.isfinite(pixels).all():
            raise RizbinError(
                "The autoencoder gave numbers that are not finite, of which no image can be made; leave --half."
            )
        return ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    @torch.no_grad()
    def encode(self, image: Pixels, height: int, width: int) -> Float[Tensor, "1 channels rows columns"]:
        """The latents of an image, resized to `height` and `width`: the mean, so that nothing is drawn by chance."""
        import cv2

        vae = self.pipeline.vae
        if image.shape[:2] != (height, width):
            shrinks = image.shape[0] * image.shape[1] > height * width
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            image = np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
        pixels = torch.tensor(image).permute(2, 0, 1)[None].to(self.device, vae.dtype) / 127.5 - 1
        encoded = vae.encode(pixels)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * vae.config.scaling_factor

    def _size(self, sampling: Sampling, start: Pixels | None, notes: list[str]) -> tuple[int, int]:
        own = self.side
        exact = [sampling.height or own, sampling.width or own]
        if start is not None and not sampling.height and not sampling.width:
            # The shape of the image at the size that the model is used to.
            share = own / min(start.shape[:2])
            exact = [round(side * share) for side in start.shape[:2]]
        sides = [max(round(side / self.divisor), 1) * self.divisor for side in exact]
        if sides != exact:
            notes.append(
                f"{exact[1]}x{exact[0]} pixels became {sides[1]}x{sides[0]}: this model draws multiples of "
                f"{self.divisor}."
            )
        return sides[0], sides[1]

    def _cut_off(self, prompt: str) -> list[str]:
        """A sentence where the prompt is longer than what any text encoder reads."""
        parts = (getattr(self.pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3"))
        # Of several the one that reads most: T5 beside CLIP in Stable Diffusion 3 and FLUX.
        tokenizer = max(filter(None, parts), key=lambda tokenizer: tokenizer.model_max_length, default=None)
        if tokenizer is None:
            return []
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        limit = tokenizer.model_max_length
        if len(ids) <= limit:
            return []
        return [f"The prompt has {len(ids) - 2} tokens, this model reads the first {limit - 2}; the rest is not drawn."]

    def _through_pipeline(self, prompt: str, sampling: Sampling, height: int, width: int, saw: Watch) -> Pixels:
        """Draws by the pipeline's own loop; the steps of its scheduler show what happens inside."""
        pipeline = self.pipeline
        more = {"negative_prompt": sampling.negative} if sampling.negative else {}
        scheduler = scheduler_named(sampling.scheduler, pipeline.scheduler)

        def show(step: int, timestep: float, clean: Tensor) -> None:
            if clean.ndim == 3:  # patches, as FLUX's transformer has them
                clean = unpacked(clean, height, width, int(pipeline.vae_scale_factor))
            saw(DenoisingFrame(step, timestep, clean))

        with watched_steps(pipeline, scheduler, show):
            made = pipeline(
                prompt,
                height=height,
                width=width,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                generator=torch.Generator().manual_seed(sampling.seed),
                output_type="np",
                **more,
            )
        return (made.images[0] * 255).round().astype(np.uint8)
