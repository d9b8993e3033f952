"""The one door through which models of other software come in: transformers, open_clip, timm, diffusers.

Whoever made such a folder may mean harm, or have lost half of it. So behind this door no code that lies beside weights
is run and nobody is asked whether it should be; weights are read from safetensors alone, never from a pickle; tensors
that are missing, foreign or of another shape are named and refused, for else they would be random numbers; and what a
library raises becomes one sentence. No other module calls `from_pretrained` or `create_model` (tests).
"""

import json
import logging
import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from torch import nn

from rizbin.core.checksums import check_sums
from rizbin.core.errors import RizbinError
from rizbin.nets.weights import check_fit, read_shapes, read_weights, reason, refuse, shapes_of

_LARGEST_JSON = 64 * 2**20
"""Bytes of one JSON file; the largest vocabularies have about 30 MB."""
_LAYERS = 512
"""No network has more layers of one kind; a settings file that names more would be built for hours."""
_COUNTS = re.compile(r"layers|depth|num_labels|num_blocks")
"""Settings whose value is how often something is built."""
_AGAIN = "get the model again"
_ONE = threading.RLock()
"""Held while a library reads: what guards it are functions replaced for that long."""


class _Code(Exception):
    """Code beside weights would have been run."""


class _Pickle(Exception):
    """A pickle would have been read."""


def written_by(folder: Path) -> str:
    """Whose folder it is, by what its config.json holds: "timm", "transformers", or "" for neither.

    Raises RizbinError when there is no config.json that can be read.
    """
    if not (folder / "config.json").is_file():
        raise RizbinError(f"{folder} holds no config.json; give a folder that timm or transformers saved.")
    config = _json(folder / "config.json")
    if not isinstance(config, Mapping):
        return ""
    return "timm" if "architecture" in config else "transformers" if "model_type" in config else ""


# ---- transformers ----------------------------------------------------------------------------------------------------


def transformers_config(name: str | Path) -> Any:
    """What config.json of a folder, or of a name on Hugging Face, says."""
    from transformers import AutoConfig

    with _guarded(name, "transformers"):
        return AutoConfig.from_pretrained(str(name), trust_remote_code=False)


def transformers_model(
    kind: Any, name: str | Path, *, heads: bool = False, unused: Sequence[str] = (), subfolder: str = "", **more: Any
) -> Any:
    """A model of transformers, by name on Hugging Face or from a folder.

    Args:
        kind: Its class, or AutoModel.
        name: The folder or the name.
        heads: Leave out what belongs to no part of the model: the head of another task.
        unused: Beginnings of the names of tensors that nobody will ask for, and that may be missing.
        subfolder: Of a pipeline's part.
        more: For `from_pretrained`.
    """
    with _guarded(name, "transformers", subfolder), _unlogged():
        asked = {**more, "subfolder": subfolder} if subfolder else more
        model, report = kind.from_pretrained(
            str(name),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, all of them by name
            **asked,
        )
    _check_report(model, report, _part(name, subfolder), heads=heads, unused=unused)
    return model


def transformers_untrained(name: str | Path, **more: Any) -> Any:
    """The same network with random weights, for comparison."""
    from transformers import AutoModel

    config = transformers_config(name)
    with _guarded(name, "transformers"):
        return AutoModel.from_config(config, trust_remote_code=False, **more)


def transformers_tokenizer(name: str | Path) -> Any:
    """The tokenizer beside a model."""
    from transformers import AutoTokenizer

    with _guarded(name, "transformers"):
        return AutoTokenizer.from_pretrained(str(name), trust_remote_code=False)


def transformers_processor(kind: Any, name: str | Path) -> Any:
    """What prepares pictures for a model; `kind` is its class."""
    with _guarded(name, "transformers"):
        return kind.from_pretrained(str(name), trust_remote_code=False)


# ---- timm ------------------------------------------------------------------------------------------------------------


