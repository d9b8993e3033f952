"""Export: a trained model as a folder that other software loads."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from rizbin.core.checksums import write_sums
from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError
from rizbin.detection.detector import Detector
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip, save_timm
from rizbin.workflows.bundle import publish
from rizbin.workflows.load import calibration_of, open_model

Format = Literal["open_clip", "timm", "rizbin", "transformers", "onnx", "diffusers"]
ENCODER_FORMATS: tuple[Format, ...] = ("open_clip", "timm", "rizbin")
DETECTOR_FORMATS: tuple[Format, ...] = ("transformers", "onnx")
DIFFUSION_FORMATS: tuple[Format, ...] = ("diffusers",)


@dataclass(frozen=True)
class Export:
    """Write a trained model in a format that other software loads, and print the lines that load it."""

    model: Annotated[Place, Argument(positional=True, metavar="RUN|NAME", check="model")]
    """A run folder, or the name of a bundled model (`rizbin zoo`)."""
    output: Annotated[Place, Argument(short=("-o",), metavar="DIR")]
    """A new folder."""
    _: KW_ONLY
    format: Format | None = None
    """open_clip, for open_clip.create_model_and_transforms("local-dir:DIR"); timm, for
    timm.create_model("local-dir:DIR") of an encoder without text; rizbin, with teacher and decoder for reports, always
    in 16 bits. Of a detector: transformers, or onnx for onnxruntime, which `rizbin detect --model DIR` runs too. Of a
    text-to-image model: diffusers. None: the first that fits the model."""
    half: bool = False
    """Store the weights in 16 bits."""


@job(Export)
def export(settings: Export) -> Path:
    """Writes a trained model into a new folder. Raises RizbinError where the format does not fit the model."""
    target, name = Path(settings.output), settings.model
    _empty(target)
    loaded = open_model(name)
    if (detector := loaded.detector) is not None:
        form = _fitting(settings.format, DETECTOR_FORMATS, f"{name} is a detector")
        return _detector(detector, target, form, settings.half)
    if (text_to_image := loaded.text_to_image) is not None:
        _fitting(settings.format, DIFFUSION_FORMATS, f"{name} is a text-to-image model")
        return _pipeline(text_to_image, target, settings.half)
    model = loaded.network
    if isinstance(model, ImageTextPair):
        form = _fitting(settings.format, ("open_clip", "rizbin"), f"{name} reads text")
    else:
        form = _fitting(settings.format, ("timm", "rizbin"), f"{name} reads no text")
    if form == "rizbin":
        if loaded.run is None:
            raise RizbinError(
                f"{name} is a model without its training method; export it to another format, or its run."
            )
        publish(loaded.run, target)
    elif isinstance(model, ImageTextPair):
        save_open_clip(model, target, half=settings.half)
    else:
        save_timm(model, target, half=settings.half)
    return target


def _fitting(form: Format | None, fitting: tuple[Format, ...], why: str) -> Format:
    """The format, or the first that fits. Raises RizbinError for one that does not."""
    if form is not None and form not in fitting:
        raise RizbinError(f"{why}, so {form} cannot load it; export it to {' or '.join(fitting)}.")
    return form or fitting[0]


def _detector(detector: Detector, target: Path, form: Format, half: bool) -> Path:
    if form == "onnx":
        from rizbin.detection.onnx import export_onnx

        export_onnx(detector, target)
    else:
        detector.save(target, half=half)
    if (calibration := calibration_of(detector)) is not None:
        calibration.save(target / "calibration.json")
    write_sums(target)
    return target


def _pipeline(text_to_image: TextToImage, target: Path, half: bool) -> Path:
    (text_to_image.pipeline.to(torch.float16) if half else text_to_image.pipeline).save_pretrained(target)
    write_sums(target)
    return target


def _empty(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RizbinError(f"{target} is not empty; name a new folder to export to.")
