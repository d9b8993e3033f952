"""Everything that Rizbin needs of diffusers without diffusers promising it, in this one place.

diffusers' public interface runs whole pipelines. Steering single steps, beginning in the middle of a schedule and
watching a pipeline that runs by itself need a little more. Each function says why, and a test compares it with what
diffusers itself does (tests/generation/diffusion/test_diffusers_internals.py), so that a later version is noticed.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.generation.diffusion.schedulers import clean_latents

EDIT_ORDER = 2
"""Highest order of LMS and PNDM from an image. Its first slopes are not those of a path that the network would take,
and with few steps the orders 3 and 4 carry that jump on, larger from step to step (Adams-Bashforth is stable up to 1,
0.55 and 0.3 at the orders 2, 3 and 4, and late steps are near 0.9). Ten steps of diffusion-mini at strength 0.5 then
end 2 gray levels from DDIM's; at order 4 it is 17."""
_ORDER = 4
"""Highest order of PNDM, and of an LMS that does not say its own."""


def execution_device(pipeline: Any) -> torch.device:
    """The device on which a pipeline computes.

    With offloading its parts rest on the processor, which the public `device` then names; where they are brought for
    their work only this private property says.
    """
    return torch.device(pipeline._execution_device)


def unpacked(
    latents: Float[Tensor, "batch patches features"], height: int, width: int, factor: int
) -> Float[Tensor, "batch channels rows columns"]:
    """FLUX's latents, patches of two by two in a row, as the autoencoder knows them.

    height, width: of the image in pixels; factor: pixels along a side of one latent. diffusers has the same as a
    private method of one of its pipelines.
    """
    rows, columns = height // (2 * factor), width // (2 * factor)
    grid = latents.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def size_ids(height: int, width: int, dtype: torch.dtype) -> Float[Tensor, "1 6"]:
    """What Stable Diffusion XL reads of sizes: of the original, its cropped corner and the target, none of it cropped.

    Source: arXiv 2307.01952, section 2.2. diffusers has the same as a private method of its pipeline.
    """
    return torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype)


def late_timesteps(scheduler: Any, made: int, steps: int) -> Tensor:
    """The timesteps of the last `made` of the `steps` of a schedule, from which the scheduler then begins.

    Schedulers offer `set_begin_index` for that, but PNDM. Its first step is made in two looks, which it tells apart by
    counting its calls; cut out of a full run they would be two steps, the second of which goes nowhere. So its list is
    made again with the first of the late steps in two looks. Runge-Kutta steps, of a full run alone, are left out.
    """
    if hasattr(scheduler, "plms_timesteps"):
        scheduler.register_to_config(skip_prk_steps=True)
        scheduler.prk_timesteps = np.array([])
        late = np.asarray(scheduler._timesteps)[::-1][-made:].astype(np.int64)
        scheduler.plms_timesteps = np.concatenate([late[:2], late[1:]])
        scheduler.timesteps = torch.from_numpy(scheduler.plms_timesteps.copy()).to(scheduler.timesteps.device)
        return scheduler.timesteps
    first = (steps - made) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def make_step(
    scheduler: Any,
    output: Tensor,
    timestep: Tensor,
    latents: Tensor,
    *,
    step: int,
    from_noise: bool,
    generator: torch.Generator,
) -> Tensor:
    """The latents after step number `step` (from 0), from what the network said of those before it.

    generator: for schedulers that add noise. A step's slope is extrapolated from those of the steps before; of steps
    that were never made it must not be, and from an image its order is bounded by `EDIT_ORDER`. LMS takes an order,
    but counts it from the beginning of the whole schedule; PNDM takes none, so the slopes that it keeps are shortened.
    """
    parameters = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"generator": generator} if "generator" in parameters else {}
    most = parameters["order"].default if "order" in parameters else _ORDER
    if not from_noise:
        most = min(most, EDIT_ORDER)
    if "order" in parameters:
        options["order"] = min(step + 1, most)
    elif hasattr(scheduler, "ets"):
        scheduler.ets = scheduler.ets[max(len(scheduler.ets) + 1 - most, 0) :]
    return scheduler.step(output, timestep, latents, **options).prev_sample


@contextmanager
def watched_steps(pipeline: Any, scheduler: Any, watch: Callable[[int, float, Tensor], object]) -> Iterator[None]:
    """Lets a pipeline run by `scheduler`, whose every step is shown: its number, timestep and the clean latents.

    A pipeline's own callback gives the latents after a step, but not what the network said, from which the clean ones
    follow. So the method `step` of this one scheduler, made for this run alone, is wrapped; the pipeline gets its own
    scheduler back at the end, whatever happened.
    """
    own, make, count = pipeline.scheduler, scheduler.step, 0

    def shown(output: Tensor, timestep: Tensor, latents: Tensor, *rest: Any, **options: Any) -> Any:
        nonlocal count
        clean = clean_latents(scheduler, output, latents, timestep)
        watch(count, float(timestep), clean.detach().cpu())
        count += 1
        return make(output, timestep, latents, *rest, **options)

    scheduler.step = shown
    pipeline.scheduler = scheduler
    try:
        yield
    finally:
        pipeline.scheduler = own
        del scheduler.step
