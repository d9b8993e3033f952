"""The adapter of open_clip's models: CLIP, SigLIP and others, with open_clip's own image towers or those of timm."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.models.encoder import Encoder, three
from rizbin.models.protocol import CLS
from rizbin.models.timm import TimmEncoder
from rizbin.nets.foreign import open_clip_by_name, open_clip_from_folder, open_clip_untrained


class OpenClipEncoder(Encoder):
    """A model of open_clip with its tokenizer."""

    reads_text = True

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, name: str, untrained: Callable[[], nn.Module] | None = None
    ) -> None:
        """Sets the model to evaluation. Raises RizbinError for one that takes rectangular images."""
        self._model: Any = model.eval()
        self.tokenizer = tokenizer
        self._visual: Any = self._model.visual
        facts = getattr(self._visual, "preprocess_cfg", None) or {}
        mean = three(facts.get("mean") or getattr(self._visual, "image_mean", None)) or MEAN
        std = three(facts.get("std") or getattr(self._visual, "image_std", None)) or STD
        size = _side(self._visual.image_size, name)
        super().__init__(model, name=name, image_size=size, patch_size=size, mean=mean, std=std, untrained=untrained)
        self._trunk: TimmEncoder | None = None
        """The adapter of a tower that is timm's."""
        if isinstance(trunk := getattr(self._visual, "trunk", None), nn.Module):
            self._trunk = TimmEncoder(trunk, name=name, mean=mean, std=std)
            self.patch_size, self.any_size = self._trunk.patch_size, self._trunk.any_size
            self.has_patches, self.attends = self._trunk.has_patches, self._trunk.attends
            # A linear layer behind the mean or the CLS token also takes patches; attention pooling does not.
            self.localizes = self.has_patches and self._linear(trunk)
        elif hasattr(self._visual, "_embeds") and hasattr(self._visual, "grid_size"):
            self.patch_size = size // int(self._visual.grid_size[0])
            self.attends = True
            self.has_patches = self.localizes = self._visual.attn_pool is None and self._visual.proj is not None
        else:
            self.has_patches = False

    def _linear(self, trunk: nn.Module) -> bool:
        pooled = getattr(trunk, "global_pool", "") in ("token", "avg", "both")
        return pooled and [*dict(self._visual.head.named_children())] in (["drop", "proj"], ["proj"])

    def _alike(self, network: nn.Module) -> "OpenClipEncoder":
        return OpenClipEncoder(network, self.tokenizer, name=self.name)

    @property
    def module(self) -> nn.Module:
        """The image tower."""
        return self._visual

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at `image_size`."""
        return self._trunk.grid if self._trunk is not None else super().grid

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self._trunk is not None:
            trunk: Any = self._visual.trunk
            out = trunk.forward_features(batch)
            pooled = trunk.forward_head(out)
            embedding = self._visual.head(pooled)
            # A head that pools by itself is given the whole map.
            return (pooled if pooled.ndim == 2 else embedding), embedding, self._trunk.places(out, batch)
        if not self.has_patches:
            embedding = self._model.encode_image(batch)
            return embedding, embedding, None
        tokens = self._visual.transformer(self._visual._embeds(batch))
        pooled, patches = self._visual._pool(tokens)
        return pooled, pooled @ self._visual.proj, patches.unflatten(1, self.grid)

    def _embed(self, batch: Tensor) -> Tensor:
        return self._model.encode_image(batch)

    def _encode_text(self, texts: list[str]) -> Tensor:
        return self._model.encode_text(self.tokenizer(texts).to(self.device))

    def _project(self, patches: Tensor) -> Tensor:
        if self._trunk is not None:
            norm = getattr(self._visual.trunk, "fc_norm", None)
            return self._visual.head(patches if norm is None else norm(patches))
        if self._visual.final_ln_after_pool:
            patches = self._visual.ln_post(patches)
        return patches @ self._visual.proj

    def attention_rows(
        self, batch: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch; see `FeatureExtractor`."""
        if self._trunk is not None:
            return self._trunk.attention_rows(batch, token, layer)
        return super().attention_rows(batch, token, layer)


def load_open_clip(
    name: str | Path, weights: str = "", *, device: str = "cpu", untrained: bool = False
) -> OpenClipEncoder:
    """A model of open_clip by its name ("ViT-B-32", with the name of its weights) or by the folder of one.

    untrained: random weights; a folder then needs none.
    """
    if Path(name).is_dir():
        model, tokenizer = open_clip_from_folder(Path(name), device=device, untrained=untrained)
    else:
        weights = "" if untrained else weights
        model, tokenizer = open_clip_by_name(str(name), pretrained=weights, device=device)
    called = f"open_clip:{name}/{weights}" if weights else str(name)
    return OpenClipEncoder(model, tokenizer, name=called, untrained=partial(open_clip_untrained, name))


def _side(sides: Any, name: str) -> int:
    """The side of the square images that a network takes. Raises RizbinError when they are no squares."""
    sides = (sides,) if isinstance(sides, int) else tuple(int(side) for side in sides)
    if min(sides) != max(sides):
        raise RizbinError(f"{name} takes images of {'x'.join(map(str, sides))} pixels; networks for squares are read.")
    return sides[0]
