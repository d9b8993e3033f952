"""The typed protocols of encoders, which all adapters implement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.nets.dense import DenseHead

CLS = -1
"""The token that stands for the whole image, where a row of attention is asked for by the number of a patch."""
RGB = UInt8[np.ndarray, "_ _ 3"]
"""An image as an array, of a size of its own."""


class NoAttention(RizbinError):
    """The network has no attention, or no CLS token whose attention could be shown."""


class NoPatches(RizbinError):
    """The network gives no features of single patches, or none that can be compared with texts."""


@dataclass(frozen=True)
class ImageFeatures:
    """What one forward pass gives."""

    pooled: Float[Tensor, "batch dim"]
    """One feature an image before any projection: what k-NN and linear probes are measured on."""
    embedding: Float[Tensor, "batch embedding"] | None
    """Unit vectors in the space of the texts; None where the network reads no text."""
    patches: Float[Tensor, "batch patches channels"] | None
    """Patch features in row order, after the last norm; None where there are none."""
    attention: Float[Tensor, "batch patches"] | None
    """CLS-to-patch attention, mean over all layers and heads; None where no CLS token attends to patches."""


@runtime_checkable
class Embedder(Protocol):
    """Images and texts as unit vectors of one space: all that gradient ascent asks of an encoder."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels that it was made for."""
        ...

    def encode_image(self, images: Any, /) -> Float[Tensor, "images dim"]:
        """Unit vectors; of a tensor of pixels [batch 3 height width] from 0 to 1 with gradient."""
        ...

    def encode_text(self, texts: Any, /) -> Float[Tensor, "texts dim"]:
        """Unit vectors of texts. Raises RizbinError where the network reads no text."""
        ...


@runtime_checkable
class FeatureExtractor(Embedder, Protocol):
    """An encoder that also shows pooled and patch features, attention and its layers.

    `dense` and the methods whose argument is called `batch` take normalized images, as `prepare`, `preprocess` and
    `normalized` give them; `encode_image` and `patch_features` normalize by themselves.
    """

    @property
    def network(self) -> nn.Module:
        """The underlying network, both towers of it."""
        ...

    @property
    def module(self) -> nn.Module:
        """The image tower, whose layers are called as its `named_modules` says."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Turns texts into tokens; None where the network reads no text."""
        ...

    @property
    def device(self) -> torch.device: ...

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
        """Whether it takes images of all sizes that divide into patches, or squares of `image_size` only."""
        ...

    @property
    def reads_text(self) -> bool: ...

    @property
    def has_patches(self) -> bool:
        """Whether there are features of single patches."""
        ...

    @property
    def attends(self) -> bool:
        """Whether a CLS token attends to patches."""
        ...

    @property
    def localizes(self) -> bool:
        """Whether patches can be compared with texts (`dense`)."""
        ...

    @property
    def scale(self) -> float:
        """What cosines of images and texts are multiplied by before a softmax: 1 / temperature."""
        ...

    @property
    def architecture(self) -> Any:
        """What decides its numbers with random weights, as JSON can hold it; None where that is not known."""
        ...

    def untrained(self, seed: int) -> "FeatureExtractor | None":
        """The same network with random weights from `seed`; None where it cannot be built without its weights."""
        ...

    def preprocess(self, images: Any) -> Float[Tensor, "images 3 size size"]:
        """Images of any kind and size as central squares, normalized."""
        ...

    def prepare(self, images: Sequence[RGB]) -> Float[Tensor, "images 3 height width"]:
        """RGB images of one size at that size, normalized, on the network's device."""
        ...

    def normalized(self, pixels: UInt8[Tensor, "images height width 3"]) -> Float[Tensor, "images 3 height width"]:
        """Pixels from 0 to 255 with the network's mean and standard deviation taken off."""
        ...

    def from_pixels(self, pixels: Float[Tensor, "images 3 _ _"]) -> Float[Tensor, "images 3 size size"]:
        """Pixels from 0 to 1, resized and normalized with gradient: what the network is fed."""
        ...

    def patch_features(self, images: Any) -> Float[Tensor, "images rows columns dim"]:
        """Patch features of images of any kind. Raises NoPatches where there are none."""
        ...

    def features(self, batch: Float[Tensor, "batch 3 height width"]) -> ImageFeatures:
        """All that one forward pass gives."""
        ...

    def pooled(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature an image, before any projection."""
        ...

    def embeddings(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch embedding"]:
        """Unit vectors: in the space of the texts, or of the pooled features where the network reads no text."""
        ...

    def patches(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """One feature a patch, after the last norm. Raises NoPatches where there are none."""
        ...

    def dense(
        self, images: Float[Tensor, "batch 3 height width"], how: DenseHead = "plain"
    ) -> Float[Tensor, "batch rows columns embedding"]:
        """Unit-length patch embeddings in the space of the texts. Raises NoPatches where there are none."""
        ...

    def attention_rows(
        self, batch: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch, for each head of one layer.

        The softmax is over all tokens; CLS and registers are cut off after it, so that a map sums to less than 1.

        Args:
            batch: Normalized images.
            token: A patch, counted in row order from 0, or `CLS`.
            layer: From 0, or from the end with a minus.

        Raises NoAttention when there is none, RizbinError when there is no such token or layer.
        """
        ...
