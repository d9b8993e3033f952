"""Presets: complete settings for a method, by the size of the work.

nano    32 px, three convolutions, without captions only: a run a minute, for experiments by the dozen
small   64 px, 1 to 2 million parameters: learns the embedded world on two cores in minutes
vits16  ViT-S/16 at 224 px, with CLIP's text tower where there are captions: one good GPU
vitb16  ViT-B/16 at 224 px, with CLIP's text tower where there are captions: several GPUs
paper   the method's own paper: backbone, views, weights, optimizer, batch

Of the detector: small, from nothing on the embedded world; finetune, a published one on boxes of your own.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.text import TextEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.training.trainer import Trainer
from rizbin.workflows.catalogue import DETECTOR, DIFFUSION, find

MethodSettings = TypeVar("MethodSettings")


@dataclass(frozen=True, kw_only=True)
class Training(Generic[MethodSettings]):
    """One complete run: together with the code, the data and the number of threads it fixes every bit of the result."""

    method: str
    """Name of the method: a file in rizbin/methods, or the detector."""
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
    start: str = ""
    """A run folder, an exported model or a bundled model whose encoder training begins with; empty: random weights."""
    trainer: Trainer.Settings = Trainer.Settings()
    """Optimizer, precision, processes."""
    settings: MethodSettings
    """The method's own."""


def names(method: str) -> tuple[str, ...]:
    """The presets that `method` has."""
    if method in _OTHERS:
        return tuple(_OTHERS[method])
    return tuple(name for name in _PRESETS if name != "nano" or not reads_captions(find(method).Settings()))


def preset(method: str, name: str = "small") -> Training[Any]:
    """Complete settings of `method` for the work that `name` stands for. Raises RizbinError naming the choices."""
    if name not in names(method):
        raise RizbinError(f"{method} has no preset '{name}'; choose one of {', '.join(names(method))}.")
    return _OTHERS[method][name]() if method in _OTHERS else _PRESETS[name](method)


def small(method: str) -> Training[Any]:
    """For the embedded world on two cores; see docs/methods.md for what each method reached with it."""
    base = find(method).Settings()
    if not reads_captions(base):
        return _small_alone(method)
    return Training(
        method=method,
        settings=_fit(base, {**_SMALL, **_SMALL_BY_METHOD.get(method, {})}),
        # Small batches: many updates of a young network teach it more than many negatives.
        batch=32,
        trainer=Trainer.Settings(learning_rate=5e-4),
    )


def nano(method: str) -> Training[Any]:
    """For the laboratory: three convolutions at 32 px, which learn the single drawings in half a minute on one core."""
    training = _small_alone(method)
    settings, half = training.settings, {}
    if hasattr(settings, "local_view"):
        half = {"local_view": replace(settings.local_view, size=16)}
    encoder = ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32)
    return replace(training, steps=400, checkpoint_every=400, settings=replace(settings, encoder=encoder, **half))


def reads_captions(settings: Any) -> bool:
    """Whether the method with these settings trains an image-text pair, not an image encoder alone."""
    return hasattr(settings, "pair")


def view_size(settings: Any) -> int:
    """Side in pixels of the pictures that the network with these settings learns from."""
    if reads_captions(settings):
        return settings.pair.vision.image_size
    return settings.encoder.image_size if hasattr(settings, "encoder") else settings.image_size


def vits16(method: str) -> Training[Any]:
    """ViT-S/16. Not yet run to the end: no machine of that size was at hand."""
    return _large(method, "vit_small_patch16_224", batch=512)


def vitb16(method: str) -> Training[Any]:
    """ViT-B/16. Not yet run to the end: no machine of that size was at hand."""
    return _large(method, "vit_base_patch16_224", batch=1024)


