"""Weights from files: read from safetensors alone, and compared by name and shape with the network that wants them.

What is missing would stay random, and what is foreign would be dropped, both without a word: neither is ever done here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rizbin.core.errors import RizbinError

Shape = tuple[int, ...]
Network = TypeVar("Network", bound=nn.Module)
NAMED = 3
"""Tensors that a message names of each kind; more would bury the sentence."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises RizbinError when there is none or it is damaged."""
    _check_file(path)
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type for a damaged file
        raise _damaged(path, error) from error


def read_shapes(path: Path) -> dict[str, Shape]:
    """The shapes of a safetensors file's tensors, of which none is read. Raises RizbinError as `read_weights` does."""
    _check_file(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    except Exception as error:  # safetensors raises its own type for a damaged file
        raise _damaged(path, error) from error


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shape of each tensor."""
    return {name: tuple(value.shape) for name, value in tensors.items()}


def check_fit(
    own: Mapping[str, Shape], given: Mapping[str, Shape], source: object, advice: str, *, to: str = "its settings"
) -> None:
    """Raises RizbinError that names the tensors where the `given` shapes are not those that a network has of its `own`.

    source, to: where they come from and what they do not fit, for the message; advice: what to do, its end.
    """
    refuse(
        missing=[name for name in own if name not in given],
        foreign=[name for name in given if name not in own],
        misshapen=[(name, given[name], own[name]) for name in own if name in given and own[name] != given[name]],
        source=source,
        advice=advice,
        to=to,
    )


def refuse(
    *,
    missing: Sequence[str],
    foreign: Sequence[str],
    misshapen: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    source: object,
    advice: str,
    to: str = "its settings",
) -> None:
    """Raises RizbinError where any is not empty; `misshapen` has the shape in the file, then that in the network."""
    parts = []
    if missing:
        parts.append(f"{_counted(len(missing), 'is', 'are')} missing ({_listed(missing)})")
    if foreign:
        parts.append(f"{_counted(len(foreign), 'is', 'are')} foreign ({_listed(foreign)})")
    if misshapen:
        shown = [f"{name} is {_by(given)} instead of {_by(own)}" for name, given, own in misshapen]
        parts.append(f"{_counted(len(misshapen), 'has', 'have')} another shape ({_listed(shown)})")
    if parts:
        joined = f"{', '.join(parts[:-1])} and {parts[-1]}" if parts[1:] else parts[0]
        raise RizbinError(f"The weights of {source} do not fit {to}: {joined}; {advice}.")


def fitted(build: Callable[[], Network], given: Mapping[str, Tensor], source: object, advice: str) -> Network:
    """The network that `build` makes, with the `given` weights, which are compared first.

    It is built without memory for the comparison, so that absurd settings cost none. Raises RizbinError when they
    cannot be built or the weights do not fit.
    """
    with refusing_bad_settings(source):
        with torch.device("meta"):
            own = shapes_of(build().state_dict())
        check_fit(own, shapes_of(given), source, advice)
        made = build()
        made.load_state_dict(dict(given))
    return made


@contextmanager
def refusing_bad_settings(source: object) -> Iterator[None]:
    """Around the building of a network from settings that somebody wrote: what it raises becomes one sentence."""
    try:
        yield
    except RizbinError:
        raise
    except Exception as error:  # of torch, timm and transformers: each has its own for numbers that cannot be
        raise RizbinError(
            f"No network can be built from the settings of {source} ({reason(error)}); restore them, or get the model "
            "again."
        ) from error


def reason(error: BaseException, most: int = 200) -> str:
    """The error's own words on one line, the beginning of them."""
    text = " ".join(str(error).split())
    return text[:most].rstrip(" .:;,") or type(error).__name__


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise RizbinError(f"There are no weights {path}; give the folder of a model, or export it again.")


def _damaged(path: Path, error: Exception) -> RizbinError:
    return RizbinError(f"The weights in {path} are damaged ({reason(error)}); export the model again, or get it again.")


def _counted(count: int, singular: str, many: str) -> str:
    return f"1 tensor {singular}" if count == 1 else f"{count} tensors {many}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:NAMED]) + ", ..." * (len(names) > NAMED)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"
