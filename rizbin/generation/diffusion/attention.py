"""Where each word's attention lies, taken from a UNet of diffusers while it runs, with gradient."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from rizbin.core.errors import RizbinError

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention, AttnProcessor
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as UNet
else:  # when the module runs, what they are besides: diffusers costs seconds to import
    UNet = Attention = nn.Module

Grid = tuple[int, int]
"""Rows and columns."""


class Capture:
    """Takes the attention of the layers at some resolutions out of every pass made inside `with`.

    A layer that is captured lets `F.scaled_dot_product_attention` make its values and computes softmax(Q K^T / sqrt d)
    beside it, where gradient flows back to the latents: never an attention matrix at the larger resolutions, whose
    layers keep the processors that they have. Which layers are meant follows from the number of their queries, seen
    while the network runs. On leaving, the previous processors are back, whatever happened inside.

    Source: Attend-and-Excite, arXiv 2301.13826, section 4 (the averaged 16x16 maps); the side output as in FOCUS,
    arXiv 2510.02315.
    """

    def __init__(
        self,
        unet: UNet,
        resolutions: tuple[int, ...] = (16,),
        *,
        rows: slice = slice(None),
        self_attention: bool = False,
        stop_after_last: bool = False,
    ) -> None:
        """
        Args:
            unet: The network, on the device where it shall run.
            resolutions: Cells along the shorter side of the wanted maps. 16 is what the papers use at 512 pixels.
            rows: Rows of the batch to keep: `slice(-1, None)` is the conditional one of a guided pass of one image.
            self_attention: Whether to take the self-attention of the same resolutions too (16 at most is wise: each
                layer's maps have as many tokens as cells).
            stop_after_last: Whether `run` ends a pass at the last wanted layer. What follows is then neither computed
                nor kept for the gradient.
        """
        from diffusers.models.attention_processor import Attention as Layer

        self.unet = unet
        self.resolutions = resolutions
        self.rows = rows
        self.stop_after_last = stop_after_last
        kinds = ("attn1", "attn2") if self_attention else ("attn2",)
        self.layers = {
            name: module
            for name, module in unet.named_modules()
            if isinstance(module, Layer) and name.rpartition(".")[2] in kinds
        }
        self._grid: Grid = (0, 0)
        self._maps: dict[str, Float[Tensor, "batch heads queries tokens"]] = {}
        self._seen: dict[str, Grid] = {}
        self._previous: dict[str, Any] = {}
        self._hooks: list[RemovableHandle] = []
        self._last_of: dict[Grid, str] = {}
        self._last = ""
        self._dry = False

    def __enter__(self) -> "Capture":
        if self._hooks:
            raise RizbinError("This capture is in use already; make another one for a pass inside a pass.")
        self._hooks.append(self.unet.register_forward_pre_hook(self._begin, with_kwargs=True))
        for name, layer in self.layers.items():
            self._hooks.append(layer.register_forward_pre_hook(self._before(name), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._give_back()

    def run(
        self,
        latents: Float[Tensor, "batch channels height width"],
        timestep: Tensor | int | float,
        embeddings: Float[Tensor, "batch tokens dim"],
        added: dict[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch channels height width"] | None:
        """One pass; what the network predicts, or None when it was stopped after the last wanted layer.

        `latents` are the network's input: scaled already. `added` is what SDXL wants besides (`text_embeds`,
        `time_ids`). Before the first stopped pass at each size of latents one is made without gradient, to learn which
        layer is the last.
        """
        if not self._hooks:
            raise RizbinError("The capture is not in place; run it inside its `with` block.")
        if self.stop_after_last:
            size = (latents.shape[-2], latents.shape[-1])
            if size not in self._last_of:
                self._last_of[size] = self._find_last(latents, timestep, embeddings, added)
            self._last = self._last_of[size]
        try:
            return self._call(latents, timestep, embeddings, added)
        except _Stop:
            return None
        finally:
            self._last = ""

    def maps(self) -> dict[str, Float[Tensor, "batch heads queries tokens"]]:
        """Attention maps of the last pass by the layer's name, in the order of the layers; each query's tokens sum to
        1."""
        if not self._maps:
            raise RizbinError(self._nothing())
        return dict(self._maps)

    def clear(self) -> None:
        """Forgets the maps of the last pass, and with them what a gradient would need."""
        self._maps, self._seen = {}, {}

    def mean_map(self, row: int = 0) -> Float[Tensor, "rows columns tokens"]:
        """Cross-attention of one kept row of the batch, the mean of all layers and heads, 0 to 1.

        Maps of several resolutions meet at the largest, stretched bilinearly.
        """
        return self._mean("attn2", row)

    def mean_self_map(self, row: int = 0) -> Float[Tensor, "rows columns positions"]:
        """The mean of self-attention over layers and heads: how much each cell attends to every other, these in row
        order.

        Needs `self_attention` and a single resolution.
        """
        if len({self._seen[name] for name in self.maps() if name.endswith("attn1")}) > 1:
            raise RizbinError("Self-attention of several resolutions has no mean; capture one resolution.")
        return self._mean("attn1", row)

    def _mean(self, kind: str, row: int) -> Float[Tensor, "rows columns tokens"]:
        chosen = {name: heads for name, heads in self.maps().items() if name.endswith(kind)}
        if not chosen:
            raise RizbinError(f"No {kind} layer was captured; ask for it when the capture is made.")
        largest = max(self._seen[name] for name in chosen)
        layers = []
        for name, heads in chosen.items():
            spatial = heads[row].unflatten(1, self._seen[name])
            if self._seen[name] != largest:
                channels_first = spatial.permute(0, 3, 1, 2)
                stretched = F.interpolate(channels_first, largest, mode="bilinear", align_corners=False)
                spatial = stretched.permute(0, 2, 3, 1)
            layers.append(spatial)
        return torch.cat(layers).mean(dim=0)

    def _call(
        self, latents: Tensor, timestep: Tensor | int | float, embeddings: Tensor, added: dict[str, Tensor] | None
    ) -> Tensor:
        outputs = self.unet(
            latents, timestep, encoder_hidden_states=embeddings, added_cond_kwargs=added, return_dict=False
        )
        return outputs[0]

    @torch.no_grad()
    def _find_last(
        self, latents: Tensor, timestep: Tensor | int | float, embeddings: Tensor, added: dict[str, Tensor] | None
    ) -> str:
        """The name of the last wanted layer, from a pass in which nothing is captured."""
        self._dry = True
        try:
            self._call(latents, timestep, embeddings, added)
        finally:
            self._dry = False
        captured = [name for name, grid in self._seen.items() if min(grid) in self.resolutions]
        if not captured:
            raise RizbinError(self._nothing())
        return captured[-1]

    def _begin(self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """At the start of a pass: the maps of the one before go, and the latents' size is noted."""
        sample = inputs[0] if inputs else named["sample"]
        self._grid = (sample.shape[-2], sample.shape[-1])
        self._maps = {}
        self._seen = {}
        # Processors of a pass that was broken off, or of latents of another size, in which other layers are meant.
        self._give_back()

    def _before(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        """Before a layer runs: it gets a processor that captures if its queries make a wanted grid."""

        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            states = inputs[0] if inputs else named["hidden_states"]
            grid = grid_of(self._grid, states.shape[1])
            self._seen[name] = grid
            if self._dry or name in self._previous or min(grid) not in self.resolutions:
                return
            processor = self.layers[name].get_processor()
            if isinstance(processor, nn.Module):
                raise RizbinError(
                    f"The layer {name} has a processor with weights of its own (an IP-Adapter?), which capturing would "
                    "leave out; unload it first."
                )
            self._previous[name] = processor
            capturing = _Processor(lambda probabilities: self._note(name, probabilities), self.rows)
            # Any callable with these arguments is a processor; diffusers' annotation names one class of many.
            self.layers[name].set_processor(cast("AttnProcessor", capturing))

        return hook

    def _note(self, name: str, probabilities: Float[Tensor, "batch heads queries tokens"]) -> None:
        self._maps[name] = probabilities
        if name == self._last:
            raise _Stop

    def _give_back(self) -> None:
        for name, processor in self._previous.items():
            self.layers[name].set_processor(processor)
        self._previous.clear()

    def _nothing(self) -> str:
        resolutions = " or ".join(str(side) for side in self.resolutions)
        grids = sorted(set(self._seen.values()), reverse=True)
        if not grids:
            return "No pass was made, so there are no attention maps; run the network inside the `with` block."
        there = ", ".join(f"{rows}x{columns}" for rows, columns in grids)
        return f"No attention layer has {resolutions} cells along its shorter side, only {there}; ask for one of these."


def grid_of(latents: Grid, queries: int) -> Grid:
    """Rows and columns of a layer with so many queries: the latents' own, halved (and rounded up) as often as needed.

    Raises RizbinError when no halving gives that number.
    """
    rows, columns = latents
    while rows * columns > queries:
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    if rows * columns != queries:
        raise RizbinError(
            f"A layer has {queries} queries, which latents of {latents[0]}x{latents[1]} do not give by halving; "
            "choose sides that are multiples of 64 pixels."
        )
    return rows, columns


class _Stop(Exception):
    """Nothing that follows in this pass is needed."""


class _Processor:
    """Attention by `F.scaled_dot_product_attention` with the probabilities beside it."""

    def __init__(self, note: Callable[[Tensor], None], rows: slice) -> None:
        self.note, self.rows = note, rows

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "batch queries dim"],
        encoder_hidden_states: Float[Tensor, "batch tokens other_dim"] | None = None,
        attention_mask: Tensor | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        assert attn.to_k is not None and attn.to_v is not None and attn.to_out is not None
        batch = len(hidden_states)
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            seen = attn.norm_encoder_hidden_states(seen)
        query, key = _heads(attn.to_q(hidden_states), attn.heads), _heads(attn.to_k(seen), attn.heads)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        mask = None
        if attention_mask is not None:
            prepared = attn.prepare_attention_mask(attention_mask, seen.shape[1], batch)
            mask = prepared.view(batch, attn.heads, -1, prepared.shape[-1])
        # First the probabilities: where the pass ends with them, no values are made.
        self.note(_probabilities(query[self.rows], key[self.rows], None if mask is None else mask[self.rows]))
        value = _heads(attn.to_v(seen), attn.heads)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out = attn.to_out[0](out.transpose(1, 2).flatten(2).to(query.dtype))
        out = attn.to_out[1](out)  # dropout
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor


def _heads(states: Float[Tensor, "batch length dim"], heads: int) -> Float[Tensor, "batch heads length head_dim"]:
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def _probabilities(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads tokens head_dim"],
    mask: Float[Tensor, "batch heads #queries tokens"] | None,
) -> Float[Tensor, "batch heads queries tokens"]:
    """softmax(Q K^T / sqrt d), at least in float32: in half precision small shares vanish, and their gradient."""
    if query.dtype in (torch.float16, torch.bfloat16):
        query, key = query.float(), key.float()
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return (logits if mask is None else logits + mask).softmax(dim=-1)
