"""The lines of Python that load what was exported, in the software that it was written for."""

import json
from pathlib import Path

from rizbin.core.commands import Place
from rizbin.detection.detector import Detector
from rizbin.generation.diffusion.loading import is_pipeline
from rizbin.models.origins import library_of
from rizbin.nets.export import CONFIG, is_encoder, needs_rizbin
from rizbin.workflows.load import is_onnx

NOTE = "  # knows the small backbone where Rizbin is installed; nothing of it need be imported"


def loading_lines(folder: Place) -> str:
    """What to type to load the exported model in `folder`."""
    folder = Path(folder)
    place, spelled = json.dumps(str(folder)), json.dumps(f"local-dir:{folder}")
    if (folder / "image.onnx").is_file():
        file = json.dumps(str(folder / "image.onnx"))
        lines = [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({file})",
            'vectors = session.run(None, {"pixels": pixels})[0]  # float32 from 0 to 1, [batch, 3, size, size]',
        ]
    elif is_onnx(folder):
        file = json.dumps(str(folder / "model.onnx"))
        lines = ["import onnxruntime", f"session = onnxruntime.InferenceSession({file})"]
    elif is_pipeline(folder):
        lines = ["from diffusers import DiffusionPipeline", f"pipeline = DiffusionPipeline.from_pretrained({place})"]
    elif (folder / CONFIG).is_file():
        lines = [
            f"import open_clip{NOTE if needs_rizbin(folder) else ''}",
            f"model, _, preprocess = open_clip.create_model_and_transforms({spelled})",
            f"tokenizer = open_clip.get_tokenizer({spelled})",
        ]
    elif is_encoder(folder) or library_of(str(folder)) == "timm":
        lines = [
            f"import timm{NOTE if needs_rizbin(folder) else ''}",
            f"model = timm.create_model({spelled}, pretrained=True)",
        ]
    elif library_of(str(folder)) == "transformers" and not Detector.is_saved_in(folder):
        lines = ["from transformers import AutoModel", f"model = AutoModel.from_pretrained({place})"]
    else:
        lines = [
            "from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer",
            f"model = AutoModelForZeroShotObjectDetection.from_pretrained({place})",
            f"tokenizer = AutoTokenizer.from_pretrained({place})",
        ]
    return "\n".join(lines)
