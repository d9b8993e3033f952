"""Several processes that train as one: torch.distributed under torchrun, and nothing at all when alone.

Convention for gradients. Process r computes a loss L_r and calls backward; `average_gradients` then takes the mean
over the W processes, so what is minimized is (L_0 + ... + L_{W-1}) / W. `gather` carries gradient: its backward sums
the gradients that *all* processes have for one's own rows. Hence the result equals that of one process with the whole
batch, exactly, in both of the usual forms:

- each process computes the same loss on the whole gathered batch (then all L_r are equal), or
- each computes the mean over its own rows against all gathered columns (then their mean is the whole loss).

A loss that sums over rows instead of averaging must be divided by the number of rows of the whole batch and multiplied
by W. Without the gradient through the gather the first form is too small by W and the second points elsewhere.

Every function below is called by all processes in the same order; alone each of them costs nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from rizbin.core import devices
from rizbin.core.errors import RizbinError

_BUCKET = 32 * 2**20
"""Elements that one all_reduce of `average_gradients` carries at most: 128 MiB in float32, far above the size where
a collective's start-up cost shows, and a bound on the memory of the flat copy."""


class _State:
    """What `start` decided for this process."""

    device: torch.device | None = None
    started: bool = False


def start(kind: str = "best", *, timeout_minutes: float = 10.0) -> None:
    """Joins the processes that torchrun started; alone it only chooses the device.

    Reads torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Small messages go over gloo,
    tensors on a GPU over NCCL. A second call does nothing.
    kind: as `rizbin.core.devices.choose` takes it, without mps; of "best" and "cuda" every process takes its own GPU,
    and "cuda:1" is for one process alone.
    timeout_minutes: how long to wait for the others, at the start and in every exchange.
    Raises RizbinError naming the process when the others do not come or the machine lacks the GPU, and for a kind that
    there is not.
    """
    if _State.device is None or not dist.is_initialized():
        _State.device = _choose(kind)
    if _State.device.type == "cuda":
        torch.cuda.set_device(_State.device)
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    own, world = os.environ.get("RANK", "?"), os.environ["WORLD_SIZE"]
    backend = "cpu:gloo,cuda:nccl" if _State.device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
        # gloo lets a process go on while others still connect to it; if it leaves at once, they fail to join.
        dist.all_reduce(torch.zeros(1))
    except (RuntimeError, ValueError) as error:  # DistStoreError and its family are RuntimeErrors
        address = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise RizbinError(
            f"Process {own} of {world} could not join the others at {address} within {timeout_minutes:g} minutes "
            f"({_first_line(error)}); start all of them with torchrun and check that the address can be reached."
        ) from error
    _State.started = True


def stop() -> None:
    """Leaves the processes that `start` joined; a group that somebody else made stays."""
    if _State.started and dist.is_initialized():
        dist.destroy_process_group()
    _State.started = False
    _State.device = None


def rank() -> int:
    """The number of this process, 0 to world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train as one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in the one process that writes files and talks."""
    return rank() == 0


def device() -> torch.device:
    """Where this process computes: what `start` chose, or the best there is."""
    return _State.device if _State.device is not None else _choose("best")


def gather(rows: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "world_batch ..."]:
    """The rows of all processes, in order of their number: [world * batch, ...], with gradient.

    The backward pass is an exchange too: when gradient is asked of one process's result, all must ask.
    Raises RizbinError in all processes when shapes, types or the need for gradient differ.
    """
    if world_size() == 1:
        return rows
    _check_alike(rows)
    return _Gather.apply(rows)  # type: ignore[return-value]


