"""Maps and gradients of a UNet equal diffusers' own explicit attention, and nothing of the UNet is changed after."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite import (
    pipeline_stable_diffusion_attend_and_excite as original,
)
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.attention import Capture, grid_of
from rizbin.generation.diffusion.attention_losses import attend_and_excite
from tests.generation.diffusion.toy_unets import TOKENS, inputs, unet

TOKENS_OF_OBJECTS = ((2,), (5,))


def diffusers_way(model: Any, latents: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Averaged map, loss and the latents' gradient as the deprecated pipeline makes them."""
    store = original.AttentionStore((16, 16))
    places = {"mid_block": "mid", "up_blocks": "up", "down_blocks": "down"}
    before = model.attn_processors
    model.set_attn_processor(
        {name: original.AttendExciteAttnProcessor(store, places[name.split(".")[0]]) for name in before}
    )
    store.num_att_layers = len(before)
    latents = latents.clone().requires_grad_()
    model(latents, 500, encoder_hidden_states=embeddings)
    model.set_attn_processor(before)
    averaged = store.aggregate_attention(["up", "down", "mid"])
    pipeline = original.StableDiffusionAttendAndExcitePipeline
    peaks = pipeline._compute_max_attention_per_index(averaged.clone(), [tokens[0] for tokens in TOKENS_OF_OBJECTS])
    loss = pipeline._compute_loss(peaks)
    return averaged.detach(), loss.detach(), torch.autograd.grad(loss, latents)[0]


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # the original's call
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("levels", [2, 3])
def test_map_and_gradient_equal_diffusers(levels: int, stop: bool) -> None:
    # In float64, because the sharpening by 100 lets float32's last digit reach 1e-6.
    model = unet(levels).double()
    latents, embeddings = (one.double() for one in inputs())
    expected_map, expected_loss, expected_gradient = diffusers_way(model, latents, embeddings)
    latents = latents.clone().requires_grad_()
    with Capture(model, stop_after_last=stop) as capture:
        predicted = capture.run(latents, 500, embeddings)
    assert (predicted is None) == stop
    averaged = capture.mean_map()
    loss = attend_and_excite(averaged, TOKENS_OF_OBJECTS)
    (gradient,) = torch.autograd.grad(loss, latents)
    # 1e-6: the figure asked for; the original's Gaussian is rounded to float32.
    assert float((averaged.detach() - expected_map).norm() / expected_map.norm()) <= 1e-6
    assert abs(float(loss.detach() - expected_loss)) <= 1e-6 * float(expected_loss)
    assert float(gradient.norm()) > 0
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) <= 1e-6
    assert float(averaged.detach().std(dim=(0, 1)).max()) > 1e-3, "the maps are flat, and show nothing"


def test_what_the_network_predicts_is_unchanged() -> None:
    model = unet(3)
    latents, embeddings = inputs(batch=2)
    with torch.no_grad():
        plain = model(latents, 500, encoder_hidden_states=embeddings).sample
        with Capture(model, (16, 8)) as capture:
            captured = capture.run(latents, 500, embeddings)
        mask = torch.ones(2, TOKENS)
        mask[:, 7:] = 0
        masked = model(latents, 500, encoder_hidden_states=embeddings, encoder_attention_mask=mask).sample
        with Capture(model) as capture:
            both = model(latents, 500, encoder_hidden_states=embeddings, encoder_attention_mask=mask).sample
    assert captured is not None and torch.allclose(captured, plain, atol=1e-5)
    assert torch.allclose(both, masked, atol=1e-5) and not torch.allclose(masked, plain, atol=1e-3)
    averaged = capture.mean_map(1)
    assert float(averaged[..., 7:].max()) < 1e-6 and torch.allclose(averaged.sum(-1), torch.ones(16, 16))


def test_the_processors_come_back_also_after_an_error() -> None:
    model = unet(3)
    model.set_attn_processor(AttnProcessor())
    chosen = {**model.attn_processors, next(iter(model.attn_processors)): AttnProcessor2_0()}
    model.set_attn_processor(dict(chosen))
    latents, embeddings = inputs()
    during: dict[str, Any] = {}

    def fail(*_: Any) -> None:
        during.update(model.attn_processors)
        raise ValueError("in the middle")

    hook = model.conv_out.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="in the middle"), Capture(model) as capture:
        capture.run(latents, 500, embeddings)
    hook.remove()
    assert {name: id(one) for name, one in model.attn_processors.items()} == {k: id(v) for k, v in chosen.items()}
    changed = [name for name in chosen if during[name] is not chosen[name]]
    # 16x16: one layer down, two up. The other cross-attention (8x8) and all self-attention keep theirs.
    assert sorted(name.split(".")[0] for name in changed) == ["down_blocks", "up_blocks", "up_blocks"]
    assert all("attn2" in name for name in changed)
    assert not model._forward_pre_hooks and not any(one._forward_pre_hooks for one in model.modules())


