"""Loads the model that a name stands for: one dispatch for models of Rizbin and of all libraries.

A name is the folder of a run, a bundled name, the folder of a model of Rizbin, open_clip, timm, transformers, diffusers
or onnxruntime, `open_clip:NAME/WEIGHTS`, `timm:NAME`, `hf:OWNER/NAME`, or OWNER/NAME on Hugging Face.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm

from rizbin import zoo
from rizbin.core.commands import Place
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.detection.detector import DEFAULT, KINDS, Detector
from rizbin.detection.presence import Calibration
from rizbin.generation.diffusion.loading import Offload, is_pipeline
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.diffusion.train import LatentDiffusion
from rizbin.models import conse
from rizbin.models.encoder import Encoder
from rizbin.models.open_clip import load_open_clip
from rizbin.models.own import RizbinEncoder
from rizbin.models.timm import load_timm
from rizbin.models.transformers import load_transformers
from rizbin.nets import export
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.foreign import transformers_config, written_by
from rizbin.nets.image import ImageEncoder
from rizbin.workflows.bundle import is_published, load_published
from rizbin.workflows.runs import LoadedRun, load_run

Kind = Literal["image-text encoder", "image encoder", "detector", "text-to-image"]
Library = Literal["rizbin", "open_clip", "timm", "transformers", "diffusers", "onnx"]
_WHAT: dict[Kind, str] = {
    "image-text encoder": "an image-text encoder",
    "image encoder": "an image encoder",
    "detector": "a detector",
    "text-to-image": "a text-to-image model",
}
"""Kinds as a sentence names them."""


@dataclass(frozen=True)
class Loaded:
    """A model and what it is."""

    kind: Kind
    library: Library
    """The library whose format the weights have; "rizbin" for a run and for what Rizbin exported or bundles."""
    name: str
    """The name that was given."""
    folder: Path | None
    """Folder of its files; None for models that a library downloaded by name."""
    model: Encoder | Detector | TextToImage
    run: LoadedRun | None = None
    """The trained method around it, of a run or an exported method."""

    @property
    def encoder(self) -> Encoder:
        """The encoder. Raises RizbinError for a detector and for a text-to-image model."""
        if isinstance(self.model, Encoder):
            return self.model
        raise RizbinError(f"{self.name} is {_WHAT[self.kind]}; this is done with image encoders.")

    @property
    def detector(self) -> Detector | None:
        """The detector; None where it is none. Raises RizbinError for one exported as ONNX, which only detects."""
        if self.library == "onnx":
            raise RizbinError(f"{self.name} is a detector exported for use; do this with what it was exported from.")
        return self.model if isinstance(self.model, Detector) else None

    @property
    def text_to_image(self) -> TextToImage | None:
        """The text-to-image model; None where it is none."""
        return self.model if isinstance(self.model, TextToImage) else None

    @property
    def network(self) -> ImageTextPair | ImageEncoder:
        """The network of an encoder that Rizbin trained. Raises RizbinError for those of others."""
        network = self.encoder.network
        if isinstance(network, ImageTextPair | ImageEncoder):
            return network
        raise RizbinError(f"{self.name} is a model of {self.library} already; this is done with models of Rizbin.")


def load(name: Place, *, device: str = BEST) -> Encoder | Detector | TextToImage:
    """The model that a name stands for, ready for use; its `repr` says what it is.

    An encoder has `encode_image`, `encode_text`, `similarity` and `patch_features`, which take images and texts as they
    are; a detector has `detect`; a text-to-image model has `paint`. `load_encoder`, `load_detector` and
    `load_text_to_image` give one kind each, and refuse the others in a sentence.
    """
    return open_model(name, device=str(choose(device))).model


def open_model(name: Place, *, device: str = "cpu", half: bool = False, offload: Offload = "none") -> Loaded:
    """Whatever the name stands for, in evaluation mode on the device, encoders without gradient for their weights.

    half, offload: of text-to-image models, see `rizbin.generation.diffusion.loading.load_pipeline`.
    Raises RizbinError when there is no such model, with the nearest names, and when it cannot be loaded whole.
    """
    text, folder = str(name), Path(name)
    library, colon, rest = text.partition(":")
    if text == conse.NAME and not folder.is_dir():
        return _encoder(conse.load_conse(device), "onnx", text, None, device)
    if colon and library in ("open_clip", "timm"):
        return _listed(text, library, rest, device)
    if colon and library == "hf":
        return open_model(rest, device=device, half=half, offload=offload)
    if not folder.is_dir() and text in zoo.names():
        folder = zoo.folder_of(text)
    if folder.is_dir():
        return _in_folder(folder, text, device, half, offload)
    if timm.is_model(text.partition(".")[0]):
        return _encoder(load_timm(text), "timm", text, None, device)
    # What begins like a folder that is here is a folder misspelled, and no reason to ask a server.
    if text.count("/") == 1 and not text.startswith((".", "/", "~")) and not folder.parent.is_dir():
        return _on_hugging_face(text, device, half, offload)
    close = difflib.get_close_matches(text, [*zoo.names(), *timm.list_models()], n=3, cutoff=0.5)
    raise RizbinError(
        f"There is neither a folder {folder} nor a model of that name; "
        + (f"did you mean {' or '.join(close)}? Give " if close else "give ")
        + "the folder of a run or of an exported model, open_clip:NAME/WEIGHTS, timm:NAME, OWNER/NAME on Hugging Face, "
        f"or one of {', '.join(zoo.names()) or 'no models yet'}."
    )


def _listed(text: str, library: str, name: str, device: str) -> Loaded:
    """A model by its name in open_clip's or timm's own list."""
    if library == "timm":
        return _encoder(load_timm(name), "timm", text, None, device)
    name, _, weights = name.partition("/")
    return _encoder(load_open_clip(name, weights, device=device), "open_clip", text, None, device)


def _in_folder(folder: Path, text: str, device: str, half: bool, offload: Offload) -> Loaded:
    """What a folder holds, by the files that each software writes."""
    if is_pipeline(folder):
        return _loaded_text_to_image(
            TextToImage.from_pretrained(folder, device=device, half=half, offload=offload), text, folder
        )
    if is_onnx(folder):
        from rizbin.detection.onnx import OnnxDetector

        return Loaded("detector", "onnx", text, folder, OnnxDetector(folder))
    if Detector.is_saved_in(folder):
        return Loaded("detector", "transformers", text, folder, Detector.from_pretrained(folder, device=device))
    if (folder / "settings.json").exists():
        return of_run(load_published(folder) if is_published(folder) else load_run(folder), text, device=device)
    if export.is_encoder(folder):
        return _encoder(RizbinEncoder(export.load_encoder(folder), name=text), "rizbin", text, folder, device)
    if (folder / export.CONFIG).is_file() and not (folder / export.OWN).is_file():
        return _encoder(load_open_clip(folder, device=device), "open_clip", text, folder, device)
    if (folder / "config.json").is_file() and not (folder / export.OWN).is_file():
        whose = written_by(folder)
        if whose == "timm":
            return _encoder(load_timm(folder), "timm", text, folder, device)
        if whose == "transformers":
            return _encoder(load_transformers(folder), "transformers", text, folder, device)
        raise RizbinError(
            f"{folder / 'config.json'} names neither an architecture (timm) nor a model_type (transformers); give a "
            "folder that one of them saved."
        )
    return _encoder(RizbinEncoder(export.load_pair(folder), name=text), "rizbin", text, folder, device)


def of_run(run: LoadedRun, name: str = "", *, device: str = "cpu") -> Loaded:
    """What the method of a run trained."""
    text = name or str(run.folder)
    if (detector := run.detector) is not None:
        detector.model.to(device)
        return Loaded("detector", "rizbin", text, run.folder, detector, run)
    if isinstance(run.method, LatentDiffusion):
        return _loaded_text_to_image(TextToImage(run.method.pipeline().to(device), name=text), text, run.folder, run)
    run.method.to(device)
    encoder = RizbinEncoder(run.encoder, name=text)
    return _encoder(encoder, "rizbin", text, run.folder, device, run)


def _on_hugging_face(text: str, device: str, half: bool, offload: Offload) -> Loaded:
    """A model by its name and owner: its configuration says what it is, and a pipeline has an index in its place."""
    if text.startswith("timm/"):
        return _encoder(load_timm(text), "timm", text, None, device)
    try:
        kind = str(getattr(transformers_config(text), "model_type", ""))
    except ImportError:
        return _encoder(load_transformers(text), "transformers", text, None, device)  # says how to install it
    except RizbinError as error:
        try:
            text_to_image = TextToImage.from_pretrained(text, device=device, half=half, offload=offload)
        except RizbinError:
            raise error from None
        return _loaded_text_to_image(text_to_image, text, None)
    if kind in KINDS:
        return Loaded("detector", "transformers", text, None, Detector.from_pretrained(text, device=device))
    return _encoder(load_transformers(text), "transformers", text, None, device)


def _encoder(
    encoder: Encoder, library: Library, text: str, folder: Path | None, device: str, run: LoadedRun | None = None
) -> Loaded:
    return Loaded(encoder.kind, library, text, folder, encoder.frozen(device), run)


def _loaded_text_to_image(
    text_to_image: TextToImage, text: str, folder: Path | None, run: LoadedRun | None = None
) -> Loaded:
    return Loaded("text-to-image", "diffusers" if run is None else "rizbin", text, folder, text_to_image, run)


def load_encoder(model: Place, *, device: str = "cpu") -> Encoder:
    """The encoder of that name, as `load` takes it, whichever library it is of."""
    return open_model(model, device=device).encoder


def load_detector(model: Place = "", *, device: str = "cpu") -> Detector:
    """The detector of that name, as `load` takes it; empty: `DEFAULT`.

    A folder that `export` wrote as ONNX runs by onnxruntime, on the processor.
    """
    if not str(model):
        return _default_detector(device)
    loaded = open_model(model, device=device)
    if isinstance(loaded.model, Detector):
        return loaded.model
    raise RizbinError(
        f"{model} is {_WHAT[loaded.kind]}; this is done with detectors, such as detector-mini, or what rizbin train "
        "detector makes."
    )


def _default_detector(device: str) -> Detector:
    try:
        return Detector.from_pretrained(DEFAULT, device=device)
    except RizbinError as error:
        raise RizbinError(
            f"Without --model the published detector {DEFAULT} is taken, and it cannot be loaded here: with a network "
            "at hand it is fetched once and kept. For drawings of the embedded world --model detector-mini is "
            "bundled; for photographs give the folder of a Grounding DINO that was fetched elsewhere."
        ) from error


def load_text_to_image(
    model: Place, *, device: str = "cpu", half: bool = False, offload: Offload = "none"
) -> TextToImage:
    """The text-to-image model of that name, as `load` takes it."""
    loaded = open_model(model, device=device, half=half, offload=offload)
    if loaded.text_to_image is not None:
        return loaded.text_to_image
    raise RizbinError(
        f"{model} is {_WHAT[loaded.kind]}; this is done with text-to-image models, such as diffusion-mini, or what "
        "rizbin train diffusion makes."
    )


def calibration_of(detector: Detector) -> Calibration | None:
    """What lies beside the detector's weights; None where nothing does."""
    file = None if detector.folder is None else detector.folder / "calibration.json"
    return Calibration.load(file) if file is not None and file.is_file() else None


def is_onnx(folder: Path) -> bool:
    """Whether the folder holds a detector that was exported as ONNX."""
    return (folder / "model.onnx").is_file()
