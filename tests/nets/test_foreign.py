"""The one door: no code beside weights, no question, no pickle, no tensor left random or dropped; each a sentence."""

import ast
import importlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from rizbin.core.errors import RizbinError
from rizbin.detection.detector import Detector
from rizbin.detection.masks import Segmenter
from rizbin.detection.models import new_model, words_tokenizer
from rizbin.generation.diffusion.loading import load_pipeline
from rizbin.models.open_clip import load_open_clip
from rizbin.models.timm import load_timm
from rizbin.models.transformers import load_transformers
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import load_encoder, load_pair, save_open_clip, save_timm
from rizbin.nets.foreign_guard import CODE_LOADER, CODE_LOADERS, QUESTION_SECONDS, guarded
from rizbin.nets.image import ImageEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.workflows.load import load
from tests.detection.toys import TINY, save_sam
from tests.generation.diffusion.small_painters import painter
from tests.toys import ENCODER, NANO

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = """
import pathlib
pathlib.Path({marker!r}).write_text("run")
class Evil:
    model_type = "evil"
    @classmethod
    def from_pretrained(cls, *a, **k):
        return cls()
class EvilConfig(Evil):
    pass
"""


def make_detector(folder: Path) -> None:
    tokenizer = words_tokenizer(["red", "blue", "disc"])
    torch.manual_seed(0)
    Detector(new_model(TINY, tokenizer, image_size=32), tokenizer).save(folder)


