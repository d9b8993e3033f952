"""What guards the one door (`rizbin.nets.foreign`) while a library reads a model that somebody else made.

No pickle is opened, no code beside weights is imported, and no folder is shown to a library before its checksums, kinds
of files and settings have been looked at. Two of these guards are functions of other libraries replaced for that long
(`_refuse_pickles`, `_refuse_code`). Neither transformers nor diffusers offers a switch that would do: both call their
own loaders of code and of pickles from within, some without handing `trust_remote_code` on. A lock is held meanwhile,
and `tests/nets/test_foreign.py` fails when a library no longer has the functions that are replaced here.
"""

import json
import logging
import re
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch

from rizbin.core.checksums import check_sums
from rizbin.core.errors import RizbinError
from rizbin.nets.weights import reason, refuse

AGAIN = "get the model again"
"""The advice of every refusal for which the person at the keyboard can do no more."""
CODE_LOADERS = ("transformers.dynamic_module_utils", "diffusers.utils.dynamic_modules_utils")
"""Modules that import code which lies beside weights, by `CODE_LOADER` after a question timed by `QUESTION_SECONDS`."""
CODE_LOADER = "get_class_in_module"
QUESTION_SECONDS = "TIME_OUT_REMOTE_CODE"
_LARGEST_JSON = 64 * 2**20
"""Bytes of one JSON file; the largest vocabularies have about 30 MB."""
_LAYERS = 512
"""No network has more layers of one kind; a settings file that names more would be built for hours."""
_COUNTS = re.compile(r"layers|depth|num_labels|num_blocks")
"""Settings whose value is how often something is built."""
_LOCK = threading.RLock()
"""Held while a library reads: what guards it are functions replaced for that long."""


class _Code(Exception):
    """Code beside weights would have been run."""


class _Pickle(Exception):
    """A pickle would have been read."""


@contextmanager
def guarded(name: str | Path, library: str, subfolder: str = "") -> Iterator[None]:
    """Around all that another library does with a model that somebody made."""
    where = part_name(name, subfolder)
    if (folder := Path(where)).is_dir():
        _check_folder(folder)
    try:
        with _LOCK, ExitStack() as stack:
            _refuse_pickles(stack)
            if library != "timm":
                _refuse_code(stack)
            yield
    except RizbinError:
        raise
    except Exception as error:  # of the library, of the file, of the hub's client and the network under it
        raise RizbinError(_sentence(where, library, error)) from error


def _sentence(name: str, library: str, error: Exception) -> str:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 20:
        chain.append(cause)
    if any(isinstance(link, _Code) or "trust_remote_code" in str(link) for link in chain):
        return (
            f"{name} asks for code of its own to be run, and code beside weights is never run; give a model that "
            f"{library} itself knows."
        )
    if any(isinstance(link, _Pickle) for link in chain):
        return (
            f"{name} has no weights in safetensors, and pickles are never read; give one with safetensors, or save it "
            "so with the software that made it."
        )
    return f"{name} could not be loaded by {library} ({reason(error)})."


def _refuse_pickles(stack: ExitStack) -> None:
    """Whatever file a library finds: torch opens no pickle and no TorchScript meanwhile."""

    def refused(*_: Any, **__: Any) -> NoReturn:
        raise _Pickle("a pickle is never read")

    stack.enter_context(_replaced(torch, "load", refused))
    stack.enter_context(_replaced(torch.jit, "load", refused))


def _refuse_code(stack: ExitStack) -> None:
    """Also where a library calls another without a word about trust: no question, and nothing is imported."""

    def refused(*_: Any, **__: Any) -> NoReturn:
        raise _Code("code beside weights is never run")

    for name in CODE_LOADERS:
        try:
            module = import_module(name)
        except ImportError:  # an extra that is not installed; what it would load cannot come in either
            continue
        stack.enter_context(_replaced(module, CODE_LOADER, refused))
        # transformers' own switch: at 0 it refuses where it would else ask at the keyboard, for 15 seconds.
        stack.enter_context(_replaced(module, QUESTION_SECONDS, 0))


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Another library's function or number exchanged for ours until the block ends, however it ends."""
    before = getattr(module, name, None)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)


def _check_folder(folder: Path) -> None:
    """Before a library sees a folder: its checksums, kinds and sizes of files, and settings that are absurd."""
    check_sums(folder)
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if not path.exists():  # a link to nothing: whoever needs the file will miss it
            continue
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise RizbinError(f"{path} is no file that can be read; {AGAIN}.")
        if path.suffix == ".json":
            settings = read_settings(path)
            if path.name in ("config.json", "open_clip_config.json"):
                _check_counts(settings, path)


def _check_counts(value: Any, path: Path, name: str = "") -> None:
    """Refuses settings that would build a network for hours before anything could be compared."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_counts(inner, path, str(key))
    elif isinstance(value, list):
        for inner in value:
            _check_counts(inner, path, name)
    elif isinstance(value, int) and not isinstance(value, bool) and _COUNTS.search(name):
        most = 10**6 if name == "num_labels" else _LAYERS
        if value > most:
            raise RizbinError(f"{path} sets {name} to {value:,}, and no network has more than {most:,}; {AGAIN}.")


def read_settings(path: Path) -> Any:
    """What a JSON file of a foreign folder holds. Raises RizbinError when it is too large or no JSON."""
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_JSON:
            raise RizbinError(f"{path} has {path.stat().st_size:,} bytes, which no settings have; {AGAIN}.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RizbinError(f"{path} cannot be read ({reason(error)}); {AGAIN}.") from error


def weights_in(folder: Path, names: Sequence[str]) -> Path:
    """The one file of weights in safetensors: by its usual names, or the only one."""
    files = [folder / name for name in names if (folder / name).is_file()] or sorted(folder.glob("*.safetensors"))
    if not files:
        raise _Pickle(f"{folder} has no weights in safetensors")
    if files[0].name not in names and len(files) > 1:
        raise RizbinError(f"{folder} has several files of weights ({', '.join(f.name for f in files[:3])}); leave one.")
    return files[0]


def check_report(
    model: Any, report: Mapping[str, Any], name: str, *, heads: bool = False, unused: Sequence[str] = ()
) -> None:
    """What transformers and diffusers say of a loading, refused where it leaves a tensor random or out."""
    computed = {buffer for buffer, _ in model.named_buffers()}
    parts = {part for part, _ in model.named_children()}
    prefix = f"{getattr(model, 'base_model_prefix', '') or '-'}."  # of the model inside one for another task
    foreign = [
        key
        for key in map(str, report["unexpected_keys"])
        if key not in computed
        and not key.endswith("num_batches_tracked")
        and not (heads and key.removeprefix(prefix).split(".")[0] not in parts)
    ]
    refuse(
        missing=[key for key in map(str, report["missing_keys"]) if not key.startswith(tuple(unused))],
        foreign=foreign,
        misshapen=[(str(key), tuple(given), tuple(own)) for key, given, own in report["mismatched_keys"]],
        source=name,
        advice=AGAIN,
    )
    if errors := report.get("error_msgs"):
        raise RizbinError(f"{name} could not be loaded whole ({reason(Exception(errors[0]))}); {AGAIN}.")


def part_name(name: str | Path, subfolder: str) -> str:
    """What messages call a model, or the part of a pipeline."""
    return f"{name}/{subfolder}" if subfolder else str(name)


@contextmanager
def unlogged() -> Iterator[None]:
    """Without warnings that weights are random: they are put in right after, or refused here in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
