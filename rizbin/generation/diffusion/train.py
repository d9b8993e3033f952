"""Teaches a small latent diffusion model: first the autoencoder, then, in the same run, the UNet with its text encoder.

Source: Rombach et al., arXiv 2112.10752: an autoencoder (section 3.1), then a UNet that reads the text by
cross-attention (section 3.3), captions dropped for guidance without a classifier (arXiv 2207.12598). The UNet predicts
v (arXiv 2202.00512). Differs: the autoencoder is a plain one without a pull to unit latents, perceptual loss or
adversary: drawings are flat, and their latents are only scaled.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.checksums import write_sums
from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import MEAN, STD, View
from rizbin.generation.diffusion.small import (
    STEPS,
    DiffusionSize,
    new_autoencoder,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_unet,
)
from rizbin.nets.momentum import Teacher
from rizbin.training.method import Batch, Method, Minimize, Progress, Work
from rizbin.training.settings import Presets, TrainerSettings, Training


class LatentDiffusion(Method):
    """A latent diffusion model on images with captions; what is kept is a pipeline folder of diffusers."""

    name = "diffusion"
    arxiv = "2112.10752"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        size: DiffusionSize = DiffusionSize()
        """Sizes of the networks."""
        image_size: int = 64
        """Side in pixels of the square images that it learns and draws; a multiple of 8."""
        view: View.Settings = View.Settings()
        """Augmentation of an image; its size is `image_size`. None by default, so that it draws what it saw."""
        tokenizer: Tokenizer.Settings = Tokenizer.Settings(context=32)
        """Tokenizer of the captions; longer ones are cut."""
        autoencoder_share: float = 0.12
        """Share of the run that trains the autoencoder alone, 0 to 1; after it, it rests."""
        autoencoder_updates: int = 4
        """Updates of the autoencoder in a step, each on its share of the batch: it learns from many updates, not from
        many images at once."""
        autoencoder_rate: float = 3.0
        """Factor of the schedule's learning rate for the autoencoder, which bears more than the UNet."""
        edges_weight: float = 1.0
        """Weight of the error of the differences between neighboring pixels, beside that of the pixels: without it
        black outlines come out gray."""
        drop_caption: float = 0.1
        """Share of captions replaced by none, so that the network can draw without (arXiv 2207.12598: 0.1 to 0.2)."""
        momentum: float = 0.999
        """Momentum of the EMA of UNet and text encoder that is kept; lower at the start, (1 + step) / (10 + step)."""

    least_batch = 1
    scale: Tensor
    """1 / the latents' deviation, 0 until the autoencoder has come to rest."""
    signal: Tensor
    """Share of signal, squared, at each timestep (DDPM's alpha bar)."""

    @classmethod
    def presets(cls) -> Presets:
        """One, small: 8.9 million parameters, single drawings and pairs; an hour on one core."""
        return {
            "small": Training(
                method=cls.name,
                data="scenes:drawn,categories=16",
                settings=cls.Settings(),
                steps=2800,
                batch=32,
                # bf16 serves networks of convolutions: twice as fast on processors with AMX (docs/LOG.md).
                trainer=TrainerSettings(learning_rate=7e-4, weight_decay=0.01, warmup=0.01, clip=1.0, precision="bf16"),
            )
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if not 0 < settings.autoencoder_share < 1:
            raise RizbinError(
                f"autoencoder_share is {settings.autoencoder_share}; it is a share between 0 and 1, so that both parts "
                "are trained."
            )
        self.settings = settings
        self.words = Tokenizer(settings.tokenizer)
        self.tokenizer = self.words
        side = settings.image_size
        # Convolutions run a fifth faster on a processor with channels last.
        self.autoencoder = new_autoencoder(settings.size, image_size=side).to(memory_format=torch.channels_last)
        self.unet = new_unet(settings.size, image_size=side).to(memory_format=torch.channels_last)
        self.text = new_text_encoder(settings.size, self.words)
        _attend_plainly(self.unet)
        self.slow = Teacher({"unet": self.unet, "text": self.text})
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("signal", new_scheduler().alphas_cumprod)
        self.views = (replace(settings.view, size=side),)

    @property
    def encoder(self) -> nn.Module:
        """The UNet's slow copy, which draws."""
        return self.slow["unet"]

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [self.autoencoder, self.unet, self.text]}

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        if batch.texts is None:
            raise RizbinError("These images have no captions; drawing from words is learned from captions.")
        images = signed(batch.views[0])
        share = self.settings.autoencoder_share
        if progress.fraction < share:
            part = progress.fraction / share
            # An autoencoder that rests from here on must have come to rest: its rate falls within its own part.
            rate = self.settings.autoencoder_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * part)) / 2)
            for some in images.chunk(self.settings.autoencoder_updates):
                yield self._keep(some.contiguous(memory_format=torch.channels_last), rate)
            return
        if not self.scale:  # measured once, when the autoencoder has come to rest, as arXiv 2112.10752, appendix G
            with torch.no_grad():
                latents = self._encode(images).float()
            self.scale.copy_(1 / parallel.mean(latents.var()).sqrt())
            self.slow.follow(self._learning, 0.0)
        begun = (progress.fraction - share) / (1 - share)
        yield self._denoise(images, batch.texts, progress, rate=min(1.0, 0.02 + begun / 0.02))

        done = progress.step - math.ceil(share * progress.steps)
        self.slow.follow(self._learning, min(self.settings.momentum, (1 + done) / (10 + done)))

    @property
    def _learning(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text": self.text}

    def _keep(self, images: Float[Tensor, "batch 3 side side"], rate: float) -> Minimize:
        """One update of the autoencoder."""
        made = self.autoencoder.decode(self._encode(images)).sample.float()
        pixels, edges = (made - images).abs().mean(), edge_error(made, images)
        loss = pixels + self.settings.edges_weight * edges
        return Minimize(loss, records={"pixels": pixels, "edges": edges}, rate=rate)

    def _denoise(
        self,
        images: Float[Tensor, "batch 3 side side"],
        texts: Int[Tensor, "batch length"],
        progress: Progress,
        *,
        rate: float,
    ) -> Minimize:
        """One update of UNet and text encoder."""
        with torch.no_grad():
            latents = self._encode(images).float() * self.scale
        draws = progress.uniform("times", len(images), 2, images.device)
        times = (draws[:, 0] * STEPS).long().clamp(max=STEPS - 1)
        noise = normal(progress, "noise", latents)
        keep, add = self.signal[times].sqrt()[:, None, None, None], (1 - self.signal[times]).sqrt()[:, None, None, None]
        noised, velocity = keep * latents + add * noise, keep * noise - add * latents
        dropped = draws[:, 1] < self.settings.drop_caption
        words = self.text(self._filled(texts, dropped)).last_hidden_state
        noised = noised.contiguous(memory_format=torch.channels_last)
        predicted = self.unet(noised, times, encoder_hidden_states=words).sample.float()
        errors = F.mse_loss(predicted, velocity, reduction="none").mean(dim=(1, 2, 3))
        # Late times decide what is drawn and where, early ones how it looks in detail.
        late = times >= STEPS // 2
        records = {
            name: errors[some].mean().detach() if bool(some.any()) else errors.mean().detach()
            for name, some in (("composition", late), ("detail", ~late))
        }
        return Minimize(errors.mean(), records=records, rate=rate)

    def _encode(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch channels rows columns"]:
        return self.autoencoder.encode(images).latents

    def _filled(self, texts: Int[Tensor, "batch length"], dropped: Tensor) -> Int[Tensor, "batch context"]:
        """The captions at full length, as pipelines give them, and none where dropped."""
        context = self.settings.tokenizer.context
        filled = F.pad(texts, (0, context - texts.shape[1]))
        nothing = torch.zeros_like(filled[0])
        nothing[0], nothing[1] = self.words.start, self.words.end
        return torch.where(dropped[:, None], nothing, filled)

    def pipeline(self) -> Any:
        """What was taught so far as diffusers' StableDiffusionPipeline, on the CPU in float32."""
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        kind: Any = StableDiffusionPipeline  # its annotations know no pipeline without a checker
        if self.scale:
            self.autoencoder.register_to_config(scaling_factor=float(self.scale))
        return kind(
            vae=self.autoencoder,
            text_encoder=self.slow["text"],
            tokenizer=new_tokenizer(self.words),
            unet=self.slow["unet"],
            scheduler=new_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def save(self, folder: Path) -> None:
        self.pipeline().save_pretrained(folder)
        write_sums(folder)

    def cautions(self, work: Work) -> list[str]:
        if work.steps * work.batch < 50_000:
            return [
                f"{work.steps * work.batch:,} images draw blobs in the right colors at best; shapes come after some "
                "30,000, names after 100,000."
            ]
        return []


def signed(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Images normalized as `data.views.normalize` does, in -1 to 1, as diffusers has them; channels last."""
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    std = torch.tensor(STD, device=images.device)[:, None, None]
    return ((images.float() * std + mean) * 2 - 1).contiguous(memory_format=torch.channels_last)


def edge_error(
    made: Float[Tensor, "batch 3 height width"], original: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """Mean absolute error of the differences between neighbors, down and across."""
    gap = made - original
    return gap.diff(dim=2).abs().mean() + gap.diff(dim=3).abs().mean()


def normal(progress: Progress, name: str, like: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
    """Gaussian noise that follows from seed, step and name, however many processes share the batch."""
    draws = progress.uniform(name, len(like), like[0].numel(), like.device)
    # From the middle of cells of 2^-24, so that no draw is 0 or 1.
    return torch.special.ndtri(draws.double() * (1 - 2**-24) + 2**-25).to(like.dtype).reshape(like.shape)


def _attend_plainly(unet: Any) -> None:
    """Explicit attention: on a processor in bf16, the gradient of torch's fused one took 72 percent of a step."""
    from diffusers.models.attention_processor import AttnProcessor

    if not torch.cuda.is_available():
        unet.set_attn_processor(AttnProcessor())
