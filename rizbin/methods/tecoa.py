"""TeCoA: CLIP trained on adversarial images: each is changed, within a bound, so that it misleads the network most.

Source: Mao et al., "Understanding Zero-Shot Adversarial Robustness for Large-Scale Models", arXiv 2212.07016: its
text-guided contrastive adversarial training. Differs: from random weights, so the bound grows; against the captions of
the batch, not the names of a data set; one move from a random start (Wong et al., "Fast is better than free", arXiv
2001.03994).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD, View
from rizbin.losses.contrast import contrast
from rizbin.models.published import build_pair
from rizbin.nets.dual import ImageTextPair
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets

_STRIDE = 1.25
"""Length of one move in units of the bound: a little beyond it, and back to its edge (arXiv 2001.03994)."""


class TeCoA(Method):
    """CLIP's loss on misleading images: what such an encoder looks at is what people see, and it can draw it."""

    arxiv = "2212.07016"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageTextSettings):
        view: View.Settings = View.Settings(crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.3333))
        """The one augmented view, before it is changed."""
        change: float = 4 / 255
        """Most that a value of a pixel is moved, as a share of white, 0 to 1 (paper: 1 / 255; gradients that look like
        things want more, arXiv 1906.09453)."""
        growth: float = 0.5
        """Share of the run over which the bound grows from nothing; 0: it is there from the first step, as in the
        paper, which starts with a trained CLIP."""
        moves: int = 1
        """Moves to the misleading image; each costs as much as a step of CLIP (paper: 2)."""

    @classmethod
    def presets(cls) -> Presets:
        return {
            "small": small(cls.name, cls.Settings(view=MILD)),
            "vits16": vits16(cls.name, cls.Settings()),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": yfcc15m(cls.name, cls.Settings()),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if not 0 <= settings.change <= 1:
            raise RizbinError(f"change is {settings.change:g}; it is a share of white, so give 0 to 1.")
        if settings.moves < 1:
            raise RizbinError(f"moves is {settings.moves}; give 1 or more, or a change of 0 for plain CLIP.")
        self.settings = settings
        self.pair = build_pair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        self.views = (replace(settings.view, size=self.pair.image_size),)

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        assert batch.texts is not None  # who has a tokenizer gets captions
        pair, images = self.pair, batch.views[0]
        change = progress.linear(0.0, self.settings.change, over=self.settings.growth)
        texts = pair.encode_texts(batch.texts)
        if change > 0:
            images = self._misleading(images, texts.detach(), change, progress)
        loss = contrast(pair.encode_images(images), texts, pair.scale, pair.logit_bias)
        yield Minimize(loss, records={"contrast": loss, "change": change, "scale": pair.scale})
        pair.limit_scale()

    def _misleading(
        self,
        images: Float[Tensor, "batch 3 height width"],
        texts: Float[Tensor, "batch embedding"],
        change: float,
        progress: Progress,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Normalized images within `change` of these and within black and white, far from their captions."""
        pair, settings = self.pair, self.settings
        mean, deviation = (images.new_tensor(value)[:, None, None] for value in (MEAN, STD))
        low, high = -mean / deviation, (1 - mean) / deviation
        bound = change / deviation
        length = min(_STRIDE, 2 * _STRIDE / settings.moves) * bound
        start = progress.uniform("start", len(images), images[0].numel(), images.device).view_as(images).to(images)
        moved = images + (2 * start - 1) * bound
        bias = None if pair.logit_bias is None else pair.logit_bias.detach()
        for _ in range(settings.moves):
            moved = moved.detach().requires_grad_(True)
            # Evaluation is on true images: batch norms keep no statistics of these.
            embeddings = pair.embed(pair.vision(moved, track=False))
            (slope,) = torch.autograd.grad(contrast(embeddings, texts, pair.scale.detach(), bias), moved)
            with torch.no_grad():
                moved = moved + length * slope.sign()
                moved = torch.clamp(torch.clamp(moved, images - bound, images + bound), low, high)
        return moved.detach()
