"""Saves models so that other software loads them: an image-text pair for open_clip, an image encoder for timm.

These are also how Rizbin keeps its own models. The folder of a pair holds open_clip_config.json and
open_clip_model.safetensors (what open_clip reads), rizbin.json (the pair's settings) and, for the small vocabulary, its
merges file and the same as a tokenizer of Hugging Face. open_clip loads it by "local-dir:FOLDER" and gives the same
tokens and embeddings. The folder of an encoder holds config.json and model.safetensors (what timm reads) and
rizbin.json; timm loads it by the same name. Both know the small backbones wherever Rizbin is installed (`plugin`).
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rizbin.core.bounded import read_json
from rizbin.core.checksums import check_sums, write_sums
from rizbin.core.errors import RizbinError
from rizbin.core.settings import from_dict, to_dict
from rizbin.data.tokens import SMALL, Tokenizer
from rizbin.data.views import MEAN, STD
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.lora import merged
from rizbin.nets.weights import check_fit, fitted, read_weights, refusing_bad_settings, shapes_of
from rizbin.nets.words import FILES, write_tokenizer

Kind = TypeVar("Kind")
AGAIN = "export the model again, or get it again"
"""What to do about a folder that does not load."""

CONFIG, WEIGHTS, OWN, VOCABULARY = (
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "rizbin.json",
    "vocabulary.txt.gz",
)


def save_open_clip(pair: ImageTextPair, folder: Path, *, half: bool = False) -> None:
    """Writes `pair` into `folder` (made if missing).

    `half` stores weights in 16 bits: half the size, embeddings equal to about 1e-3.
    """
    folder, pair = Path(folder), merged(pair)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {_to_open_clip(name): value.detach().cpu().contiguous() for name, value in pair.state_dict().items()}
        if half:
            tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        save_file(tensors, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(open_clip_config(pair.settings), indent=2) + "\n")
        (folder / OWN).write_text(json.dumps(to_dict(pair.settings), indent=2) + "\n")
        if pair.settings.text.tokenizer.vocabulary == "small":
            shutil.copyfile(SMALL, folder / VOCABULARY)
            write_tokenizer(pair.tokenizer, folder)
        write_sums(folder, (CONFIG, WEIGHTS, OWN, VOCABULARY, *FILES))
    except OSError as error:
        raise RizbinError(
            f"The model could not be written to {folder} ({error.strerror}); choose a folder that can be written."
        ) from error


def load_pair(folder: Path) -> ImageTextPair:
    """The pair in a folder written by `save_open_clip`, in evaluation mode, in 32 bits.

    Raises RizbinError when it is not such a folder.
    """
    settings, tensors = _read(Path(folder), ImageTextPair.Settings, WEIGHTS)
    # The folder has all weights: nothing is fetched, wherever training began.
    bare = replace(settings, vision=replace(settings.vision, pretrained=False))
    given = {_from_open_clip(name): value for name, value in tensors.items()}
    pair = fitted(lambda: ImageTextPair(bare), given, folder, AGAIN)
    pair.settings = settings
    return pair.eval()


TIMM_CONFIG, TIMM_WEIGHTS = "config.json", "model.safetensors"


def save_timm(encoder: ImageEncoder, folder: Path, *, half: bool = False) -> None:
    """Writes `encoder` into `folder` (made if missing), as `timm.create_model("local-dir:FOLDER")` loads it.

    `half` stores weights in 16 bits.
    """
    folder, settings, encoder = Path(folder), encoder.settings, merged(encoder)
    if reason := timm_refuses(settings):
        raise RizbinError(f"{reason} Train with another pool to export it.")
    tensors = {name: value.detach().cpu().contiguous() for name, value in _trunk(encoder).state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    config = {
        "architecture": settings.name,
        "num_classes": 0,
        "num_features": encoder.dim,
        "global_pool": _TIMM_POOLS[settings.pool] if encoder.attends else "avg",
        "pretrained_cfg": {
            "input_size": [3, settings.image_size, settings.image_size],
            "mean": list(MEAN),
            "std": list(STD),
            "num_classes": 0,
        },
    }
    if encoder.attends:
        # fc_norm off: else timm norms behind the mean, and we before it.
        pool = {"global_pool": _TIMM_POOLS[settings.pool], "fc_norm": False}
        # Only where they were added: a backbone may have registers of its own.
        added = {"reg_tokens": settings.registers} if settings.registers else {}
        config["model_args"] = {"img_size": settings.image_size, **added, **pool}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / TIMM_WEIGHTS, metadata={"format": "pt"})
        (folder / TIMM_CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (folder / OWN).write_text(json.dumps(to_dict(settings), indent=2) + "\n")
        write_sums(folder, (TIMM_CONFIG, TIMM_WEIGHTS, OWN))
    except OSError as error:
        raise RizbinError(
            f"The model could not be written to {folder} ({error.strerror}); choose a folder that can be written."
        ) from error


def timm_refuses(settings: ImageEncoder.Settings) -> str:
    """Empty when timm can build this encoder, else the reason in a sentence."""
    if settings.pool == "both" and not settings.name.startswith("rizbin_"):
        return f"timm pools {settings.name} by its CLS token or its patches, not by both."
    return ""


def load_encoder(folder: Path) -> ImageEncoder:
    """The encoder in a folder written by `save_timm`, in evaluation mode, in 32 bits.

    Raises RizbinError when it is not such a folder.
    """
    settings, tensors = _read(Path(folder), ImageEncoder.Settings, TIMM_WEIGHTS)
    bare = replace(settings, pretrained=False)
    with refusing_bad_settings(folder):
        with torch.device("meta"):
            own = shapes_of(_trunk(ImageEncoder(bare)).state_dict())
        check_fit(own, shapes_of(tensors), folder, AGAIN)
        encoder = ImageEncoder(bare)
        _trunk(encoder).load_state_dict(tensors)
    return encoder.eval()


def _read(folder: Path, kind: type[Kind], weights: str) -> tuple[Kind, dict[str, Tensor]]:
    """Settings and weights, in 32 bits, of a folder written here."""
    check_sums(folder)
    try:
        record = read_json(folder / OWN)
    except (OSError, ValueError) as error:
        raise RizbinError(
            f"{folder} holds no model of Rizbin ({error}); give a run, or a folder that rizbin export wrote."
        ) from error
    settings = from_dict(kind, record, where=str(folder / OWN))
    tensors = read_weights(folder / weights)
    return settings, {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def needs_rizbin(folder: Path) -> bool:
    """Whether the exported model has one of Rizbin's own backbones, which timm knows where Rizbin is installed."""
    path = Path(folder) / (CONFIG if (Path(folder) / CONFIG).is_file() else TIMM_CONFIG)
    return '"rizbin_' in path.read_text(encoding="utf-8")


