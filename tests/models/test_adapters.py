"""Adapters of all libraries: rows of attention against full matrices, registers left out, names and folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD, normalize
from rizbin.models.own import RizbinEncoder
from rizbin.models.protocol import CLS, NoAttention
from rizbin.models.timm import TimmEncoder, load_timm
from rizbin.models.transformers import TransformersEncoder, load_transformers
from rizbin.models.wrap import encoder_of
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_timm
from rizbin.nets.image import ImageEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.visualization.passes import over
from rizbin.workflows.load import load_encoder
from tests.toys import NANO

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2}
FLEXIBLE: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True}
TIMM: dict[str, dict[str, Any]] = {
    "rizbin_vit_nano_patch8_32": {},
    "rizbin_vit_mini_reg4_patch8_64": {},
    "vit_tiny_patch16_224": SMALL,
    "deit_tiny_distilled_patch16_224": SMALL,
    "vit_base_patch16_siglip_224": SMALL,
    "vit_small_patch16_dinov3": SMALL,  # rotary positions, registers
    "vit_small_patch16_rope_mixed_224": SMALL,  # other rotary positions for each layer
}


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def full_attention(trunk: Any, pictures: Tensor) -> list[Tensor]:
    """The softmax matrices of all layers, by timm's slow path."""
    found: list[Tensor] = []
    for block in trunk.blocks:
        block.attn.fused_attn = False
    hooks = [
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: found.append(args[0])) for block in trunk.blocks
    ]
    trunk.forward_features(pictures)
    for hook, block in zip(hooks, trunk.blocks, strict=True):
        hook.remove()
        block.attn.fused_attn = True
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", TIMM)
def test_rows_of_timm_equal_the_full_matrix(name: str) -> None:
    torch.manual_seed(0)
    trunk: Any = timm.create_model(name, **FLEXIBLE, **TIMM[name])
    encoder = TimmEncoder(trunk)
    pictures = images(3 * encoder.patch_size, 5 * encoder.patch_size)
    full = full_attention(trunk, pictures)
    prefix = full[0].shape[-1] - 15
    for layer in (0, -1):
        for token in (CLS, 0, 7, 14):
            if token == CLS and trunk.cls_token is None:
                with pytest.raises(NoAttention, match="CLS"):
                    encoder.attention_rows(pictures, token, layer)
                continue
            row = encoder.attention_rows(pictures, token, layer)
            expected = full[layer][:, :, 0 if token == CLS else prefix + token, prefix:]
            assert row.shape[2:] == (3, 5)
            assert torch.allclose(row.flatten(2), expected, atol=1e-5)
    patches = trunk.forward_features(pictures)[:, prefix:]
    assert torch.equal(encoder.patches(pictures).flatten(1, 2), patches)


@torch.no_grad()
def test_registers_take_attention_and_are_not_shown() -> None:
    trunk: Any = timm.create_model("rizbin_vit_mini_reg4_patch8_64", **FLEXIBLE)
    encoder, pictures = TimmEncoder(trunk), images(64, 64)
    with torch.no_grad():
        trunk.reg_token.add_(3 * torch.randn_like(trunk.reg_token))
    row, full = encoder.attention_rows(pictures), full_attention(trunk, pictures)[-1]
    assert row.shape == (2, 4, 8, 8)
    assert torch.allclose(row.sum((2, 3)) + full[:, :, 0, :5].sum(-1), torch.ones(2, 4), atol=1e-5)
    assert (row.sum((2, 3)) < 0.999).all()


class Largest(TorchFunctionMode):
    """Notes the largest tensor that any function gives."""

    elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@torch.no_grad()
def test_no_full_matrix_is_made_and_slow_attention_is_put_back() -> None:
    trunk: Any = timm.create_model("vit_tiny_patch16_224", patch_size=4, img_size=128, **FLEXIBLE, **SMALL)
    trunk.blocks[1].attn.fused_attn = False
    with Largest() as largest:
        row = TimmEncoder(trunk).attention_rows(images(128, 128))
    assert row.shape == (2, 2, 32, 32)
    assert largest.elements < 1024**2  # tokens squared, for one head of one picture
    assert [block.attn.fused_attn for block in trunk.blocks] == [True, False]