def make_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    words = {"max_position_embeddings": 32, "vocab_size": 2048, "projection_size": 16}
    vision = {**small, "image_size": 16, "patch_size": 8}
    model: Any = CLIPModel(CLIPConfig(text_config={**small, **words}, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    painter().pipeline.tokenizer.save_pretrained(folder)


def make_dinov2(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model: Any = Dinov2Model(Dinov2Config(**sizes, image_size=32, patch_size=8))
    model.save_pretrained(folder)


def make_open_clip(folder: Path) -> None:
    save_open_clip(ImageTextPair(NANO), folder)
    for name in ("SHA256SUMS", "rizbin.json"):  # as others write it
        (folder / name).unlink()


def make_timm(folder: Path) -> None:
    from timm.models import save_for_hf

    sizes: dict[str, Any] = {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2}
    trunk: Any = timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes)
    save_for_hf(trunk, str(folder), model_args=sizes, safe_serialization=True)
    assert (folder / "model.safetensors").is_file()


@dataclass(frozen=True)
class Door:
    make: Callable[[Path], object]
    open: Callable[[Path], object]
    weights: str
    settings: str
    absurd: tuple[dict[str, Any], ...]
    """Changes of the settings, nested as they are."""


def widths(*names: str) -> tuple[dict[str, Any], ...]:
    """Each name set to what cannot be, inside the groups that its dots name."""
    made = []
    for dotted in names:
        for value in (10**12, -5):
            *groups, name = dotted.split(".")
            change: Any = {name: value}
            for group in reversed(groups):
                change = {group: change}
            made.append(change)
    return tuple(made)


DOORS = {
    "detector": Door(
        make_detector,
        Detector.from_pretrained,
        "model.safetensors",
        "config.json",
        widths("d_model", "decoder_layers", "text_config.hidden_size"),
    ),
    "clip of transformers": Door(
        make_clip,
        load_transformers,
        "model.safetensors",
        "config.json",
        widths("projection_dim", "vision_config.hidden_size", "text_config.num_hidden_layers"),
    ),
    "vit of transformers": Door(
        make_dinov2, load, "model.safetensors", "config.json", widths("hidden_size", "num_hidden_layers")
    ),
    "sam": Door(save_sam, Segmenter.from_pretrained, "model.safetensors", "config.json", ()),
    "open_clip": Door(
        make_open_clip,
        load_open_clip,
        "open_clip_model.safetensors",
        "open_clip_config.json",
        widths("model_cfg.embed_dim", "model_cfg.text_cfg.width", "model_cfg.text_cfg.layers"),
    ),
    "timm": Door(
        make_timm,
        load,
        "model.safetensors",
        "config.json",
        widths("model_args.embed_dim", "model_args.depth", "model_args.img_size"),
    ),
    "timm by itself": Door(make_timm, load_timm, "model.safetensors", "config.json", ()),
    "unet": Door(
        lambda folder: painter().pipeline.save_pretrained(folder),
        load_pipeline,
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        widths("cross_attention_dim", "layers_per_block"),
    ),
    "vae": Door(
        lambda folder: painter().pipeline.save_pretrained(folder),
        load_pipeline,
        "vae/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        widths("latent_channels"),
    ),
    "text encoder": Door(
        lambda folder: painter().pipeline.save_pretrained(folder),
        load_pipeline,
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        widths("hidden_size", "num_hidden_layers"),
    ),
    "our pair": Door(
        lambda folder: save_open_clip(ImageTextPair(NANO), folder),
        load_pair,
        "open_clip_model.safetensors",
        "rizbin.json",
        widths("embedding", "text.width", "text.layers", "text.heads", "vision.image_size", "vision.registers"),
    ),
    "our encoder": Door(
        lambda folder: save_timm(ImageEncoder(ENCODER), folder),
        load_encoder,
        "model.safetensors",
        "rizbin.json",
        widths("image_size", "registers"),
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a door, made once."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("made") / "model"
            DOORS[name].make(folders[name])
        return folders[name]

    return folder


@pytest.fixture
def copy(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a door's folder, to be harmed; without checksums, as from somebody who made it so."""

    def copied(name: str) -> Path:
        target = tmp_path / "copy" / str(len(list(tmp_path.glob("copy/*"))))
        shutil.copytree(made(name), target)
        (target / "SHA256SUMS").unlink(missing_ok=True)
        return target

    return copied


def refused(name: str, folder: Path) -> str:
    """The one sentence with which a door refuses a folder."""
    with pytest.raises(RizbinError) as caught:
        DOORS[name].open(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 700, sentence
    return sentence


# ---- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOORS)
def test_what_is_whole_opens_and_what_is_not_is_named(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    DOORS[name].open(folder)
    weights = folder / DOORS[name].weights
    whole = load_file(weights)
    keys = sorted(whole)
    gone = [key for key in keys[1::3] if not key.endswith(("pooler.weight", "pooler.bias"))]
    save_file({key: value for key, value in whole.items() if key not in gone}, weights, {"format": "pt"})
    said = refused(name, folder)
    assert "missing (" in said or "settings ask for" in said, said
    one = max(keys, key=lambda key: whole[key].numel())
    save_file({key: value for key, value in whole.items() if key != one}, weights, {"format": "pt"})
    assert "1 tensor is missing (" in (said := refused(name, folder)) and one.split(".")[-1] in said
    prefix = one.rsplit(".", 1)[0]
    save_file({**whole, f"{prefix}.more": torch.zeros(1)}, weights, {"format": "pt"})
    assert "1 tensor is foreign (" in (said := refused(name, folder)) and ".more" in said
    save_file({**whole, one: whole[one][..., None].clone()}, weights, {"format": "pt"})
    said = refused(name, folder)
    assert "1 tensor has another shape (" in said and "instead of" in said
    save_file(whole, weights, {"format": "pt"})
    DOORS[name].open(folder)


@pytest.mark.parametrize("name", DOORS)
def test_half_a_file_and_no_file_are_said(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    weights = folder / DOORS[name].weights
    data = weights.read_bytes()
    for part in (len(data) // 2, 100, 0):
        weights.write_bytes(data[:part])
        refused(name, folder)
    weights.write_bytes((10**15).to_bytes(8, "little") + data[8:])  # a header of a petabyte
    refused(name, folder)
    weights.unlink()
    refused(name, folder)
    os.mkfifo(weights)  # would be read for ever
    refused(name, folder)


@pytest.mark.parametrize("name", [name for name in DOORS if DOORS[name].absurd])
def test_absurd_settings_are_said_at_once(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    path = folder / DOORS[name].settings
    whole = json.loads(path.read_text())

    def merged(old: Any, new: Any) -> Any:
        if not isinstance(old, dict) or not isinstance(new, dict):
            return new
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}

    for change in DOORS[name].absurd:
        path.write_text(json.dumps(merged(whole, change)))
        refused(name, folder)
    for text in ("[" * 100_000, "{", "[]", "", '{"a": ' + "9" * 5000 + "}"):
        path.write_text(text)
        refused(name, folder)


def test_a_head_of_another_task_is_left_out(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model: Any = ViTForImageClassification(ViTConfig(**sizes, intermediate_size=64, image_size=32, patch_size=8))
    model.save_pretrained(tmp_path)
    encoder = load_transformers(tmp_path)
    assert encoder.pooled(torch.zeros(1, 3, 32, 32)).shape == (1, 32)  # CLS: the pooler is never asked
    model.config.num_hidden_layers = 1
    model.config.save_pretrained(tmp_path)
    with pytest.raises(RizbinError, match=r"tensors are foreign \(.*layers?\.1"):
        load(tmp_path)


# ---- pickles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DOORS if not name.startswith("our")])
def test_pickles_are_never_read(name: str, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy(name)
    weights = folder / DOORS[name].weights
    usual = {
        "open_clip_model.safetensors": ("open_clip_pytorch_model.bin", "model.pth"),
        "diffusion_pytorch_model.safetensors": ("diffusion_pytorch_model.bin",),
    }
    for other in usual.get(weights.name, ("pytorch_model.bin",)):
        torch.save(load_file(weights) if weights.exists() else {}, weights.with_name(other))
        weights.unlink(missing_ok=True)
        monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("a pickle was read"))
        said = refused(name, folder)
        assert "safetensors" in said or "could not be loaded" in said
        monkeypatch.undo()


# ---- code ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Plants a payload into a folder; what it would write is returned. Whoever asks a question hears yes."""
    marker = tmp_path / "marker"
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 1000))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("builtins.input", lambda *a: (marker.write_text("asked"), "y")[1])

    def plant(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evil.py").write_text(PAYLOAD.format(marker=str(marker)))
        return marker

    return plant


MAPS = {
    name: "evil.Evil"
    for name in ("AutoModel", "AutoProcessor", "AutoImageProcessor", "AutoModelForZeroShotObjectDetection")
}
MAPS |= {"AutoConfig": "evil.EvilConfig"}


@pytest.mark.parametrize("kind", ["evil", None, "grounding-dino", "clip"])
@pytest.mark.parametrize(
    "door",
    [Detector.from_pretrained, Segmenter.from_pretrained, load_transformers, load],
    ids=lambda d: d.__qualname__,
)
def test_a_config_with_code_is_refused(
    door: Callable[[Path], object], kind: str | None, tmp_path: Path, planted: Callable[[Path], Path]
) -> None:
    marker = planted(tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": kind, "auto_map": MAPS}))
    with pytest.raises(RizbinError) as caught:
        door(tmp_path / "model")
    assert not marker.exists()
    if kind == "evil":
        assert "code beside weights is never run" in str(caught.value)


@pytest.mark.parametrize("name", ["detector", "clip of transformers"])
def test_a_tokenizer_with_code_is_refused(
    name: str, copy: Callable[[str], Path], planted: Callable[[Path], Path]
) -> None:
    folder = copy(name)
    marker = planted(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": MAPS}))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer.json").unlink(missing_ok=True)
    refused(name, folder)
    assert not marker.exists()


def test_a_processor_with_code_is_refused(copy: Callable[[str], Path], planted: Callable[[Path], Path]) -> None:
    folder = copy("sam")
    marker = planted(folder)
    for name in ("preprocessor_config.json", "processor_config.json"):
        kinds = {"image_processor_type": "Evil", "processor_class": "Evil", "auto_map": MAPS}
        (folder / name).write_text(json.dumps(kinds))
    try:
        Segmenter.from_pretrained(folder)
    except RizbinError as error:
        assert "\n" not in str(error)
    assert not marker.exists()


def test_an_exported_detector_brings_no_code(
    tmp_path: Path, planted: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from rizbin.detection.onnx import OnnxDetector

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: None)
    marker = planted(tmp_path)
    (tmp_path / "detector.json").write_text('{"height": 32, "width": 32, "limit": 9, "mean": [0], "std": [1]}')
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": MAPS}))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RizbinError, match="code beside weights is never run"):
        OnnxDetector(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"text_cfg": {"hf_model_name": "."}},
        {"text_cfg": {"hf_model_name": "INSIDE"}},
        {"text_cfg": {"hf_model_name": "somebody/evil"}},
        {"text_cfg": {"hf_tokenizer_name": "anything"}},
        {"text_cfg": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}},
        {"vision_cfg": {"timm_model_name": "local-dir:INSIDE"}},
        {"vision_cfg": {"timm_model_name": "hf-hub:somebody/evil"}},
    ],
    ids=str,
)
def test_a_folder_of_open_clip_runs_no_code_and_leads_nowhere(
    change: dict[str, Any],
    copy: Callable[[str], Path],
    planted: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copy("open_clip")
    marker = planted(folder)
    (folder / "vocabulary.txt.gz").unlink(missing_ok=True)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": MAPS}))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for tower, values in json.loads(json.dumps(change).replace("INSIDE", str(folder))).items():
        config["model_cfg"][tower] |= values
    path.write_text(json.dumps(config))
    monkeypatch.chdir(folder)
    refused("open_clip", folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": ["evil", "Evil"]},
        {"_class_name": "Evil"},
        {"unet": ["evil", "Evil"]},
        {"unet": ["os", "system"]},
        {"scheduler": ["evil", "Evil"]},
        {"text_encoder": ["transformers", "AutoModel"]},
        {"tokenizer": ["transformers", "AutoTokenizer"]},
        {"unet": ["diffusers", "AutoModel"]},
    ],
    ids=str,
)
def test_a_pipeline_runs_no_code(
    change: dict[str, Any],
    copy: Callable[[str], Path],
    planted: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copy("unet")
    marker = planted(folder)
    for part in ("unet", "scheduler", "text_encoder", "tokenizer"):
        planted(folder / part)
    monkeypatch.chdir(folder)  # `python -m rizbin` looks for modules here
    monkeypatch.syspath_prepend(str(folder))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **change}))
    if change in ({"text_encoder": ["transformers", "AutoModel"]}, {"unet": ["diffusers", "AutoModel"]}):
        part = next(iter(change))
        (folder / part / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": MAPS}))
    if "tokenizer" in change:
        tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(tokenizer))
        (folder / "tokenizer/config.json").write_text(json.dumps({"model_type": "evil", "auto_map": MAPS}))
        (folder / "tokenizer/tokenizer.json").unlink()
    refused("unet", folder)
    assert not marker.exists() and "evil" not in sys.modules


def test_timm_brings_no_code(tmp_path: Path, planted: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    marker = planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    for config in (
        {"architecture": "evil"},
        {"architecture": "hf-hub:somebody/evil"},
        {"architecture": "vit_tiny_patch16_224", "model_args": {"embed_layer": "evil.Evil", "img_size": 64}},
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        for door in (load, load_timm):
            with pytest.raises(RizbinError):
                door(tmp_path)
    assert not marker.exists()


def test_the_functions_that_are_replaced_are_still_where_they_were() -> None:
    """Replacing what a library no longer has would guard nothing and say nothing."""
    for name in CODE_LOADERS:
        module = importlib.import_module(name)
        assert callable(getattr(module, CODE_LOADER)) and isinstance(getattr(module, QUESTION_SECONDS), int), name
        # Whoever loads code there looks it up in that module, and so meets what stands in its place.
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert CODE_LOADER in calls, name
    assert callable(torch.load) and callable(torch.jit.load)
    before = torch.load
    with pytest.raises(RizbinError, match="pickles are never read"), guarded("a model", "transformers"):
        torch.load("weights.bin")
    assert torch.load is before


# ---- nothing leads out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["local-dir:{}", "hf-hub:somebody/something", "hf_hub:a/b", "../{}", "a/b"])
def test_a_backbone_of_a_settings_file_is_a_name_and_no_place(
    name: str, copy: Callable[[str], Path], made: Callable[[str], Path]
) -> None:
    spelled = name.format(made("timm"))
    kinds: tuple[Any, ...] = (VisionEncoder, ImageEncoder)
    for kind in kinds:
        for pretrained in (False, True):
            with pytest.raises(RizbinError, match="timm has no model"):
                kind(kind.Settings(name=spelled, image_size=64, pretrained=pretrained))
    folder = copy("our pair")
    settings = json.loads((folder / "rizbin.json").read_text())
    settings["vision"]["name"] = spelled
    (folder / "rizbin.json").write_text(json.dumps(settings))
    assert "timm has no model" in refused("our pair", folder)


def test_an_exported_folder_has_checksums(made: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("our pair", "our encoder", "detector"):
        shutil.copytree(made(name), tmp_path / name)
        weights = tmp_path / name / DOORS[name].weights
        flipped = bytearray(weights.read_bytes())
        flipped[-3] ^= 4
        weights.write_bytes(flipped)
        assert f"{DOORS[name].weights} does not match its checksum" in refused(name, tmp_path / name)


def test_there_is_one_door() -> None:
    """No other module asks a library to read a model."""
    doors = {"from_pretrained", "create_model", "create_model_and_transforms", "from_single_file", "get_tokenizer"}
    ours = {"Detector", "Segmenter", "TextToImage", "cls"}
    for path in sorted((ROOT / "rizbin").rglob("*.py")):
        if path.name == "foreign.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert node.func.attr not in doors or owner in ours, f"{where} opens a model beside nets/foreign.py"
            assert (owner, node.func.attr) != ("torch", "load"), f"{where} reads a pickle"
