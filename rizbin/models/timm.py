"""The adapter of timm's networks: ViTs with their attention, convolutional networks by the cells of their last map."""

import difflib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.models.encoder import Encoder, Three, three
from rizbin.models.protocol import CLS, NoAttention, NoPatches
from rizbin.nets.foreign import timm_by_name, timm_from_folder, timm_from_hub
from rizbin.nets.weights import reason

MOST_PREFIX = 64
"""Tokens before those of the patches (CLS, registers); no network has as many."""


class TimmEncoder(Encoder):
    """A timm network; it reads no text. A classifier keeps its head as the layer "head" or "fc"."""

    def __init__(
        self,
        trunk: nn.Module,
        *,
        name: str = "",
        mean: Three | None = None,
        std: Three | None = None,
        untrained: Callable[[], nn.Module] | None = None,
    ) -> None:
        """Sets the network to evaluation.

        Args:
            trunk: Any timm network.
            name: What messages call it; empty: its architecture.
            mean: Of the images it was trained on; None: what timm keeps with it.
            std: Their standard deviation; None: what timm keeps with it.
            untrained: Builds the same network with random weights.

        Raises RizbinError for a network that takes rectangular images only, or cuts patches that are no squares.
        """
        facts: dict[str, Any] = getattr(trunk, "pretrained_cfg", None) or {}
        name = name or facts.get("architecture") or type(trunk).__name__
        embed: Any = getattr(trunk, "patch_embed", None)
        self.any_size = embed is None or bool(getattr(trunk, "dynamic_img_size", False))
        sides = tuple(getattr(embed, "img_size", None) or [(facts.get("input_size") or (3, 224, 224))[-1]])
        if min(sides) != max(sides) and not self.any_size:
            raise RizbinError(
                f"{name} takes images of {'x'.join(map(str, sides))} pixels only; networks for rectangular images are "
                "read where timm builds them for any size (dynamic_img_size=True)."
            )
        size = int(min(sides))
        mean, std = mean or three(facts.get("mean")) or MEAN, std or three(facts.get("std")) or STD
        super().__init__(
            trunk.eval(), name=name, image_size=size, patch_size=size, mean=mean, std=std, untrained=untrained
        )
        self._trunk: Any = trunk
        self._channels = 0
        """Where a feature map has its channels: 1 or 3; 0 where there are tokens."""
        self._refusal = ""
        """Why there are no patches."""
        if isinstance(trunk, VisionTransformer | Eva):
            self.patch_size = self._patch(embed)
        elif rows := self._probe():
            # A map's last cells may hang over the border: 176 pixels make 6 cells of 32.
            self.patch_size = 2 ** round(math.log2(size / rows)) if self._channels else size // rows
        self.has_patches, self.has_cells = not self._refusal, self._channels > 0
        self.attends = self.has_patches and not self._channels and getattr(trunk, "cls_token", None) is not None

    def _alike(self, network: nn.Module) -> "TimmEncoder":
        return TimmEncoder(network, name=self.name, mean=self.mean, std=self.std)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, or of the cells of the last feature map, at `image_size`."""
        side = math.ceil(self.image_size / self.patch_size) if self._channels else self.image_size // self.patch_size
        return side, side

    def _patch(self, embed: Any) -> int:
        """Side of the patches that a ViT cuts: of a convolutional stem's too, whose own patch size is another."""
        high, wide = (int(side) // int(count) for side, count in zip(embed.img_size, embed.grid_size, strict=True))
        if high != wide:
            raise RizbinError(f"{self.name} cuts patches of {high}x{wide} pixels; networks with square ones are read.")
        return high

    def _probe(self) -> int:
        """Rows of what comes out, 0 where that is no patches; finds the channels of a map on the way."""
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)
        try:
            with torch.inference_mode():
                shape = self._trunk.forward_features(blank).shape
        except (AttributeError, AssertionError, RuntimeError) as error:
            raise RizbinError(f"{self.name} cannot be run on an image ({reason(error)}); choose a ViT.") from error
        width = getattr(self._trunk, "num_features", 0)
        if len(shape) == 4 and width in (shape[1], shape[3]):
            self._channels = 1 if shape[1] == width else 3
            return shape[2] if self._channels == 1 else shape[1]
        grid = getattr(getattr(self._trunk, "patch_embed", None), "grid_size", None)
        if len(shape) == 3 and grid and 0 <= shape[1] - grid[0] * grid[1] <= MOST_PREFIX:
            return int(grid[0])
        self._refusal = "neither features of patches nor a feature map"
        return 0

    def _need_patches(self) -> None:
        if self._refusal:
            raise NoPatches(f"{self.name} gives {self._refusal}; choose a ViT or a ResNet.")

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        out = self._trunk.forward_features(batch)
        return self._trunk.forward_head(out, pre_logits=True), None, self.places(out, batch)

    def places(self, out: Tensor, batch: Tensor) -> Tensor | None:
        """Patches [batch rows columns dim] of what the trunk's `forward_features` gave; None where there are none."""
        if self._refusal:
            return None
        if self._channels:
            return out.movedim(self._channels, -1)
        rows, columns = batch.shape[-2] // self.patch_size, batch.shape[-1] // self.patch_size
        return out[:, -rows * columns :].unflatten(1, (rows, columns))

    def attention_rows(self, batch: Tensor, token: int = CLS, layer: int = -1) -> Tensor:
        """How much one token attends to each patch; see `FeatureExtractor`."""
        if self._channels:
            raise NoAttention(f"{self.name} has a feature map and no attention between patches; choose a ViT.")
        return super().attention_rows(batch, token, layer)


def load_timm(what: str | Path, *, pretrained: bool = True) -> TimmEncoder:
    """A network of timm: a folder that it saved, a name of its list, or a name on Hugging Face (timm/NAME).

    pretrained: False gives random weights, for comparison.
    Raises RizbinError when there is no such network, or when its weights cannot be had.
    """
    text = str(what)
    if Path(text).is_dir():
        build: Callable[..., nn.Module] = partial(timm_from_folder, Path(text))
    elif "/" in text:
        build = partial(timm_from_hub, text)
    else:
        _check_name(text, pretrained)
        build = partial(timm_by_name, text)
    untrained = partial(_of_any_size, build, pretrained=False)
    trunk = _of_any_size(build, pretrained=pretrained)
    return TimmEncoder(trunk, name=text, untrained=untrained)


def _check_name(name: str, pretrained: bool) -> None:
    """Raises RizbinError when timm lists no such network, or no such weights."""
    architecture, dot, _ = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        close = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        near = f"did you mean {' or '.join(close)}?" if close else "timm.list_models('vit_*') lists names."
        raise RizbinError(f"timm has no model '{architecture}'; {near}")
    published = [listed for listed in timm.list_pretrained() if listed.split(".")[0] == architecture]
    if dot and name not in published:
        raise RizbinError(f"timm has no weights {name}; there are {', '.join(published) or 'none of that network'}.")
    if pretrained and not published:
        raise RizbinError(f"timm publishes no weights of {name}; choose another name, or look at random weights.")


def _of_any_size(build: Callable[..., nn.Module], *, pretrained: bool) -> nn.Module:
    """A timm network that takes images of any size where it can."""
    try:
        return build(pretrained=pretrained, dynamic_img_size=True)
    except (TypeError, RizbinError) as error:
        if not isinstance(error if isinstance(error, TypeError) else error.__cause__, TypeError):
            raise
        return build(pretrained=pretrained)  # a convolutional network takes any size anyway
