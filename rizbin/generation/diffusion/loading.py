"""Pipelines of diffusers from a folder or by name: safetensors alone, never code that comes with the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError
from rizbin.nets.foreign import INDEX, diffusers_pipeline

Offload = Literal["none", "model", "layers"]


def is_pipeline(folder: str | Path) -> bool:
    """Whether diffusers wrote the folder."""
    return (Path(folder) / INDEX).is_file()


def load_pipeline(name: str | Path, *, device: str = "cpu", half: bool = False, offload: Offload = "none") -> Any:
    """A pipeline of diffusers, ready to draw.

    half: weights in 16 bits, for GPUs. offload: keep on the device only the network at work ("model") or only its layer
    at work ("layers": slow, least memory). Safety checkers are not loaded: they only blacken what is already drawn.
    Raises RizbinError with one sentence for a folder that is no pipeline or lacks a file, and for an unknown name.
    """
    try:
        import diffusers
    except ImportError as error:
        raise RizbinError(
            "Drawing needs diffusers, which is not installed: pip install 'rizbin[generate]' brings it."
        ) from error
    assert diffusers is not None

    folder = Path(name)
    if folder.exists():
        _check_folder(folder)
    elif "/" not in str(name):
        raise RizbinError(
            f"There is neither a folder nor a bundled model named {str(name)!r}; names on Hugging Face have "
            "a /, and `rizbin train diffusion` makes a small model."
        )
    with _quietly():
        pipeline = diffusers_pipeline(name, dtype=torch.float16 if half else torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if offload == "none":
        return pipeline.to(device)
    if device == "cpu":
        raise RizbinError("On the processor there is nothing to offload to; leave --offload at none.")
    (pipeline.enable_model_cpu_offload if offload == "model" else pipeline.enable_sequential_cpu_offload)(device=device)
    return pipeline


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and remarks that reading a second's worth of weights gives; downloads show their own."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    verbosity = of_diffusers.get_verbosity()
    bars = of_transformers.is_progress_bar_enabled()
    of_diffusers.set_verbosity_error()
    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(verbosity)
        of_diffusers.enable_progress_bar()
        if bars:
            of_transformers.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    """Raises RizbinError naming the missing file, in place of the longer message of diffusers."""
    import diffusers

    path = folder / INDEX
    if not path.is_file():
        raise RizbinError(f"{folder} is no pipeline of diffusers: it lacks {INDEX}.")
    try:
        index = read_json(path)
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RizbinError(f"{path} cannot be read; save the pipeline again.") from error
    try:  # diffusers imports a class when it is first asked for
        known = hasattr(diffusers, str(kind))
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise RizbinError(
            f"diffusers is installed and cannot be imported ({reason.rstrip('.')}); install what is missing, or remove "
            "the package that is only half installed."
        ) from error
    if not known:
        raise RizbinError(f"{path} asks for {kind}, which diffusers does not have; code beside weights is never run.")
    for part, entry in index.items():
        if part.startswith("_") or not isinstance(entry, list) or None in entry or part == "safety_checker":
            continue
        if not (folder / part).is_dir():
            raise RizbinError(f"{folder} is not whole: the folder {part} is missing.")
        module = str(entry[1])
        if "Tokenizer" in module or "Scheduler" in module or "Processor" in module or "Extractor" in module:
            continue
        for needed in ("config.json", "*.safetensors"):
            if not any((folder / part).glob(needed)):
                what = "weights in safetensors" if "*" in needed else needed
                raise RizbinError(f"{folder} is not whole: {part} lacks {what}.")
