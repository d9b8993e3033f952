"""Makes a step again whose loss or gradient was not finite, and says where the first such number came from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.sample import Source
from rizbin.training.method import Method
from rizbin.training.state import load_method, read_failure
from rizbin.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What was found when the step was made again. No update is made."""

    step: int
    """Counted from 1, as the message of the run counts."""
    then: str
    """The parts of the loss as the run met them."""
    weights: tuple[str, ...]
    """Tensors of the method that were not finite before the step; then an earlier one did the harm."""
    modules: tuple[str, ...]
    """Modules whose output was not finite though all that went in was, in the order in which they ran."""
    parts: dict[str, float]
    """The parts of the loss now."""
    gradients: tuple[str, ...]
    """Parameters whose gradient was not finite."""
    samples: tuple[str, ...]
    """What the images of the batch are called."""

    @property
    def happens_again(self) -> bool:
        """Whether anything was not finite this time."""
        return bool(self.weights or self.modules or self.gradients)

    def text(self) -> str:
        """For a person to read."""
        parts = ", ".join(f"{name} {value:.4g}" for name, value in self.parts.items())
        lines = [f"Step {self.step}, then: {self.then}", f"Step {self.step}, now:  {parts}", ""]
        if self.weights:
            lines.append(f"Not finite before the step, so an earlier one did the harm: {_listed(self.weights)}.")
        if self.modules:
            lines.append(f"First made from finite numbers by: {_listed(self.modules)}.")
        elif self.gradients and not self.weights:
            lines.append("Every module gave finite numbers; what was not finite came about in the loss or backward.")
        if self.gradients:
            lines.append(f"Gradients that are not finite: {_listed(self.gradients)}.")
        if not self.happens_again:
            lines.append("All is finite this time: the fault lies in the machine or in another precision or device.")
        return "\n".join([*lines, f"Images of the batch: {_listed(self.samples)}."])


def replay(method: Method, trainer: Trainer, source: Source, run: RunFolder) -> Replay:
    """Makes the failed step of `run` again, on this one process with the batch and the randomness of then.

    Raises RizbinError when the run kept no failed step, or was shared by several processes, whose part it was is then
    not known to this one.
    """
    state, tensors = read_failure(run.path)
    if state["world_size"] != 1:
        raise RizbinError(
            f"The run in {run.path} was shared by {state['world_size']} processes, and a step is made again by one; "
            "train on one process from its last checkpoint to meet the step there."
        )
    load_method(method, tensors)
    method.to(trainer.device).train()
    spoiled = tuple(name for name, value in method.state_dict().items() if not _finite(value))
    raw, batch = trainer.batch_of(method, source, state["step"])
    made: list[str] = []
    hooks = [
        module.register_forward_hook(_noted(name, made))
        for name, module in method.named_modules()
        if name and not any(True for _ in module.children())
    ]
    parts, gradients = {}, {}
    try:
        for update in trainer.updates(method, batch, state["step"]):
            parts |= {"loss": float(update.loss.detach())}
            parts |= {name: float(torch.as_tensor(value).detach()) for name, value in update.records.items()}
            method.zero_grad(set_to_none=True)
            update.loss.backward()
            gradients |= {name: value.grad for name, value in method.named_parameters() if value.grad is not None}
            break  # what follows the first update cannot be made again without making it
    finally:
        for hook in hooks:
            hook.remove()
    return Replay(
        step=state["step"] + 1,
        then=state["parts"],
        weights=spoiled,
        modules=tuple(dict.fromkeys(made)),
        parts=parts,
        gradients=tuple(name for name, value in gradients.items() if not _finite(value)),
        samples=tuple(f"number {position}" for position in raw.positions),
    )


def _noted(name: str, made: list[str]):
    """A hook that notes the module when it makes what is not finite from what is."""

    def hook(_: nn.Module, inputs: tuple, output: object) -> None:
        if not _all_finite((output,)) and _all_finite(inputs):
            made.append(name)

    return hook


def _all_finite(values: tuple) -> bool:
    return all(_finite(value) for value in values if isinstance(value, Tensor))


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _listed(names: tuple[str, ...], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
