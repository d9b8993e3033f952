"""The image encoder without captions: timm's own numbers, batch norms, folders that timm reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from torch import Tensor, nn

from rizbin.core.checksums import SUMS
from rizbin.core.errors import RizbinError
from rizbin.nets.backbones import VisibleBatchNorm
from rizbin.nets.export import is_encoder, load_encoder, save_timm
from rizbin.nets.image import ImageEncoder

TRANSFORMER = ImageEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32)
RESNET = ImageEncoder.Settings(name="test_resnet", image_size=32)
SHAPES = {
    "resnet18": (64, 512, (2, 2), 32),
    "test_resnet": (64, 96, (2, 2), 32),
    "rizbin_conv_mini_32": (32, 128, (4, 4), 8),
    "rizbin_vit_nano_patch8_32": (32, 32, (4, 4), 8),
}
"""Picture's side, size of the feature, rows and columns, pixels of a place."""


def encoder(settings: ImageEncoder.Settings) -> ImageEncoder:
    """In evaluation, with norms and running statistics that are not those of a fresh network."""
    torch.manual_seed(0)
    made = ImageEncoder(settings).train()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
        for _ in range(3):
            made(1 + 2 * torch.randn(8, 3, settings.image_size, settings.image_size))
    return made.eval()


def images(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    size, dim, grid, patch = SHAPES[name]
    network = encoder(ImageEncoder.Settings(name=name, image_size=size))
    assert (network.dim, network.grid, network.patch_size, network.image_size) == (dim, grid, patch, size)
    with torch.no_grad():
        features = network.features(images(size))
        assert features.cls.shape == (2, dim) and features.patches.shape == (2, grid[0] * grid[1], dim)
        assert (features.attention is not None) == network.attends == ("vit" in name)
        # 1e-5: float32; nobody asks for patches here, and another order of operations may be quicker then.
        assert torch.allclose(network(images(size)), features.cls, atol=1e-5)
        assert network.pooled(images(size)).shape == (2, dim)
        # Small crops go through the same network.
        assert network(images(size // 2)).shape == (2, dim)


@pytest.mark.parametrize("name", ["resnet18", "test_resnet"])
@pytest.mark.parametrize("training", [False, True])
def test_a_convolutional_network_gives_timms_features_in_row_order(name: str, training: bool) -> None:
    network = encoder(ImageEncoder.Settings(name=name, image_size=64)).train(training).double()
    assert network.convolutions is not None
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules()), "all count every process's pictures"
    timms = timm.create_model(name, num_classes=0).train(training).double()
    timms.load_state_dict(network.convolutions.state_dict())
    pictures = images(64).double()
    with torch.no_grad():
        places = cast(Any, timms).forward_features(pictures)
        pooled, features = timms(pictures), network.features(pictures)
    assert torch.allclose(features.cls, pooled, atol=1e-9)
    assert torch.allclose(features.patches[:, 1], places[:, :, 0, 1], atol=1e-9)


def test_pooling_is_what_it_says() -> None:
    network = encoder(TRANSFORMER)
    with torch.no_grad():
        features = network.features(images(32))
        by = {pool: encoder(replace(TRANSFORMER, pool=pool))(images(32)) for pool in ("cls", "mean", "both")}
    mean = features.patches.mean(1)
    assert torch.allclose(by["cls"], features.cls, atol=1e-6) and torch.allclose(by["mean"], mean, atol=1e-6)
    assert torch.allclose(by["both"], (features.cls + mean) / 2, atol=1e-6)


def test_attention_is_a_map_of_heads_and_a_convolutional_network_has_none() -> None:
    network = encoder(TRANSFORMER)
    with torch.no_grad():
        heads, mean = network.attention_heads(images(32)), network.attention(images(32))
    assert heads.shape == (2, 2, 4, 4) and mean.shape == (2, 4, 4)
    assert bool((heads > 0).all()) and bool((heads.sum((2, 3)) < 1).all()), "the rest goes to CLS"
    resnet = encoder(RESNET)
    for ask in (resnet.attention, resnet.attention_heads):
        with pytest.raises(RizbinError, match="test_resnet is no VisionTransformer"):
            ask(images(32))


@pytest.mark.parametrize("settings", [TRANSFORMER, RESNET], ids=["stem", "resnet"])
def test_a_pass_that_is_not_tracked_leaves_running_statistics_alone(settings: ImageEncoder.Settings) -> None:
    network = encoder(settings).train()

    def statistics() -> list[Tensor]:
        return [value.clone() for name, value in network.state_dict().items() if "running" in name or "num_b" in name]

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    before = statistics()
    apart = network(images(16), track=False)
    assert before and same(before, statistics())
    assert all(norm.tracked for norm in network.modules() if isinstance(norm, VisibleBatchNorm))
    assert torch.allclose(network(images(16)), apart, atol=1e-6), "the pass itself is the same"
    after = statistics()
    assert not same(before, after)
    network(images(16))
    assert not same(after, statistics())


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(RizbinError, match=r"no model 'resnet19'; did you mean .*resnet1"):
        ImageEncoder(ImageEncoder.Settings(name="resnet19"))
    with pytest.raises(RizbinError, match=r"no model 'zzzzzzzz'; timm\.list_models"):
        ImageEncoder(ImageEncoder.Settings(name="zzzzzzzz"))


def test_registers_are_for_transformers_only() -> None:
    with pytest.raises(RizbinError, match=r"test_resnet has no tokens.*registers to 0"):
        ImageEncoder(replace(RESNET, registers=4))
    network = encoder(replace(TRANSFORMER, registers=4))
    assert network.features(images(32)).patches.shape == (2, 16, 32)


def test_a_network_without_a_usable_map_is_refused() -> None:
    with pytest.raises(RizbinError, match="gives no map of features"):
        ImageEncoder(ImageEncoder.Settings(name="test_mambaout", image_size=64))


CASES = {
    "transformer": TRANSFORMER,
    "both pools": replace(TRANSFORMER, pool="both"),
    "registers": replace(TRANSFORMER, registers=2, pool="mean"),
    "registers of its own": ImageEncoder.Settings(name="rizbin_vit_mini_reg4_patch8_64", image_size=64),
    "resnet": RESNET,
    "conv": ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32),
}


@pytest.mark.parametrize("name", CASES)
def test_timm_and_we_load_what_was_saved(name: str, tmp_path: Path) -> None:
    settings = CASES[name]
    network, folder = encoder(settings), tmp_path / "model"
    save_timm(network, folder)
    assert is_encoder(folder)
    again = load_encoder(folder)
    timms = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert again.settings == settings and not again.training
    pictures = images(settings.image_size)
    with torch.no_grad():
        expected = network(pictures)
        assert torch.equal(again(pictures), expected)
        # 1e-5: float32; timm's fused operations round elsewhere.
        assert torch.allclose(timms(pictures), expected, atol=1e-5)


def test_half_is_half_the_size_and_close(tmp_path: Path) -> None:
    network = encoder(TRANSFORMER)
    save_timm(network, tmp_path / "whole")
    save_timm(network, tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    with torch.no_grad():
        difference = load_encoder(tmp_path / "half")(images(32)) - network(images(32))
    assert difference.abs().max() < 2e-2  # 16 bits keep 11 of a number's, features are up to 3


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="holds no model"):
        load_encoder(tmp_path)
    save_timm(encoder(RESNET), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RizbinError, match=r"model\.safetensors does not match its checksum"):
        load_encoder(tmp_path / "model")
    (tmp_path / "model" / SUMS).unlink()
    with pytest.raises(RizbinError, match=r"model\.safetensors are damaged"):
        load_encoder(tmp_path / "model")