def mean(value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The average over the processes, without gradient; `value` itself is left as it is."""
    value = value.detach().clone()
    if world_size() == 1:
        return value
    with _exchange("averaging"):
        dist.all_reduce(value)
    return value / world_size()


def any_true(flag: bool) -> bool:
    """True in all processes when it is true in one of them."""
    if world_size() == 1:
        return bool(flag)
    anywhere = torch.tensor([int(flag)], dtype=torch.int32)
    with _exchange("agreeing"):
        dist.all_reduce(anywhere, op=dist.ReduceOp.MAX)
    return bool(anywhere.item())


def same_on_all(text: str) -> bool:
    """True in all processes when all gave the same text; for settings, weights' checksums, lists of files."""
    if world_size() == 1:
        return True
    own = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
    every = torch.empty(world_size(), dtype=torch.int64)
    with _exchange("comparing"):
        dist.all_gather_into_tensor(every, torch.tensor([own]))
    return bool((every == own).all())


def broadcast_text(text: str) -> str:
    """The main process's text, in all processes."""
    if world_size() == 1:
        return text
    content = torch.tensor(list(text.encode()), dtype=torch.uint8)
    length = torch.tensor([len(content)])
    with _exchange("sending text"):
        dist.broadcast(length, src=0)
        if not is_main():
            content = torch.empty(int(length.item()), dtype=torch.uint8)
        if length.item():
            dist.broadcast(content, src=0)
    return bytes(content.tolist()).decode()


def barrier() -> None:
    """Returns when all processes have come here."""
    any_true(False)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces each `.grad` by its mean over the processes.

    parameters: the same ones in the same order in all processes, each held whole by every process (FSDP averages its
    own). One without gradient everywhere keeps None, so that its optimizer leaves it alone; one that lacks it in some
    processes counts as zero there.
    """
    if world_size() == 1:
        return
    owned = [parameter for parameter in parameters if parameter.requires_grad]
    present = torch.tensor([parameter.grad is not None for parameter in owned], dtype=torch.int32)
    with _exchange("averaging gradients"):
        dist.all_reduce(present, op=dist.ReduceOp.MAX)
        gradients = []
        for parameter, somewhere in zip(owned, present.tolist(), strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            _average(bucket)


class _Gather(torch.autograd.Function):
    """All rows forward; backward the sum over processes of the gradient for one's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        every = rows.new_empty((world_size() * rows.shape[0], *rows.shape[1:]))
        with _exchange("gathering"):
            dist.all_gather_into_tensor(every, rows.contiguous())
        return every

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        own = gradient.new_empty((gradient.shape[0] // world_size(), *gradient.shape[1:]))
        with _exchange("gathering backward"):
            dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def _choose(kind: str) -> torch.device:
    """The device of this process: what `devices.choose` gives, or of several GPUs the one that is its own."""
    if kind == "mps":
        raise RizbinError("Training runs on the processor and on GPUs of CUDA, not on mps; give cpu or cuda.")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if kind.startswith("cuda:") and several:
        raise RizbinError(f"Several processes cannot all compute on {kind}; give cuda, and each takes its own GPU.")
    own = int(os.environ.get("LOCAL_RANK", "0"))
    needs_gpu = kind in ("gpu", "cuda") or (kind == "best" and torch.cuda.is_available())
    if "LOCAL_RANK" in os.environ and needs_gpu and own >= torch.cuda.device_count():
        raise RizbinError(
            f"Process {os.environ.get('RANK', '0')} wants GPU {own}, but this machine shows "
            f"{torch.cuda.device_count()}; start fewer processes on it or ask for the CPU."
        )
    return devices.choose(kind, own=own)


def _check_alike(rows: Tensor) -> None:
    """Compares shape, type and need of gradient between the processes; one small exchange that never waits for a GPU.

    Without it unlike shapes end in wrong numbers or in a wait until the time limit.
    """
    gradient = rows.requires_grad and torch.is_grad_enabled()
    spelled = f"{list(rows.shape)} {str(rows.dtype).removeprefix('torch.')}{' with gradient' * gradient}"
    own = torch.zeros(128, dtype=torch.uint8)
    letters = spelled.encode()[:128]
    own[: len(letters)] = torch.frombuffer(bytearray(letters), dtype=torch.uint8)
    every = torch.empty((world_size(), 128), dtype=torch.uint8)
    with _exchange("comparing shapes"):
        dist.all_gather_into_tensor(every, own[None])
    texts = [bytes(line).rstrip(b"\0").decode() for line in every.tolist()]
    if len(set(texts)) > 1:
        listed = ", ".join(f"process {number} {text}" for number, text in enumerate(texts))
        raise RizbinError(
            f"The processes cannot gather tensors that differ ({listed}); give each the same number of rows."
        )


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type and device, at most _BUCKET elements together unless one alone is larger."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        alike = bucket and gradient.dtype == bucket[0].dtype and gradient.device == bucket[0].device
        if bucket and (not alike or sum(part.numel() for part in bucket) + gradient.numel() > _BUCKET):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _average(bucket: list[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextmanager
def _exchange(doing: str) -> Iterator[None]:
    """Turns what the transport says when another process died or hangs into one sentence that names this one."""
    try:
        yield
    except RuntimeError as error:  # the errors of torch.distributed are its children
        raise RizbinError(
            f"Process {rank()} of {world_size()} lost the others while {doing} ({_first_line(error)}); look for the "
            "first error among the processes, then start the same command again to resume."
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
