"""Opens what a name stands for: a run, an exported model, a detector, what draws, a model of the zoo."""

from pathlib import Path

from rizbin import zoo
from rizbin.core.errors import RizbinError
from rizbin.detection.detector import DEFAULT, Detector
from rizbin.detection.presence import Calibration
from rizbin.generation.ascent.encoders import Network, of_hugging_face, of_model, of_open_clip, of_timm
from rizbin.generation.diffusion.learn import Drawing
from rizbin.generation.diffusion.loading import Offload, is_pipeline
from rizbin.generation.diffusion.painter import Painter
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import CONFIG, OWN, is_encoder, load_encoder, load_pair
from rizbin.nets.foreign import written_by
from rizbin.nets.image import ImageEncoder
from rizbin.workflows.bundle import is_published, load_published
from rizbin.workflows.runs import LoadedRun, load_run

Model = ImageTextPair | ImageEncoder
Opened = LoadedRun | Model | Detector | Painter


def opened(what: str | Path) -> Opened:
    """A run or a published method where the folder is one, else the model in it; or a model of the zoo by its name.

    Raises RizbinError when it is none of these.
    """
    folder = Path(what)
    if not folder.is_dir():
        if str(what) not in zoo.names():
            raise RizbinError(
                f"There is neither a folder {folder} nor a model of that name; give the folder of a run or of an "
                f"exported model, or one of {', '.join(zoo.names()) or 'no models yet'}."
            )
        folder = zoo.folder_of(str(what))
    if is_pipeline(folder):
        return Painter.from_pretrained(folder)
    if is_onnx(folder):
        raise RizbinError(f"{folder} is a detector exported for use; do this with what it was exported from.")
    if Detector.is_one(folder):
        return Detector.from_pretrained(folder)
    if is_published(folder):
        return load_published(folder)
    if (folder / "settings.json").exists():
        return load_run(folder)
    return load_encoder(folder) if is_encoder(folder) else load_pair(folder)


def model_of(found: Opened) -> Model:
    """The encoder in what was opened. Raises RizbinError for a detector and for what draws."""
    if isinstance(found, Painter):
        raise RizbinError(f'{found.name} draws; this is done with what looks: rizbin generate "..." --model ...')
    if isinstance(found, Detector):
        raise RizbinError(f"{found.name} is a detector; this is done with encoders of pictures.")
    return found.encoder if isinstance(found, LoadedRun) else found


def detector_of(found: Opened) -> Detector | None:
    """The detector in what was opened; None where it is an encoder."""
    if isinstance(found, Detector):
        return found
    return found.detector if isinstance(found, LoadedRun) else None


def painter_of(found: Opened) -> Painter | None:
    """What draws, in what was opened; None where nothing does."""
    if isinstance(found, LoadedRun) and isinstance(found.method, Drawing):
        return Painter(found.method.pipeline(), name=str(found.folder))
    return found if isinstance(found, Painter) else None


def load_detector(model: str | Path = "", *, device: str = "cpu") -> Detector:
    """A detector: of a run, of the zoo, of a folder or by its name on Hugging Face; empty: `DEFAULT`.

    A folder that `export` wrote as ONNX runs by onnxruntime, on the processor.
    """
    if is_onnx(Path(model)):
        from rizbin.detection.onnx import OnnxDetector

        return OnnxDetector(model)
    if (Path(model) / "settings.json").is_file() and not Detector.is_one(model):
        found = detector_of(load_run(Path(model)))
        if found is None:
            raise RizbinError(f"{model} is a run that trains no detector; make one with: rizbin train detector.")
        found.model.to(device)
        return found
    if str(model) in zoo.names():
        return Detector.from_pretrained(zoo.folder_of(str(model)), device=device)
    try:
        return Detector.from_pretrained(model or DEFAULT, device=device)
    except RizbinError as error:
        if model:
            raise
        raise RizbinError(
            f"Without --model the published detector {DEFAULT} is taken, and it cannot be loaded here: with a network "
            "at hand it is fetched once and kept. For drawings of the embedded world --model detector-mini comes "
            "along; for photographs give the folder of a Grounding DINO that was fetched elsewhere."
        ) from error


def load_painter(model: str | Path, *, device: str = "cpu", half: bool = False, offload: Offload = "none") -> Painter:
    """What draws: of the zoo, a run of `rizbin train diffusion`, a folder of diffusers or a name on Hugging Face."""
    if str(model) in zoo.names():
        model = zoo.folder_of(str(model))
    run = Path(model)
    if (run / "settings.json").is_file() and not is_pipeline(run):
        method = load_run(run).method
        if not isinstance(method, Drawing):
            raise RizbinError(
                f"{model} is a run that trains nothing that draws; make one with: rizbin train diffusion."
            )
        return Painter(method.pipeline().to(device), name=str(model))
    return Painter.from_pretrained(model, device=device, half=half, offload=offload)


def load_eyes(model: str | Path, *, device: str = "cpu") -> Network:
    """An encoder as ascent asks it: of the zoo, a run, a folder, or published.

    Published ones are named open_clip:NAME/WEIGHTS, timm:NAME, or as on Hugging Face, OWNER/NAME (CLIP, SigLIP).
    """
    text, folder = str(model), Path(model)
    library, colon, name = text.partition(":")
    if colon and library == "open_clip":
        name, _, weights = name.partition("/")
        return of_open_clip(name, pretrained=weights, device=device)
    if colon and library == "timm":
        return of_timm(name, device=device)
    if (folder / CONFIG).is_file() and not (folder / OWN).is_file():
        return of_open_clip(folder, device=device)
    if is_foreign(folder):
        return (of_timm if written_by(folder) == "timm" else of_hugging_face)(folder, device=device)
    if text.count("/") == 1 and not folder.is_dir() and not folder.parent.is_dir() and text not in zoo.names():
        return of_hugging_face(text, device=device)
    return of_model(model_of(opened(model)), name=text, device=device)


def calibration_of(detector: Detector) -> Calibration | None:
    """What lies beside the detector's weights; None where nothing does."""
    file = None if detector.folder is None else detector.folder / "calibration.json"
    return Calibration.load(file) if file is not None and file.is_file() else None


def is_onnx(folder: Path) -> bool:
    """Whether the folder holds a detector that was exported as ONNX."""
    return (folder / "model.onnx").is_file()


def is_foreign(folder: Path) -> bool:
    """Whether timm or transformers wrote the folder, and not Rizbin."""
    return (folder / "config.json").is_file() and not is_encoder(folder) and not (folder / "settings.json").exists()
