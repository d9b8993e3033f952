"""One guided step equals Attend-and-Excite's, is scaled as the sampler wants, and touches nothing but the latents."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion import attention_losses as losses
from rizbin.generation.diffusion.attention import Capture
from rizbin.generation.diffusion.guidance import Guidance, Loss, Record, frozen
from rizbin.generation.diffusion.spans import TokenSpan
from tests.generation.diffusion.test_attention_capture import diffusers_way
from tests.generation.diffusion.toy_unets import inputs, unet

# A call of diffusers' own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SPANS = [TokenSpan("cat", (2,)), TokenSpan("dog", (5,))]
ONCE = Guidance.Settings(refinement=())


def steered(
    settings: Guidance.Settings,
    model: Any,
    step: int = 0,
    latents: Tensor | None = None,
    spans: list[TokenSpan] = SPANS,
) -> tuple[Tensor, Record]:
    given, embeddings = (one.to(model.dtype) for one in inputs())
    latents = given if latents is None else latents
    return Guidance(settings).steer(model, ddim(), latents, step, 50, 500, embeddings, spans)


def ddim() -> DDIMScheduler:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(50)
    return scheduler


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # the original's call
@pytest.mark.parametrize("step", [0, 24])
def test_an_update_equals_diffusers(step: int) -> None:
    model = unet().double()
    latents, embeddings = (one.double() for one in inputs())
    _, loss, gradient = diffusers_way(model, latents, embeddings)
    # 20 sqrt(linspace(1, 0.5, 50)), as released.
    size = 20 * float(torch.linspace(1, 0.5, 50, dtype=torch.float64)[step]) ** 0.5
    moved, record = steered(ONCE, model, step)
    assert float((moved - latents + size * gradient).norm() / (size * gradient).norm()) <= 1e-6
    assert record.get("loss") == pytest.approx(float(loss), rel=1e-6)
    assert (record.get("passes"), record.get("updates")) == (1, 1)


@pytest.mark.parametrize("step", [0, 10])
def test_all_samplers_get_the_same_move(step: int) -> None:
    """An Euler sampler keeps the latents sqrt(sigma^2 + 1) times as large; the network must not see that."""
    model, (seen, embeddings) = unet().double(), (one.double() for one in inputs())
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(50)
    scheduler.set_begin_index(step)
    timestep, sigma = scheduler.timesteps[step], float(scheduler.sigmas[step])
    times = (sigma**2 + 1) ** 0.5
    expected, plain = Guidance(ONCE).steer(model, ddim(), seen, step, 50, timestep, embeddings, SPANS)
    moved, record = Guidance(ONCE).steer(model, scheduler, times * seen, step, 50, timestep, embeddings, SPANS)
    assert sigma > 10
    assert record.get("loss") == pytest.approx(plain.get("loss"), abs=1e-6)
    # The sampler's sigmas are in float32.
    assert float((moved / times - expected).norm() / (expected - seen).norm()) < 1e-4
    # Left out, the network is shown another thing.
    unscaled, other = Guidance(ONCE).steer(model, ddim(), times * seen, step, 50, timestep, embeddings, SPANS)
    assert abs(other.get("loss", 0.0) - plain.get("loss", 0.0)) > 1e-3
    assert float((unscaled / times - expected).norm() / (expected - seen).norm()) > 0.5


# About a tenth of what would throw the latents of this small network off.
SCALES = {"attend_and_excite": 1.0, "center_distance": 1.0, "iou": 5.0, "kl": 1.0, "total_variation": 2.0}


@pytest.mark.parametrize("name", get_args(Loss))
def test_every_loss_gets_lower(name: Loss) -> None:
    guidance = Guidance(replace(ONCE, loss=name, scale=SCALES.get(name, 1.0)))
    model, (latents, embeddings) = unet(), inputs()
    found: list[float] = []
    for step in range(12):
        latents, record = guidance.steer(model, ddim(), latents, step, 50, 500, embeddings, SPANS)
        found.append(record.get("loss", 0.0))
    assert found[-1] < found[1] - 1e-3, found


def test_refinement_repeats_until_the_peaks_are_there() -> None:
    model = unet()
    never = Guidance.Settings(refinement=((0.0, 1.0),), most_refinements=3, scale=0.1)
    moved, record = steered(never, model)
    assert (record.get("passes"), record.get("updates")) == (4, 4)
    by_hand = inputs()[0]
    for _ in range(4):
        by_hand, _ = steered(replace(never, refinement=()), model, latents=by_hand)
    assert torch.allclose(moved, by_hand, atol=1e-5)
    assert steered(never, model, step=1)[1].get("passes") == 1  # only at its own step
    peak = min(record.get("peaks", []))
    there = replace(never, refinement=((0.0, peak - 0.01),))
    assert steered(there, model)[1].get("passes") == 1
    soon = replace(never, refinement=((0.0, peak + 0.02),), most_refinements=40, scale=2.0)
    _, record = steered(soon, model)
    assert 1 < record.get("passes", 0) < 41 and min(record.get("last_peaks", [])) >= peak + 0.02


def test_refinement_after_the_guided_steps_makes_no_further_update() -> None:
    settings = Guidance.Settings(steps=0.2, refinement=((0.4, 1.0),), most_refinements=2, scale=0.1)
    _, record = steered(settings, unet(), step=20)
    assert (record.get("passes"), record.get("updates")) == (3, 2)


@pytest.mark.parametrize(
    ("loss", "step", "spans", "said"),
    [
        ("attend_and_excite", 0, [], "1 or more objects"),
        ("iou", 0, SPANS[:1], "2 or more objects"),
        ("attend_and_excite", 25, SPANS, "not guided"),
    ],
)
def test_where_nothing_is_to_be_done_the_latents_come_back(
    loss: Loss, step: int, spans: list[TokenSpan], said: str
) -> None:
    latents, _ = inputs()
    moved, record = steered(replace(ONCE, loss=loss), unet(), step, latents, spans)
    assert moved is latents and said in record.get("note", "")


def test_one_object_can_be_excited() -> None:
    moved, record = steered(ONCE, unet(), spans=SPANS[:1])
    assert not torch.equal(moved, inputs()[0]) and "note" not in record
    assert set(record.get("statistics", {})) == {"intensity", "spread"}


@torch.no_grad()
def test_the_network_is_as_it_was() -> None:
    """Inside a sampling loop without gradient, as it is used; also when a pass fails."""
    model = unet()
    model.conv_in.weight.requires_grad_(False)
    asked = {name: one.requires_grad for name, one in model.named_parameters()}
    weights = {name: one.clone() for name, one in model.state_dict().items()}
    processors = model.attn_processors
    moved, _ = steered(ONCE, model)
    assert not moved.requires_grad and not torch.equal(moved, inputs()[0])
    hook = model.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="in the middle"):
        steered(ONCE, model)
    hook.remove()
    assert {name: one.requires_grad for name, one in model.named_parameters()} == asked
    assert all(one.grad is None for one in model.parameters())
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    assert {name: id(one) for name, one in model.attn_processors.items()} == {k: id(v) for k, v in processors.items()}


def fail(*_: Any) -> None:
    raise ValueError("in the middle")


def test_no_weight_asks_for_gradient_inside() -> None:
    model = unet()
    with frozen(model):
        assert not any(one.requires_grad for one in model.parameters())
    assert all(one.requires_grad for one in model.parameters())


def test_the_floor_counts_beside_the_loss() -> None:
    model = unet()
    plain, weighted = (
        steered(replace(ONCE, loss="iou", floor=0.9, floor_weight=weight), model)[1].get("loss", 0.0)
        for weight in (0.0, 2.0)
    )
    with torch.no_grad(), Capture(model) as capture:
        latents, embeddings = inputs()
        capture.run(latents, 500, embeddings)
    maps = losses.maps_of(capture.mean_map(), [one.tokens for one in SPANS])
    assert weighted == pytest.approx(plain + 2 * float(losses.intensity_floor(maps, 0.9)), abs=1e-5)
    assert weighted > plain + 0.1


def test_the_contrastive_loss_remembers_the_step_before_and_forgets_another_picture() -> None:
    model, (latents, embeddings) = unet(), inputs()
    guidance = Guidance(replace(ONCE, loss="contrastive", scale=0.0))
    other = inputs(seed=7)[0]

    def loss(step: int, given: Tensor) -> float:
        return guidance.steer(model, ddim(), given, step, 50, 500, embeddings, SPANS)[1].get("loss", 0.0)

    alone = loss(0, latents)
    assert loss(1, latents) == pytest.approx(alone, abs=1e-6)
    assert abs(loss(2, other) - loss(0, other)) > 1e-4
    assert loss(0, latents) == pytest.approx(alone, abs=1e-6)


def test_the_end_of_the_text_cuts_the_softmax() -> None:
    model, (latents, embeddings) = unet(), inputs()
    whole, cut = (
        Guidance(ONCE).steer(model, ddim(), latents, 0, 50, 500, embeddings, SPANS, end_of_text=end)[1]
        for end in (None, 6)
    )
    assert all(b > a for a, b in zip(whole.get("peaks", []), cut.get("peaks", []), strict=True))


def test_one_network_is_looked_through_once() -> None:
    """The pass that finds the last layer is made at the first step only."""
    model, (latents, embeddings) = unet(), inputs()
    ends: list[int] = []
    model.conv_out.register_forward_hook(lambda *_: ends.append(1))
    guidance = Guidance(ONCE)
    for step in range(3):
        latents, _ = guidance.steer(model, ddim(), latents, step, 50, 500, embeddings, SPANS)
    assert len(ends) == 1


def test_what_sdxl_wants_besides_reaches_the_network() -> None:
    wanted = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    model = unet(projection_class_embeddings_input_dim=6 * 8 + 16, **wanted)
    latents, embeddings = inputs()
    losses_of = []
    for side in (512.0, 64.0):
        added = {"text_embeds": torch.ones(1, 16), "time_ids": torch.tensor([[side, side, 0, 0, side, side]])}
        moved, record = Guidance(ONCE).steer(model, ddim(), latents, 0, 50, 500, embeddings, SPANS, added)
        assert not torch.equal(moved, latents)
        losses_of.append(record.get("loss", 0.0))
    assert abs(losses_of[0] - losses_of[1]) > 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: replace(ONCE, steps=1.5), "steps holds 1.5"),
        (lambda: replace(ONCE, refinement=((0.1, -1.0),)), "refinement holds -1.0"),
        (lambda: replace(ONCE, scale=-1.0), "0 or more"),
    ],
)
def test_settings_out_of_range_are_said(change: Callable[[], Guidance.Settings], said: str) -> None:
    with pytest.raises(RizbinError, match=said):
        Guidance(change())


def test_two_pictures_at_once_and_a_broken_gradient_are_said() -> None:
    model, (latents, embeddings) = unet(), inputs()
    with pytest.raises(RizbinError, match="one image at a time"):
        Guidance(ONCE).steer(model, ddim(), latents.repeat(2, 1, 1, 1), 0, 50, 500, embeddings, SPANS)
    with pytest.raises(RizbinError, match="not finite"):
        steered(ONCE, model, latents=latents * float("inf"))
    with pytest.raises(RizbinError, match="only 16x16"):
        steered(replace(ONCE, resolution=24), model)
