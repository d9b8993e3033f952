"""Dense readings against their formulas in float64 loops, on a CLIP of open_clip, one of transformers, and our own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.models.own import RizbinEncoder
from rizbin.models.readings import RULES, DenseReader, read_by
from rizbin.models.wrap import encoder_of
from rizbin.nets.dual import ImageTextPair
from rizbin.workflows.load import load_encoder
from tests.models.published import PAIRS
from tests.models.small import save_dinov2
from tests.toys import NANO


def pixels(size: int = 32) -> Tensor:
    return torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(4)).mul(255).byte()


def rows_of(name: str, heads: list[tuple[Any, Any, Any]], prefix: int, side: int, guide: Any) -> list[Any]:
    """The attention of each head of one image, by loops: heads of (query, key, value) [tokens dim] in float64."""
    matrices = []
    for query, key, value in heads:
        count, dim = query.shape
        weights = np.zeros((count, count))
        for i in range(count):
            if name == "maskclip":
                weights[i, i] = 1.0
                continue
            if name == "proxyclip":
                if i < prefix:
                    weights[i, i] = 1.0
                    continue
                units = guide / np.linalg.norm(guide, axis=1, keepdims=True)
                cosines = units @ units.T
                scores = 3.0 * (cosines - 1.2 * cosines.mean())
                kept = [j for j in range(len(units)) if scores[i - prefix, j] >= 0 or j == i - prefix]
                exponents = [math.exp(scores[i - prefix, j]) for j in kept]
                for j, exponent in zip(kept, exponents, strict=True):
                    weights[i, prefix + j] = exponent / sum(exponents)
                continue
            pairs = {"value-value": [value], "sclip": [query, key], "naclip": [key]}[name]
            for vectors in pairs:
                logits = [float(vectors[i] @ vectors[j]) / math.sqrt(dim) for j in range(count)]
                if name == "naclip" and i >= prefix:
                    a = i - prefix
                    for j in range(prefix, count):
                        b = j - prefix
                        squared = (a // side - b // side) ** 2 + (a % side - b % side) ** 2
                        logits[j] += math.exp(-squared / (2 * 5.0**2))
                total = sum(math.exp(logit) for logit in logits)
                weights[i] += [math.exp(logit) / total for logit in logits]
        matrices.append(weights)
    return matrices


def expected(name: str, tokens: Tensor, parts: dict[str, Any], guide: Tensor | None) -> Tensor:
    """Unit patch embeddings of the reading, from the tokens that enter the last block [batch tokens dim]."""
    tokens = tokens.double()
    normed = parts["norm1"](tokens)
    query, key, value = (layer(normed) for layer in parts["qkv"])
    heads, side, prefix = parts["heads"], parts["side"], parts["prefix"]
    out = []
    for image in range(len(tokens)):
        each = [
            tuple(x[image].chunk(heads, dim=-1)[head].detach().numpy() for x in (query, key, value))
            for head in range(heads)
        ]
        features = None if guide is None else guide[image].double().numpy()
        matrices = rows_of(name, each, prefix, side, features)  # type: ignore[arg-type]
        mixed = np.concatenate([weights @ head[2] for weights, head in zip(matrices, each, strict=True)], axis=1)
        out.append(torch.from_numpy(mixed))
    mixed = parts["out"](torch.stack(out))
    if name == "sclip":
        mixed = tokens + mixed
        mixed = mixed + parts["mlp"](parts["norm2"](mixed))
    return F.normalize(parts["project"](parts["last"](mixed))[:, prefix:], dim=-1)


def _slices(weight: Tensor, bias: Tensor) -> list[Any]:
    layers = []
    for own, offset in zip(weight.double().chunk(3), bias.double().chunk(3), strict=True):
        layers.append(lambda x, own=own, offset=offset: F.linear(x, own, offset))
    return layers


def parts_of(form: str, network: Any) -> tuple[dict[str, Any], Any]:
    """The last block in float64, and what gives the tokens that enter it."""
    if form == "CLIP":
        tower = network.vision_model
        block = tower.encoder.layers[-1]
        attention = block.self_attn
        qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
        names = {"norm1": block.layer_norm1, "norm2": block.layer_norm2, "mlp": block.mlp, "out": attention.out_proj}
        last, project, heads = tower.post_layernorm, network.visual_projection, attention.num_heads
    elif form == "open_clip":
        tower = network.visual
        block = tower.transformer.resblocks[-1]
        attention = block.attn
        qkv = _slices(attention.in_proj_weight, attention.in_proj_bias)
        names = {"norm1": block.ln_1, "norm2": block.ln_2, "mlp": block.mlp, "out": attention.out_proj}
        last, heads = tower.ln_post, attention.num_heads
        project = lambda x: x @ tower.proj.double()  # noqa: E731
    else:
        trunk = network.vision.trunk
        block = trunk.blocks[-1]
        attention = block.attn
        qkv = _slices(attention.qkv.weight, attention.qkv.bias)
        names = {"norm1": block.norm1, "norm2": block.norm2, "mlp": block.mlp, "out": attention.proj}
        last, project, heads = trunk.norm, network.image_projection, attention.num_heads
    facts = {"heads": heads, "side": 4, "prefix": 1, "qkv": qkv, "last": last, "project": project, **names}
    return facts, block


def doubled(parts: dict[str, Any]) -> dict[str, Any]:
    import copy

    def double(part: Any) -> Any:
        return copy.deepcopy(part).double() if isinstance(part, nn.Module) else part

    return {name: [double(p) for p in part] if isinstance(part, list) else double(part) for name, part in parts.items()}


@torch.no_grad()
@pytest.mark.parametrize("form", ["CLIP", "open_clip", "own"])
def test_readings_are_their_formulas(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if form == "own":
        encoder: Any = RizbinEncoder(ImageTextPair(NANO).eval())
    else:
        PAIRS[form](tmp_path / "model")
        encoder = load_encoder(tmp_path / "model")
    save_dinov2(tmp_path / "guide")
    guide = load_encoder(tmp_path / "guide")
    batch = encoder.normalized(pixels())
    parts, block = parts_of(form, encoder.network)
    seen: list[Tensor] = []
    hook = block.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder.patches(batch)
    hook.remove()
    for name in RULES:
        led = guide if name == "proxyclip" else None
        features = None if led is None else guide.patches(guide.normalized(pixels())).flatten(1, 2)
        reader = read_by(encoder, name, led)  # type: ignore[arg-type]
        found = reader.dense(batch).flatten(1, 2)
        assert torch.allclose(found.double(), expected(name, seen[0], doubled(parts), features), atol=2e-5), name
    plain = read_by(encoder, "plain")
    assert plain is encoder


@torch.no_grad()
@pytest.mark.parametrize("form", ["SigLIP", "open_clip SigLIP", "SigLIP 2 naflex"])
def test_pairs_that_pool_by_attention_are_read_too(form: str, tmp_path: Path) -> None:
    PAIRS[form](tmp_path / "model")
    encoder = load_encoder(tmp_path / "model")
    for name in ("maskclip", "naclip", "sclip"):
        reader = DenseReader(encoder, name)  # type: ignore[arg-type]
        dense = reader.dense(encoder.normalized(pixels()))
        assert dense.shape[:3] == (2, 4, 4) and dense.shape[3] == encoder.encode_text("a fox").shape[1]
        assert torch.allclose(dense.norm(dim=-1), torch.ones(2, 4, 4), atol=1e-5)
        if reader.any_size:
            assert reader.dense(encoder.normalized(pixels()), "windows").shape[:3] == (2, 8, 8)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    encoder = encoder_of(ImageTextPair(NANO))
    with pytest.raises(RizbinError, match="--guide"):
        read_by(encoder, "proxyclip")
    with pytest.raises(RizbinError, match="follows no second network"):
        read_by(encoder, "naclip", encoder)
    save_dinov2(tmp_path)
    with pytest.raises(RizbinError, match="reads no words"):
        read_by(load_encoder(tmp_path), "naclip")
