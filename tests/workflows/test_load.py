"""One dispatch: what every kind of name and folder opens as, and the sentence for a wrong kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rizbin
from rizbin.core.errors import RizbinError
from rizbin.detection.detector import Detector
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.models.encoder import Encoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip, save_timm
from rizbin.nets.image import ImageEncoder
from rizbin.workflows import load as loading
from rizbin.workflows.load import Loaded, load_detector, load_encoder, load_text_to_image, open_model
from tests.generation.diffusion.small_painters import painter
from tests.models.small import VIT, save_clip, save_dinov2, save_open_clip_model, save_timm_model
from tests.toys import ENCODER, NANO

FOLDERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "our pair": (lambda folder: save_open_clip(ImageTextPair(NANO), folder), "rizbin", "image-text encoder"),
    "our encoder": (lambda folder: save_timm(ImageEncoder(ENCODER), folder), "rizbin", "image encoder"),
    "open_clip": (save_open_clip_model, "open_clip", "image-text encoder"),
    "timm": (lambda folder: save_timm_model(folder, **VIT), "timm", "image encoder"),
    "clip": (save_clip, "transformers", "image-text encoder"),
    "dinov2": (save_dinov2, "transformers", "image encoder"),
    "pipeline": (lambda folder: painter().pipeline.save_pretrained(folder), "diffusers", "text-to-image"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_is_known_by_its_files(what: str, tmp_path: Path) -> None:
    make, library, kind = FOLDERS[what]
    make(tmp_path / "model")
    loaded = open_model(tmp_path / "model")
    assert (loaded.library, loaded.kind) == (library, kind)
    assert (loaded.name, loaded.folder, loaded.run) == (str(tmp_path / "model"), tmp_path / "model", None)
    assert isinstance(loaded.model, TextToImage if kind == "text-to-image" else Encoder)
    if isinstance(loaded.model, Encoder):
        assert loaded.model.kind == kind and loaded.encoder.name == loaded.name


def test_bundled_names_say_what_they_are() -> None:
    kinds = {"clip-mini": "image-text encoder", "dino-mini": "image encoder", "detector-mini": "detector"}
    loaded = {name: open_model(name) for name in kinds}
    assert {name: one.kind for name, one in loaded.items()} == kinds
    assert loaded["clip-mini"].run is not None and loaded["detector-mini"].run is None
    assert isinstance(loaded["detector-mini"].model, Detector) and loaded["detector-mini"].detector is not None
    assert loaded["clip-mini"].detector is None and loaded["clip-mini"].text_to_image is None
    assert isinstance(loaded["clip-mini"].network, ImageTextPair)


def test_a_wrong_kind_is_one_sentence(tmp_path: Path) -> None:
    save_open_clip_model(tmp_path / "clip")
    for call, sentence in (
        (lambda: load_encoder("detector-mini"), "detector-mini is a detector; this is done with image encoders."),
        (lambda: load_detector("clip-mini"), "clip-mini is an image-text encoder; this is done with detectors"),
        (
            lambda: load_text_to_image("dino-mini"),
            "dino-mini is an image encoder; this is done with text-to-image models",
        ),
        (lambda: load_encoder("diffusion-mini"), "is a text-to-image model"),
        (
            lambda: rizbin.export(tmp_path / "clip", tmp_path / "out", format="timm"),
            "is a model of open_clip, so timm cannot load it",
        ),
        (lambda: open_model("clip-mni"), "did you mean clip-mini"),
        (lambda: open_model("open_clip:no-such-model"), "could not be loaded by open_clip"),
        (lambda: open_model("timm:no_such_network"), "timm has no model 'no_such_network'"),
        (lambda: open_model("vit_tiny_patch16_224.nothing"), "timm has no weights"),
        (lambda: open_model(tmp_path / "nowhere"), "neither a folder"),
    ):
        with pytest.raises(RizbinError, match=sentence):
            call()


def test_a_name_with_an_owner_is_told_by_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: what the hub would say is put in place."""
    asked: list[str] = []

    def opened(library: str) -> Callable[..., Any]:
        def call(name: Any, *_: Any, **__: Any) -> Any:
            asked.append(f"{library} {name}")
            raise RizbinError("reached")

        return call

    class Config:
        def __init__(self, kind: str) -> None:
            self.model_type = kind

    def config(name: str) -> Config:
        if "pipeline" in name:
            raise RizbinError("no config.json")
        return Config("grounding-dino" if "dino-base" in name else "clip")

    monkeypatch.setattr(loading, "transformers_config", config)
    monkeypatch.setattr(loading, "load_transformers", opened("transformers"))
    monkeypatch.setattr(loading, "load_timm", opened("timm"))
    monkeypatch.setattr(Detector, "from_pretrained", opened("detector"))
    monkeypatch.setattr(TextToImage, "from_pretrained", opened("diffusers"))
    for name in ("owner/clip", "owner/dino-base", "owner/pipeline", "timm/vit", "timm:resnet50", "resnet50"):
        with pytest.raises(RizbinError):
            open_model(name)
    assert asked == [
        "transformers owner/clip",
        "detector owner/dino-base",
        "diffusers owner/pipeline",
        "timm timm/vit",
        "timm resnet50",
        "timm resnet50",
    ]


def test_what_was_loaded_is_typed() -> None:
    assert set(Loaded.__annotations__) == {"kind", "library", "name", "folder", "model", "run"}
