"""A model as a repository of the Hugging Face Hub: a card made from the record, and the upload."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError
from rizbin.core.settings import to_dict
from rizbin.workflows.load import Loaded

CARD = "README.md"
_LIBRARY = {"rizbin": "rizbin", "open_clip": "open_clip", "timm": "timm", "transformers": "transformers"}
_LOADS = {
    "open_clip": 'open_clip.create_model_and_transforms("local-dir:DIR")  # hf-hub:OWNER/NAME once it is pushed',
    "timm": 'timm.create_model("local-dir:DIR", pretrained=True)  # hf-hub:OWNER/NAME once it is pushed',
    "transformers": 'transformers.AutoModel.from_pretrained("DIR")  # or OWNER/NAME once it is pushed',
    "onnx": 'onnxruntime.InferenceSession("DIR/image.onnx")',
    "rizbin": 'rizbin.load("DIR")',
}


@dataclass(frozen=True)
class Pushed:
    """What went, or would go, to the Hub."""

    repository: str
    files: Sequence[str]
    bytes: int
    dry: bool

    def __str__(self) -> str:
        verb = "Would upload" if self.dry else "Uploaded"
        size = f"{self.bytes / 1e6:.1f} MB"
        return f"{verb} {len(self.files)} files, {size}, to {self.repository}: {', '.join(self.files)}"


def write_card(loaded: Loaded, target: Path, form: str) -> Path:
    """Writes README.md into an exported folder: what the model is, how it was trained, what was measured.

    All of it is read from the record; nothing is filled in that was not recorded.
    """
    training = None if loaded.run is None else loaded.run.training
    base = _base_of(training)
    lines = ["---", f"library_name: {_LIBRARY.get(form, form)}"]
    lines += [
        f"pipeline_tag: {'zero-shot-image-classification' if loaded.encoder.reads_text else 'image-feature-extraction'}"
    ]
    lines += ["tags:", "- rizbin", *([f"- {training.method}"] if training is not None else [])]
    lines += [f"base_model: {base}"] if "/" in base and not Path(base).exists() and ":" not in base else []
    lines += ["---", "", f"# {target.name}", "", _what(loaded, base), ""]
    lines += ["```python", _LOADS.get(form, _LOADS["rizbin"]), "```", ""]
    if training is not None:
        lines += ["## Training", "", *_trained(loaded, training), ""]
    lines += _numbers(loaded)
    path = target / CARD
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def _base_of(training: Any) -> str:
    if training is None:
        return ""
    settings = training.settings
    towers = getattr(settings, "pair", None) or getattr(settings, "encoder", None)
    return str(getattr(towers, "published", "") or training.start)


def _what(loaded: Loaded, base: str) -> str:
    encoder = loaded.encoder
    count = sum(value.numel() for value in encoder.network.parameters())
    patches = f" in patches of {encoder.patch_size}" if encoder.has_patches else ""
    begun = f", begun from `{_named(base)}`" if base else ""
    reads = "An image-text encoder" if encoder.reads_text else "An image encoder"
    size = encoder.image_size
    return f"{reads} of {count:,} parameters for images of {size}x{size} pixels{patches}{begun}. Made with Rizbin."


def _trained(loaded: Loaded, training: Any) -> list[str]:
    settings = to_dict(training)
    rows = [(name, settings[name]) for name in ("method", "steps", "batch", "seed")]
    rows += [("data", _named(str(training.data)))]
    rows += [("learning rate", settings["trainer"]["learning_rate"]), ("precision", settings["trainer"]["precision"])]
    lines = ["| setting | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return [*lines, "", "All settings are in `training_settings.json`."]


def _numbers(loaded: Loaded) -> list[str]:
    """What the record holds of measurements: a bundled model's card, or what `adapt` measured."""
    folder = loaded.folder
    if folder is None:
        return []
    lines: list[str] = []
    card = _read(folder / "card.json")
    for data, figures in card.get("figures", {}).items():
        lines += [f"## Measured on {data}", "", "| measure | value | random weights | chance |", "|---|---|---|---|"]
        for name, parts in figures.items():
            shown = ("" if parts.get(key) is None else f"{parts[key]:g}" for key in ("value", "random", "chance"))
            lines += [f"| {name} | {' | '.join(shown)} |"]
        lines += [""]
    adapted = _read(folder / "adapt.json")
    for world, figures in adapted.get("numbers", {}).items():
        lines += [f"## Before and after, on {world}", "", "| measure | before | after |", "|---|---|---|"]
        lines += [f"| {name} | {pair['before']:.1f} | {pair['after']:.1f} |" for name, pair in figures.items()]
        lines += [""]
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = read_json(path)
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def keep_settings(loaded: Loaded, target: Path) -> None:
    """The settings of the training beside the model, where there was one."""
    if loaded.run is not None:
        text = json.dumps(_without_folders(to_dict(loaded.run.training)), indent=2) + "\n"
        (target / "training_settings.json").write_text(text, encoding="utf-8")


def _without_folders(value: Any) -> Any:
    """Settings in which paths of this machine are the names of their last parts: who reads them has other folders."""
    if isinstance(value, dict):
        return {name: _without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return _named(value) if isinstance(value, str) else value


def _named(place: str) -> str:
    """A name as it is; of the paths of this machine in it the last parts."""
    if "/" in place and Path(place).exists():
        return Path(place).name
    return re.sub(r"(^|[:@])(/[^:@]*)", lambda match: match[1] + Path(match[2]).name, place)


def push(folder: Path, repository: str, *, private: bool = True, dry: bool = False) -> Pushed:
    """Uploads an exported folder to OWNER/NAME on the Hub, which is made where it is not there.

    dry: only says what would go. Who pushes is who `hf auth login` logged in. Raises RizbinError where that fails.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise RizbinError(f"'{repository}' is no name of a repository; give OWNER/NAME.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    size = sum(path.stat().st_size for path in files)
    if not dry:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise RizbinError("--push needs huggingface_hub: pip install 'rizbin[hf]' brings it.") from error
        api = HfApi()
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Add the model")
        except Exception as error:  # of the client and of the network under it
            raise RizbinError(
                f"The upload to {repository} failed ({' '.join(str(error).split())[:200]}); the folder {folder} is "
                "complete, so it can be pushed again."
            ) from error
    return Pushed(repository, names, size, dry)
