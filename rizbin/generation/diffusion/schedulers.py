"""Schedulers of diffusers by short names, and what a network's answer says of the finished image at any step.

Every network sees the same thing, whatever the scheduler keeps: a latent whose signal and noise have squares that add
up to one. So the clean latent is found there, by one formula for each kind of prediction.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError

OWN = "own"
"""The scheduler that the model came with."""
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpm++-single": ("DPMSolverSinglestepScheduler", {"lower_order_final": True, "final_sigmas_type": "zero"}),
    "deis": ("DEISMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
"""Short name -> class of diffusers and what it is given beside the model's own noise."""


def scheduler_named(name: str, own: Any) -> Any:
    """A fresh scheduler with the noise of `own`, the model's. Raises RizbinError naming the choices."""
    import diffusers

    if name == OWN:
        return type(own).from_config(own.config)
    if name not in SCHEDULERS:
        raise RizbinError(f"There is no scheduler {name!r}; choose one of {', '.join((OWN, *SCHEDULERS))}.")
    if is_flow(own):
        raise RizbinError(
            f"This model was trained for straight flows; leave the scheduler at {OWN}, {name} knows noise alone."
        )
    kind, more = SCHEDULERS[name]
    # diffusers keeps apart what a config sets for another class; noise and prediction carry over.
    return getattr(diffusers, kind).from_config(own.config, **more)


def is_flow(scheduler: Any) -> bool:
    """Whether it moves along straight lines from noise to image (Stable Diffusion 3, FLUX)."""
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas", False))


def step_place(scheduler: Any, timestep: Tensor) -> int:
    """The place in the list of noise levels at which the next step will be made, also before the first one."""
    if scheduler.step_index is not None:
        return scheduler.step_index
    if scheduler.begin_index is not None:
        return scheduler.begin_index
    return int(scheduler.index_for_timestep(timestep.to(scheduler.timesteps.device)))


def signal_at(scheduler: Any, timestep: Tensor) -> float:
    """The share of signal in what the network sees at this step, squared: alpha bar of DDPM, from 0 to 1.

    Call it before the scheduler's step. Schedulers whose latents grow with the noise say it by the factor with which
    they shrink them for the network, those that keep a list of noise levels by their place in it, the others by the
    timestep.
    """
    factor = float(scheduler.scale_model_input(torch.ones(1), timestep))
    if factor != 1.0:
        return factor**2
    if hasattr(scheduler, "sigmas") and hasattr(scheduler, "step_index"):
        return 1.0 / (1.0 + float(scheduler.sigmas[step_place(scheduler, timestep)]) ** 2)
    return float(scheduler.alphas_cumprod[int(timestep)])


def clean_latents(
    scheduler: Any, output: Float[Tensor, "*latents"], latents: Float[Tensor, "*latents"], timestep: Tensor
) -> Float[Tensor, "*latents"]:
    """The finished latents as the network sees them at this step; before the scheduler's step.

    `output`: what the network said of `latents` (as the scheduler keeps them) at `timestep`. With a the signal's share,
    x the scaled latents: (x - sqrt(1 - a) e) / sqrt(a) for predicted noise e, sqrt(a) x - sqrt(1 - a) v for v (arXiv
    2202.00512), the output itself for a predicted sample; latents - sigma u for flows (arXiv 2210.02747).
    Raises RizbinError for another kind of prediction.
    """
    if is_flow(scheduler):
        return latents - float(scheduler.sigmas[step_place(scheduler, timestep)]) * output
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "sample":
        return output
    share = signal_at(scheduler, timestep)
    seen = scheduler.scale_model_input(latents, timestep)
    if kind == "epsilon":
        # Where nearly all is noise (zero terminal signal), dividing by what is left would only amplify errors.
        return (seen - (1 - share) ** 0.5 * output) / max(share, 1e-6) ** 0.5
    if kind == "v_prediction":
        return share**0.5 * seen - (1 - share) ** 0.5 * output
    raise RizbinError(f"This scheduler predicts {kind!r}; epsilon, v_prediction, sample and flows are known.")
