"""The adapter of Rizbin's own networks: image-text pairs and image encoders, as they are trained here."""

import math
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.data.views import normalize
from rizbin.models.attention import check_layer, check_token, row_of_patches
from rizbin.models.encoder import Encoder
from rizbin.models.protocol import CLS, ImageFeatures, NoAttention
from rizbin.nets.dense import DenseHead
from rizbin.nets.vision import VisionEncoder


class RizbinEncoder(Encoder):
    """An `ImageTextPair`, an `ImageEncoder`, or a network with the same methods. Wraps it in the mode that it is in."""

    any_size = True

    def __init__(self, network: nn.Module, *, name: str = "") -> None:
        own: Any = network
        self._own = own
        settings = own.settings
        named = getattr(getattr(settings, "vision", settings), "name", "")
        rows = own.grid[0]
        # Cells of a feature map may hang over the border: 176 pixels make 6 cells of 32.
        convolutional = getattr(own, "convolutions", None) is not None
        side = 2 ** round(math.log2(own.image_size / rows)) if convolutional else own.image_size // rows
        name = name or named or type(network).__name__
        super().__init__(network, name=name, image_size=own.image_size, patch_size=side)
        self.reads_text = self.localizes = hasattr(own, "encode_texts")
        self.attends, self.has_cells = not convolutional, convolutional
        self.tokenizer = getattr(own, "tokenizer", None)
        tower = getattr(own, "vision", None)
        self._vision: Any = tower if tower is not None else own
        """The module that computes patches and attention."""

    @property
    def module(self) -> nn.Module:
        """The image tower of a pair; an image encoder as it is."""
        return self._own.vision if self.reads_text and hasattr(self._own, "vision") else self.network

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at `image_size`."""
        return self._own.grid

    @property
    def architecture(self) -> Any:
        """The kind of the network and its settings; None for networks that are not Rizbin's."""
        network, settings = self.network, self._own.settings
        ours = type(network).__module__.startswith("rizbin.")
        if not ours or not is_dataclass(settings) or isinstance(settings, type):
            return None
        return [type(network).__qualname__, asdict(settings)]

    def _alike(self, network: nn.Module) -> "RizbinEncoder":
        return RizbinEncoder(network, name=self.name)

    def untrained(self, seed: int) -> "RizbinEncoder":
        """The same network with random weights from `seed`, on the same device; the caller's random state stays."""
        settings = self._own.settings
        if getattr(settings, "published", "") or not hasattr(settings, "vision"):
            settings = replace(settings, pretrained=False)
        elif settings.vision.pretrained:
            settings = replace(settings, vision=replace(settings.vision, pretrained=False))
        kind: Any = type(self.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other = kind(settings)
        return self._alike(other.to(self.device))

    def encode_text(self, texts: Any, *, normalize: bool = True) -> Float[Tensor, "texts dim"]:
        """Unit vectors of texts. Raises RizbinError where the network reads no text."""
        return super().encode_text(texts, normalize=False)  # the network gives unit vectors

    def normalized(self, pixels: UInt8[Tensor, "images height width 3"]) -> Float[Tensor, "images 3 height width"]:
        """The pixels normalized as in training."""
        return normalize(pixels)

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        features = self.features(batch)
        return (
            features.pooled,
            features.embedding,
            None if features.patches is None else self._placed(features.patches, batch),
        )

    def _embed(self, batch: Tensor) -> Tensor:
        if self.reads_text:
            return self._own.encode_images(batch)
        return self._own(batch)

    def _encode_text(self, texts: list[str]) -> Tensor:
        return self._own.encode_texts(self.tokenizer.encode(texts).to(self.device))

    def features(self, batch: Float[Tensor, "batch 3 height width"]) -> ImageFeatures:
        """All that one forward pass gives."""
        features = self._own.features(batch)
        embedding = self._own.embed(features) if self.reads_text else None
        return ImageFeatures(self._own.pool(features), embedding, features.patches, features.attention)

    def pooled(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature an image, before any projection."""
        return self._own.pooled(batch)

    def embeddings(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch embedding"]:
        """Unit vectors: in the space of the texts, or of the pooled features where the network reads no text."""
        return self._own.encode_images(batch) if self.reads_text else F.normalize(self._own(batch), dim=-1)

    def patches(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """One feature a patch, or a cell of the last feature map."""
        self.patch_grid(batch)
        return self._placed(self._features_with_patches(batch).patches, batch)

    def dense(
        self, images: Float[Tensor, "batch 3 height width"], how: DenseHead = "plain"
    ) -> Float[Tensor, "batch rows columns embedding"]:
        """Unit-length patch embeddings in the space of the texts (`ImageTextPair.dense`)."""
        return self._own.dense(images, how) if self.localizes else super().dense(images, how)

    def attention_rows(
        self, batch: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch; see `FeatureExtractor`."""
        if not self.attends:
            raise NoAttention(f"{self.name} has a feature map and no attention between patches; choose a ViT.")
        grid = self.patch_grid(batch)
        check_token(token, grid[0] * grid[1], has_cls=True, name=self.name)
        if token == CLS:
            if isinstance(self._vision, VisionEncoder):
                check_layer(layer, len(self._vision.trunk.blocks), self.name)
            return self._own.attention_heads(batch, layer) if layer != -1 else self._own.attention_heads(batch)
        return row_of_patches(
            lambda: self._features_with_patches(batch),
            token=token,
            layer=layer,
            grid=grid,
            has_cls=True,
            name=self.name,
        )

    def _features_with_patches(self, batch: Tensor) -> Any:
        """Features by the cheapest pass that gives patches."""
        return self._vision(batch) if isinstance(self._vision, VisionEncoder) else self._own.features(batch)

    def _placed(self, patches: Tensor, batch: Tensor) -> Tensor:
        return patches.unflatten(1, self.patch_grid(batch))
