"""What the pictures of this room ask of a network: pooled features, patch features, and one row of attention."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rizbin.core.errors import RizbinError
from rizbin.data.gate import as_rgb
from rizbin.visualization.colors import AnyPicture

CLS = -1
"""The token that stands for the whole picture, where a row of attention is asked for by the number of a patch."""
AT_ONCE = 16
"""Pictures in one forward pass: enough to fill a processor, few enough for any memory."""


class NoAttention(RizbinError):
    """The network has no attention, or no CLS token whose attention could be shown."""


@runtime_checkable
class Eye(Protocol):
    """A network that sees pictures in patches. Images are normalized by its own `prepare`."""

    @property
    def image_size(self) -> int:
        """Side of the square picture in pixels that it was made for."""
        ...

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at `image_size`."""
        ...

    @property
    def any_size(self) -> bool:
        """Whether it takes pictures of all sizes that divide into patches, or squares of `image_size` only."""
        ...

    def prepare(self, pictures: Sequence[AnyPicture]) -> Float[Tensor, "batch 3 height width"]:
        """RGB pictures of one size as the network wants them: normalized, on its device."""
        ...

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature a picture."""
        ...

    def patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """One feature a patch, after the last norm."""
        ...

    def attention_rows(
        self, images: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch, for each head of one layer.

        The softmax is over all tokens; CLS and registers are cut off after it, so that a map sums to less than 1.

        Args:
            images: As `prepare` gives them.
            token: A patch, counted in row order from 0, or `CLS`.
            layer: From 0, or from the end with a minus.

        Raises NoAttention when there is none, RizbinError when there is no such token or layer.
        """
        ...


def normalized(
    pictures: Sequence[AnyPicture],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
) -> Float[Tensor, "batch 3 height width"]:
    """RGB pictures of one size as floats with that mean and deviation taken off, for values from 0 to 1.

    Other arrays become RGB as of files (`rizbin.data.gate.as_rgb`). Raises RizbinError for what is no picture, and for
    pictures of several sizes.
    """
    shown = [as_rgb(picture, name="the picture") for picture in pictures]
    if len(sizes := {picture.shape[:2] for picture in shown}) > 1:
        listed = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
        raise RizbinError(f"The pictures of one call are of one size, and these have {listed} pixels; resize them.")
    images = torch.from_numpy(np.stack(shown)).to(device).permute(0, 3, 1, 2).float() / 255
    low, spread = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    return (images - low) / spread


@torch.inference_mode()
def over(
    eye: Eye, pictures: Sequence[AnyPicture], look: Callable[[Tensor], Tensor]
) -> list[Float[np.ndarray, "*shape"]]:
    """What `look` (a method of the eye) gives for each picture, in order; pictures of one size run together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(index)
    found: dict[int, np.ndarray] = {}
    for members in sizes.values():
        for start in range(0, len(members), AT_ONCE):
            part = members[start : start + AT_ONCE]
            out = look(eye.prepare([pictures[index] for index in part])).float().cpu().numpy()
            found |= dict(zip(part, out, strict=True))
    return [found[index] for index in range(len(pictures))]


class QueryRows(TorchFunctionMode):
    """While it is entered, keeps one query's softmax row of every self-attention that runs.

    It reads query and key as PyTorch's fused kernel gets them: norms, rotary positions and biases are in them, whoever
    wrote the network, and the full matrix is never made. Attention that pools (one query for all keys) or looks through
    windows (shorter than the picture) is passed over.
    """

    def __init__(self, token: int, *, least: int = 1) -> None:
        """`token` counts all tokens of the sequence, from the end with a minus; a sequence has `least` tokens."""
        super().__init__()
        self.token = token
        self.least = least
        self.rows: list[Float[Tensor, "batch heads tokens"]] = []
        """In the order in which the layers ran."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._keep(*args, **kwargs)
        return func(*args, **kwargs)

    def _keep(
        self,
        query: Float[Tensor, "batch heads tokens dim"],
        key: Float[Tensor, "batch groups keys dim"],
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if query.shape[-2] != key.shape[-2] or query.shape[-2] < self.least:
            return
        row = query[:, :, self.token].unsqueeze(2).float()
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
        scores = (row * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if attn_mask is not None:
            mask = attn_mask.expand(*attn_mask.shape[:-2], query.shape[-2], key.shape[-2])[..., self.token, :]
            mask = mask.unsqueeze(-2)
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
        self.rows.append(scores.softmax(-1)[:, :, 0])


def row_of_patches(
    forward: Callable[[], object], *, token: int, layer: int, grid: tuple[int, int], has_cls: bool, name: str
) -> Float[Tensor, "batch heads rows columns"]:
    """The row of one token in one layer of whatever `forward` runs, on its patches, which end the sequence.

    Raises RizbinError when there is no such token or layer, NoAttention when no attention ran.
    """
    count = grid[0] * grid[1]
    if not CLS <= token < count:
        raise RizbinError(f"There is no patch {token} among {count}; give 0 to {count - 1}, or {CLS} for CLS.")
    if token == CLS and not has_cls:
        raise NoAttention(f"{name} has no CLS token to show the attention of; ask for the attention of a patch.")
    with QueryRows(0 if token == CLS else token - count, least=count) as watch:
        forward()
    if not watch.rows:
        raise NoAttention(f"{name} computes no attention between patches that could be shown; choose a ViT.")
    if not -len(watch.rows) <= layer < len(watch.rows):
        raise RizbinError(f"{name} has {len(watch.rows)} layers, there is no layer {layer}; they count from 0.")
    return watch.rows[layer][..., -count:].unflatten(-1, grid)