@torch.no_grad()
def test_rizbins_own_networks_see_as_they_were_trained() -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO)
    encoder = encoder_of(pair)
    assert isinstance(encoder, RizbinEncoder)
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pictures = encoder.prepare(list(rgb))
    assert torch.allclose(pictures, normalize(torch.from_numpy(rgb)), atol=1e-6)
    assert (encoder.image_size, encoder.patch_size, encoder.grid, encoder.any_size) == (32, 8, (4, 4), True)
    assert torch.allclose(encoder.attention_rows(pictures), pair.attention_heads(pictures), atol=1e-6)
    assert torch.allclose(encoder.pooled(pictures), pair.pooled(pictures), atol=1e-6)
    vision = encoder_of(VisionEncoder(NANO.vision))
    assert vision.patches(pictures).shape == (2, 4, 4, 32)
    own = encoder_of(ImageEncoder(ImageEncoder.Settings(name=NANO.vision.name, image_size=32, pool="mean")))
    assert torch.allclose(own.pooled(pictures), own.patches(pictures).mean((1, 2)), atol=1e-5)


@torch.no_grad()
def test_a_convolutional_network_has_cells_and_no_attention() -> None:
    for encoder in (
        TimmEncoder(timm.create_model("resnet10t", num_classes=0)),
        encoder_of(ImageEncoder(ImageEncoder.Settings(name="resnet10t", image_size=64))),
    ):
        pictures = images(64, 96)
        assert encoder.patch_size == 32
        assert encoder.patches(pictures).shape == (2, 2, 3, 512)
        assert torch.allclose(encoder.patches(pictures).mean((1, 2)), encoder.pooled(pictures), atol=1e-5)
        with pytest.raises(NoAttention, match="resnet10t has a feature map"):
            encoder.attention_rows(pictures)


def test_what_cannot_be_asked_is_refused() -> None:
    encoder = encoder_of(ImageTextPair(NANO))
    with pytest.raises(RizbinError, match="patch 16 among 16"):
        encoder.attention_rows(images(32, 32), 16)
    with pytest.raises(RizbinError, match="2 layers, there is no layer 5"):
        encoder.attention_rows(images(32, 32), 0, 5)
    with pytest.raises(RizbinError, match="patches of 8"):
        encoder.patches(images(33, 32))
    with pytest.raises(RizbinError, match="32x32 pixels only"):
        TimmEncoder(timm.create_model("vit_tiny_patch16_224", img_size=32, **SMALL)).patches(images(48, 48))
    with pytest.raises(RizbinError, match="Linear"):
        encoder_of(nn.Linear(2, 2))


def test_networks_for_rectangles_have_square_patches_or_are_refused() -> None:
    options = {"img_size": (64, 96), "num_classes": 0, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoder = encoder_of(timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, **options))
    assert (encoder.patch_size, encoder.image_size, encoder.any_size) == (16, 64, True)
    for height, width in ((64, 96), (96, 64), (64, 64)):
        assert encoder.patches(images(height, width)).shape[1:3] == (height // 16, width // 16)
    with pytest.raises(RizbinError, match="takes images of 64x96 pixels only"):
        encoder_of(timm.create_model("vit_tiny_patch16_224", **options))
    with pytest.raises(RizbinError, match="cuts patches of 16x8 pixels"):
        encoder_of(timm.create_model("vit_tiny_patch16_224", patch_size=(16, 8), dynamic_img_size=True, **options))


def test_what_is_no_picture_is_refused_before_the_network() -> None:
    encoder = encoder_of(
        timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, embed_dim=32, depth=1, num_heads=2)
    )
    one = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for same in (one[..., ::-1][..., ::-1], np.asfortranarray(one)):
        assert torch.equal(encoder.prepare([same]), encoder.prepare([one]))
    with pytest.raises(RizbinError, match="have 32x32, 32x48 pixels"):
        encoder.prepare([one, np.zeros((32, 48, 3), np.uint8)])


