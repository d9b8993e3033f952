"""DetailCLIP's preset `paper` against the official code's algorithm, written out a second time, slowly and plainly.

Nothing of Rizbin's networks or losses is used below `official`: it takes tensors by name and computes one image, one
token and one head at a time in float64, from the facts about the official code (architecture, views and masks, losses).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rizbin.methods.detailclip import DetailCLIP
from rizbin.nets.decoder import Decoder, sincos_positions
from rizbin.training.method import Progress
from rizbin.workflows.presets import preset
from tests.toys import batch_for

SIDE, PATCH, HEADS, DECODER_HEADS, TEXT_HEADS = 96, 16, 3, 16, 4
GRID = SIDE // PATCH
LAYERS, TEXT_LAYERS = 12, 2
Weights = Mapping[str, Tensor]


def paper_at_toy_size() -> DetailCLIP.Settings:
    """The preset's own settings, with smaller networks: ViT-Ti/16 at 96 px, which has 9 blocks of 4 patches."""
    settings = preset("detailclip", "paper").settings
    pair = settings.pair
    vision = replace(pair.vision, name="vit_tiny_patch16_224", image_size=SIDE)
    tokenizer = replace(pair.text.tokenizer, vocabulary="small", context=24)
    text = replace(pair.text, tokenizer=tokenizer, width=64, layers=TEXT_LAYERS, heads=TEXT_HEADS)
    return replace(
        settings,
        pair=replace(pair, vision=vision, text=text, embedding=32),
        prototypes=64,
        head_hidden=48,
        head_bottleneck=24,
        decoder_width=192,
        decoder_heads=DECODER_HEADS,
    )


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# The official algorithm.


def layer_norm(x: Tensor, weights: Weights, name: str, epsilon: float) -> Tensor:
    rows = []
    for row in x:
        mean = row.sum() / len(row)
        variance = ((row - mean) ** 2).sum() / len(row)
        rows.append((row - mean) / (variance + epsilon).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"])
    return torch.stack(rows)


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def softmax(x: Tensor) -> Tensor:
    exponentials = (x - x.max(dim=-1, keepdim=True).values).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def log_softmax(x: Tensor) -> Tensor:
    x = x - x.max(dim=-1, keepdim=True).values
    return x - x.exp().sum(dim=-1, keepdim=True).log()


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + (-1.702 * x).exp())


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, *, causal: bool = False) -> tuple[Tensor, Tensor]:
    """What each token gathers, and who layer_maps at whom: [heads tokens tokens]."""
    size = query.shape[1] // heads
    gathered, maps = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        if causal:
            scores = scores.masked_fill(torch.ones(len(query), len(query)).triu(1) > 0, float("-inf"))
        maps.append(softmax(scores))
        gathered.append(maps[-1] @ value[:, part])
    return torch.cat(gathered, dim=1), torch.stack(maps)


def vit_block(x: Tensor, weights: Weights, name: str, heads: int) -> tuple[Tensor, Tensor]:
    query, key, value = linear(layer_norm(x, weights, f"{name}.norm1", 1e-6), weights, f"{name}.attn.qkv").chunk(3, 1)
    gathered, maps = attention(query, key, value, heads)
    x = x + linear(gathered, weights, f"{name}.attn.proj")
    hidden = gelu(linear(layer_norm(x, weights, f"{name}.norm2", 1e-6), weights, f"{name}.mlp.fc1"))
    return x + linear(hidden, weights, f"{name}.mlp.fc2"), maps


