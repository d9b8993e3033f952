"""The image encoder: subsets of tokens, the CLS row, blanked stems, timm's own numbers."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.nets.selection import blocks_to_keep, half_resolution_places, select
from rizbin.nets.vision import LastBlock, RowAttention, VisionEncoder

PLAIN = VisionEncoder.Settings(name="vit_tiny_patch16_224", image_size=64, registers=2)
STEM = VisionEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32)


def encoder(settings: VisionEncoder.Settings) -> VisionEncoder:
    torch.manual_seed(0)
    return VisionEncoder(settings).eval()


def images(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("settings", [PLAIN, STEM], ids=["plain", "stem"])
def test_features_equal_timms_and_keeping_all_changes_nothing(settings: VisionEncoder.Settings) -> None:
    network, pictures = encoder(settings), images(settings.image_size)
    with torch.no_grad():
        whole = network(pictures, attend=True)
        timms = network.trunk.forward_features(pictures)
        prefix = network.trunk.num_prefix_tokens
        assert torch.allclose(whole.cls, timms[:, 0], atol=1e-5)
        assert torch.allclose(whole.patches, timms[:, prefix:], atol=1e-5)
        every = torch.arange(whole.patches.shape[1]).expand(2, -1)
        kept = network(pictures, every)
    assert torch.allclose(kept.cls, whole.cls, atol=1e-5)
    assert kept.attention is None


@pytest.mark.parametrize("settings", [PLAIN, STEM], ids=["plain", "stem"])
def test_no_removed_pixel_reaches_the_student(settings: VisionEncoder.Settings) -> None:
    network, pictures = encoder(settings), images(settings.image_size)
    keep, removed = select(torch.rand(2, network.grid[0] * network.grid[1]), network.grid, keep_ratio=0.4, block=1)
    gone = 1 - network.visible(keep, *pictures.shape[-2:])
    with torch.no_grad():
        before, after = network(pictures, keep), network(pictures + 7 * gone * torch.randn_like(pictures), keep)
    assert torch.equal(before.cls, after.cls) and torch.equal(before.patches, after.patches)
    assert removed.shape[1] + keep.shape[1] == network.grid[0] * network.grid[1]


def test_a_pass_that_is_not_tracked_leaves_what_evaluation_uses() -> None:
    """Masked pictures beside whole ones would shift the statistics by which whole ones are evaluated."""
    network, pictures = encoder(STEM).train(), images(32)
    keep, _ = select(torch.rand(2, 16), network.grid, keep_ratio=0.4, block=1)

    def statistics() -> list[Tensor]:
        return [value.clone() for name, value in network.state_dict().items() if "running" in name]

    before = statistics()
    apart = network(pictures, keep, track=False).patches
    assert before and all(torch.equal(old, new) for old, new in zip(before, statistics(), strict=True))
    assert torch.equal(network(pictures, keep).patches, apart), "the pass itself is the same"
    assert not all(torch.equal(old, new) for old, new in zip(before, statistics(), strict=True))
    after = statistics()
    network(pictures)
    assert not all(torch.equal(old, new) for old, new in zip(after, statistics(), strict=True)), "set back to tracking"


def test_a_stem_that_is_not_blanked_would_leak() -> None:
    network, pictures = encoder(STEM), images(32)
    network._stem_overlaps = False
    keep, _ = select(torch.rand(2, 16), network.grid, keep_ratio=0.4, block=1)
    gone = 1 - network.visible(keep, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(pictures, keep).patches, network(pictures + gone, keep).patches)


def test_the_cls_row_equals_full_softmax_attention() -> None:
    network, pictures = encoder(PLAIN), images(64)
    with torch.no_grad():
        got = network(pictures, attend=True).attention
        x, rows, attentions = network.tokens(pictures), [], []
        for block in network.trunk.blocks:
            assert isinstance(block, Block) and isinstance(block.attn, RowAttention)
            attention, batch, count = block.attn, *x.shape[:2]
            attentions.append(attention)
            qkv = attention.qkv(block.norm1(x)).reshape(batch, count, 3, attention.num_heads, -1)
            query, key, _ = qkv.permute(2, 0, 3, 1, 4)
            rows.append((query @ key.transpose(-2, -1) * attention.scale).softmax(-1)[:, :, 0])
            x = block(x)
        expected = torch.stack(rows).mean((0, 2))[:, network.trunk.num_prefix_tokens :]
        assert got is not None and torch.allclose(got, expected, atol=1e-6)
        heads = network.attention_heads(pictures)
        assert torch.allclose(heads.flatten(2), rows[-1][:, :, network.trunk.num_prefix_tokens :], atol=1e-6)
    assert not any(attention.watched or attention.row is not None for attention in attentions)


def test_any_resolution_that_divides_runs_and_others_are_refused() -> None:
    network = encoder(PLAIN)
    with torch.no_grad():
        assert network(images(96)).patches.shape[1] == 36
        with pytest.raises(RizbinError, match="patches of 16"):
            network(images(50))


def test_pretrained_state_loads_unchanged() -> None:
    settings = VisionEncoder.Settings(name="vit_tiny_patch16_224", image_size=224)
    torch.manual_seed(3)
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    assert isinstance(reference, VisionTransformer)
    network = encoder(settings)
    network.trunk.load_state_dict(reference.state_dict())
    picture = images(224, batch=1)
    with torch.no_grad():
        assert torch.allclose(network(picture).cls, reference.forward_features(picture)[:, 0], atol=1e-5)


def test_what_is_no_vision_transformer_is_refused_in_a_sentence() -> None:
    with pytest.raises(RizbinError, match="resnet18"):
        VisionEncoder(VisionEncoder.Settings(name="resnet18"))
    # Its blocks are pairs side by side, which timm builds without an `attn` of their own; meta, for it is large.
    with torch.device("meta"), pytest.raises(RizbinError, match=r"vit_small_patch16_18x2_224.*cannot be read"):
        VisionEncoder(VisionEncoder.Settings(name="vit_small_patch16_18x2_224", image_size=224))


def test_selection_keeps_the_best_blocks_as_the_papers_code_counts() -> None:
    assert blocks_to_keep(49, 0.5) == 25  # 100 of 196 patches, as measured on the official code
    scores = torch.zeros(1, 16)
    scores[0, [10, 11, 14, 15]] = 1.0  # the lower right square
    scores[0, 0] = 3.0  # one bright patch: its square's mean is .75
    keep, removed = select(scores, (4, 4), keep_ratio=0.25, block=2)
    assert keep.tolist() == [[0, 1, 4, 5, 10, 11, 14, 15]]
    assert removed.tolist() == [[2, 3, 6, 7, 8, 9, 12, 13]]
    keep, _ = select(scores, (4, 4), keep_ratio=0.1, block=1)
    assert keep.tolist() == [[0, 10]]
    assert select(scores, (4, 4), keep_ratio=1.0, block=1)[1].shape == (1, 0)
    with pytest.raises(RizbinError, match="3x3"):
        select(torch.zeros(1, 9), (3, 3), keep_ratio=0.5, block=2)


def test_half_resolution_places() -> None:
    assert half_resolution_places(torch.tensor([[0, 1, 4, 5, 10, 15]]), (4, 4)).tolist() == [[0, 0, 0, 0, 3, 3]]


@pytest.mark.parametrize("gated", [False, True])
def test_watched_attention_gives_what_timm_gives(gated: bool) -> None:
    attention = RowAttention(32, num_heads=4, qkv_bias=True, gated=gated).eval()
    x = torch.randn(2, 7, 32)
    with torch.no_grad():
        plain = attention(x)
        attention.watched = True
        watched = attention(x)
    assert torch.allclose(plain, watched, atol=1e-6)
    assert attention.row is not None and torch.allclose(attention.row.sum(-1), torch.ones(2, 4))


LAST: dict[str, dict[str, Any]] = {
    "plain": {"name": "vit_tiny_patch16_224", "image_size": 64, "registers": 2},
    "stem": {"name": "rizbin_vit_nano_patch8_32", "image_size": 32},
    "layer scale and drop path": {"name": "vit_small_patch14_dinov2", "image_size": 56, "drop_path": 0.3},
}


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("name", LAST)
def test_the_cls_token_alone_is_that_of_a_whole_pass(name: str, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is its gradient, whatever path is dropped; a last block of another kind makes a whole pass."""
    settings = VisionEncoder.Settings(**LAST[name])
    if not short:
        monkeypatch.setattr(RowAttention, "plain", False)
    network = encoder(settings).double().train()
    kinds = [type(block) for block in network.trunk.blocks]
    assert kinds == [Block] * (len(kinds) - 1) + [LastBlock if short else Block]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2:
                parameter.normal_()
    pictures = images(settings.image_size, 3).double()
    results = []
    for ask in (lambda: network(pictures).cls, lambda: network.cls(pictures)):
        torch.manual_seed(1)
        said = ask()
        found = torch.autograd.grad(said.sin().sum(), list(network.parameters()), allow_unused=True)
        results.append([said, *(torch.zeros_like(said) if one is None else one for one in found)])
    for whole, alone in zip(*results, strict=True):
        assert torch.allclose(alone, whole, rtol=1e-9, atol=1e-9)
    assert network(pictures).patches.shape[1] == network.grid[0] * network.grid[1], "set back"