def timm_by_name(name: str, *, pretrained: bool = False, **more: Any) -> nn.Module:
    """A network of timm's own list, as "vit_small_patch16_224" or with the name of its weights.

    Names that lead elsewhere ("local-dir:...", "hf-hub:...") are none: a settings file shall not lead out of its
    folder. Raises what timm raises, for the caller to say what was asked for; RizbinError for another name.
    """
    if not timm.is_model(name.partition(".")[0]) or re.search(r"[:/\\]", name):
        raise RizbinError(f"timm has no model '{name}'; timm.list_models('vit_*') names what there is.")
    if not pretrained:
        return timm.create_model(name, pretrained=False, **more)
    with _guarded(name, "timm"):
        return timm.create_model(name, pretrained=True, **more)


def timm_from_hub(name: str, *, pretrained: bool = True, **more: Any) -> nn.Module:
    """A network by its name on Hugging Face, OWNER/NAME."""
    with _guarded(name, "timm"):
        return timm.create_model(f"hf-hub:{name}", pretrained=pretrained, **more)


def timm_from_folder(folder: Path, *, pretrained: bool = True, **more: Any) -> nn.Module:
    """The network in a folder that timm saved: config.json and model.safetensors."""
    with _guarded(folder, "timm"):
        config = _json(folder / "config.json")
        _check_timm_config(config, folder)

        def build() -> nn.Module:
            return timm.create_model(f"local-dir:{folder}", pretrained=False, **more)

        if not pretrained:
            return build()
        weights = _weights_in(folder, ("model.safetensors",))
        given = read_weights(weights)
        with torch.device("meta"):
            shell = build()
        own = shapes_of(shell.state_dict())
        # Older files hold what is computed today (Swin's indices of positions).
        computed = {name for name, _ in shell.named_buffers()} - set(own)
        given = {name: value for name, value in given.items() if name not in computed}
        check_fit(own, shapes_of(given), folder, _AGAIN)
        model = build()
        model.load_state_dict(given)
        return model


def _check_timm_config(config: Any, folder: Path) -> None:
    name = str(config.get("architecture", "")) if isinstance(config, Mapping) else ""
    if not timm.is_model(name):
        raise RizbinError(f"{folder / 'config.json'} asks for the network '{name}', which timm does not have.")


# ---- open_clip -------------------------------------------------------------------------------------------------------


def open_clip_from_folder(folder: Path, *, device: str = "cpu") -> tuple[Any, Any]:
    """The model and the tokenizer in a folder of open_clip: open_clip_config.json and weights in safetensors."""
    import open_clip
    from open_clip.convert import convert_state_dict

    spelled = f"local-dir:{folder}"
    with _guarded(folder, "open_clip"):
        config = _json(folder / "open_clip_config.json")
        own_words = _check_open_clip_config(config, folder)
        weights = _weights_in(
            folder, ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
        )
        untrained: dict[str, Any] = {"load_weights": False, "pretrained_text": False}
        with torch.device("meta"), _unlogged():
            shell: Any = open_clip.create_model(spelled, device="meta", **untrained)
        given = convert_state_dict(shell, read_weights(weights))
        own = shell.state_dict()
        # Scalars are sometimes kept as rows of one number.
        given = {
            name: value.reshape(own[name].shape) if name in own and value.numel() == own[name].numel() == 1 else value
            for name, value in given.items()
        }
        check_fit(shapes_of(own), shapes_of(given), folder, _AGAIN)
        with _unlogged():
            model: Any = open_clip.create_model(spelled, device=device, **untrained)
        model.load_state_dict(given)
        if own_words is not None:
            return model, open_clip.SimpleTokenizer(str(own_words), context_length=model.context_length)
        return model, open_clip.get_tokenizer(spelled)


def open_clip_untrained(name: str | Path) -> Any:
    """The same network with random weights, for comparison: of a folder, or of a name in open_clip's own list."""
    import open_clip

    with _guarded(name, "open_clip"):
        folder = Path(name)
        if folder.is_dir():
            _check_open_clip_config(_json(folder / "open_clip_config.json"), folder)
        with _unlogged():
            return open_clip.create_model(
                f"local-dir:{folder}" if folder.is_dir() else str(name), load_weights=False, pretrained_text=False
            )