def is_encoder(folder: Path) -> bool:
    """Whether the folder is one that `save_timm` wrote."""
    return (Path(folder) / TIMM_WEIGHTS).is_file() and (Path(folder) / OWN).is_file()


_TIMM_POOLS = {"cls": "token", "mean": "avg", "both": "both"}


def _trunk(encoder: ImageEncoder) -> nn.Module:
    """timm's own module."""
    trunk = encoder.vision.trunk if encoder.vision is not None else encoder.convolutions
    assert trunk is not None  # one of the two is always built
    return trunk


def can_export(settings: ImageTextPair.Settings) -> str:
    """Empty when open_clip can build these towers, else the reason in a sentence."""
    vision = settings.vision
    if settings.pool == "both" and not vision.name.startswith("rizbin_"):
        return f"open_clip pools {vision.name} by its CLS token or its patches, not by both."
    built = timm.get_pretrained_cfg(vision.name)
    size = built.input_size[-1] if built else 224
    if vision.image_size != size:
        return f"open_clip builds {vision.name} at {size} pixels only, and this one was trained at {vision.image_size}."
    if vision.registers:
        return f"open_clip builds {vision.name} without added registers, and this one has {vision.registers}."
    return ""


def open_clip_config(settings: ImageTextPair.Settings) -> dict[str, Any]:
    """What open_clip_config.json says of these towers."""
    if reason := can_export(settings):
        raise RizbinError(f"{reason} Train what open_clip can build to export it.")
    text, vision = settings.text, settings.vision
    config: dict[str, Any] = {
        "embed_dim": settings.embedding,
        "vision_cfg": {
            "timm_model_name": vision.name,
            "timm_model_pretrained": False,
            "timm_pool": {"cls": "token", "mean": "avg", "both": "both"}[settings.pool],
            "timm_proj": "linear",
            "image_size": vision.image_size,
        },
        "text_cfg": {
            "context_length": text.tokenizer.context,
            "vocab_size": _vocabulary_size(settings),
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }
    if text.tokenizer.vocabulary == "small":
        # In a folder open_clip takes the tokenizer that lies there, whatever it is called.
        config["text_cfg"]["hf_tokenizer_name"] = "rizbin-small"
    if text.quick_gelu:
        config["quick_gelu"] = True
    if settings.contrast == "sigmoid":
        config["init_logit_bias"] = -10.0
    preprocess = {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": config, "preprocess_cfg": preprocess}


def _vocabulary_size(settings: ImageTextPair.Settings) -> int:
    return Tokenizer(settings.text.tokenizer).size


_PREFIXES = {"vision.trunk.": "visual.trunk.", "image_projection.": "visual.head.proj.", "text.": ""}


def _to_open_clip(name: str) -> str:
    for ours, theirs in _PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _from_open_clip(name: str) -> str:
    for ours, theirs in _PREFIXES.items():
        if theirs and name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name if name.startswith("logit_") else f"text.{name}"
