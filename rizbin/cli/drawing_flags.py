"""What the commands that draw take alike. Apart from them, because tyro is imported when a command runs, not before."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

MODEL = "diffusion-mini"
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What both commands take."""

    model: str = MODEL
    """A pipeline of diffusers by name on Hugging Face or by folder, or a run of `rizbin train diffusion`. The one that
    comes along draws sixteen things (`rizbin zoo diffusion-mini`) at 64 pixels in a second."""
    out: str = "drawn"
    """Folder for the pictures and drawn.json, which tells how each was made."""
    count: int = 1
    """Pictures of each prompt, with the seeds that follow."""
    seed: int = 0
    """Of the first noise; on the processor the same seed gives the same picture."""
    steps: int = 25
    """More are slower and finer; 25 is enough for most schedulers."""
    guidance: float = 5.0
    """How strictly it follows the words; 1 hardly, 5 to 7.5 usual, 4 for diffusion-mini; colors burn at high ones."""
    scheduler: str = "own"
    """own (the model's), ddim, ddpm, pndm, lms, euler, euler-ancestral, heun, kdpm2, kdpm2-ancestral, dpm++,
    dpm++-karras, dpm++-single, deis, unipc, lcm."""
    negative: str = ""
    """What to stay away from."""
    height: int = 0
    """Pixels; 0: the model's own, or with a start picture its shape. Rounded to what can be divided, which is said."""
    width: int = 0
    """Pixels, as height."""
    film: Switch = False
    """Also write how each picture came to be: a strip of what the network saw at each step, a GIF, and a page film.html
    with where each word was read."""
    device: str = "cpu"
    """cpu, cuda, cuda:1."""
    half: Switch = False
    """Weights in 16 bits; for GPUs."""
    offload: Literal["none", "model", "layers"] = "none"
    """Keep only the network at work on the GPU (model), or only its layer (layers): less memory, slower."""
    quiet: Switch = False
    """No progress bar."""


Common = Annotated[Flags, tyro.conf.OmitArgPrefixes]
