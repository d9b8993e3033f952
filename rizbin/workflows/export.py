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
from rizbin.models.onnx import export_encoder
from rizbin.models.origins import library_of, open_origin, write_origin
from rizbin.models.published import can_give_back, is_published, save_published
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip, save_timm
from rizbin.workflows.bundle import publish
from rizbin.workflows.hub import keep_settings, push, write_card
from rizbin.workflows.load import Loaded, calibration_of, open_model

Format = Literal["open_clip", "timm", "rizbin", "transformers", "onnx", "diffusers"]
ENCODER_FORMATS: tuple[Format, ...] = ("open_clip", "timm", "transformers", "rizbin", "onnx")
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
    timm.create_model("local-dir:DIR") of an encoder without text; transformers, for AutoModel; what began with a
    published model goes back in the form in which it came. rizbin, with teacher and decoder for reports, always in 16
    bits. onnx: a file for images and one for texts, checked against the network. Of a detector: transformers, or onnx
    for onnxruntime, which `rizbin detect --model DIR` runs too. Of a text-to-image model: diffusers. None: the first
    that fits the model."""
    half: bool = False
    """Store the weights in 16 bits."""
    card: bool = False
    """Write README.md, a model card made from the record, and the settings of the training beside the encoder."""
    push: str = ""
    """OWNER/NAME: upload the folder to the Hugging Face Hub, with its card, to a repository that is private at first.
    Empty: nothing leaves this machine."""
    dry_run: bool = False
    """With --push: only say what would be uploaded."""


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
    if settings.push and settings.push.count("/") != 1:
        raise RizbinError(f"'{settings.push}' is no name of a repository; give OWNER/NAME.")
    form = _encoder(loaded, target, settings)
    if settings.card or settings.push:
        write_card(loaded, target, form)
        keep_settings(loaded, target)
        write_sums(target)
    if settings.push:
        print(push(target, settings.push, dry=settings.dry_run))
    return target


def _encoder(loaded: Loaded, target: Path, settings: Export) -> Format:
    """Writes an encoder; returns the form in which."""
    name, network = settings.model, loaded.encoder.network
    if settings.format == "onnx":
        export_encoder(loaded.encoder, target)
        write_sums(target)
        return "onnx"
    if is_published(network):
        if reason := can_give_back(network):
            raise RizbinError(f"{reason} Export it as onnx, or use the run's folder.")
        library: Format = network.origin.library
        form = _fitting(settings.format, (library, "onnx"), f"{name} began with a model of {library}")
        save_published(network, target, half=settings.half)
        write_sums(target)
        return form
    if loaded.library in ("open_clip", "timm", "transformers"):
        form = _fitting(settings.format, (loaded.library, "onnx"), f"{name} is a model of {loaded.library}")
        write_origin(open_origin(_spelled(loaded)), target, half=settings.half)
        write_sums(target)
        return form
    model = loaded.network
    if isinstance(model, ImageTextPair):
        form = _fitting(settings.format, ("open_clip", "rizbin", "onnx"), f"{name} reads text")
    else:
        form = _fitting(settings.format, ("timm", "rizbin", "onnx"), f"{name} reads no text")
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
    return form


def _spelled(loaded: Loaded) -> str:
    """The name of another library's model with its library before it."""
    if loaded.folder is not None or library_of(loaded.name) is not None:
        return str(loaded.folder or loaded.name)
    return f"{'hf' if loaded.library == 'transformers' else loaded.library}:{loaded.name}"


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
