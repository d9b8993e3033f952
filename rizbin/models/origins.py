"""Networks of other libraries as training begins with them and as they are given back: whole, at any size, in files.

An origin is a network with all that is not weights: configuration, tokenizer, normalization. `write_origin` puts it
into a folder in the form of its library, with or without the weights; `open_origin` reads such a folder, or a name.
"""

import copy
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer
from rizbin.models.encoder import Encoder, Three
from rizbin.models.open_clip import OpenClipEncoder, load_open_clip
from rizbin.models.timm import TimmEncoder, load_timm
from rizbin.models.towers import OpenClipTower, PublishedTower, TimmTower, TransformersTower
from rizbin.models.transformers import load_transformers
from rizbin.nets.foreign import open_clip_resized, timm_from_folder, transformers_resized, written_by
from rizbin.nets.foreign_guard import read_settings

Library = Literal["open_clip", "timm", "transformers"]
PREFIXES: Mapping[str, Library] = {"open_clip": "open_clip", "timm": "timm", "hf": "transformers"}
"""What stands before the colon of a name."""
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, VOCABULARY = (
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "vocabulary.txt.gz",
)


@dataclass(frozen=True)
class Origin:
    """A network of another library, with what its folder holds beside the weights."""

    library: Library
    name: str
    network: Any
    """The library's own model, both towers of it where it reads text."""
    tokenizer: Any
    """The library's own; None where the network reads no text."""
    image_size: int
    patch_size: int
    mean: Three
    std: Three
    files: Mapping[str, Any] = field(default_factory=dict)
    """Settings by the name of their JSON file."""
    vocabulary: Path | None = None
    """Merges of Rizbin's small vocabulary beside a model of open_clip that was trained here."""

    @property
    def reads_text(self) -> bool:
        return self.tokenizer is not None

    def tower(self) -> PublishedTower:
        """Its image tower, to be trained. Raises RizbinError for an architecture that cannot be run in parts."""
        facts: dict[str, Any] = {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "mean": self.mean,
            "std": self.std,
        }
        if self.library == "timm":
            return TimmTower(self.network, **facts)
        if self.library == "transformers":
            return TransformersTower(getattr(self.network, "vision_model", self.network), **facts)
        visual: Any = self.network.visual
        if isinstance(trunk := getattr(visual, "trunk", None), nn.Module):
            return TimmTower(trunk, visual.head, **facts)
        if hasattr(visual, "_embeds") and hasattr(visual, "grid_size"):
            return OpenClipTower(visual, **facts)
        raise RizbinError(f"The image tower of {self.name}, a {type(visual).__name__}, cannot be trained on here.")


def library_of(name: str) -> Library | None:
    """Whose model the name stands for, or the folder holds; None for neither of the three libraries."""
    prefix, colon, _ = name.partition(":")
    if colon and prefix in PREFIXES:
        return PREFIXES[prefix]
    folder = Path(name)
    if not folder.is_dir() or (folder / "rizbin.json").is_file() or (folder / "settings.json").is_file():
        return None
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return "open_clip"
    if (folder / "config.json").is_file():
        whose = written_by(folder)
        return whose if whose in ("timm", "transformers") else None
    return None


def open_origin(name: str, *, pretrained: bool = True, image_size: int = 0) -> Origin:
    """The network of that name, or in that folder, for training.

    Args:
        name: open_clip:NAME/WEIGHTS, timm:NAME, hf:OWNER/NAME (behind each colon also a folder), or a folder.
        pretrained: False gives random weights; the folder then needs none.
        image_size: Side of the images in pixels; learned positions are resized as the library itself does. 0: its own.

    Raises RizbinError when there is none, or when it cannot take images of that size.
    """
    library = library_of(name)
    if library is None:
        raise RizbinError(f"{name} is no model of open_clip, timm or transformers that training can begin with.")
    prefix, colon, rest = name.partition(":")
    place = rest if colon and prefix in PREFIXES else name
    origin = {"open_clip": _open_clip, "timm": _timm, "transformers": _transformers}[library](place, pretrained)
    origin = replace(origin, name=name)
    if not image_size or image_size == origin.image_size:
        return origin
    if image_size % origin.patch_size:
        raise RizbinError(
            f"{name} cuts patches of {origin.patch_size} pixels, and {image_size} does not divide into them; give a "
            "multiple."
        )
    return _resized(origin, image_size)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _facts(encoder: Encoder) -> dict[str, Any]:
    return {
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "mean": encoder.mean,
        "std": encoder.std,
    }


