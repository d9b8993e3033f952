"""The one door through which models of other software come in: transformers, open_clip, timm, diffusers.

Whoever made such a folder may mean harm, or have lost half of it. So behind this door no code that lies beside weights
is run and nobody is asked whether it should be; weights are read from safetensors alone, never from a pickle; tensors
that are missing, foreign or of another shape are named and refused, for else they would be random numbers; and what a
library raises becomes one sentence (`rizbin.nets.foreign_guard`). No other module calls `from_pretrained` or
`create_model` (tests).
"""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from rizbin.core.errors import RizbinError
from rizbin.nets.foreign_guard import AGAIN, check_report, guarded, part_name, read_settings, unlogged, weights_in
from rizbin.nets.weights import check_fit, read_shapes, read_weights, shapes_of


def written_by(folder: Path) -> str:
    """Whose folder it is, by what its config.json holds: "timm", "transformers", or "" for neither.

    Raises RizbinError when there is no config.json that can be read.
    """
    if not (folder / "config.json").is_file():
        raise RizbinError(f"{folder} holds no config.json; give a folder that timm or transformers saved.")
    config = read_settings(folder / "config.json")
    if not isinstance(config, Mapping):
        return ""
    return "timm" if "architecture" in config else "transformers" if "model_type" in config else ""


# ---- transformers ----------------------------------------------------------------------------------------------------


def transformers_config(name: str | Path) -> Any:
    """What config.json of a folder, or of a name on Hugging Face, says."""
    from transformers import AutoConfig

    with guarded(name, "transformers"):
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
    with guarded(name, "transformers", subfolder), unlogged():
        options = {**more, "subfolder": subfolder} if subfolder else more
        model, report = kind.from_pretrained(
            str(name),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, all of them by name
            **options,
        )
    check_report(model, report, part_name(name, subfolder), heads=heads, unused=unused)
    return model


def transformers_untrained(name: str | Path, **more: Any) -> Any:
    """The same network with random weights, for comparison."""
    from transformers import AutoModel

    config = transformers_config(name)
    with guarded(name, "transformers"):
        return AutoModel.from_config(config, trust_remote_code=False, **more)