def open_clip_by_name(name: str, *, pretrained: str = "", device: str = "cpu") -> tuple[Any, Any]:
    """The model and the tokenizer of a name in open_clip's own list ("ViT-B-32") and of its weights."""
    import open_clip

    with _guarded(name, "open_clip"):
        if ":" in name or name.replace("/", "-") not in open_clip.list_models():
            raise RizbinError(f"{name} could not be loaded by open_clip: its list has no such model.")
        if pretrained and Path(pretrained).exists():
            raise RizbinError(
                f"{pretrained} is a file or folder; give the name of published weights, or a folder alone."
            )
        # strict: what is missing or foreign raises.
        model = open_clip.create_model(
            name, pretrained=pretrained or None, device=device, require_pretrained=bool(pretrained)
        )
        return model, open_clip.get_tokenizer(name)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without warnings that weights are random: they are put in right after, or refused here in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _check_open_clip_config(config: Any, folder: Path) -> Path | None:
    """Refuses a configuration that leads out of its folder; returns the vocabulary in it, where there is one."""
    where = folder / "open_clip_config.json"
    try:
        vision, text = (config["model_cfg"][tower] for tower in ("vision_cfg", "text_cfg"))
        backbone, words = vision.get("timm_model_name", ""), text.get("hf_model_name", "")
    except (KeyError, TypeError, AttributeError) as error:
        raise RizbinError(f"{where} describes no model of open_clip; {_AGAIN}.") from error
    if backbone and not timm.is_model(str(backbone)):
        raise RizbinError(f"{where} asks for the network '{backbone}', which timm does not have.")
    if words and (str(words).startswith((".", "/", "~")) or os.path.isdir(str(words))):
        raise RizbinError(f"{where} leads out of its folder, to '{words}'; {_AGAIN}.")
    asked = text.get("tokenizer_kwargs") or {}
    if "bpe_path" in asked:
        raise RizbinError(f"{where} leads out of its folder, to '{asked['bpe_path']}'; {_AGAIN}.")
    # What Rizbin exported holds its merges too; so no package is needed that open_clip itself would want for it.
    own = folder / "vocabulary.txt.gz"
    return own if own.is_file() else None


# ---- diffusers -------------------------------------------------------------------------------------------------------

_LIBRARIES = ("diffusers", "transformers")
INDEX = "model_index.json"


def diffusers_pipeline(name: str | Path, *, dtype: torch.dtype) -> Any:
    """A pipeline of diffusers, its networks checked one by one. Safety checkers are left out."""
    import diffusers
    import transformers
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    with _guarded(name, "diffusers"):
        loaded: Any = DiffusionPipeline.load_config(str(name))
        index: dict[str, Any] = dict(loaded)
        _check_index(index, name)
        networks = (ModelMixin, transformers.PreTrainedModel)
        made: dict[str, Any] = {}
        for part, (library, kind) in _parts(index).items():
            found = getattr(diffusers if library == "diffusers" else transformers, kind, None)
            if isinstance(found, type) and issubclass(found, networks):
                if issubclass(found, transformers.PreTrainedModel):
                    made[part] = transformers_model(found, name, subfolder=part, dtype=dtype)
                else:
                    made[part] = _diffusers_model(found, name, part, dtype)
        if "safety_checker" in index:
            made["safety_checker"] = None
        return DiffusionPipeline.from_pretrained(
            str(name), dtype=dtype, use_safetensors=True, trust_remote_code=False, **made
        )


def _diffusers_model(kind: Any, name: str | Path, part: str, dtype: torch.dtype) -> Any:
    """One network of a pipeline."""
    folder = Path(name) / part
    if folder.is_dir():
        _check_size(kind, folder)
    with _unlogged():
        model, report = kind.from_pretrained(
            str(name),
            subfolder=part,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below
        )
    _check_report(model, report, _part(name, part))
    return model