def _open_clip(place: str, pretrained: bool) -> Origin:
    import open_clip

    folder = Path(place)
    if folder.is_dir():
        encoder = load_open_clip(folder, untrained=not pretrained)
        config = read_settings(folder / OPEN_CLIP_CONFIG)
        vocabulary = folder / VOCABULARY
        return _of_open_clip(encoder, config, vocabulary if vocabulary.is_file() else None)
    name, _, weights = place.partition("/")
    encoder = load_open_clip(name, weights, untrained=not pretrained)
    preprocess = getattr(encoder.module, "preprocess_cfg", None) or {"mean": encoder.mean, "std": encoder.std}
    return _of_open_clip(encoder, {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}, None)


def _of_open_clip(encoder: OpenClipEncoder, config: Any, vocabulary: Path | None) -> Origin:
    return Origin(
        library="open_clip",
        name=encoder.name,
        network=encoder.network,
        tokenizer=encoder.tokenizer,
        files={OPEN_CLIP_CONFIG: config},
        vocabulary=vocabulary,
        **_facts(encoder),
    )


def _timm(place: str, pretrained: bool) -> Origin:
    folder = Path(place)
    if pretrained or not folder.is_dir():
        encoder = load_timm(place, pretrained=pretrained)
    else:
        encoder = TimmEncoder(timm_from_folder(folder, pretrained=False, dynamic_img_size=True), name=place)
    config = read_settings(folder / "config.json") if folder.is_dir() else {}
    return Origin("timm", place, encoder.network, None, files={"config.json": config}, **_facts(encoder))


def _transformers(place: str, pretrained: bool) -> Origin:
    encoder = load_transformers(place, pretrained=pretrained)
    files: dict[str, Any] = {}
    with suppress(OSError):
        from transformers.image_processing_base import ImageProcessingMixin

        files["preprocessor_config.json"] = ImageProcessingMixin.get_image_processor_dict(place)[0]
    return Origin(
        "transformers",
        place,
        encoder.network,
        encoder.tokenizer if encoder.reads_text else None,
        files=files,
        **_facts(encoder),
    )


# ---- another size ----------------------------------------------------------------------------------------------------


