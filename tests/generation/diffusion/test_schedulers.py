"""Every scheduler on offer: the finished picture at each step, steps of a start picture, the same seed."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.schedulers import OWN, SCHEDULERS, clean_latents, scheduler_named
from rizbin.generation.diffusion.small import new_scheduler
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage
from rizbin.workflows.load import load_text_to_image
from tests.generation.diffusion.small_painters import painter

# Said by diffusers' own lines about numpy 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning"),
]
NAMES = (OWN, *SCHEDULERS)
NO_SAMPLE = {"pndm", "euler-ancestral", "kdpm2", "kdpm2-ancestral"}
"""What diffusers cannot use with networks that predict the sample itself."""


def signal(timestep: float) -> float:
    """Alpha bar at a timestep that may lie between two, from the noise levels' logarithms."""
    kept = new_scheduler().alphas_cumprod.double()
    levels = ((1 - kept) / kept).sqrt().log()
    low = math.floor(timestep)
    high, part = min(low + 1, len(kept) - 1), timestep - low
    level = math.exp(float(levels[low] * (1 - part) + levels[high] * part))
    return 1 / (1 + level * level)


CASES = [(name, kind) for name in NAMES for kind in ("epsilon", "v_prediction")]
CASES += [(name, "sample") for name in NAMES if name not in NO_SAMPLE]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_finished_picture_is_known_at_every_step(name: str, kind: str) -> None:
    """An oracle that knows the picture: at each step its answer must lead back to just that picture."""
    own = type(new_scheduler()).from_config(new_scheduler().config, prediction_type=kind)
    scheduler = scheduler_named(name, own)
    scheduler.set_timesteps(8)
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(1, 4, 8, 8, generator=generator)
    latents = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    # Karras' noise levels lie between timesteps and are rounded to them: the oracle, who goes by timesteps, is off.
    tolerance = 1e-2 if "karras" in name else 2e-5
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, timestep)
        share = signal(float(timestep))
        noise = (seen - share**0.5 * wanted) / (1 - share) ** 0.5
        output = {
            "epsilon": noise,
            "v_prediction": share**0.5 * noise - (1 - share) ** 0.5 * wanted,
            "sample": wanted,
        }[kind]
        clean = clean_latents(scheduler, output, latents, timestep)
        torch.testing.assert_close(clean, wanted, rtol=0, atol=tolerance)
        more = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        latents = scheduler.step(output, timestep, latents, **more).prev_sample


def test_flows_are_straight() -> None:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(5)
    wanted, noise = torch.randn(2, 1, 4, 8, 8)
    latents = noise
    for timestep in scheduler.timesteps:
        output = noise - wanted
        torch.testing.assert_close(clean_latents(scheduler, output, latents, timestep), wanted, rtol=0, atol=2e-6)
        latents = scheduler.step(output, timestep, latents).prev_sample
    with pytest.raises(RizbinError, match="straight flows"):
        scheduler_named("euler", scheduler)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_a_start_picture_takes_its_share_of_the_steps(name: str, strength: float) -> None:
    start = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sampling = Sampling(steps=5, scheduler=name, strength=strength, guidance_scale=2.0)
    painted = painter().paint("a zebra", sampling, start=start)
    scheduler = scheduler_named(name, painter().pipeline.scheduler)
    steps = painter().timesteps(scheduler, sampling, from_image=True)
    assert [frame.timestep for frame in painted.frames] == [float(one) for one in steps]
    if strength == 0:
        assert not painted.frames
        kept = painter().decode(painter().encode(start, 32, 32))
        np.testing.assert_array_equal(painted.image, kept)
    if strength == 1:
        alone = painter().paint("a zebra", sampling)
        np.testing.assert_array_equal(painted.image, alone.image)
        assert len(painted.frames) == len(alone.frames) >= 5
    if strength == 0.4:
        assert 0 < len(painted.frames) < len(painter().paint("a zebra", sampling).frames)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_a_picture(name: str) -> None:
    sampling = Sampling(steps=3, scheduler=name)
    first, again = (painter().paint("a frog", sampling) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    other = painter().paint("a frog", Sampling(steps=3, scheduler=name, seed=1))
    assert (first.image != other.image).mean() > 0.5


def test_our_loop_draws_what_the_pipeline_of_diffusers_draws() -> None:
    """Text to picture by DDIM and by Euler, with guidance and a negative prompt: the same pixels."""
    for name in ("ddim", "euler"):
        sampling = Sampling(steps=4, scheduler=name, guidance_scale=3.0, negative="a taxi", seed=3)
        ours = painter().paint("a zebra and a frog", sampling).image
        pipeline = painter().pipeline
        kept, pipeline.scheduler = pipeline.scheduler, scheduler_named(name, pipeline.scheduler)
        theirs = pipeline(
            "a zebra and a frog",
            negative_prompt="a taxi",
            num_inference_steps=4,
            guidance_scale=3.0,
            height=32,
            width=32,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images[0]
        pipeline.scheduler = kept
        # A pixel may be rounded the other way.
        assert np.abs(ours.astype(int) - (theirs * 255).round().astype(int)).max() <= 1


def test_unknown_schedulers_are_named() -> None:
    with pytest.raises(RizbinError, match="There is no scheduler 'eular'; choose one of own, ddim"):
        TextToImage(painter().pipeline).paint("a zebra", Sampling(scheduler="eular"))


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8])
def test_a_picture_is_redrawn_alike_by_every_scheduler_without_chance(strength: float) -> None:
    """Ten steps of diffusion-mini beside DDIM's, in gray levels. Those that keep slopes of steps before, LMS and PNDM,
    were 17 to 23 off when they went by their place in the whole schedule; second orders that begin well are up to 6."""
    painter = load_text_to_image("diffusion-mini")
    start = painter.paint("a taxi", Sampling(steps=10, guidance_scale=4.0, scheduler="ddim", seed=1)).image

    def redrawn(name: str) -> np.ndarray:
        sampling = Sampling(steps=10, guidance_scale=4.0, scheduler=name, strength=strength)
        return painter.paint("a zebra", sampling, start=start).image.astype(int)

    expected = redrawn("ddim")
    for name in ("euler", "lms", "pndm", "heun", "dpm++", "deis", "unipc"):
        assert np.abs(redrawn(name) - expected).mean() < 8, name


def test_pndm_of_a_picture_takes_its_first_step_in_two_looks() -> None:
    """As at the beginning of a full run, whatever the model's own settings are; one step alone is one look."""
    own = type(new_scheduler()).from_config(new_scheduler().config)
    for strength, expected in ((0.5, [401, 301, 301, 201, 101, 1]), (0.2, [101, 1, 1]), (0.1, [1])):
        for skips in (True, False):
            scheduler = scheduler_named("pndm", own)
            scheduler.register_to_config(skip_prk_steps=skips)
            made = painter().timesteps(scheduler, Sampling(steps=10, strength=strength), from_image=True)
            assert made.tolist() == expected
