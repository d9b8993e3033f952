"""Presets: complete settings for a method, by the size of the work.

small   64 px, 1.8 million parameters: learns the embedded world on two cores in minutes
vits16  ViT-S/16 at 224 px with CLIP's text tower: one good GPU
vitb16  ViT-B/16 at 224 px with CLIP's text tower: several GPUs
paper   the method's own paper: ViT-B/16, its views, weights and optimizer (global batch 4096)
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from rizbin import methods
from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.text import TextEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.train.trainer import Trainer

MethodSettings = TypeVar("MethodSettings")


@dataclass(frozen=True, kw_only=True)
class Training(Generic[MethodSettings]):
    """One complete run: together with the code, the data and the number of threads it fixes every bit of the result."""

    method: str
    """Name of the method: a file in rizbin/methods."""
    data: str = "scenes:easy"
    """What to train on: scenes:easy, scenes:hard, cutouts:DIR, a folder, a .csv, .tsv, .jsonl or COCO .json file,
    shards:PATTERN."""
    steps: int = 2000
    """Batches in the whole run."""
    batch: int = 128
    """Pictures in a step, over all processes together."""
    seed: int = 0
    """Of weights, order, views and every other draw."""
    checkpoint_every: int = 200
    """Steps between checkpoints; one is always written at the end and on a signal."""
    trainer: Trainer.Settings = Trainer.Settings()
    """Optimizer, precision, processes."""
    settings: MethodSettings
    """The method's own."""


def names(method: str) -> tuple[str, ...]:
    """The presets that `method` has."""
    del method
    return tuple(_PRESETS)


def preset(method: str, name: str = "small") -> Training[Any]:
    """Complete settings of `method` for the work that `name` stands for. Raises RizbinError naming the choices."""
    if name not in _PRESETS:
        raise RizbinError(f"There is no preset '{name}'; choose one of {', '.join(_PRESETS)}.")
    return _PRESETS[name](method)


def small(method: str) -> Training[Any]:
    """For the embedded world on two cores; see docs/methods.md for what each method reached with it."""
    base = methods.find(method).Settings()
    return Training(
        method=method,
        settings=_fit(base, {**_SMALL, **_SMALL_BY_METHOD.get(method, {})}),
        # Small batches: many updates of a young network teach it more than many negatives.
        batch=32,
        trainer=Trainer.Settings(learning_rate=5e-4),
    )


def vits16(method: str) -> Training[Any]:
    """ViT-S/16. Not yet run to the end: no machine of that size was at hand."""
    return _large(method, "vit_small_patch16_224", batch=512)


def vitb16(method: str) -> Training[Any]:
    """ViT-B/16. Not yet run to the end: no machine of that size was at hand."""
    return _large(method, "vit_base_patch16_224", batch=1024)


def paper(method: str) -> Training[Any]:
    """As the method's paper and official code have it (arXiv 2409.06809 for detailclip).

    Batch 4096, AdamW 5e-4, weight decay 0.5. Not yet run: YFCC-15M cannot be had any more and 16 GPUs were not at hand.
    25 epochs of 15 million pictures are 91,500 steps.
    """
    training = _large(method, "vit_base_patch16_224", batch=4096)
    settings = training.settings
    vision = replace(settings.pair.vision, freeze_patch_embedding=method == "detailclip")
    text = replace(settings.pair.text, quick_gelu=True)
    settings = replace(settings, pair=replace(settings.pair, vision=vision, text=text))
    return replace(
        training,
        steps=91_500,
        checkpoint_every=1000,
        settings=settings,
        trainer=replace(training.trainer, final_learning_rate=1e-5, warmup=0.04),
    )


_PRESETS = {"small": small, "vits16": vits16, "vitb16": vitb16, "paper": paper}

_MILD = View.Settings(size=64, crop_area=(0.8, 1.0), crop_ratio=(0.9, 1.1))
"""Captions of the embedded world name sizes and places, and its scenes never repeat: no mirror, no change of colors,
gentle crops that keep what the caption names."""

_SMALL: dict[str, Any] = {
    "pair": ImageTextPair.Settings(pool="both"),
    "view": _MILD,
    "prototypes": 1024,
    "head_hidden": 256,
    "head_bottleneck": 64,
    "decoder_width": 128,
    "decoder_heads": 4,
    "projection_hidden": 512,
    "projection": 128,
}

_SMALL_BY_METHOD: dict[str, dict[str, Any]] = {
    "detailclip": {
        "prototypes": 512,
        # The whole picture meets the caption: a step costs what CLIP's costs until the techniques start.
        "contrast_view": "clean",
        # What makes patches speak: doubled the zero-shot mIoU (docs/LOG.md); at 1 it took from the top-1.
        "patches_contrast_weight": 0.5,
        "patches_pool": "text",
        # Kept patches learn from the teacher as well: the encoder's own patches meet words, the decoder's do not.
        "visible_weight": 0.1,
        # At the paper's weights of 1 these terms are thirty times the contrast when they begin, and drown it; MaskCLIP
        # weighs its own by 0.05. At a tenth they take nothing from the top-1.
        "cls_weight": 0.1,
        "patch_weight": 0.1,
        "reconstruction_weight": 0.1,
        # In a run of minutes the teacher has nothing to teach before the captions have taught it, and a step with all
        # terms costs about three with the contrast alone.
        "late_start": 0.7,
        "momentum": 0.99,
        "final_momentum": 0.999,
    },
}


def _large(method: str, backbone: str, batch: int) -> Training[Any]:
    """CLIP's text tower (12 layers, width 512, 77 tokens) beside a timm backbone.

    The CLS token meets the text, as in the papers.
    """
    pair = ImageTextPair.Settings(
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
    decoder = {"decoder_width": 384} if "small" in backbone else {}
    return Training(
        method=method,
        batch=batch,
        settings=_fit(methods.find(method).Settings(), {"pair": pair, **decoder}),
        trainer=Trainer.Settings(learning_rate=5e-4, weight_decay=0.5, warmup=0.04, precision="bf16", workers=8),
    )


def _fit(settings: Any, wanted: dict[str, Any]) -> Any:
    """`settings` with those of `wanted` that it has."""
    own = {field.name for field in fields(settings)}
    return replace(settings, **{name: value for name, value in wanted.items() if name in own})