def _resized(origin: Origin, size: int) -> Origin:
    """The same network for images of another side."""
    network: Any = origin.network
    files = copy.deepcopy(dict(origin.files))
    if origin.library == "timm":
        if not hasattr(network, "set_input_size"):
            raise RizbinError(f"{origin.name} takes images of {origin.image_size} pixels only.")
        network.set_input_size(img_size=size)
    elif origin.library == "transformers":
        network = transformers_resized(network, size)
        for name in ("size", "crop_size"):
            if isinstance(sides := files.get("preprocessor_config.json", {}).get(name), dict):
                files["preprocessor_config.json"][name] = {key: size for key in sides if key != "longest_edge"}
    else:
        if hasattr(network.visual, "trunk"):
            raise RizbinError(
                f"open_clip builds {origin.name} at {origin.image_size} pixels only; leave the size of the images."
            )
        files[OPEN_CLIP_CONFIG]["model_cfg"]["vision_cfg"]["image_size"] = size
        network = open_clip_resized(network, files[OPEN_CLIP_CONFIG]["model_cfg"])
    return replace(origin, network=network, image_size=size, files=files)


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_origin(origin: Origin, folder: Path, *, weights: bool = True, half: bool = False) -> None:
    """Writes the network into `folder`, as its library reads it; without `weights` all that is beside them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        {"open_clip": _write_open_clip, "timm": _write_timm, "transformers": _write_transformers}[origin.library](
            origin, folder, weights, half
        )
    except OSError as error:
        raise RizbinError(
            f"The model could not be written to {folder} ({error.strerror}); choose a folder that can be written."
        ) from error


def _tensors(network: nn.Module, half: bool) -> dict[str, Tensor]:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    return {name: value.half() if half and value.is_floating_point() else value for name, value in tensors.items()}


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_open_clip(origin: Origin, folder: Path, weights: bool, half: bool) -> None:
    _write_json(origin.files[OPEN_CLIP_CONFIG], folder / OPEN_CLIP_CONFIG)
    if origin.vocabulary is not None and origin.vocabulary.parent != folder:
        shutil.copyfile(origin.vocabulary, folder / VOCABULARY)
    inner: Any = getattr(origin.tokenizer, "tokenizer", None)
    if hasattr(inner, "save_pretrained"):  # Hugging Face's inside open_clip's
        inner.save_pretrained(folder)
    if weights:
        save_file(_tensors(origin.network, half), folder / OPEN_CLIP_WEIGHTS)


def _write_timm(origin: Origin, folder: Path, weights: bool, half: bool) -> None:
    from timm.models import _hub

    arguments = dict(origin.files.get("config.json", {}).get("model_args") or {})
    if hasattr(getattr(origin.network, "patch_embed", None), "img_size"):
        arguments["img_size"] = origin.image_size
    arguments.pop("dynamic_img_size", None)
    _hub.save_config_for_hf(origin.network, str(folder / "config.json"), model_args=arguments)
    if weights:
        save_file(_tensors(origin.network, half), folder / "model.safetensors", metadata={"format": "pt"})


def _write_transformers(origin: Origin, folder: Path, weights: bool, half: bool) -> None:
    network: Any = origin.network
    if weights:
        network.save_pretrained(folder, state_dict=_tensors(network, half))
    else:
        network.config.architectures = [type(network).__name__]
        network.config.save_pretrained(folder)
    if origin.tokenizer is not None:
        origin.tokenizer.save_pretrained(folder)
    for name, value in origin.files.items():
        _write_json(value, folder / name)


# ---- tokens ----------------------------------------------------------------------------------------------------------


class PublishedTokenizer(Tokenizer):
    """A library's tokenizer as Rizbin's loader calls one (`rizbin.data.tokens.Tokenizer`): rows of one length."""

    def __init__(self, tokenizer: Any, context: int) -> None:
        """`context`: of transformers' tokenizers, which do not know it."""
        self.inner = tokenizer
        own = getattr(tokenizer, "context_length", None)
        self.settings = Tokenizer.Settings(vocabulary="clip", context=int(own or context))  # of it the length counts
        self._of_transformers = own is None
        self.size = int(getattr(tokenizer, "vocab_size", 0) or len(getattr(tokenizer, "tokenizer", tokenizer)))

    def encode(self, texts: list[str]) -> Int[Tensor, "batch context"]:
        """One row a text, filled up as the network was trained."""
        if not self._of_transformers:
            return self.inner(texts)
        tokens = self.inner(
            texts, padding="max_length", truncation=True, max_length=self.settings.context, return_tensors="pt"
        )
        return tokens["input_ids"]

    def decode(self, tokens: Int[Tensor, "length"]) -> str:
        """The words of one row."""
        inner = getattr(self.inner, "tokenizer", self.inner)
        options = {} if type(self.inner).__name__ == "SimpleTokenizer" else {"skip_special_tokens": True}
        return str(inner.decode(tokens.tolist(), **options)).strip()

    def trim(self, tokens: Int[Tensor, "batch context"]) -> Int[Tensor, "batch context"]:
        """The rows as they are: networks that read the last token, as SigLIP does, want all of them."""
        return tokens