def test_pictures_of_several_sizes_come_back_in_order() -> None:
    encoder = encoder_of(ImageTextPair(NANO))
    random = np.random.default_rng(0)
    shapes = [(32, 32), (16, 48), (32, 32), (16, 48), (24, 24)] * 5
    pictures = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    found = over(encoder, pictures, encoder.patches)
    assert [one.shape[:2] for one in found] == [(height // 8, width // 8) for height, width in shapes]
    alone = over(encoder, pictures[3:4], encoder.patches)[0]
    np.testing.assert_allclose(found[3], alone, atol=1e-5)


def test_a_folder_of_timm_opens(tmp_path: Path) -> None:
    from timm.models import save_for_hf

    torch.manual_seed(0)
    trunk: Any = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64, **SMALL)
    save_for_hf(trunk, str(tmp_path), model_args={"img_size": 64, **SMALL}, safe_serialization=True)
    facts = json.loads((tmp_path / "config.json").read_text())
    facts["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3]}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, TimmEncoder) and (encoder.image_size, encoder.patch_size, encoder.mean) == (
        64,
        16,
        (0.1, 0.2, 0.3),
    )
    with torch.no_grad():
        expected = trunk.eval().forward_features(images(64, 64))[:, 1:]
        assert torch.allclose(encoder.patches(images(64, 64)).flatten(1, 2), expected, atol=1e-5)
        assert encoder.attention_rows(images(64, 96)).shape == (2, 2, 4, 6)


def test_a_folder_that_rizbin_exported_for_timm_opens(tmp_path: Path) -> None:
    settings = ImageEncoder.Settings(name="rizbin_vit_mini_patch8_64", image_size=64, registers=2)
    network = ImageEncoder(settings).eval()
    save_timm(network, tmp_path)
    own, theirs = load_encoder(tmp_path), load_timm(tmp_path)
    assert isinstance(own, RizbinEncoder)
    for encoder in (own, theirs):
        with torch.no_grad():
            assert torch.allclose(encoder.pooled(images(64, 64)), network.pooled(images(64, 64)), atol=1e-5)
            assert encoder.attention_rows(images(64, 96)).shape == (2, 4, 8, 12)


def test_names_that_are_not_there_get_the_nearest() -> None:
    for name in ("vit_tny_patch16_224", "timm:vit_tny_patch16_224"):
        with pytest.raises(RizbinError, match="did you mean vit_tiny_patch16_224"):
            load_encoder(name)
    with pytest.raises(RizbinError, match="did you mean detailclip-mini"):
        load_encoder("detailclip-mni")
    with pytest.raises(RizbinError, match=r"there are vit_tiny_patch16_224.augreg_in21k"):
        load_encoder("vit_tiny_patch16_224.nothing")
    with pytest.raises(RizbinError, match="publishes no weights"):
        load_encoder("rizbin_vit_nano_patch8_32")
    assert load_timm("rizbin_vit_nano_patch8_32", pretrained=False).image_size == 32


def test_folders_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="holds no model of Rizbin"):
        load_encoder(tmp_path)
    with pytest.raises(RizbinError, match="neither a folder"):
        load_encoder(f"{tmp_path}/nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RizbinError, match="neither an architecture"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    with pytest.raises(RizbinError, match="no weights in safetensors"):
        load_encoder(tmp_path)


# --- Hugging Face -----------------------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
FACES: dict[str, dict[str, Any]] = {
    "ViTConfig": {},
    "DeiTConfig": {},
    "Dinov2Config": {},
    "Dinov2WithRegistersConfig": {"num_register_tokens": 3},
    "DINOv3ViTConfig": {"num_register_tokens": 4},
    "CLIPVisionConfig": {},
    "SiglipVisionConfig": {},
    "BeitConfig": {"use_relative_position_bias": True},
}


def face(config: str) -> nn.Module:
    """A small model of transformers whose every weight is random, so that nothing is hidden by a zero."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, config)(**SIZES, **FACES[config])
    model = transformers.AutoModel.from_config(made, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


@torch.no_grad()
@pytest.mark.parametrize("config", FACES)
def test_rows_of_hugging_face_equal_eager_attention(config: str) -> None:
    model: Any = face(config)
    encoder = encoder_of(model)
    assert isinstance(encoder, TransformersEncoder)
    pictures = images(24, 48)
    told = {"interpolate_pos_encoding": True} if config not in ("Dinov2Config", "DINOv3ViTConfig") else {}
    told = {} if config == "Dinov2WithRegistersConfig" else told
    rows = {}
    for layer in (0, -1):
        for token in (CLS, 0, 17):
            if token == CLS and config == "SiglipVisionConfig":
                with pytest.raises(NoAttention, match="siglip_vision_model has no CLS"):
                    encoder.attention_rows(pictures)
                continue
            rows[layer, token] = encoder.attention_rows(pictures, token, layer)
    model.set_attn_implementation("eager")
    full = model(pixel_values=pictures, output_attentions=True, **told).attentions
    model.set_attn_implementation("sdpa")
    prefix = full[0].shape[-1] - 18
    assert prefix == {
        "SiglipVisionConfig": 0,
        "DeiTConfig": 2,
        "Dinov2WithRegistersConfig": 4,
        "DINOv3ViTConfig": 5,
    }.get(config, 1)
    for (layer, token), row in rows.items():
        expected = full[layer][:, :, 0 if token == CLS else prefix + token, prefix:]
        assert row.shape == (2, 4, 3, 6)
        assert torch.allclose(row.flatten(2), expected, atol=1e-5)
    assert encoder.patches(pictures).shape == (2, 3, 6, 32)
    assert encoder.pooled(pictures).shape == (2, 32)


def test_a_folder_of_hugging_face_opens_with_its_normalization(tmp_path: Path) -> None:
    model: Any = face("Dinov2WithRegistersConfig")
    model.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, TransformersEncoder) and (encoder.mean, encoder.std) == (MEAN, STD)
    with torch.no_grad():
        assert torch.allclose(encoder.patches(images(32, 32)), encoder_of(model).patches(images(32, 32)), atol=1e-5)
    assert not torch.equal(
        encoder.patches(images(32, 32)), load_transformers(tmp_path, pretrained=False).patches(images(32, 32))
    )
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": [1, 1, 1]}')
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, TransformersEncoder) and (encoder.mean, encoder.std) == (
        (0.5, 0.4, 0.3),
        (1.0, 1.0, 1.0),
    )
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(RizbinError, match="could not be loaded by transformers"):
        load_encoder(tmp_path)


def test_rectangular_networks_of_hugging_face_are_refused() -> None:
    import transformers

    for changed in ({"image_size": [64, 96]}, {"image_size": 64, "patch_size": [16, 8]}):
        config = transformers.ViTConfig(**{**SIZES, **changed})
        with pytest.raises(RizbinError, match=r"64x96 pixels|16x8 pixels"):
            encoder_of(transformers.ViTModel(config))
    square = transformers.ViTModel(transformers.ViTConfig(**{**SIZES, "image_size": [32, 32]}))
    assert encoder_of(square).image_size == 32


def test_models_of_hugging_face_without_patches_are_refused() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {name: SIZES[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    with pytest.raises(RizbinError, match="bert is no model that cuts images"):
        encoder_of(transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=9)))
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, window_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2]
    )
    with pytest.raises(NoAttention, match="no features of single patches"):
        encoder_of(transformers.SwinModel(config)).attention_rows(images(32, 32), 0)


def test_without_transformers_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RizbinError, match=r"pip install 'rizbin\[hf\]'"):
        load_encoder("somebody/something")
