"""What is used of diffusers without being promised is still there and means what it meant."""

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rizbin.generation.diffusion.diffusers_internals import (
    execution_device,
    late_timesteps,
    make_step,
    size_ids,
    unpacked,
    watched_steps,
)
from rizbin.generation.diffusion.schedulers import OWN, SCHEDULERS, scheduler_named, step_place
from rizbin.generation.diffusion.small import new_scheduler
from tests.generation.diffusion.small_painters import flow_painter, painter

# Said by diffusers' own lines about numpy 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning"),
]


def test_patches_and_sizes_are_those_of_diffusers_own_pipelines() -> None:
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    latents = torch.randn(2, 2 * 3, 16)
    theirs = FluxPipeline._unpack_latents(latents, 32, 48, 8)
    assert theirs.shape == (2, 4, 4, 6) and torch.equal(unpacked(latents, 32, 48, 8), theirs)
    pipeline: Any = SimpleNamespace(
        unet=SimpleNamespace(
            config=SimpleNamespace(addition_time_embed_dim=2),
            add_embedding=SimpleNamespace(linear_1=SimpleNamespace(in_features=6 * 2 + 16)),
        )
    )
    sizes: dict[str, Any] = {"dtype": torch.float16, "text_encoder_projection_dim": 16}
    theirs = StableDiffusionXLPipeline._get_add_time_ids(pipeline, (64, 96), (0, 0), (64, 96), **sizes)
    ours = size_ids(64, 96, torch.float16)
    assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_a_pipeline_says_where_it_computes() -> None:
    assert execution_device(painter().pipeline) == torch.device("cpu")


@pytest.mark.parametrize("name", [OWN, *SCHEDULERS])
def test_the_place_before_the_first_step_is_the_one_diffusers_takes(name: str) -> None:
    for begin in (0, 3):
        ours, theirs = (scheduler_named(name, new_scheduler()) for _ in range(2))
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(8)
            if begin and hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(begin)
        if not hasattr(theirs, "step_index"):
            continue
        timestep = theirs.timesteps[begin]
        theirs._init_step_index(timestep)
        assert step_place(ours, timestep) == theirs.step_index
        assert ours.step_index is None, "what is looked up changes nothing"


def test_the_late_steps_of_pndm_are_those_of_a_short_run() -> None:
    """Its own full run makes the first step in two looks; so does one that begins late, at the late timesteps."""
    scheduler = scheduler_named("pndm", new_scheduler())
    scheduler.set_timesteps(6)
    whole = scheduler.timesteps.tolist()
    assert whole[1] == whole[2], "two looks"
    late = late_timesteps(scheduler, 3, 6).tolist()
    assert late == [whole[-3], whole[-2], whole[-2], whole[-1]] == scheduler.timesteps.tolist()
    assert not len(scheduler.prk_timesteps) and list(scheduler.plms_timesteps) == late
    generator, latents = torch.Generator().manual_seed(0), torch.randn(1, 4, 8, 8)
    for step, timestep in enumerate(scheduler.timesteps):
        latents = make_step(
            scheduler, 0.1 * latents, timestep, latents, step=step, from_noise=False, generator=generator
        )
        assert len(scheduler.ets) <= 2, "slopes of at most two steps"
    assert bool(torch.isfinite(latents).all())


@pytest.mark.parametrize("name", [OWN, *SCHEDULERS])
def test_a_step_from_noise_is_the_schedulers_own(name: str) -> None:
    ours, theirs = (scheduler_named(name, new_scheduler()) for _ in range(2))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    results: list[Tensor] = []
    for scheduler, generator in zip((ours, theirs), generators, strict=True):
        scheduler.set_timesteps(6)
        latents = start * scheduler.init_noise_sigma
        for step, timestep in enumerate(scheduler.timesteps):
            output = 0.1 * scheduler.scale_model_input(latents, timestep)
            if scheduler is ours:
                latents = make_step(
                    scheduler, output, timestep, latents, step=step, from_noise=True, generator=generator
                )
            else:
                takes = inspect.signature(scheduler.step).parameters
                more: dict[str, Any] = {"generator": generator} if "generator" in takes else {}
                latents = scheduler.step(output, timestep, latents, **more).prev_sample
        results.append(latents)
    assert torch.equal(*results)


def test_a_watched_scheduler_is_as_before_afterwards() -> None:
    pipeline = flow_painter().pipeline
    own = pipeline.scheduler
    scheduler = scheduler_named(OWN, own)
    with pytest.raises(ValueError, match="planted"), watched_steps(pipeline, scheduler, lambda *_: None):
        assert pipeline.scheduler is scheduler and "step" in vars(scheduler)
        raise ValueError("planted")
    assert pipeline.scheduler is own and "step" not in vars(scheduler)


def test_lms_and_pndm_still_have_what_bounds_their_order() -> None:
    """Without it steps from a picture would be extrapolated from steps that were never made."""
    lms, pndm = (scheduler_named(name, new_scheduler()) for name in ("lms", "pndm"))
    assert inspect.signature(lms.step).parameters["order"].default == 4
    pndm.set_timesteps(6)
    assert pndm.ets == [] and isinstance(np.asarray(pndm._timesteps), np.ndarray)
