"""What the presets of several methods share: for each size of work the networks, and how they are trained.

nano    32 px, three convolutions, without captions only: a run a minute, for experiments by the dozen
small   64 px, 1 to 2 million parameters: learns the embedded world on two cores in minutes
vits16  ViT-S/16 at 224 px, with CLIP's text tower where there are captions: one good GPU
vitb16  ViT-B/16 at 224 px, with CLIP's text tower where there are captions: several GPUs

Each function takes a method's name and its own settings, and puts the networks of its size in. A preset named `paper`
is as the method's own paper has it, so it stands in the method's file; `yfcc15m` and `imagenet_resnet50` are what
several papers did. None of the three large ones was run to the end: no machine of that size was at hand.
"""

from dataclasses import replace
from typing import Any, Literal, TypeVar

from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.text import TextEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.training.settings import ImageSettings, ImageTextSettings, TrainerSettings, Training

AnySettings = TypeVar("AnySettings", bound=ImageSettings | ImageTextSettings)
OfImages = TypeVar("OfImages", bound=ImageSettings)
OfPairs = TypeVar("OfPairs", bound=ImageTextSettings)

SMALL_PAIR = ImageTextPair.Settings(pool="both")
SMALL_ENCODER = ImageEncoder.Settings(pool="both")
NANO_ENCODER = ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32)
VITS16, VITB16 = "vit_small_patch16_224", "vit_base_patch16_224"

MILD = View.Settings(size=64, crop_area=(0.8, 1.0), crop_ratio=(0.9, 1.1))
"""Captions of the embedded world name sizes and places, and its scenes never repeat: no mirror, no change of colors,
gentle crops that keep what the caption names."""
STRONG = View.Settings(
    crop_area=(0.3, 1.0),
    crop_ratio=(0.75, 1.3333),
    flip=0.5,
    jitter=0.8,
    hue=0.02,
    blur=0.2,
    blur_sigma=(0.1, 1.0),
)
"""Views of 64 pixels: a blur of two pixels would take what there is, and less than 0.3 of a scene may hold nothing. The
colors of a single drawing are its name: with gray views and turned hues BYOL's neighbors named 43 percent, without 67
(docs/LOG.md). On photographs take the paper's colors back: grayscale 0.2, hue 0.1."""
STRONG_SMALL = replace(STRONG, crop_area=(0.15, 0.4), size=32)
"""The small crop beside it."""
IMAGENET = 1_281_167
"""Training images of ImageNet."""


def small(method: str, settings: AnySettings) -> Training[AnySettings]:
    """For the embedded world on two cores; see docs/methods.md for what each method reached with it."""
    if isinstance(settings, ImageTextSettings):
        return Training(
            method=method,
            settings=replace(settings, pair=SMALL_PAIR),
            # Small batches: many updates of a young network teach it more than many negatives.
            batch=32,
            trainer=TrainerSettings(learning_rate=5e-4),
        )
    return Training(
        method=method,
        data="scenes:single",
        settings=replace(settings, encoder=SMALL_ENCODER),
        steps=1000,
        batch=64,
        trainer=TrainerSettings(learning_rate=1e-3),
    )


def nano(training: Training[OfImages]) -> Training[OfImages]:
    """A small training for the laboratory: three convolutions at 32 px learn single drawings in half a minute."""
    settings = replace(training.settings, encoder=NANO_ENCODER)
    return replace(training, steps=400, checkpoint_every=400, settings=settings)


def vits16(method: str, settings: AnySettings) -> Training[AnySettings]:
    """ViT-S/16."""
    return _large(method, settings, VITS16, batch=512)


def vitb16(method: str, settings: AnySettings) -> Training[AnySettings]:
    """ViT-B/16."""
    return _large(method, settings, VITB16, batch=1024)


def yfcc15m(method: str, settings: OfPairs, **vision: Any) -> Training[OfPairs]:
    """The setting in which SLIP, A-CLIP and DetailCLIP were trained on YFCC-15M (arXiv 2112.12750, 2212.08653,
    2409.06809): ViT-B/16, batch 4096, AdamW 5e-4, weight decay 0.5; 25 epochs of 15 million images are 91,500 steps.

    YFCC-15M cannot be had any more. vision: settings of the image tower that the paper has otherwise.
    """
    training = _large(method, settings, VITB16, batch=4096)
    pair = training.settings.pair
    pair = replace(pair, vision=replace(pair.vision, **vision), text=replace(pair.text, quick_gelu=True))
    return replace(
        training,
        steps=91_500,
        checkpoint_every=1000,
        settings=replace(training.settings, pair=pair),
        trainer=replace(training.trainer, final_learning_rate=1e-5, warmup=0.04, warmup_start=1e-6),
    )


def imagenet_resnet50(
    method: str,
    settings: OfImages,
    *,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    epochs: int,
    optimizer: Literal["sgd", "lars"] = "lars",
    warmup_epochs: int = 10,
) -> Training[OfImages]:
    """ResNet-50 on ImageNet: a warm-up from zero, then a cosine down to zero."""
    return Training(
        method=method,
        steps=epochs * IMAGENET // batch,
        batch=batch,
        checkpoint_every=1000,
        settings=replace(settings, encoder=ImageEncoder.Settings(name="resnet50", image_size=224)),
        trainer=TrainerSettings(
            optimizer=optimizer,
            learning_rate=learning_rate,
            final_learning_rate=0.0,
            weight_decay=weight_decay,
            warmup=warmup_epochs / epochs,
            warmup_start=0.0,
            precision="bf16",
            workers=8,
        ),
    )


def clip_towers(backbone: str) -> ImageTextPair.Settings:
    """CLIP's text tower (12 layers, width 512, 77 tokens) beside a timm backbone at 224 px.

    The CLS token meets the text, as in the papers.
    """
    return ImageTextPair.Settings(
        vision=VisionEncoder.Settings(name=backbone, image_size=224),
        text=TextEncoder.Settings(
            tokenizer=Tokenizer.Settings(vocabulary="clip", context=77),
            width=512,
            layers=12,
            heads=8,
            initialization="clip",
        ),
        embedding=512,
        pool="cls",
    )


def _large(method: str, settings: AnySettings, backbone: str, batch: int) -> Training[AnySettings]:
    """SLIP's recipe (arXiv 2112.12750) for methods that read captions, DINO's (arXiv 2104.14294) for the others."""
    if isinstance(settings, ImageTextSettings):
        return Training(
            method=method,
            batch=batch,
            settings=replace(settings, pair=clip_towers(backbone)),
            trainer=TrainerSettings(learning_rate=5e-4, weight_decay=0.5, warmup=0.04, precision="bf16", workers=8),
        )
    return Training(
        method=method,
        batch=batch,
        settings=replace(settings, encoder=replace(settings.encoder, name=backbone, image_size=224)),
        trainer=TrainerSettings(
            learning_rate=5e-4 * batch / 256,
            weight_decay=0.04,
            weight_decay_growth=10.0,
            warmup=0.1,
            clip=3.0,
            precision="bf16",
            workers=8,
        ),
    )