def paper(method: str) -> Training[Any]:
    """As the method's paper and official code have it (arXiv 2409.06809 for detailclip).

    With captions: batch 4096, AdamW 5e-4, weight decay 0.5; 25 epochs of 15 million pictures are 91,500 steps. Without:
    what stands at each method below. Not yet run: YFCC-15M cannot be had any more and 16 GPUs were not at hand.
    """
    if method in _PAPER_ALONE:
        return _PAPER_ALONE[method]()
    training = _large(method, "vit_base_patch16_224", batch=4096)
    settings = training.settings
    vision = settings.pair.vision
    if method == "detailclip":
        # Its code stands on timm 0.5, whose CLS token starts like the other weights.
        vision = replace(vision, freeze_patch_embedding=True, cls_std=0.02)
    text = replace(settings.pair.text, quick_gelu=True)
    settings = replace(settings, pair=replace(settings.pair, vision=vision, text=text))
    return replace(
        training,
        steps=91_500,
        checkpoint_every=1000,
        settings=settings,
        trainer=replace(training.trainer, final_learning_rate=1e-5, warmup=0.04, warmup_start=1e-6),
    )


def _small_detector() -> Training[Any]:
    """A Grounding DINO of 1.3 million parameters, from nothing, on the embedded world; half an hour on one core."""
    return Training(
        method=DETECTOR,
        data="scenes:several",
        settings=find(DETECTOR).Settings(),
        steps=4000,
        batch=16,
        trainer=Trainer.Settings(learning_rate=1e-3, weight_decay=1e-4, warmup=0.1, clip=1.0),
    )


def _finetuned_detector() -> Training[Any]:
    """A published one on a small set: both backbones rest, rates of MM-Grounding-DINO's guide (arXiv 2401.02361).

    Tried on small networks only: no published weights were at hand.
    """
    from rizbin.detection.criterion import Weights
    from rizbin.detection.detector import DEFAULT

    return Training(
        method=DETECTOR,
        settings=find(DETECTOR).Settings(
            start=DEFAULT,
            image_size=640,
            view=View.Settings(crop_area=(0.6, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5),
            # As it was trained; denoising is not tried on published weights.
            weights=Weights(),
            denoising=0,
            freeze=("text", "backbone"),
        ),
        steps=2000,
        batch=4,
        trainer=Trainer.Settings(learning_rate=1e-4, weight_decay=1e-4, warmup=0.05, clip=0.1),
    )


def _small_diffusion() -> Training[Any]:
    """A latent diffusion model of 8.9 million parameters on single drawings and pairs; an hour on one core."""
    return Training(
        method=DIFFUSION,
        data="scenes:drawn,categories=16",
        settings=find(DIFFUSION).Settings(),
        steps=2800,
        batch=32,
        # bf16 serves networks of convolutions: twice as fast on processors with AMX (docs/LOG.md).
        trainer=Trainer.Settings(learning_rate=7e-4, weight_decay=0.01, warmup=0.01, clip=1.0, precision="bf16"),
    )


_OTHERS: dict[str, dict[str, Callable[[], Training[Any]]]] = {
    DETECTOR: {"small": _small_detector, "finetune": _finetuned_detector},
    DIFFUSION: {"small": _small_diffusion},
}
"""What other rooms teach has presets of its own."""
_PRESETS = {"small": small, "nano": nano, "vits16": vits16, "vitb16": vitb16, "paper": paper}

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
        # One view beside the clean one: on scenes that never repeat a second view of the same teaches little, and costs
        # a third of a step.
        "view_count": 1,
        # The whole image meets the caption: a step costs what CLIP's costs until the techniques start.
        "contrast_view": "clean",
        # What makes patches speak, and each object of its own word: from 56 to 94 percent in 900 steps (docs/LOG.md).
        "phrase_weight": 1.0,
        # At equal time none of the three techniques pays on this world: removal costs captions and names, the more the
        # more there is that captions leave out, and the other two change nothing that seeds can tell at two to three
        # times the cost (docs/studies/components.html, tokens.html; docs/LOG.md). They rest here; what follows is what
        # was found to suit them, where a flag turns one on: --method.selection attention, --method.distillation,
        # --method.reconstruction.
        "selection": "none",
        "distillation": False,
        "reconstruction": False,
        # Objects must be hidden for anything to be learned of them; by the paper's rule 4 percent of their pixels were.
        "hide": "random",
        "teacher_resolution": "half",
        # Features teach from the first step; a young head's prototypes stood at ln 512 for hundreds (docs/LOG.md).
        "patch_target": "features",
        "visible_weight": 1.0,
        "cls_weight": 0.1,
        "head_norm": True,
        # Seen at half the resolution, to be predicted at the whole one.
        "low_resolution": 2,
        "decoder_blocks": 2,
        # In a run of minutes the teacher has nothing to teach before the captions have taught it, and a step with all
        # terms costs about three with the contrast alone.
        "late_start": 0.7,
        "momentum": 0.99,
        "final_momentum": 0.999,
    },
}


