"""CLIP: contrastive learning of images and captions: each pair must match among all others of the batch.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020,
figure 3.
With `contrast = sigmoid` it is SigLIP's loss, arXiv 2303.15343.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rizbin.data.views import View
from rizbin.losses.contrast import contrast
from rizbin.models.published import build_pair
from rizbin.nets.dual import ImageTextPair
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets


class CLIP(Method):
    """Two towers and a contrastive loss; the baseline of the family."""

    arxiv = "2103.00020"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageTextSettings):
        view: View.Settings = View.Settings(crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.3333))
        """The one augmented view; crops of at least half the image, as in SLIP's CLIP (arXiv 2112.12750)."""

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
        self.settings = settings
        self.pair = build_pair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        self.views = (replace(settings.view, size=self.pair.image_size),)

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        assert batch.texts is not None  # who has a tokenizer gets captions
        images = self.pair.encode_images(batch.views[0])
        texts = self.pair.encode_texts(batch.texts)
        loss = contrast(images, texts, self.pair.scale, self.pair.logit_bias)
        yield Minimize(loss, records={"contrast": loss, "scale": self.pair.scale})
        self.pair.limit_scale()
