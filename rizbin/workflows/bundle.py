"""A trained method as a folder to give away: an OpenCLIP or timm folder with all that it can show, in 16 bits.

    settings.json          the run's settings
    method.safetensors     what the method has beside its encoder: teacher, heads, decoder, centers
    all other files        the encoder, as `rizbin.nets.export` writes it

No optimizer and no checkpoint: it can be measured, looked at and exported, not trained on with the same bits.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from rizbin.core.bounded import read_json
from rizbin.core.checksums import check_sums, write_sums
from rizbin.core.errors import RizbinError
from rizbin.core.settings import to_dict
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import AGAIN, load_encoder, load_pair, save_open_clip, save_timm
from rizbin.nets.weights import check_fit, read_weights, refusing_bad_settings, shapes_of
from rizbin.workflows.runs import LoadedRun, build, training_from

OTHERS = "method.safetensors"


def publish(run: LoadedRun, folder: Path) -> None:
    """Writes the trained method into `folder` (made if missing). Raises RizbinError when that cannot be."""
    encoder = run.encoder
    if isinstance(encoder, ImageTextPair):
        save_open_clip(encoder, folder, half=True)
    else:
        save_timm(encoder, folder, half=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in _others(run.method, encoder).items()}
    try:
        save_file({name: _halved(value) for name, value in tensors.items()}, folder / OTHERS)
        (folder / "settings.json").write_text(json.dumps(to_dict(run.training), indent=2) + "\n", encoding="utf-8")
        write_sums(folder)
    except OSError as error:
        raise RizbinError(
            f"The model could not be written to {folder} ({error.strerror}); choose a folder that can be written."
        ) from error


def is_published(folder: Path) -> bool:
    """Whether the folder is one that `publish` wrote."""
    return (folder / OTHERS).is_file() and (folder / "settings.json").is_file()


def load_published(folder: Path) -> LoadedRun:
    """The method in `folder`, in evaluation mode and 32 bits, as far as it was trained."""
    check_sums(folder)
    try:
        training = training_from(read_json(folder / "settings.json"))
    except (OSError, ValueError) as error:
        raise RizbinError(f"The model in {folder} is damaged ({error}); get it again.") from error
    others = read_weights(folder / OTHERS)
    with refusing_bad_settings(folder):
        with torch.device("meta"):
            shell = build(training)
        check_fit(shapes_of(_others(shell, shell.encoder)), shapes_of(others), folder / OTHERS, AGAIN)
        method = build(training)
    encoder = method.encoder
    own_tensors = _others(method, encoder)
    exported = load_pair(folder) if isinstance(encoder, ImageTextPair) else load_encoder(folder)
    encoder.load_state_dict(exported.state_dict())
    with torch.no_grad():
        for name, value in others.items():
            own_tensors[name].copy_(value)
    return LoadedRun(folder, training, method.eval(), training.steps)


def _others(method: torch.nn.Module, encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The method's tensors that are not the encoder's."""
    shared = {id(value) for value in encoder.state_dict(keep_vars=True).values()}
    return {name: value for name, value in method.state_dict(keep_vars=True).items() if id(value) not in shared}


def _halved(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value