def test_stopping_leaves_out_what_follows() -> None:
    model = unet(2)
    latents, embeddings = inputs()
    ran: list[str] = []
    for name in ("down_blocks.0", "up_blocks.0", "up_blocks.0.attentions.1", "up_blocks.1", "conv_out"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    capture = Capture(model, stop_after_last=True)
    with capture:
        capture.run(latents, 500, embeddings)
        whole = ["down_blocks.0", "up_blocks.0.attentions.1", "up_blocks.0", "up_blocks.1", "conv_out"]
        assert ran == [*whole, "down_blocks.0"]  # in the stopped pass the last layer itself did not end
        ran.clear()
        capture.run(latents, 400, embeddings)
    with capture:  # it still knows
        capture.run(latents, 300, embeddings)
    assert ran == ["down_blocks.0"] * 2


def test_rows_of_a_batch() -> None:
    model = unet()
    latents, embeddings = inputs(batch=2)
    with torch.no_grad(), Capture(model) as both:
        both.run(latents, 500, embeddings)
    with torch.no_grad(), Capture(model, rows=slice(-1, None)) as last:
        last.run(latents, 500, embeddings)
    assert all(len(one) == 1 for one in last.maps().values())
    assert torch.allclose(last.mean_map(), both.mean_map(1), atol=1e-6)
    assert not torch.allclose(last.mean_map(), both.mean_map(0), atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32), (34, 32)])
def test_latents_that_are_not_square(height: int, width: int) -> None:
    model = unet()
    latents, embeddings = inputs(height=height, width=width)
    side = min(height, width) // 2
    with torch.no_grad(), Capture(model, (side,)) as capture:
        capture.run(latents, 500, embeddings)
    averaged = capture.mean_map()
    assert averaged.shape == (height // 2, width // 2, TOKENS)
    first = next(iter(capture.maps().values()))[0, :, width // 2 + 3]  # the fourth cell of the second row
    assert torch.allclose(
        torch.cat([one[0] for one in capture.maps().values()]).mean(0)[width // 2 + 3], averaged[1, 3]
    )
    assert first.shape[-1] == TOKENS


def test_two_resolutions_meet_at_the_larger() -> None:
    model = unet(3)
    latents, embeddings = inputs()
    with torch.no_grad(), Capture(model, (16, 8)) as capture:
        capture.run(latents, 500, embeddings)
    assert {one.shape[2] for one in capture.maps().values()} == {256, 64}
    assert capture.mean_map().shape == (16, 16, TOKENS)
    assert torch.allclose(capture.mean_map().sum(-1), torch.ones(16, 16))
    with torch.no_grad(), Capture(model, (8,)) as small:
        small.run(latents, 500, embeddings)
    assert small.mean_map().shape == (8, 8, TOKENS)


def test_self_attention_of_the_same_layers() -> None:
    model = unet()
    latents, embeddings = inputs()
    with torch.no_grad(), Capture(model, self_attention=True, stop_after_last=True) as capture:
        capture.run(latents, 500, embeddings)
    looks = capture.mean_self_map()
    assert looks.shape == (16, 16, 256) and torch.allclose(looks.sum(-1), torch.ones(16, 16))
    with torch.no_grad(), Capture(model) as alone:
        alone.run(latents, 500, embeddings)
    assert torch.allclose(capture.mean_map(), alone.mean_map(), atol=1e-6)
    with pytest.raises(RizbinError, match="ask for it"):
        alone.mean_self_map()


def test_half_precision_keeps_small_shares() -> None:
    model = unet().bfloat16()
    latents, embeddings = inputs()
    with torch.no_grad(), Capture(model) as capture:
        capture.run(latents.bfloat16(), 500, embeddings.bfloat16())
    assert capture.mean_map().dtype == torch.float32
    assert torch.allclose(capture.mean_map().sum(-1), torch.ones(16, 16), atol=1e-5)


def test_mistakes_are_said() -> None:
    model = unet()
    latents, embeddings = inputs()
    for stop in (False, True):
        with pytest.raises(RizbinError, match="only 16x16"), Capture(model, (12,), stop_after_last=stop) as capture:
            capture.run(latents, 500, embeddings)
            capture.mean_map()
    with pytest.raises(RizbinError, match="No pass was made"):
        Capture(model).mean_map()
    with pytest.raises(RizbinError, match="inside its `with` block"):
        Capture(model).run(latents, 500, embeddings)
    with pytest.raises(RizbinError, match="in use"), Capture(model) as capture, capture:
        pass
    assert not model._forward_pre_hooks


def test_grids_are_halvings() -> None:
    assert [grid_of((64, 96), queries) for queries in (6144, 1536, 384, 96)] == [(64, 96), (32, 48), (16, 24), (8, 12)]
    assert grid_of((33, 20), 17 * 10) == (17, 10)
    with pytest.raises(RizbinError, match="100 queries"):
        grid_of((64, 64), 100)