def test_the_last_block_has_the_parts_the_weights_and_the_randomness_of_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    network = encoder(PLAIN).train()
    after = torch.rand(1)
    monkeypatch.setattr(LastBlock, "fits", lambda _: False)
    timms = encoder(PLAIN).train()
    assert torch.equal(torch.rand(1), after)
    state, expected = network.state_dict(), timms.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert all(block.training for block in network.trunk.blocks)


def test_a_block_of_timm_with_anything_more_stays_as_it_is() -> None:
    block = Block(32, 4, attn_layer=RowAttention)
    assert LastBlock.fits(block)
    richer = Block(32, 4, attn_layer=RowAttention)
    richer.gate = torch.nn.Linear(32, 1)
    scaled = Block(32, 4, attn_layer=RowAttention)
    vars(scaled)["scale"] = 2.0
    learned = Block(32, 4, attn_layer=RowAttention)
    learned.token = torch.nn.Parameter(torch.zeros(1))
    assert not any(LastBlock.fits(other) for other in (richer, scaled, learned, LastBlock(block)))


def test_norms_are_set_back_after_a_pass_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    network, keep = encoder(STEM).train(), torch.zeros(2, 4, dtype=torch.long)
    assert network._stem_norms

    def broken(_: Tensor) -> Tensor:
        raise ValueError("planted")

    monkeypatch.setattr(network.trunk, "_pos_embed", broken)
    with pytest.raises(ValueError, match="planted"):
        network(images(32), keep, track=False)
    assert all(norm.visible is None and norm.tracked for norm in network._stem_norms)


def test_watched_blocks_share_one_compilation() -> None:
    """A guard on what the blocks before gave would compile each of them again, and end compiling at the eighth."""
    torch.compiler.reset()
    network, pictures = encoder(VisionEncoder.Settings()), images(64)
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    with torch.no_grad():
        expected = network(pictures, attend=True).attention
        for block in network.trunk.blocks:
            block.compile(backend=count)
        after: list[int] = []
        with network.rows() as rows:
            x = network.tokens(pictures)
            for block in network.trunk.blocks:
                x = block(x)
                after.append(len(graphs))
    torch.compiler.reset()
    got = torch.stack(rows).mean(dim=(0, 2))[:, network.trunk.num_prefix_tokens :]
    assert expected is not None and torch.allclose(got, expected, atol=1e-6)
    assert len(after) >= 4 and after[0] == after[-2], "all but the last, which is of another class"