_STRONG = View.Settings(
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
_SMALL_ALONE: dict[str, dict[str, Any]] = {
    "simclr": {"view": _STRONG, "temperature": 0.2, "projection_hidden": 256, "projection": 64},
    "byol": {
        "view_1": _STRONG,
        "view_2": _STRONG,
        "projection_hidden": 512,
        "projection": 64,
        "momentum": 0.97,
        "together": True,
    },
    "dino": {
        "global_view_1": _STRONG,
        "global_view_2": _STRONG,
        "local_view": replace(_STRONG, crop_area=(0.15, 0.4), size=32),
        "local_crops": 2,
        "prototypes": 256,
        # Without batch norm the head of a young network says the same of every picture, and in some hundred steps
        # nothing teaches it otherwise: uniform code in every run tried (docs/LOG.md).
        "head_norm": True,
        "momentum": 0.97,
    },
    "logo": {
        "global_view": _STRONG,
        "local_view": replace(_STRONG, crop_area=(0.15, 0.4), size=32),
        "projection_hidden": 256,
        "projection": 64,
        # As in DINO's: without batch norm the projections of a young network lie in two directions.
        "head_norm": True,
        "queue": 1024,
        "temperature": 0.2,
        "momentum": 0.97,
        "affinity_hidden": 64,
    },
}


def _small_alone(method: str) -> Training[Any]:
    """The small preset of a method without captions."""
    if method == "supervised":  # several names an image, and crops that keep what stands in it, as with captions
        settings = find(method).Settings(encoder=ImageEncoder.Settings(pool="both"), view=_MILD)
        return Training(method=method, settings=settings, batch=32, trainer=Trainer.Settings(learning_rate=5e-4))
    settings = _fit(find(method).Settings(), {"encoder": ImageEncoder.Settings(pool="both"), **_SMALL})
    return Training(
        method=method,
        data="scenes:single",
        settings=_fit(settings, _SMALL_ALONE.get(method, {})),
        steps=1000,
        batch=64,
        trainer=Trainer.Settings(learning_rate=1e-3),
    )


def _paper_simclr() -> Training[Any]:
    """ResNet-50, batch 4096, LARS with rate 0.3 * batch / 256, 1000 epochs of ImageNet (arXiv 2002.05709, section
    2.2)."""
    return _resnet50("simclr", batch=4096, rate=4.8, decay=1e-6, epochs=1000)


def _paper_byol() -> Training[Any]:
    """ResNet-50, batch 4096, LARS with rate 0.2 * batch / 256, 1000 epochs of ImageNet (arXiv 2006.07733, appendix
    B)."""
    return _resnet50("byol", batch=4096, rate=3.2, decay=1.5e-6, epochs=1000)


def _resnet50(method: str, *, batch: int, rate: float, decay: float, epochs: int) -> Training[Any]:
    return Training(
        method=method,
        steps=epochs * _IMAGENET // batch,
        batch=batch,
        checkpoint_every=1000,
        settings=replace(find(method).Settings(), encoder=ImageEncoder.Settings(name="resnet50", image_size=224)),
        trainer=Trainer.Settings(
            optimizer="lars",
            learning_rate=rate,
            final_learning_rate=0.0,
            weight_decay=decay,
            warmup=10 / epochs,
            warmup_start=0.0,
            precision="bf16",
            workers=8,
        ),
    )


def _paper_supervised() -> Training[Any]:
    """ResNet-50, batch 256, SGD 0.1, 90 epochs of ImageNet (He et al., arXiv 1512.03385, section 3.4, with a cosine in
    place of its steps)."""
    training = _resnet50("supervised", batch=256, rate=0.1, decay=1e-4, epochs=90)
    return replace(training, trainer=replace(training.trainer, optimizer="sgd", warmup=0.0))


def _paper_dino() -> Training[Any]:
    """ViT-S/16, batch 1024, AdamW with rate 5e-4 * batch / 256, 300 epochs of ImageNet (arXiv 2104.14294, appendix
    A)."""
    settings = find("dino").Settings()
    encoder = ImageEncoder.Settings(name="vit_small_patch16_224", image_size=224, drop_path=0.1)
    # With eight small crops the large ones start at 0.25, the small ones end there (appendix E).
    wanted = {"encoder": encoder, "local_crops": 10, "teacher_temperature": 0.07, "teacher_temperature_warmup": 0.1}
    return Training(
        method="dino",
        steps=300 * _IMAGENET // 1024,
        batch=1024,
        checkpoint_every=1000,
        settings=replace(settings, **wanted, freeze_last_layer=1 / 300),
        trainer=Trainer.Settings(
            learning_rate=2e-3,
            final_learning_rate=1e-6,
            weight_decay=0.04,
            weight_decay_growth=10.0,
            beta2=0.999,
            warmup=10 / 300,
            warmup_start=0.0,
            clip=3.0,
            precision="bf16",
            workers=8,
        ),
    )


def _paper_logo() -> Training[Any]:
    """MoCo-LoGo as released: ResNet-34, batch 256, SGD 0.03, 200 epochs of ImageNet-100 (arXiv 2203.17205)."""
    return Training(
        method="logo",
        steps=200 * 126_689 // 256,
        batch=256,
        checkpoint_every=1000,
        settings=replace(find("logo").Settings(), encoder=ImageEncoder.Settings(name="resnet34", image_size=224)),
        trainer=Trainer.Settings(
            optimizer="sgd",
            learning_rate=0.03,
            final_learning_rate=0.0,
            weight_decay=1e-4,
            warmup=0.0,
            clip=100.0,
            precision="bf16",
            workers=8,
        ),
    )


_IMAGENET = 1_281_167
"""Training pictures."""
_PAPER_ALONE = {
    "simclr": _paper_simclr,
    "byol": _paper_byol,
    "dino": _paper_dino,
    "logo": _paper_logo,
    "supervised": _paper_supervised,
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
    base = find(method).Settings()
    if not reads_captions(base):
        return Training(
            method=method,
            batch=batch,
            settings=replace(base, encoder=replace(base.encoder, name=backbone, image_size=224)),
            trainer=Trainer.Settings(
                learning_rate=5e-4 * batch / 256,
                weight_decay=0.04,
                weight_decay_growth=10.0,
                warmup=0.1,
                clip=3.0,
                precision="bf16",
                workers=8,
            ),
        )
    return Training(
        method=method,
        batch=batch,
        settings=_fit(base, {"pair": pair, **decoder}),
        trainer=Trainer.Settings(learning_rate=5e-4, weight_decay=0.5, warmup=0.04, precision="bf16", workers=8),
    )


def _fit(settings: Any, wanted: dict[str, Any]) -> Any:
    """`settings` with those of `wanted` that it has."""
    own = {field.name for field in fields(settings)}
    return replace(settings, **{name: value for name, value in wanted.items() if name in own})