def transformers_resized(model: Any, size: int) -> Any:
    """The same model for images of another side; learned positions are resized as the model itself does in use.

    Rotary positions (DINOv3) and those made for each image (SigLIP 2) need no resizing.
    """
    config = copy.deepcopy(model.config)
    inner = getattr(config, "vision_config", config)
    tower = getattr(model, "vision_model", model)
    side = int(getattr(inner, "image_size", 0) or 0)
    if side:
        inner.image_size = size
    with guarded("the model", "transformers"):
        from transformers import AutoModel

        other: Any = AutoModel.from_config(config, trust_remote_code=False, attn_implementation="sdpa")
    weights = dict(model.state_dict())
    tables = {"position_embedding.weight": 0, "position_embeddings": 1}
    for name, value in model.state_dict().items():
        ending = next((tail for tail in tables if name.endswith(f"embeddings.{tail}")), "")
        if not ending or name not in other.state_dict() or other.state_dict()[name].shape == value.shape:
            continue
        empty = torch.zeros(1, 1, value.shape[-1])
        count = value.shape[tables[ending]] - (side // int(inner.patch_size)) ** 2
        filler = empty.expand(1, (size // int(inner.patch_size)) ** 2 + count, -1)
        table = tower.embeddings.interpolate_pos_encoding(filler, size, size).detach()
        weights[name] = table[0] if tables[ending] == 0 else table
    other.load_state_dict(weights)
    return other.train(model.training)


def transformers_tokenizer(name: str | Path) -> Any:
    """The tokenizer beside a model."""
    from transformers import AutoTokenizer

    with guarded(name, "transformers"):
        return AutoTokenizer.from_pretrained(str(name), trust_remote_code=False)


def transformers_processor(kind: Any, name: str | Path) -> Any:
    """What prepares images for a model; `kind` is its class."""
    with guarded(name, "transformers"):
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
    with guarded(name, "timm"):
        return timm.create_model(name, pretrained=True, **more)


def timm_from_hub(name: str, *, pretrained: bool = True, **more: Any) -> nn.Module:
    """A network by its name on Hugging Face, OWNER/NAME."""
    with guarded(name, "timm"):
        return timm.create_model(f"hf-hub:{name}", pretrained=pretrained, **more)


def timm_from_folder(folder: Path, *, pretrained: bool = True, **more: Any) -> nn.Module:
    """The network in a folder that timm saved: config.json and model.safetensors."""
    with guarded(folder, "timm"):
        config = read_settings(folder / "config.json")
        _check_timm_config(config, folder)

        def build() -> nn.Module:
            return timm.create_model(f"local-dir:{folder}", pretrained=False, **more)

        if not pretrained:
            return build()
        weights = weights_in(folder, ("model.safetensors",))
        given = read_weights(weights)
        with torch.device("meta"):
            shell = build()
        own = shapes_of(shell.state_dict())
        # Older files hold what is computed today (Swin's indices of positions).
        computed = {name for name, _ in shell.named_buffers()} - set(own)
        given = {name: value for name, value in given.items() if name not in computed}
        check_fit(own, shapes_of(given), folder, AGAIN)
        model = build()
        model.load_state_dict(given)
        return model


def _check_timm_config(config: Any, folder: Path) -> None:
    name = str(config.get("architecture", "")) if isinstance(config, Mapping) else ""
    if not timm.is_model(name):
        raise RizbinError(f"{folder / 'config.json'} asks for the network '{name}', which timm does not have.")


# ---- open_clip -------------------------------------------------------------------------------------------------------


def open_clip_from_folder(folder: Path, *, device: str = "cpu", untrained: bool = False) -> tuple[Any, Any]:
    """The model and the tokenizer in a folder of open_clip: open_clip_config.json and weights in safetensors.

    untrained: random weights; the folder then needs none.
    """
    import open_clip
    from open_clip.convert import convert_state_dict

    spelled = f"local-dir:{folder}"
    with guarded(folder, "open_clip"):
        config = read_settings(folder / "open_clip_config.json")
        own_words = _check_open_clip_config(config, folder)
        bare: dict[str, Any] = {"load_weights": False, "pretrained_text": False}
        given: dict[str, Any] | None = None
        if not untrained:
            weights = weights_in(
                folder, ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
            )
            with torch.device("meta"), unlogged():
                shell: Any = open_clip.create_model(spelled, device="meta", **bare)
            given = convert_state_dict(shell, read_weights(weights))
            own = shell.state_dict()
            # Scalars are sometimes kept as rows of one number.
            given = {
                name: value.reshape(own[name].shape)
                if name in own and value.numel() == own[name].numel() == 1
                else value
                for name, value in given.items()
            }
            check_fit(shapes_of(own), shapes_of(given), folder, AGAIN)
        with unlogged():
            model: Any = open_clip.create_model(spelled, device=device, **bare)
        if given is not None:
            model.load_state_dict(given)
        if own_words is not None:
            return model, open_clip.SimpleTokenizer(str(own_words), context_length=model.context_length)
        return model, open_clip.get_tokenizer(spelled)


def open_clip_untrained(name: str | Path) -> Any:
    """The same network with random weights, for comparison: of a folder, or of a name in open_clip's own list."""
    import open_clip

    with guarded(name, "open_clip"):
        folder = Path(name)
        if folder.is_dir():
            _check_open_clip_config(read_settings(folder / "open_clip_config.json"), folder)
        with unlogged():
            return open_clip.create_model(
                f"local-dir:{folder}" if folder.is_dir() else str(name), load_weights=False, pretrained_text=False
            )


def open_clip_by_name(name: str, *, pretrained: str = "", device: str = "cpu") -> tuple[Any, Any]:
    """The model and the tokenizer of a name in open_clip's own list ("ViT-B-32") and of its weights."""
    import open_clip

    with guarded(name, "open_clip"):
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


def open_clip_resized(model: Any, config: Mapping[str, Any]) -> Any:
    """The same model at the image size of another configuration, its positions resized as open_clip does."""
    import open_clip
    from open_clip.model import resize_pos_embed

    with guarded("the model", "open_clip"), unlogged():
        options = {name: value for name, value in config.items() if name not in ("custom_text", "hf_model_name")}
        kind: Any = type(model) if isinstance(model, open_clip.CLIP) else open_clip.CustomTextCLIP
        quick = {"quick_gelu": True} if config.get("quick_gelu") else {}
        other = kind(**{**options, **quick})
        weights = dict(model.state_dict())
        resize_pos_embed(weights, other)
        other.load_state_dict(weights)
        old, new = model.visual, other.visual
        new.image_mean, new.image_std = getattr(old, "image_mean", None), getattr(old, "image_std", None)
        new.preprocess_cfg = getattr(old, "preprocess_cfg", None)
    return other.train(model.training)


def _check_open_clip_config(config: Any, folder: Path) -> Path | None:
    """Refuses a configuration that leads out of its folder; returns the vocabulary in it, where there is one."""
    where = folder / "open_clip_config.json"
    try:
        vision, text = (config["model_cfg"][tower] for tower in ("vision_cfg", "text_cfg"))
        backbone, words = vision.get("timm_model_name", ""), text.get("hf_model_name", "")
    except (KeyError, TypeError, AttributeError) as error:
        raise RizbinError(f"{where} describes no model of open_clip; {AGAIN}.") from error
    if backbone and not timm.is_model(str(backbone)):
        raise RizbinError(f"{where} asks for the network '{backbone}', which timm does not have.")
    if words and (str(words).startswith((".", "/", "~")) or os.path.isdir(str(words))):
        raise RizbinError(f"{where} leads out of its folder, to '{words}'; {AGAIN}.")
    tokenizer_options = text.get("tokenizer_kwargs") or {}
    if "bpe_path" in tokenizer_options:
        raise RizbinError(f"{where} leads out of its folder, to '{tokenizer_options['bpe_path']}'; {AGAIN}.")
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

    with guarded(name, "diffusers"):
        loaded: Any = DiffusionPipeline.load_config(str(name))
        index: dict[str, Any] = dict(loaded)
        _check_index(index, name)
        networks = (ModelMixin, transformers.PreTrainedModel)
        made: dict[str, Any] = {}
        for part, (library, kind) in _parts(index).items():
            part_class = getattr(diffusers if library == "diffusers" else transformers, kind, None)
            if isinstance(part_class, type) and issubclass(part_class, networks):
                if issubclass(part_class, transformers.PreTrainedModel):
                    made[part] = transformers_model(part_class, name, subfolder=part, dtype=dtype)
                else:
                    made[part] = _diffusers_model(part_class, name, part, dtype)
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
    with unlogged():
        model, report = kind.from_pretrained(
            str(name),
            subfolder=part,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below
        )
    check_report(model, report, part_name(name, part))
    return model


def _check_size(kind: Any, folder: Path) -> None:
    """Before diffusers builds it: settings that ask for far more than the files hold are not built at all."""
    files = sorted(folder.glob("*.safetensors"))
    held = sum(_count(shape) for file in files for shape in read_shapes(file).values())
    with torch.device("meta"):
        needed = sum(value.numel() for value in kind.from_config(kind.load_config(str(folder))).parameters())
    if needed > 4 * max(held, 1) or needed == 0:
        raise RizbinError(
            f"The weights of {folder} do not fit its settings: its files hold {held:,} numbers and the settings ask "
            f"for {needed:,}; {AGAIN}."
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
    listed = {name: value for name, value in index.items() if not name.startswith("_") and isinstance(value, list)}
    return {
        name: (str(value[0]), str(value[1]))
        for name, value in listed.items()
        if len(value) == 2 and None not in value and name != "safety_checker"
    }


def _count(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