def _check_size(kind: Any, folder: Path) -> None:
    """Before diffusers builds it: settings that ask for far more than the files hold are not built at all."""
    files = sorted(folder.glob("*.safetensors"))
    held = sum(_count(shape) for file in files for shape in read_shapes(file).values())
    with torch.device("meta"):
        asked = sum(value.numel() for value in kind.from_config(kind.load_config(str(folder))).parameters())
    if asked > 4 * max(held, 1) or asked == 0:
        raise RizbinError(
            f"The weights of {folder} do not fit its settings: its files hold {held:,} numbers and the settings ask "
            f"for {asked:,}; {_AGAIN}."
        )


def _check_index(index: Mapping[str, Any], name: str | Path) -> None:
    """Every part is one that diffusers or transformers itself has: importing another name would run it."""
    from diffusers import pipelines

    for part, (library, kind) in _parts(index).items():
        home = getattr(pipelines, library, None) if library not in _LIBRARIES else import_module(library)
        if home is None or not re.fullmatch(r"\w+", kind) or not hasattr(home, kind):
            raise RizbinError(
                f"{name} asks for {library}.{kind} as its {part}, which diffusers does not have; code beside weights "
                "is never run."
            )


def _parts(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Name -> (library, class) of the parts that a pipeline loads."""
    kept = {name: value for name, value in index.items() if not name.startswith("_") and isinstance(value, list)}
    return {
        name: (str(value[0]), str(value[1]))
        for name, value in kept.items()
        if len(value) == 2 and None not in value and name != "safety_checker"
    }


# ---- what guards them all --------------------------------------------------------------------------------------------


@contextmanager
def _guarded(name: str | Path, library: str, subfolder: str = "") -> Iterator[None]:
    """Around all that another library does with a model that somebody made."""
    where = _part(name, subfolder)
    if (folder := Path(where)).is_dir():
        _check_folder(folder)
    try:
        with _ONE, ExitStack() as stack:
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
    if any(isinstance(one, _Code) or "trust_remote_code" in str(one) for one in chain):
        return (
            f"{name} asks for code of its own to be run, and code beside weights is never run; give a model that "
            f"{library} itself knows."
        )
    if any(isinstance(one, _Pickle) for one in chain):
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

    for name in ("transformers.dynamic_module_utils", "diffusers.utils.dynamic_modules_utils"):
        try:
            module = import_module(name)
        except ImportError:  # an extra that is not installed; what it would load cannot come in either
            continue
        stack.enter_context(_replaced(module, "get_class_in_module", refused))
        # transformers' own switch: at 0 it refuses where it would else ask at the keyboard, for 15 seconds.
        stack.enter_context(_replaced(module, "TIME_OUT_REMOTE_CODE", 0))


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
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
            raise RizbinError(f"{path} is no file that can be read; {_AGAIN}.")
        if path.suffix == ".json":
            kept = _json(path)
            if path.name in ("config.json", "open_clip_config.json"):
                _check_counts(kept, path)


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
            raise RizbinError(f"{path} sets {name} to {value:,}, and no network has more than {most:,}; {_AGAIN}.")


def _json(path: Path) -> Any:
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_JSON:
            raise RizbinError(f"{path} has {path.stat().st_size:,} bytes, which no settings have; {_AGAIN}.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RizbinError(f"{path} cannot be read ({reason(error)}); {_AGAIN}.") from error


def _weights_in(folder: Path, names: Sequence[str]) -> Path:
    """The one file of weights in safetensors: by its usual names, or the only one."""
    files = [folder / name for name in names if (folder / name).is_file()] or sorted(folder.glob("*.safetensors"))
    if not files:
        raise _Pickle(f"{folder} has no weights in safetensors")
    if files[0].name not in names and len(files) > 1:
        raise RizbinError(f"{folder} has several files of weights ({', '.join(f.name for f in files[:3])}); leave one.")
    return files[0]


def _check_report(
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
        advice=_AGAIN,
    )
    if errors := report.get("error_msgs"):
        raise RizbinError(f"{name} could not be loaded whole ({reason(Exception(errors[0]))}); {_AGAIN}.")


def _part(name: str | Path, subfolder: str) -> str:
    return f"{name}/{subfolder}" if subfolder else str(name)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
