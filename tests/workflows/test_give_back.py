"""Export of encoders: in the form in which they came, as ONNX, with a card, to the Hub; adapters in peft's form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.models.onnx import PARITY, tokens_of
from rizbin.models.published import build_pair
from rizbin.nets.adapters import load_adapters, save_adapters
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip
from rizbin.nets.lora import LowRank
from rizbin.nets.tuning import TuningSettings
from rizbin.nets.vision import VisionEncoder
from rizbin.workflows import hub
from rizbin.workflows.export import Export, export
from rizbin.workflows.load import load_encoder, open_model
from rizbin.workflows.loading_lines import loading_lines
from rizbin.workflows.train import train
from tests.models.published import PAIRS, TOWERS
from tests.toys import NANO


def run_export(model: object, target: Path, **more: Any) -> Path:
    return Path(export.run(Export(str(model), str(target), **more)))


@pytest.mark.parametrize("form", ["open_clip", "SigLIP", "CLIP in shards", "DINOv2", "timm ViT"])
def test_a_published_model_goes_into_a_folder_of_its_own_form(form: str, tmp_path: Path) -> None:
    {**PAIRS, **TOWERS}[form](tmp_path / "given")
    target = run_export(tmp_path / "given", tmp_path / "out", card=True)
    assert (target / "README.md").read_text().startswith("---\nlibrary_name: ")
    assert open_model(str(target)).library == open_model(str(tmp_path / "given")).library
    before, after = load_encoder(tmp_path / "given"), load_encoder(target)
    size = before.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(before.encode_image(images), after.encode_image(images), atol=1e-6)
    library = {"open_clip": "open_clip", "timm ViT": "timm"}.get(form, "AutoModel")
    assert library in loading_lines(target)


@pytest.mark.parametrize("form", ["open_clip", "open_clip SigLIP", "CLIP", "SigLIP", "own"])
def test_onnx_answers_as_the_network(form: str, tmp_path: Path) -> None:
    import onnxruntime

    if form == "own":
        torch.manual_seed(0)
        save_open_clip(ImageTextPair(NANO).eval(), tmp_path / "given")
    else:
        PAIRS[form](tmp_path / "given")
    target = run_export(tmp_path / "given", tmp_path / "out", format="onnx")
    encoder = load_encoder(tmp_path / "given")
    about = json.loads((target / "rizbin_onnx.json").read_text())
    assert max(about["largest_difference"].values()) < PARITY
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(str(target / "image.onnx"), providers=["CPUExecutionProvider"])
    vectors: Any = session.run(None, {"pixels": images.numpy()})[0]
    assert np.abs(vectors - encoder.encode_image(images).detach().numpy()).max() < PARITY
    session = onnxruntime.InferenceSession(str(target / "text.onnx"), providers=["CPUExecutionProvider"])
    vectors = session.run(None, {"tokens": tokens_of(encoder, ["a fox"]).numpy()})[0]
    assert np.abs(vectors - encoder.encode_text("a fox").numpy()).max() < PARITY
    assert "onnxruntime" in loading_lines(target)


def test_the_card_says_what_the_record_holds_and_a_dry_run_uploads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = run_export("detailclip-mini", tmp_path / "out", push="somebody/detail", dry_run=True)
    card = (target / "README.md").read_text()
    for words in ("zero-shot-image-classification", "| method | detailclip |", "## Measured on scenes:easy", "1."):
        assert words in card
    assert "Would upload" in capsys.readouterr().out
    calls: list[Any] = []

    class Api:
        def create_repo(self, name: str, **options: Any) -> None:
            calls.append((name, options))

        def upload_folder(self, **options: Any) -> None:
            calls.append(options)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    second = run_export("detailclip-mini", tmp_path / "second", push="somebody/detail")
    assert calls[0] == ("somebody/detail", {"private": True, "exist_ok": True})
    assert calls[1]["folder_path"] == str(second)
    with pytest.raises(RizbinError, match="OWNER/NAME"):
        run_export("detailclip-mini", tmp_path / "third", push="nobody")


def test_a_run_that_began_with_a_model_goes_back_in_its_form(tmp_path: Path) -> None:
    PAIRS["SigLIP"](tmp_path / "given")
    run = train("clip", start=str(tmp_path / "given"), steps=1, batch=4, run=tmp_path / "run", device="cpu", quiet=True)
    target = run_export(run.folder, tmp_path / "out", card=True)
    card = (target / "README.md").read_text()
    assert "begun from `given`" in card and "| method | clip |" in card and str(tmp_path) not in card
    assert str(tmp_path) not in (target / "training_settings.json").read_text()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        load_encoder(target).encode_image(images), load_encoder(run.folder).encode_image(images), atol=1e-5
    )
    with pytest.raises(RizbinError, match="so timm cannot load it"):
        run_export(run.folder, tmp_path / "no", format="timm")
    TOWERS["DINOv2"](tmp_path / "tower")
    text = {"pair": {"text": {"width": 32, "layers": 1, "heads": 2}, "embedding": 16}}
    half = train(
        "clip", start=str(tmp_path / "tower"), steps=1, batch=4, run=tmp_path / "half", quiet=True, settings=text
    )
    with pytest.raises(RizbinError, match="no library knows the two together"):
        run_export(half.folder, tmp_path / "no")


def test_a_card_names_no_folder_of_this_machine() -> None:
    for place, name in (
        ("cutouts:/srv/drawings", "cutouts:drawings"),
        ("/data/train.json@/data/images", "train.json@images"),
        ("hf:google/siglip2-base-patch16-224", "hf:google/siglip2-base-patch16-224"),
        ("scenes:easy,categories=0", "scenes:easy,categories=0"),
    ):
        assert hub._named(place) == name


@pytest.mark.filterwarnings("ignore")  # peft's own, about names that transformers will drop and layers it merges
@pytest.mark.parametrize("form", ["CLIP", "open_clip", "DINOv3"])
def test_adapters_are_those_of_peft(form: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    {**PAIRS, **TOWERS}[form](tmp_path / "given")
    settings = ImageTextPair.Settings(
        vision=VisionEncoder.Settings(image_size=32),
        text=NANO.text,
        published=str(tmp_path / "given"),
        tuning=TuningSettings(lora_rank=2, lora_alpha=8.0),
    )
    pair: Any = build_pair(settings).eval()
    generator = torch.Generator().manual_seed(0)
    for module in pair.modules():
        if isinstance(module, LowRank):
            module.up.data = torch.randn(module.up.shape, generator=generator) * 0.2
    network = pair.origin.network
    save_adapters(network, tmp_path / "adapter", base="base")
    images = torch.rand(2, 3, 32, 32, generator=generator)

    def answer(model: Any) -> torch.Tensor:
        if form == "open_clip":
            return model.encode_image(images)
        if form == "DINOv3":
            return model(pixel_values=images).last_hidden_state
        return model.get_image_features(pixel_values=images).pooler_output

    fresh = build_pair(ImageTextPair.Settings(vision=settings.vision, text=NANO.text, published=settings.published))
    plain: Any = fresh.origin.network  # type: ignore[attr-defined]
    with torch.no_grad():
        expected, before = answer(network), answer(plain.eval())
        assert not torch.allclose(expected, before, atol=1e-3)
        load_adapters(plain, tmp_path / "adapter")
        assert torch.allclose(answer(plain), expected, atol=1e-5)
        other: Any = build_pair(
            ImageTextPair.Settings(vision=settings.vision, text=NANO.text, published=settings.published)
        )
        theirs = peft.PeftModel.from_pretrained(other.origin.network, str(tmp_path / "adapter"))
        assert torch.allclose(answer(theirs.base_model.model.eval()), expected, atol=1e-5)
    broken = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**broken, "use_dora": True}))
    with pytest.raises(RizbinError, match="use_dora"):
        load_adapters(plain, tmp_path / "adapter")