def encode_image(image: Tensor, weights: Weights, name: str, keep: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Tokens after the last norm, CLS first; CLS-to-patch attention, mean over all layers and heads."""
    kernel, bias = weights[f"{name}.patch_embed.proj.weight"], weights[f"{name}.patch_embed.proj.bias"]
    positions = weights[f"{name}.pos_embed"][0]
    tokens = [weights[f"{name}.cls_token"][0, 0] + positions[0]]
    for place in range(GRID * GRID) if keep is None else keep:
        row, column = divmod(place, GRID)
        square = image[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        tokens.append((kernel * square).sum(dim=(1, 2, 3)) + bias + positions[1 + place])
    x, layer_maps = torch.stack(tokens), []
    for layer in range(LAYERS):
        x, maps = vit_block(x, weights, f"{name}.blocks.{layer}", HEADS)
        layer_maps.append(maps[:, 0, 1:])
    return layer_norm(x, weights, f"{name}.norm", 1e-6), torch.stack(layer_maps).mean(dim=(0, 1))


def patches_to_keep(scores: Tensor, ratio: float = 0.5) -> list[int]:
    """The map halved, its int(blocks * ratio) + 1 best blocks, each whole."""
    half = GRID // 2
    blocks = {}
    for block in range(half * half):
        row, column = divmod(block, half)
        places = [(2 * row + down) * GRID + 2 * column + across for down in (0, 1) for across in (0, 1)]
        blocks[block] = (sum(float(scores[place]) for place in places) / 4, places)
    best = sorted(blocks.values(), key=lambda pair: -pair[0])[: int(half * half * ratio) + 1]
    return sorted(place for _, places in best for place in places)


def mae_positions(width: int) -> np.ndarray:
    """The first half of the channels from the column, the second from the row; sines before cosines in each half."""
    table = np.zeros((GRID * GRID, width))
    quarter = width // 4
    for place in range(GRID * GRID):
        row, column = divmod(place, GRID)
        for half, coordinate in enumerate((column, row)):
            for i in range(quarter):
                angle = coordinate / 10000 ** (i / quarter)
                table[place, half * 2 * quarter + i] = math.sin(angle)
                table[place, half * 2 * quarter + quarter + i] = math.cos(angle)
    return table.astype(np.float32)


def decode(tokens: Tensor, keep: list[int], weights: Weights) -> Tensor:
    """The decoder's output at every patch, from the student's CLS and kept patches."""
    embedded = linear(tokens, weights, "decoder.embed")
    positions = torch.from_numpy(mae_positions(embedded.shape[1])).double()
    rows = [embedded[0]]  # MAE's position of CLS is zero
    for place in range(GRID * GRID):
        token = embedded[1 + keep.index(place)] if place in keep else weights["decoder.mask_token"][0, 0]
        rows.append(token + positions[place])
    x, _ = vit_block(torch.stack(rows), weights, "decoder.blocks.0", DECODER_HEADS)
    return layer_norm(x, weights, "decoder.norm", 1e-6)[1:]


def prototype_scores(features: Tensor, weights: Weights, name: str) -> Tensor:
    x = gelu(linear(features, weights, f"{name}.mlp.0"))
    x = linear(gelu(linear(x, weights, f"{name}.mlp.2")), weights, f"{name}.mlp.4")
    x = x / (x**2).sum(dim=-1, keepdim=True).sqrt()
    prototypes = weights[f"{name}.prototypes"]  # weight norm with its length frozen at 1
    return x @ (prototypes / (prototypes**2).sum(dim=-1, keepdim=True).sqrt()).T


def encode_text(tokens: Tensor, weights: Weights) -> Tensor:
    """The text's unit vector, read at its end token, whose number is the highest."""
    end = int(tokens.argmax())
    x = weights["pair.text.token_embedding.weight"][tokens]
    x = x + weights["pair.text.positional_embedding"][: len(tokens)]
    for layer in range(TEXT_LAYERS):
        name = f"pair.text.transformer.resblocks.{layer}"
        normed = layer_norm(x, weights, f"{name}.ln_1", 1e-5)
        qkv = normed @ weights[f"{name}.attn.in_proj_weight"].T + weights[f"{name}.attn.in_proj_bias"]
        gathered, _ = attention(*qkv.chunk(3, 1), TEXT_HEADS, causal=True)
        x = x + linear(gathered, weights, f"{name}.attn.out_proj")
        hidden = quick_gelu(linear(layer_norm(x, weights, f"{name}.ln_2", 1e-5), weights, f"{name}.mlp.c_fc"))
        x = x + linear(hidden, weights, f"{name}.mlp.c_proj")
    vector = layer_norm(x, weights, "pair.text.ln_final", 1e-5)[end] @ weights["pair.text.text_projection"]
    return vector / (vector**2).sum().sqrt()


def info_nce(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    logits = scale * images @ texts.T
    return -(log_softmax(logits).diagonal().mean() + log_softmax(logits.T).diagonal().mean()) / 2


def normalized_pixels(image: Tensor, place: int) -> Tensor:
    row, column = divmod(place, GRID)
    pixels = torch.stack(
        [
            image[channel, row * PATCH + down, column * PATCH + across]
            for down in range(PATCH)
            for across in range(PATCH)
            for channel in range(3)
        ]
    )
    variance = ((pixels - pixels.mean()) ** 2).sum() / (len(pixels) - 1)
    return (pixels - pixels.mean()) / (variance + 1e-6).sqrt()


def official(views: list[Tensor], texts: Tensor, weights: Weights, patch_temperature: float) -> dict[str, Tensor]:
    """The four losses of the official code for one batch."""
    teacher_cls: list[list[Tensor]] = [[], []]
    student_cls: list[list[Tensor]] = [[], []]
    embeddings: list[list[Tensor]] = [[], []]
    patch, pixels = [], []
    for which, view in enumerate(views):
        for image in view:
            whole, scores = encode_image(image, weights, "teacher.vision.trunk")
            teacher_scores = prototype_scores(whole, weights, "teacher.head")
            teacher_cls[which].append(softmax((teacher_scores[0] - weights["cls_center.value"]) / 0.04))
            keep = patches_to_keep(scores)
            removed = [place for place in range(GRID * GRID) if place not in keep]
            tokens, _ = encode_image(image, weights, "pair.vision.trunk", keep)
            student_cls[which].append(log_softmax(prototype_scores(tokens[0], weights, "head") / 0.1))
            embedding = weights["pair.image_projection.weight"] @ tokens[0]
            embeddings[which].append(embedding / (embedding**2).sum().sqrt())
            decoded = decode(tokens, keep, weights)
            student_logs = log_softmax(prototype_scores(decoded, weights, "head") / 0.1)
            predicted_pixels = linear(decoded, weights, "to_pixels")
            entropies, errors = [], []
            for place in removed:
                target = softmax((teacher_scores[1 + place] - weights["patch_center.value"]) / patch_temperature)
                entropies.append(-(target * student_logs[place]).sum())
                errors.append(((predicted_pixels[place] - normalized_pixels(image, place)) ** 2).mean())
            patch.append(torch.stack(entropies).mean())
            pixels.append(torch.stack(errors).mean())
    captions = torch.stack([encode_text(text, weights) for text in texts])
    scale = weights["pair.logit_scale"].exp()
    crossed = [
        -(target * student_logs).sum()
        for teacher, student in ((0, 1), (1, 0))
        for target, student_logs in zip(teacher_cls[teacher], student_cls[student], strict=True)
    ]
    return {
        "contrast": sum((info_nce(torch.stack(view), captions, scale) for view in embeddings), torch.zeros(())) / 2,
        "cls": torch.stack(crossed).mean(),
        "patch": torch.stack(patch).mean(),
        "pixels": torch.stack(pixels).mean(),
    }


def perturb(method: DetailCLIP) -> None:
    """As after some training: a teacher unlike it, centers off zero, norms and biases off their start."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in method.state_dict().items():
            if tensor.is_floating_point() and name != "pair.logit_scale":
                noise = torch.randn(tensor.shape, generator=generator)
                tensor += noise * (0.02 if tensor.ndim > 1 or "center" in name else 0.1)


@pytest.mark.parametrize(("step", "patch_temperature"), [(0, 0.04), (60, 0.07)])
@pytest.mark.parametrize("trained", [False, True])
def test_a_step_gives_the_official_losses(in_float64: None, step: int, patch_temperature: float, trained: bool) -> None:
    """To 1e-9 in float64 (positions are rounded to float32 by both); a decoder norm of epsilon 1e-5 is off by 3e-6."""
    torch.manual_seed(0)
    method = DetailCLIP(paper_at_toy_size()).double().train()
    if trained:
        perturb(method)
    batch = batch_for(method, rows=3)
    batch = replace(batch, views=[view.double() for view in batch.views])
    assert batch.texts is not None
    weights = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    with torch.no_grad():
        expected = official(batch.views, batch.texts, weights, patch_temperature)
    records = next(method.step(batch, Progress(step, 100))).records
    for name, value in expected.items():
        assert torch.as_tensor(records[name]).item() == pytest.approx(value.item(), abs=1e-9), name


def test_the_patch_temperature_steps_after_the_first_epoch(in_float64: None) -> None:
    torch.manual_seed(0)
    method = DetailCLIP(paper_at_toy_size()).double().train()
    batch = batch_for(method, rows=2)
    batch = replace(batch, views=[view.double() for view in batch.views])
    centers = method.state_dict()["patch_center.value"]
    losses = {}
    for step in (0, 39, 40, 999):  # of 1000: one epoch of 25 are 40
        centers.zero_()
        records = next(method.step(batch, Progress(step, 1000))).records
        losses[step] = torch.as_tensor(records["patch"]).item()
    assert losses[0] == losses[39] != losses[40] == losses[999]


@pytest.mark.parametrize(("grid", "width"), [((GRID, GRID), 48), ((2, 3), 8)])
def test_positions_are_those_of_mae(grid: tuple[int, int], width: int) -> None:
    """Columns first; and on a grid that is no square a place keeps the numbers that it has on a larger one."""
    rows = [row * GRID + column for row in range(grid[0]) for column in range(grid[1])]
    np.testing.assert_allclose(sincos_positions(grid, width).numpy(), mae_positions(width)[rows], atol=1e-7)


def test_the_decoder_starts_as_in_the_official_code() -> None:
    torch.manual_seed(0)
    decoder = Decoder(96, 128, blocks=2, heads=4)
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / sum(module.weight.shape))
            assert 0.95 * bound < module.weight.abs().max() <= bound, name  # uniform up to the bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
            assert name == "embed" or not module.bias.any(), name
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6 and (module.weight == 1).all() and not module.bias.any(), name
    assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.2)


def test_the_paper_preset_starts_as_the_official_code() -> None:
    """CLS of deviation 0.02, every norm of the image tower and the decoder with epsilon 1e-6, the text's with 1e-5."""
    torch.manual_seed(0)
    method = DetailCLIP(paper_at_toy_size())
    assert method.decoder is not None and method.teacher is not None
    trunk: Any = method.pair.vision.trunk
    assert trunk.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert trunk.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert torch.equal(method.teacher.state_dict()["vision.trunk.cls_token"], trunk.cls_token)
    epsilons = {
        name: {module.eps for module in part.modules() if isinstance(module, nn.LayerNorm)}
        for name, part in (("image", trunk), ("decoder", method.decoder), ("text", method.pair.text))
    }
    assert epsilons == {"image": {1e-6}, "decoder": {1e-6}, "text": {1e-5}}
    trainer = preset("detailclip", "paper").trainer
    assert (trainer.warmup, trainer.warmup_start, trainer.final_learning_rate) == (1 / 25, 1e-6, 1e-5)
    assert (trainer.beta1, trainer.beta2, trainer.epsilon, trainer.clip) == (0.9, 0.98, 1e-8, 0.0)
