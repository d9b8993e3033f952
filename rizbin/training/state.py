"""What of a run lies on disk: everything that shapes its next step, and the state before a step that failed.

That is the method's tensors (weights, teachers, centers) and each optimizer's. Data and randomness need not be kept:
both are looked up by the number of the step.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rizbin.core import checkpoint, parallel
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.training.method import Method
from rizbin.training.sharding import is_sharded, whole_state

FAILURES = "failures"
"""Folder in that of a run where the state before a step that was not finite is kept."""
Optimizers = dict[str, torch.optim.Optimizer]


def state_of(method: Method, optimizers: Optimizers) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors and the facts that a checkpoint holds. All processes call it together."""
    tensors = {"method": whole_state(method.state_dict())}
    for name, optimizer in optimizers.items():
        moments = optimizer.state_dict()["state"]
        flat = {f"{index}.{key}": value for index, values in moments.items() for key, value in values.items()}
        tensors[f"optimizer_{name}"] = whole_state(flat)
    return tensors, {"world_size": parallel.world_size()}


def resume(method: Method, optimizers: Optimizers, run: RunFolder) -> int:
    """Loads the newest good checkpoint into the method and its optimizers; returns how many steps it holds."""
    if parallel.is_main():
        sweep(run)
    saved = checkpoint.load(run.checkpoints, warn=run.warn)
    if saved is None:
        if list(run.checkpoints.glob("step_*")):
            raise RizbinError(
                f"None of the checkpoints in {run.checkpoints} is whole; remove that folder to train from the start."
            )
        if parallel.is_main():
            # A kill before the first checkpoint leaves records of steps to be made again.
            run.metrics.truncate_after(0)
        return 0
    load_method(method, saved.tensors["method"])
    for name, optimizer in optimizers.items():
        _load_optimizer(optimizer, saved.tensors[f"optimizer_{name}"])
    if parallel.is_main():
        run.metrics.truncate_after(saved.step)
    parallel.barrier()
    return saved.step


def sweep(run: RunFolder) -> None:
    """Removes what a kill left half written among the checkpoints of a run whose lock this process holds."""
    for folder in (run.checkpoints, run.path / FAILURES):
        checkpoint.sweep(folder)


def load_method(method: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies a checkpoint's tensors into a method, sharded or not."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    if any(is_sharded(parameter) for parameter in method.parameters()):
        set_model_state_dict(method, {**tensors}, options=StateDictOptions(full_state_dict=True))
    else:
        method.load_state_dict(tensors)


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in flat.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if is_sharded(parameter) and value.ndim:
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        elif value.ndim:
            # In the parameter's own order of memory (channels last): in another, an update rounds otherwise.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_failure(method: Method, optimizers: Optimizers, run: RunFolder, step: int, facts: dict[str, Any]) -> Path:
    """Keeps the state before a step that was not finite, with `facts` about that step; returns the folder.

    All processes call it together.
    """
    folder = run.path / FAILURES
    tensors, state = state_of(method, optimizers)
    if parallel.is_main():
        checkpoint.save(folder, step, tensors, state | facts, keep=1)
    return folder


def read_failure(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the run in `path` kept of a step that was not finite.

    First the positions of its samples, its seed, step and the parts of its loss; then the method's tensors before its
    update. Raises RizbinError when there is none.
    """
    failure = checkpoint.load(path / FAILURES)
    if failure is None:
        raise RizbinError(f"{path} keeps no failed step, so there is nothing to make again.")
    return failure.state, failure.tensors["method"]
