"""Low-rank adapters as files in peft's form: adapter_config.json and adapter_model.safetensors.

A linear layer `a.b` has base_model.model.a.b.lora_A.weight [rank inputs] and lora_B.weight [outputs rank]; what they
add is scaled by lora_alpha / r. Of `nn.MultiheadAttention` peft calls the packed queries, keys and values by the name
of the layer itself. Written for the library's own network, so that `peft.PeftModel.from_pretrained(network, folder)`
reads them (tests).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError
from rizbin.nets.lora import LowRank
from rizbin.nets.weights import read_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_UNKNOWN = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "use_qalora", "fan_in_fan_out")
"""Settings of peft that change what an adapter does, and that are not read here."""


def adapters_in(network: nn.Module) -> dict[str, LowRank]:
    """Name of the layer, as peft calls it in its files -> its adapter."""
    adapters: dict[str, LowRank] = {}
    for name, module in network.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        lists: Any = module.parametrizations
        for inner in lists.values():
            if isinstance(adapter := inner[0], LowRank):
                adapters[name] = adapter
    return adapters


def save_adapters(network: nn.Module, folder: Path, *, base: str = "") -> None:
    """Writes the adapters of a library's network. Raises RizbinError where it has none.

    base: what the network is called, by which peft finds it again.
    """
    adapters = adapters_in(network)
    if not adapters:
        raise RizbinError("The network has no low-rank adapters; train with --method.pair.tuning.lora-rank.")
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapters.items():
        for which, value in (("lora_A", adapter.down), ("lora_B", adapter.up)):
            tensors[f"{_PREFIX}{name}.{which}.weight"] = value.detach().cpu().contiguous()
    rank = int(next(iter(adapters.values())).down.shape[0])
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": next(iter(adapters.values())).scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(adapters),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RizbinError(f"The adapters could not be written to {folder} ({error.strerror}).") from error


def load_adapters(network: nn.Module, folder: Path) -> None:
    """Puts the adapters of a folder into a library's network, as adapters that learn on.

    Raises RizbinError when they are of another kind than LoRA's plain one, or do not fit.
    """
    try:
        config: Any = read_json(folder / CONFIG)
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RizbinError(f"{folder} holds no adapters in peft's form ({error}).") from error
    if config.get("peft_type") != "LORA" or (strange := [name for name in _UNKNOWN if config.get(name)]):
        raise RizbinError(
            f"The adapters in {folder} are of a kind that is not read here "
            f"({', '.join(strange) if config.get('peft_type') == 'LORA' else config.get('peft_type')}); merge them by "
            "peft first."
        )
    tensors = read_weights(folder / WEIGHTS)
    if config.get("use_rslora"):
        alpha *= rank**0.5
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, _, which = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        layers.setdefault(layer, {})[which] = value
    for layer, parts in layers.items():
        if ".base_layer." in layer:
            if any(bool(value.any()) for which, value in parts.items() if which == "lora_B"):
                raise RizbinError(
                    f"The adapter of {layer} in {folder} is one that peft adds twice (0.21); merge it by peft first."
                )
            continue
        module, parameter = _layer(network, layer, folder)
        weight: Any = getattr(module, parameter)
        down, up = parts.get("lora_A"), parts.get("lora_B")
        if down is None or up is None or (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise RizbinError(f"The adapter of {layer} in {folder} does not fit a weight of {tuple(weight.shape)}.")
        adapter = LowRank(int(weight.shape[0]), int(weight.shape[1]), rank, alpha=alpha).to(weight)
        with torch.no_grad():
            adapter.down.copy_(down)
            adapter.up.copy_(up)
        parametrize.register_parametrization(module, parameter, adapter, unsafe=True)


def _layer(network: nn.Module, name: str, folder: Path) -> tuple[nn.Module, str]:
    """The layer of that name, and the name of the weight that is adapted."""
    try:
        module = network.get_submodule(name)
    except AttributeError as error:
        raise RizbinError(f"The adapters in {folder} are of another network: it has no layer {name}.") from error
    if isinstance(module, nn.MultiheadAttention):
        return module, "in_proj_weight"
    return module, "weight"
